// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// simulated is the view of a node from which preemption takes pods, or to which nominated
// pods are added. An ordinary pod changes nothing about a view. So the view of the node as
// it is serves all these simulations, each of which is a new generation of the node.
//
// Each copy of a CycleState goes with one copy of one node (dryRunPreemption in
// k8s.io/kubernetes/pkg/scheduler/framework/preemption, addGENominatedPods in
// k8s.io/kubernetes/pkg/scheduler/framework/runtime).
type simulated struct {
	set *daemonset.Set
	// generation is the latest one of the node that view is of.
	generation int64
	// view is nil if it has to be computed anew, because a pod that is not ordinary has changed.
	view *daemonset.View
}

// Clone returns a copy, which goes on by itself.
func (s *simulated) Clone() fwk.StateData {
	clone := *s
	return &clone
}

// AddPod keeps the view of the node.
func (pl *Headroom) AddPod(_ context.Context, state fwk.CycleState, pod *corev1.Pod, added fwk.PodInfo, nodeInfo fwk.NodeInfo) *fwk.Status {
	pl.simulate(state, pod, added.GetPod(), nodeInfo)
	return nil
}

// RemovePod keeps the view of the node.
func (pl *Headroom) RemovePod(_ context.Context, state fwk.CycleState, pod *corev1.Pod, removed fwk.PodInfo, nodeInfo fwk.NodeInfo) *fwk.Status {
	pl.simulate(state, pod, removed.GetPod(), nodeInfo)
	return nil
}

// simulate records that changed has come to, or gone from, a copy of a node.
func (pl *Headroom) simulate(state fwk.CycleState, pod, changed *corev1.Pod, nodeInfo fwk.NodeInfo) {
	data, err := state.Read(simulatedKey)
	if err != nil {
		return // PreFilter is disabled.
	}
	s := data.(*simulated)
	if s.set == nil {
		// This is the first change, so the node was as it is in the snapshot.
		before, err := pl.handle.SnapshotSharedLister().NodeInfos().Get(nodeInfo.Node().Name)
		if err != nil {
			return
		}
		s.set = pl.cluster.Set()
		s.view = pl.views.Of(s.set, pod, before)
	}
	if !pl.mayGo(s.set, changed) {
		s.view = nil
	}
	s.generation = nodeInfo.GetGeneration()
}

// viewOf returns the view of a node, which may be a simulated one.
func (pl *Headroom) viewOf(state fwk.CycleState, set *daemonset.Set, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *daemonset.View {
	// The cycle of a pod group changes nodes without a new generation.
	if data, err := state.Read(simulatedKey); err == nil && pod.Spec.SchedulingGroup == nil {
		if s := data.(*simulated); s.view != nil && s.set == set && s.generation == nodeInfo.GetGeneration() {
			return s.view
		}
	}
	return pl.views.Of(set, pod, nodeInfo)
}
