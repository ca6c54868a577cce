// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// What became of a request.
const (
	// resultMutated: the pod was changed.
	resultMutated = "mutated"
	// resultUnchanged: there was nothing to change.
	resultUnchanged = "unchanged"
	// resultFailed: the pod was admitted unchanged because something went wrong.
	resultFailed = "failed"
	// resultRefused: the request was no AdmissionReview.
	resultRefused = "refused"
)

var requestDuration = metrics.NewHistogramVec(&metrics.HistogramOpts{
	Namespace:      "everynode",
	Subsystem:      "webhook",
	Name:           "request_duration_seconds",
	Help:           "How long admission requests took, by result: mutated, unchanged, failed (admitted unchanged because something went wrong) or refused (no AdmissionReview).",
	Buckets:        metrics.ExponentialBuckets(0.0001, 2, 15), // 0.1 ms to 1.6 s, the timeout being 2 s
	StabilityLevel: metrics.ALPHA,
}, []string{"result"})

// registerMetrics adds our metrics to those that /metrics shows.
var registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(requestDuration) })

func observe(result string, began time.Time) {
	requestDuration.WithLabelValues(result).Observe(time.Since(began).Seconds())
}
