// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"

	"everynode.dev/everynode/pkg/daemonset"
)

var (
	descHeld = metrics.NewDesc(Subsystem+"_held_room",
		"Room that is held for missing pods of a DaemonSet on all nodes together, in cores, bytes or whole units of the resource.",
		[]string{"namespace", "daemonset", "resource"}, nil, metrics.ALPHA, "")
	descLapsed = metrics.NewDesc(Subsystem+"_lapsed_holds",
		"Nodes on which room is no longer held for a DaemonSet because its pod did not appear in time.",
		[]string{"namespace", "daemonset"}, nil, metrics.ALPHA, "")
	descMissing = metrics.NewDesc(Subsystem+"_missing_pods",
		"Nodes that belong to a DaemonSet, now or when their start-up taints are gone, and have no pod of it.",
		[]string{"namespace", "daemonset"}, nil, metrics.ALPHA, "")
	descUnready = metrics.NewDesc(Subsystem+"_unready_pods",
		"Nodes that belong to a DaemonSet, now or when their start-up taints are gone, and have no Ready pod of it.",
		[]string{"namespace", "daemonset"}, nil, metrics.ALPHA, "")
	descTaints = metrics.NewDesc(Subsystem+"_overdue_startup_taints",
		"Ready nodes that have had a start-up taint for longer than startupFor, by the key of the taint.",
		[]string{"taint"}, nil, metrics.ALPHA, "")
	descViews = metrics.NewDesc(Subsystem+"_computed_views_total",
		"How often what a node owes to DaemonSets had to be computed because the node or the DaemonSets had changed.",
		nil, nil, metrics.ALPHA, "")
)

// Cluster is what metrics are computed from.
type Cluster interface {
	// Owed returns what all nodes together owe to each DaemonSet, or nil before the first
	// scheduling cycle.
	Owed() map[*daemonset.DaemonSet]*Owed
	// OverdueTaints returns start-up taints that stay on Ready nodes, with the number of nodes.
	OverdueTaints() map[string]int
	// ComputedViews returns how many views of nodes were computed.
	ComputedViews() uint64
}

// Owed is what all nodes together owe to a DaemonSet. Missing, Unready and Lapsed are
// numbers of nodes.
type Owed struct {
	Missing, Unready, Lapsed int
	Held                     daemonset.Resources
}

// Serve has metrics computed from cluster from now on: a process runs one scheduler, and
// a test many, one after the other.
func Serve(cluster Cluster) {
	served.mu.Lock()
	served.cluster, served.owed, served.since = cluster, nil, time.Time{}
	served.mu.Unlock()
	register()
}

var served collector

// collector computes metrics of the cluster when they are asked for.
type collector struct {
	metrics.BaseStableCollector

	mu      sync.Mutex
	cluster Cluster
	owed    map[*daemonset.DaemonSet]*Owed
	since   time.Time
}

// freshness is how old Owed may be. On large clusters it takes a while to compute,
// and requests must not keep the scheduler busy.
const freshness = 5 * time.Second

// DescribeWithStability implements [metrics.StableCollector].
func (c *collector) DescribeWithStability(descs chan<- *metrics.Desc) {
	for _, desc := range []*metrics.Desc{descHeld, descLapsed, descMissing, descUnready, descTaints, descViews} {
		descs <- desc
	}
}

// CollectWithStability implements [metrics.StableCollector].
func (c *collector) CollectWithStability(collected chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.since) > freshness {
		c.owed, c.since = c.cluster.Owed(), time.Now()
	}
	// Alerts tell everynode's schedulers by this one, so it is there before the first cycle.
	collected <- metrics.NewLazyConstMetric(descViews, metrics.CounterValue, float64(c.cluster.ComputedViews()))
	if c.owed == nil {
		c.since = time.Time{}
		return
	}
	gauge := func(desc *metrics.Desc, value float64, labels ...string) {
		collected <- metrics.NewLazyConstMetric(desc, metrics.GaugeValue, value, labels...)
	}
	for taint, nodes := range c.cluster.OverdueTaints() {
		gauge(descTaints, float64(nodes), taint)
	}
	for ds, owed := range c.owed {
		gauge(descMissing, float64(owed.Missing), ds.Namespace, ds.Name)
		gauge(descUnready, float64(owed.Unready), ds.Namespace, ds.Name)
		gauge(descLapsed, float64(owed.Lapsed), ds.Namespace, ds.Name)
		for name, amount := range owed.Held.List() {
			gauge(descHeld, amount.AsApproximateFloat64(), ds.Namespace, ds.Name, string(name))
		}
	}
}
