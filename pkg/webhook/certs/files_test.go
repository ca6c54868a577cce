// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// writeFiles writes a certificate made at a time over the files of an earlier one.
func writeFiles(t *testing.T, dir string, made time.Time) (certFile, keyFile string) {
	t.Helper()
	data, err := renewed(t, testIssuer(), contents{}, made).encode()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, corev1.TLSCertKey), filepath.Join(dir, corev1.TLSPrivateKeyKey)
	// While they don't match, what was there before is kept.
	for path, content := range map[string][]byte{keyFile: data[corev1.TLSPrivateKeyKey], certFile: data[corev1.TLSCertKey]} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestFiles(t *testing.T) {
	dir, clock := t.TempDir(), clocktesting.NewFakeClock(began)
	if _, err := NewFiles("/nowhere", "/nowhere", clock); err == nil || !strings.HasPrefix(err.Error(), "--tls-cert-file, --tls-private-key-file: open /nowhere") {
		t.Errorf("without files: %v", err)
	}
	certFile, keyFile := writeFiles(t, dir, began)
	files, err := NewFiles(certFile, keyFile, clock)
	if err != nil {
		t.Fatal(err)
	}
	run(t, files)
	if err := files.Healthy(); err != nil {
		t.Error(err)
	}
	clock.Step(91 * day)
	if err := files.Healthy(); err == nil {
		t.Error("healthy with an expired certificate")
	}
	writeFiles(t, dir, clock.Now())
	eventually(t, "the new certificate is served", func() bool { return files.Healthy() == nil })
	if err := os.WriteFile(certFile, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	files.Enqueue()
	if err := files.Healthy(); err != nil {
		t.Errorf("the certificate is lost with the files: %v", err)
	}
}
