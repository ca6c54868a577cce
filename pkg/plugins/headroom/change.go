// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"

	"everynode.dev/everynode/pkg/daemonset"
)

// change is what an event changes about the room of a node.
type change struct {
	node string
	// before is nil for a new node; after is nil if the node is not there any more.
	before, after *nodeState
}

// helps says whether the pod fits after the change, and the change has freed something
// that the pod asks for.
func (c *change) helps(s *preFilterState) bool {
	switch {
	case c.after == nil:
		return false
	case c.before == nil:
		return c.after.fitsByPreemption(s)
	case s.heldPort(c.before) && c.after.fitsByPreemption(s):
		return true
	}
	return c.after.fits(s) && s.gains(c.before.free(s), c.after.free(s)) ||
		c.after.fitsByPreemption(s) && s.gains(c.before.preemptible(s), c.after.preemptible(s))
}

// gains says whether there is more of something that the pod asks for.
func (s *preFilterState) gains(before, after daemonset.Resources) bool {
	gained := after.Minus(before)
	asks := func(asked, gained int64) bool { return asked > 0 && gained > 0 }
	if asks(s.requests.MilliCPU, gained.MilliCPU) || asks(s.requests.Memory, gained.Memory) ||
		asks(s.requests.EphemeralStorage, gained.EphemeralStorage) || asks(s.requests.Pods, gained.Pods) {
		return true
	}
	for name, asked := range s.requests.Scalar {
		if asks(asked, gained.Scalar[name]) {
			return true
		}
	}
	return false
}

// nodeState is what a node has, what is used of it and what is held.
type nodeState struct {
	allocatable, used daemonset.Resources
	pods              []use
	view              *daemonset.View
	// importantUse is what pods of at least that priority use. It is computed once for
	// each priority of pods that wait.
	importantUse map[int32]daemonset.Resources
}

// use is what a pod uses of its node.
type use struct {
	priority int32
	takes    daemonset.Resources
}

// stateOf computes the state of a node with pods, each with what it takes.
func (pl *Headroom) stateOf(set *daemonset.Set, node *corev1.Node, pods iter.Seq2[*corev1.Pod, daemonset.Resources]) *nodeState {
	state := &nodeState{
		allocatable:  daemonset.NewResources(node.Status.Allocatable),
		view:         pl.views.Compute(set, node, pods),
		importantUse: make(map[int32]daemonset.Resources),
	}
	for pod, takes := range pods {
		state.pods = append(state.pods, use{corev1helper.PodPriority(pod), takes})
		state.used = state.used.Plus(takes)
	}
	return state
}

// with returns the state with an ordinary pod in addition, which changes no hold.
func (n *nodeState) with(pod *corev1.Pod) *nodeState {
	takes := daemonset.PodResources(pod)
	return &nodeState{
		allocatable:  n.allocatable,
		used:         n.used.Plus(takes),
		pods:         append(slices.Clip(n.pods), use{corev1helper.PodPriority(pod), takes}),
		view:         n.view,
		importantUse: make(map[int32]daemonset.Resources),
	}
}

// takesOver says whether pod takes exactly what is held for it, and no more or less is free or held with it.
// Then the same is held for the other DaemonSets as before, as all of it fits beside this pod.
func (n *nodeState) takesOver(set *daemonset.Set, pod *corev1.Pod) bool {
	ds := set.OwnerOf(pod)
	i := slices.IndexFunc(n.view.Held, func(hold daemonset.Hold) bool { return hold.DaemonSet == ds })
	if i < 0 || pod.DeletionTimestamp != nil || ds.Outdated(pod) {
		return false
	}
	held := n.view.Held[i].Total
	if i > 0 {
		held = held.Minus(n.view.Held[i-1].Total)
	}
	return held.Minus(daemonset.PodResources(pod)).IsZero() && slices.Equal(n.view.Held[i].HostPorts, daemonset.HostPortsOf(&pod.Spec))
}

// fits says whether the pod fits beside what is used and held.
func (n *nodeState) fits(s *preFilterState) bool {
	return s.requests.FitsIn(n.free(s)) && !s.heldPort(n)
}

// fitsByPreemption says whether the pod fits once pods of lower priority are evicted, or
// as it is.
func (n *nodeState) fitsByPreemption(s *preFilterState) bool {
	return s.requests.FitsIn(n.preemptible(s)) && !s.heldPort(n)
}

// free returns what is neither used nor held against the pod.
func (n *nodeState) free(s *preFilterState) daemonset.Resources {
	return n.withoutHeld(s, n.allocatable.Minus(n.used))
}

// preemptible returns what is free or used by pods of lower priority.
func (n *nodeState) preemptible(s *preFilterState) daemonset.Resources {
	important, known := n.importantUse[s.priority]
	if !known {
		for _, use := range n.pods {
			if use.priority >= s.priority {
				important = important.Plus(use.takes)
			}
		}
		n.importantUse[s.priority] = important
	}
	return n.withoutHeld(s, n.allocatable.Minus(important))
}

func (n *nodeState) withoutHeld(s *preFilterState, room daemonset.Resources) daemonset.Resources {
	if held := n.view.HeldFor(s.minPriority); len(held) > 0 {
		return room.Minus(held[len(held)-1].Total)
	}
	return room
}

// heldPort says whether a host port of the pod is held on the node.
func (s *preFilterState) heldPort(n *nodeState) bool {
	return len(s.hostPorts) > 0 && slices.ContainsFunc(n.view.HeldFor(s.minPriority), func(hold daemonset.Hold) bool {
		return daemonset.AnyConflict(hold.HostPorts, s.hostPorts)
	})
}
