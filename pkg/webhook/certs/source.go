// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certs provides the certificate that everynode-webhook serves.
//
// There are two sources of it: files that somebody else renews (files.go), and
// certificates that the webhook makes itself (selfmanaged.go). The latter are
// decided by a pure part, issuer.go, which knows neither the API nor the time.
//
// # How a CA is replaced while requests come in
//
// The API server trusts the CAs in the caBundle of the webhook configurations.
// Three rules keep that and what the replicas serve together at any moment:
//
//   - The Secret is the truth, and every caBundle a copy of its ca.crt. It is
//     written before the copies, each time on condition that nobody else has
//     written in between.
//   - A new CA is served only when every caBundle has held it for a while, so
//     that every API server has heard of it. Until then a replica goes on with
//     the certificate that it has.
//   - A CA leaves the Secret when it has expired, and no certificate outlives its
//     CA. So whatever a replica serves, and however late it hears of a new
//     certificate, its CA is trusted as long as its certificate is valid. A CA that
//     leaves it earlier, because the Secret was lost or an older one put back, is
//     taken from the caBundles again.
//
// The replicas need not know of each other for that, and no one leads.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// Source is where a serving certificate comes from.
type Source interface {
	// Get returns the certificate to serve now. It implements GetCertificate of
	// tls.Config, and never waits.
	Get(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Run keeps the certificate up to date until ctx ends.
	Run(ctx context.Context)
	// Healthy returns an error if clients would refuse the certificate.
	Healthy() error
}

var _, _ Source = &Files{}, &SelfManaged{}

// current is the certificate that is served now.
type current struct {
	clock       clock.PassiveClock
	certificate atomic.Pointer[tls.Certificate]
}

func (c *current) set(certificate *tls.Certificate) {
	c.certificate.Store(certificate)
	expiration.Set(float64(certificate.Leaf.NotAfter.Unix()))
	notBefore.Set(float64(certificate.Leaf.NotBefore.Unix()))
}

// Get implements Source.
func (c *current) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if certificate := c.certificate.Load(); certificate != nil {
		return certificate, nil
	}
	return nil, errors.New("there is no serving certificate yet")
}

// Healthy returns an error if there is no certificate, or one that is not valid now.
func (c *current) Healthy() error {
	certificate, err := c.Get(nil)
	if err != nil {
		return err
	}
	if now := c.clock.Now(); now.After(certificate.Leaf.NotAfter) || now.Before(certificate.Leaf.NotBefore) {
		return fmt.Errorf("the serving certificate is valid from %s to %s only",
			certificate.Leaf.NotBefore.Format(time.RFC3339), certificate.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}
