// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// room is what a node has and what is in use of it. A pod slot counts as a resource.
type room struct {
	allocatable, used daemonset.Resources
}

func roomOf(nodeInfo fwk.NodeInfo) room {
	allocatable, requested := nodeInfo.GetAllocatable(), nodeInfo.GetRequested()
	return room{
		allocatable: resourcesOf(allocatable, int64(allocatable.GetAllowedPodNumber())),
		used:        resourcesOf(requested, int64(len(nodeInfo.GetPods()))),
	}
}

func resourcesOf(r fwk.Resource, pods int64) daemonset.Resources {
	return daemonset.Resources{
		MilliCPU:         r.GetMilliCPU(),
		Memory:           r.GetMemory(),
		EphemeralStorage: r.GetEphemeralStorage(),
		Pods:             pods,
		Scalar:           r.GetScalarResources(),
	}
}

// shortageBuffer is how many shortages are found without an allocation: Filter runs for
// every node.
const shortageBuffer = 8

// shortage is a resource of which a node has not enough for a pod and what is held.
type shortage struct {
	resource corev1.ResourceName
	// always: it would not be enough either if no pod ran on the node.
	always bool
}

// shortages appends to short the resources that a pod requests, that are held, and of
// which the node has not enough for both.
func (r *room) shortages(short []shortage, requests, held *daemonset.Resources) []shortage {
	check := func(name corev1.ResourceName, asked, held, used, size int64) {
		// None of them is negative, but each may be as large as an int64 can be: the
		// differences do not overflow in this order.
		always := asked > size-held
		if asked > 0 && held > 0 && (always || asked > size-held-used) {
			short = append(short, shortage{name, always})
		}
	}
	check(corev1.ResourceCPU, requests.MilliCPU, held.MilliCPU, r.used.MilliCPU, r.allocatable.MilliCPU)
	check(corev1.ResourceMemory, requests.Memory, held.Memory, r.used.Memory, r.allocatable.Memory)
	check(corev1.ResourceEphemeralStorage, requests.EphemeralStorage, held.EphemeralStorage, r.used.EphemeralStorage, r.allocatable.EphemeralStorage)
	check(corev1.ResourcePods, requests.Pods, held.Pods, r.used.Pods, r.allocatable.Pods)
	for name, asked := range requests.Scalar {
		check(name, asked, held.Scalar[name], r.used.Scalar[name], r.allocatable.Scalar[name])
	}
	return short
}

// refusal says why a pod may not have what is held on a node.
type refusal struct {
	// resources are names of resources, and "host port N".
	resources []string
	// always: evicting pods cannot help.
	always bool
}

// refuse returns why the pod may not be placed beside held, or nil.
func (s *preFilterState) refuse(r *room, held []daemonset.Hold) *refusal {
	if len(held) == 0 {
		return nil
	}
	var resources []string
	var always bool
	var buffer [shortageBuffer]shortage
	for _, short := range r.shortages(buffer[:0], &s.requests, &held[len(held)-1].Total) {
		resources = append(resources, string(short.resource))
		always = always || short.always
	}
	if len(s.hostPorts) > 0 {
		for i := range held {
			for _, port := range held[i].HostPorts {
				if daemonset.AnyConflict(s.hostPorts, []daemonset.HostPort{port}) {
					resources = append(resources, fmt.Sprintf("%s %d", hostPort, port.Port))
					always = true
				}
			}
		}
	}
	if len(resources) == 0 {
		return nil
	}
	return &refusal{resources, always}
}

// minPriority returns the lowest priority of DaemonSets that room is held for against pods
// of that priority.
func (a *Args) minPriority(priority int32) int32 {
	if a.HoldAgainst == HoldAgainstAll {
		return math.MinInt32
	}
	return priority
}
