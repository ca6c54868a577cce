// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/klog/v2"
)

// fileCertificate is a serving certificate in files that may be replaced at any time.
type fileCertificate struct {
	files   *dynamiccertificates.DynamicCertKeyPairContent
	current atomic.Pointer[tls.Certificate]
}

var _ dynamiccertificates.Listener = &fileCertificate{}

// newFileCertificate reads the files, which have to be there and to match.
func newFileCertificate(certFile, keyFile string) (*fileCertificate, error) {
	files, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert-file, --tls-private-key-file: %w", err)
	}
	c := &fileCertificate{files: files}
	files.AddListener(c)
	c.Enqueue()
	return c, nil
}

// run follows the files until ctx ends.
func (c *fileCertificate) run(ctx context.Context) {
	c.files.Run(ctx, 1)
}

// Enqueue takes over what the files have now. It is called when they have changed
// and hold a valid pair.
func (c *fileCertificate) Enqueue() {
	certificate, err := tls.X509KeyPair(c.files.CurrentCertKeyContent())
	if err != nil {
		klog.Background().Error(err, "Keeping the serving certificate that was loaded before")
		return
	}
	c.current.Store(&certificate)
}

// get implements GetCertificate of tls.Config.
func (c *fileCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if certificate := c.current.Load(); certificate != nil {
		return certificate, nil
	}
	return nil, errors.New("no serving certificate is loaded")
}

// healthy returns an error if clients would refuse the certificate.
func (c *fileCertificate) healthy() error {
	certificate, err := c.get(nil)
	if err != nil {
		return err
	}
	if now := time.Now(); now.After(certificate.Leaf.NotAfter) || now.Before(certificate.Leaf.NotBefore) {
		return fmt.Errorf("the serving certificate is valid from %s to %s only",
			certificate.Leaf.NotBefore.Format(time.RFC3339), certificate.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}
