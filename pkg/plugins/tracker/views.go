// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package tracker

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// Views gives plugins the view of every node in the scheduler's snapshot.
type Views struct {
	startup daemonset.StartupTaints
	memo    *daemonset.Memo
	nodes   corelisters.NodeLister
}

// Of returns the view of a node for the scheduling cycle of pod, from memory if
// the node is as it was.
func (v *Views) Of(set *daemonset.Set, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *daemonset.View {
	node := nodeInfo.Node()
	if pod.Spec.SchedulingGroup != nil {
		// A pod group is scheduled on nodes that change without a new generation.
		return daemonset.NewView(set, node, set.Expected(node, v.startup), podsOf(nodeInfo))
	}
	if view := v.memo.Get(set, node.Name, nodeInfo.GetGeneration()); view != nil {
		return view
	}
	view := v.memo.Compute(set, node, nodeInfo.GetGeneration(), podsOf(nodeInfo))
	if _, err := v.nodes.Get(node.Name); err != nil {
		// The node has been deleted since the snapshot was taken, perhaps before the
		// view was kept: nobody would have it forgotten.
		v.memo.Forget(node.Name)
	}
	return view
}

// Len returns the number of nodes whose view is kept.
func (v *Views) Len() int {
	return v.memo.Len()
}

// podsOf returns the pods of a node with what the scheduler counts for them.
func podsOf(nodeInfo fwk.NodeInfo) iter.Seq2[*corev1.Pod, daemonset.Resources] {
	return func(yield func(*corev1.Pod, daemonset.Resources) bool) {
		for _, info := range nodeInfo.GetPods() {
			counted := info.CalculateResource().Resource
			if !yield(info.GetPod(), daemonset.Resources{
				MilliCPU:         counted.GetMilliCPU(),
				Memory:           counted.GetMemory(),
				EphemeralStorage: counted.GetEphemeralStorage(),
				Pods:             1,
				Scalar:           counted.GetScalarResources(),
			}) {
				return
			}
		}
	}
}
