// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// leaseState is what is known of the lease of a scheduler.
type leaseState string

const (
	// leaseRenewed: the scheduler is at work.
	leaseRenewed leaseState = "renewed"
	// leaseStale: the scheduler is not at work.
	leaseStale leaseState = "stale"
	// leaseUnreadable: the scheduler counts as at work.
	leaseUnreadable leaseState = "unreadable"
)

// result is what became of a pod without a scheduler.
type result string

const (
	resultBound result = "bound"
	// resultLeft: the pod does not fit, needs a scheduler, or the API server refused the binding.
	resultLeft result = "left"
)

var (
	leaseStates = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Name:           "everynode_webhook_scheduler_lease",
		Help:           "The state of each scheduler's lease: 1 for the one that it is in. renewed, stale (DaemonSet pods are bound without the scheduler), or unreadable (the scheduler counts as at work).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"lease", "state"})
	pods = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "everynode_webhook_pods_without_scheduler_total",
		Help:           "DaemonSet pods that waited while their scheduler's lease was stale, by result: bound, or left (the pod does not fit, needs a scheduler, or the API server refused the binding).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"result"})
)

var registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(leaseStates, pods) })

func observeLease(lease string, state leaseState) {
	for _, each := range []leaseState{leaseRenewed, leaseStale, leaseUnreadable} {
		value := 0.0
		if each == state {
			value = 1
		}
		leaseStates.WithLabelValues(lease, string(each)).Set(value)
	}
}
