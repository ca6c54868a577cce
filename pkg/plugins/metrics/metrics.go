// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts what the scheduler plugins do.
package metrics

import (
	"slices"
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

// Register adds the metrics to those that the scheduler serves.
var Register = sync.OnceFunc(func() {
	legacyregistry.MustRegister(heldBackAttempts, EqualPriorityEvictions)
})

// Attempt is one pod's scheduling cycle. Filters run on many nodes at once.
type Attempt struct {
	mu     sync.Mutex
	causes []string
}

// HeldBack counts that plugin keeps the pod off a node because of cause, once for
// the attempt however many nodes there are.
func (a *Attempt) HeldBack(plugin, cause string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.causes, cause) {
		return
	}
	a.causes = append(a.causes, cause)
	heldBackAttempts.WithLabelValues(plugin, cause).Inc()
}
