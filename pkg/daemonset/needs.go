// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Needs is what one pod takes from its node.
type Needs struct {
	// Resources includes init containers, sidecars, overhead and one pod slot.
	Resources Resources
	// HostPorts are the ports that the pod opens on the node's addresses.
	HostPorts []HostPort
}

// newNeeds returns what a pod of an admitted spec takes.
func newNeeds(spec *corev1.PodSpec) Needs {
	resources := NewResources(resourcehelper.PodRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{}))
	resources.Pods = 1
	return Needs{Resources: resources, HostPorts: HostPortsOf(spec)}
}

// PodResources returns what an existing pod takes: its requests, or what the
// kubelet has allocated while a resize is under way, and one pod slot.
func PodResources(pod *corev1.Pod) Resources {
	resources := NewResources(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{
		UseStatusResources: true,
		InPlacePodLevelResourcesVerticalScalingEnabled: true,
	}))
	resources.Pods = 1
	return resources
}

// defaultRequests sets the requests that the API server gives a Pod but not a
// PodTemplate (SetDefaults_Pod in k8s.io/kubernetes/pkg/apis/core/v1/defaults.go and
// DefaultPodLevelResources in k8s.io/kubernetes/pkg/api/pod): a container's limits
// where it has no request, and the same for the pod's own resources where no container
// says more.
func defaultRequests(spec *corev1.PodSpec) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			resources := &containers[i].Resources
			resources.Requests = withEntries(resources.Limits, resources.Requests)
		}
	}
	if spec.Resources == nil || len(spec.Resources.Limits) == 0 {
		return
	}
	sum := resourcehelper.AggregateContainerRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{})
	// Huge pages cannot be overcommitted: their request is always their limit.
	maps.DeleteFunc(sum, func(name corev1.ResourceName, _ resource.Quantity) bool {
		return name != corev1.ResourceCPU && name != corev1.ResourceMemory
	})
	limits := maps.Clone(spec.Resources.Limits)
	maps.DeleteFunc(limits, func(name corev1.ResourceName, _ resource.Quantity) bool {
		return !resourcehelper.IsSupportedPodLevelResource(name)
	})
	spec.Resources.Requests = withEntries(limits, withEntries(sum, spec.Resources.Requests))
}

// HostPort is a port that a pod opens on an address of its node.
type HostPort struct {
	// IP is never empty: "0.0.0.0" stands for every address.
	IP string
	// Protocol is never empty.
	Protocol corev1.Protocol
	// Port is in 1-65535.
	Port int32
}

// HostPortsOf returns the host ports of spec's containers and sidecars, the
// ones that the scheduler's NodePorts counts. On the host network a container
// port is a host port: the API server defaults it so for Pods.
func HostPortsOf(spec *corev1.PodSpec) []HostPort {
	var ports []HostPort
	add := func(container *corev1.Container) {
		for _, port := range container.Ports {
			number := port.HostPort
			if number == 0 && spec.HostNetwork {
				number = port.ContainerPort
			}
			if number <= 0 {
				continue
			}
			hostPort := HostPort{IP: port.HostIP, Protocol: port.Protocol, Port: number}
			if hostPort.IP == "" {
				hostPort.IP = everyAddress
			}
			if hostPort.Protocol == "" {
				hostPort.Protocol = corev1.ProtocolTCP
			}
			ports = append(ports, hostPort)
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		// Other init containers have ended before their ports could matter.
		if policy := spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			add(&spec.InitContainers[i])
		}
	}
	return ports
}

const everyAddress = "0.0.0.0"

// Conflicts says whether two pods that open p and other cannot share a node.
func (p HostPort) Conflicts(other HostPort) bool {
	return p.Port == other.Port && p.Protocol == other.Protocol &&
		(p.IP == other.IP || p.IP == everyAddress || other.IP == everyAddress)
}

// AnyConflict says whether any of ports conflicts with any of others.
func AnyConflict(ports, others []HostPort) bool {
	return slices.ContainsFunc(ports, func(port HostPort) bool {
		return slices.ContainsFunc(others, port.Conflicts)
	})
}
