// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// What was made anew, the label of rotations.
const (
	rotatedCA      = "ca"
	rotatedServing = "serving"
)

var (
	expiration = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "everynode_webhook_certificate_expiration_timestamp_seconds",
		Help:           "When the certificate that is served now expires, in seconds since 1970.",
		StabilityLevel: metrics.ALPHA,
	})
	notBefore = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "everynode_webhook_certificate_not_before_timestamp_seconds",
		Help:           "From when on the certificate that is served now is valid, in seconds since 1970.",
		StabilityLevel: metrics.ALPHA,
	})
	rotations = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "everynode_webhook_certificate_rotations_total",
		Help:           "Self-managed certificates that this replica has made, by what: ca or serving.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"what"})
	failures = metrics.NewCounter(&metrics.CounterOpts{
		Name:           "everynode_webhook_certificate_failures_total",
		Help:           "Failed attempts to bring the certificates, or the caBundle of the webhook configurations, up to date.",
		StabilityLevel: metrics.ALPHA,
	})
)

// registerMetrics adds the metrics of certificates to those that /metrics shows.
var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(expiration, notBefore, rotations, failures)
	// An alert on an increase needs a zero to begin with.
	rotations.WithLabelValues(rotatedCA)
	rotations.WithLabelValues(rotatedServing)
})
