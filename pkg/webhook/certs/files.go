// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"fmt"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Files is a serving certificate in files that may be replaced at any time, as
// those of a mounted Secret are.
type Files struct {
	current
	files *dynamiccertificates.DynamicCertKeyPairContent
}

var _ dynamiccertificates.Listener = &Files{}

// NewFiles reads the files, which have to be there and to match.
func NewFiles(certFile, keyFile string, clock clock.PassiveClock) (*Files, error) {
	registerMetrics()
	files, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert-file, --tls-private-key-file: %w", err)
	}
	f := &Files{current: current{clock: clock}, files: files}
	files.AddListener(f)
	f.Enqueue()
	return f, nil
}

// Run follows the files until ctx ends.
func (f *Files) Run(ctx context.Context) {
	f.files.Run(ctx, 1)
}

// Enqueue takes over what the files have now. It is called when they have changed
// and hold a valid pair.
func (f *Files) Enqueue() {
	certificate, err := tls.X509KeyPair(f.files.CurrentCertKeyContent())
	if err != nil {
		failures.Inc()
		klog.Background().Error(err, "Keeping the serving certificate that was loaded before")
		return
	}
	f.set(&certificate)
}
