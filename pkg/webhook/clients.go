// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// clients says whose reviews are answered. Nil answers those of all clients.
type clients struct {
	ca *dynamiccertificates.DynamicFileCAContent
}

// newClients reads the CAs of client certificates from a PEM file; nil if path is empty.
func newClients(path string) (*clients, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nil are all clients
	}
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", path)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	return &clients{ca}, nil
}

// run follows the file until ctx ends.
func (c *clients) run(ctx context.Context) {
	if c != nil {
		c.ca.Run(ctx, 1)
	}
}

// only has next handle requests of clients with a valid certificate. Others get 401
// before a byte of their body is read.
func (c *clients) only(next http.Handler) http.Handler {
	if c == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.verify(r); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *clients) verify(r *http.Request) error {
	options, ok := c.ca.VerifyOptions()
	if !ok || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return errors.New("a client certificate of a CA in --client-ca-file is required")
	}
	if _, err := r.TLS.PeerCertificates[0].Verify(options); err != nil {
		return fmt.Errorf("verifying the client certificate: %w", err)
	}
	return nil
}
