// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package tracker

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"everynode.dev/everynode/pkg/daemonset"
	pluginmetrics "everynode.dev/everynode/pkg/plugins/metrics"
)

var (
	descHeld = metrics.NewDesc(pluginmetrics.Subsystem+"_held_room",
		"Room that is held for missing pods of a DaemonSet on all nodes together, in cores, bytes or whole units of the resource.",
		[]string{"namespace", "daemonset", "resource"}, nil, metrics.ALPHA, "")
	descMissing = metrics.NewDesc(pluginmetrics.Subsystem+"_missing_pods",
		"Nodes that belong to a DaemonSet, now or when their start-up taints are gone, and have no pod of it.",
		[]string{"namespace", "daemonset"}, nil, metrics.ALPHA, "")
	descUnready = metrics.NewDesc(pluginmetrics.Subsystem+"_unready_pods",
		"Nodes that belong to a DaemonSet, now or when their start-up taints are gone, and have no Ready pod of it.",
		[]string{"namespace", "daemonset"}, nil, metrics.ALPHA, "")
	descLookups = metrics.NewDesc(pluginmetrics.Subsystem+"_view_lookups_total",
		"Views of nodes that plugins asked for, by whether they were known (hit) or had to be computed (miss).",
		[]string{"result"}, nil, metrics.ALPHA, "")
)

// collector computes metrics of the cluster when somebody asks for them.
type collector struct {
	metrics.BaseStableCollector

	mu sync.Mutex
	// tracker is that of the scheduler that was made last; a process runs one.
	tracker *Tracker
	known   map[*daemonset.DaemonSet]*totals
	since   time.Time
}

// use has metrics computed from tracker from now on.
func (c *collector) use(tracker *Tracker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tracker, c.known, c.since = tracker, nil, time.Time{}
}

// freshness is how old totals may be. They take a while to compute on large clusters,
// and nobody should be able to keep the scheduler busy by asking.
const freshness = 5 * time.Second

var (
	served          collector
	registerMetrics = sync.OnceFunc(func() {
		pluginmetrics.Register()
		legacyregistry.CustomMustRegister(&served)
	})
)

// DescribeWithStability implements [metrics.StableCollector].
func (c *collector) DescribeWithStability(descs chan<- *metrics.Desc) {
	for _, desc := range []*metrics.Desc{descHeld, descMissing, descUnready, descLookups} {
		descs <- desc
	}
}

// CollectWithStability implements [metrics.StableCollector].
func (c *collector) CollectWithStability(collected chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tracker := c.tracker
	if tracker == nil || tracker.set.Load() == nil {
		// No cycle has begun yet.
		return
	}
	var hits, misses uint64
	startup := daemonset.DefaultStartupTaints()
	for i, views := range tracker.allViews() {
		if i == 0 {
			startup = views.startup
		}
		h, m := views.memo.Lookups()
		hits, misses = hits+h, misses+m
	}
	collected <- metrics.NewLazyConstMetric(descLookups, metrics.CounterValue, float64(hits), "hit")
	collected <- metrics.NewLazyConstMetric(descLookups, metrics.CounterValue, float64(misses), "miss")

	if time.Since(c.since) > freshness {
		c.known, c.since = tracker.totals(startup), time.Now()
	}
	for ds, total := range c.known {
		collected <- metrics.NewLazyConstMetric(descMissing, metrics.GaugeValue, float64(total.missing), ds.Namespace, ds.Name)
		collected <- metrics.NewLazyConstMetric(descUnready, metrics.GaugeValue, float64(total.unready), ds.Namespace, ds.Name)
		for name, amount := range total.held.List() {
			collected <- metrics.NewLazyConstMetric(descHeld, metrics.GaugeValue, amount.AsApproximateFloat64(), ds.Namespace, ds.Name, string(name))
		}
	}
}

// totals is what all nodes together owe to a DaemonSet.
type totals struct {
	missing, unready int
	held             daemonset.Resources
}

// totals adds up the views of all nodes. It takes them from the listers, not from
// the memo: the scheduler need not have looked at every node.
func (t *Tracker) totals(startup daemonset.StartupTaints) map[*daemonset.DaemonSet]*totals {
	set := t.Set()
	sums := make(map[*daemonset.DaemonSet]*totals, len(set.All()))
	for _, ds := range set.All() {
		sums[ds] = &totals{}
	}
	// Listers on caches return no errors.
	pods, _ := t.pods.List(labels.Everything())
	byNode := make(map[string][]*corev1.Pod)
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		// Ordinary pods change nothing about what is held.
		if pod.Spec.NodeName != "" && !ended && (set.OwnerOf(pod) != nil || daemonset.IsMirror(pod)) {
			byNode[pod.Spec.NodeName] = append(byNode[pod.Spec.NodeName], pod)
		}
	}
	nodes, _ := t.nodes.List(labels.Everything())
	for _, node := range nodes {
		live := func(yield func(*corev1.Pod, daemonset.Resources) bool) {
			for _, pod := range byNode[node.Name] {
				if !yield(pod, daemonset.PodResources(pod)) {
					return
				}
			}
		}
		view := daemonset.NewView(set, node, set.Expected(node, startup), live)
		for _, ds := range view.Missing {
			sums[ds].missing++
		}
		for _, ds := range view.Unready {
			sums[ds].unready++
		}
		var before daemonset.Resources
		for _, hold := range view.Held {
			sums[hold.DaemonSet].held = sums[hold.DaemonSet].held.Plus(hold.Total.Minus(before))
			before = hold.Total
		}
	}
	return sums
}
