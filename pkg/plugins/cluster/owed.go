// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/metrics"
)

var _ metrics.Cluster = &Cluster{}

// Owed returns what all nodes together owe to each DaemonSet. It computes it from the
// informers, not from views: the scheduler need not have looked at every node.
func (c *Cluster) Owed() map[*daemonset.DaemonSet]*metrics.Owed {
	if !c.Started() {
		return nil
	}
	c.mu.Lock()
	scope := daemonset.Scope{Startup: daemonset.DefaultStartupTaints(), Kinds: daemonset.DefaultKinds()}
	if len(c.views) > 0 {
		scope = c.views[0].Scope
	}
	c.mu.Unlock()

	set := c.Set()
	sums := make(map[*daemonset.DaemonSet]*metrics.Owed, len(set.All()))
	for _, ds := range set.All() {
		sums[ds] = &metrics.Owed{}
	}
	// A lister on a cache returns no error.
	nodes, _ := c.handle.SharedInformerFactory().Core().V1().Nodes().Lister().List(labels.Everything())
	for _, node := range nodes {
		// Pods that may go change nothing about what is held.
		pods := slices.DeleteFunc(c.PodsOn(node.Name), func(pod *corev1.Pod) bool {
			return set.OwnerOf(pod) == nil && !daemonset.IsMirror(pod) && !scope.Kinds.Own(pod)
		})
		view := daemonset.NewView(set, scope, node, set.Expected(node, scope.Startup), Bound(pods))
		for _, ds := range view.Missing {
			sums[ds].Missing++
		}
		for _, ds := range view.Unready {
			sums[ds].Unready++
		}
		for _, ds := range view.Lapsed {
			sums[ds].Lapsed++
		}
		var before daemonset.Resources
		for _, hold := range view.Held {
			sums[hold.DaemonSet].Held = sums[hold.DaemonSet].Held.Plus(hold.Total.Minus(before))
			before = hold.Total
		}
	}
	return sums
}

// OverdueTaints returns start-up taints that stay on Ready nodes, with the number of nodes.
func (c *Cluster) OverdueTaints() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds == nil {
		return nil
	}
	return c.holds.Overdue()
}

// ComputedViews returns how many views of nodes were computed in scheduling cycles.
func (c *Cluster) ComputedViews() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum uint64
	for _, views := range c.views {
		sum += views.Computed()
	}
	return sum
}

// Bound returns those of pods that have a node, each with what it takes there. That is computed once for each pod.
func Bound(pods []*corev1.Pod) iter.Seq2[*corev1.Pod, daemonset.Resources] {
	takes := make([]daemonset.Resources, len(pods))
	for i, pod := range pods {
		takes[i] = daemonset.PodResources(pod)
	}
	return func(yield func(*corev1.Pod, daemonset.Resources) bool) {
		for i, pod := range pods {
			if pod.Spec.NodeName != "" && !yield(pod, takes[i]) {
				return
			}
		}
	}
}
