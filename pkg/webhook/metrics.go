// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// result is how a request was answered.
type result string

const (
	// resultMutated: the object was changed.
	resultMutated result = "mutated"
	// resultUnchanged: there was nothing to change.
	resultUnchanged result = "unchanged"
	// resultDenied: the object can never work.
	resultDenied result = "denied"
	// resultFailed: the object was admitted unchanged because something went wrong.
	resultFailed result = "failed"
	// resultRefused: the request was no AdmissionReview.
	resultRefused result = "refused"
)

// reason is why less was done than was asked for.
type reason string

const (
	// reasonOwner: the pod's DaemonSet is not known.
	reasonOwner reason = "owner-unknown"
	// reasonNamespace: the namespace is not known.
	reasonNamespace reason = "namespace-unknown"
	// reasonNode: the size of the pod's node is not known.
	reasonNode reason = "node-unknown"
	// reasonNotPinned: the pod does not run on one node, or on another one than it says.
	reasonNotPinned reason = "not-pinned"
	// reasonGated: the pod has scheduling gates, so it cannot be bound.
	reasonGated reason = "gated"
	// reasonClaims: the pod has claims that wait for a scheduler, so it cannot be bound.
	reasonClaims reason = "claims-need-scheduler"
	// reasonLimitRange: a LimitRange of the namespace limits a size.
	reasonLimitRange reason = "limit-range"
	// reasonAnnotation: an annotation of the DaemonSet cannot be understood.
	reasonAnnotation reason = "annotation-invalid"
	// reasonPodResources: the pod has resources of its own.
	reasonPodResources reason = "pod-level-resources"
	// reasonPriorityClass: pods in the namespace cannot have the policy's PriorityClass.
	reasonPriorityClass reason = "priority-class-unusable"
	// reasonWhitelist: the namespace does not allow a toleration.
	reasonWhitelist reason = "toleration-not-allowed"
	// reasonRequest: the request is not one that this webhook was made for.
	reasonRequest reason = "unexpected-request"
	// reasonInternal: a bug.
	reasonInternal reason = "internal-error"
)

var (
	requestDuration = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "everynode_webhook_request_duration_seconds",
		Help:           "How long admission requests took, by webhook and result: mutated, unchanged, denied, failed (admitted unchanged because something went wrong) or refused (no AdmissionReview).",
		Buckets:        metrics.ExponentialBuckets(0.0001, 2, 15), // 0.1 ms to 1.6 s, the timeout being 2 s
		StabilityLevel: metrics.ALPHA,
	}, []string{"webhook", "result"})
	problems = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "everynode_webhook_problems_total",
		Help:           "How often less was done than was asked for, by webhook and reason.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"webhook", "reason"})
	configValid = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "everynode_webhook_config_valid",
		Help:           "Whether the file of --config is in use as it is now (1), or was not valid when it was read last, so that the policies before it are kept (0).",
		StabilityLevel: metrics.ALPHA,
	})
)

// registerMetrics adds our metrics to those that /metrics shows.
var registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(requestDuration, problems, configValid) })

func observe(webhook string, result result, began time.Time) {
	requestDuration.WithLabelValues(webhook, string(result)).Observe(time.Since(began).Seconds())
}

// observeConfig notes whether the configuration could be taken over.
func observeConfig(err error) {
	if err != nil {
		configValid.Set(0)
	} else {
		configValid.Set(1)
	}
}
