// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts what the scheduler plugins do, and tells what nodes owe to
// DaemonSets.
package metrics

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Subsystem is what the names of all metrics of the plugins begin with.
const Subsystem = "everynode_scheduler"

var (
	heldBackAttempts = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: Subsystem,
		Name:      "held_back_attempts_total",
		Help: "Scheduling attempts in which a plugin kept a pod off at least one node, by plugin and cause: " +
			"the resource that was held for DaemonSet pods, or the DaemonSet that was waited for.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"plugin", "cause"})
	// EqualPriorityEvictions counts pods that made room for a DaemonSet pod of their
	// own priority, by DaemonSet.
	EqualPriorityEvictions = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem:      Subsystem,
		Name:           "equal_priority_evictions_total",
		Help:           "Pods that were evicted for a DaemonSet pod of their own priority, by the DaemonSet's namespace and name.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"namespace", "daemonset"})
)

// register adds the metrics to those that the scheduler serves.
var register = sync.OnceFunc(func() {
	legacyregistry.MustRegister(heldBackAttempts, EqualPriorityEvictions)
	legacyregistry.CustomMustRegister(&served)
})

// Attempt is one pod's scheduling cycle.
type Attempt struct {
	// counted has the causes. Filters run on many nodes at once.
	counted sync.Map
}

// HeldBack counts that plugin keeps the pod off a node because of cause, once for
// the attempt however many nodes there are.
func (a *Attempt) HeldBack(plugin, cause string) {
	if _, known := a.counted.LoadOrStore(cause, true); !known {
		heldBackAttempts.WithLabelValues(plugin, cause).Inc()
	}
}
