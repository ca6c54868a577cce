// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	certutil "k8s.io/client-go/util/cert"
)

func testIssuer() *issuer { return &issuer{dnsName: testDNSName, lifetime: 90 * day} }

func renewed(tb testing.TB, i *issuer, c contents, now time.Time) contents {
	tb.Helper()
	next, _, err := i.renew(c, now)
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

func TestWhatIsIssued(t *testing.T) {
	c := renewed(t, testIssuer(), contents{}, began)
	ca, leaf := c.cas[0], c.serving.Leaf
	for _, certificate := range []*x509.Certificate{ca, leaf} {
		if key, ok := certificate.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("the key of %s is not of ECDSA P-256", certificate.Subject)
		}
		if !certificate.NotBefore.Equal(began.Add(-time.Hour)) {
			t.Errorf("%s is valid from %s", certificate.Subject, certificate.NotBefore)
		}
		if certificate.SerialNumber.BitLen() < 64 {
			t.Errorf("the serial number of %s can be guessed: %s", certificate.Subject, certificate.SerialNumber)
		}
	}
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign || !ca.PermittedDNSDomainsCritical ||
		!cmp.Equal(ca.PermittedDNSDomains, []string{testDNSName}) || !ca.NotAfter.Equal(began.Add(360*day)) {
		t.Errorf("the CA is %+v", ca)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !cmp.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) ||
		!cmp.Equal(leaf.DNSNames, []string{testDNSName}) || len(leaf.IPAddresses) > 0 || !leaf.NotAfter.Equal(began.Add(90*day)) {
		t.Errorf("the serving certificate is %+v", leaf)
	}

	// With the CA's key nobody can be anybody else.
	i := &issuer{dnsName: "kubernetes.default.svc", lifetime: 90 * day}
	forged, err := i.newServing(ca, c.caKey, began)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := forged.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: began}); err == nil {
		t.Error("the CA can sign for others")
	}
}

// What is written is what is read.
func TestContentsSurviveTheSecret(t *testing.T) {
	i := testIssuer()
	want := renewed(t, i, contents{}, began)
	data, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got := i.parse(data)
	if !got.cas[0].Equal(want.cas[0]) || !got.serving.Leaf.Equal(want.serving.Leaf) || got.caKey == nil {
		t.Errorf("read is %v, written was %v", got, want)
	}
	if _, rotated, err := i.renew(got, began); err != nil || len(rotated) > 0 {
		t.Errorf("%v is made anew (%v)", rotated, err)
	}
}

// The rule that holds everything together: no certificate outlives its CA, and in
// the normal course of things the CA is not what ends it.
func TestNoCertificateOutlivesItsCA(t *testing.T) {
	for _, jitter := range []float64{0, 0.5, 1} {
		i := testIssuer()
		i.jitter = jitter
		c := renewed(t, i, contents{}, began)
		for now := began; now.Before(began.Add(5 * 365 * day)); now = now.Add(day) {
			c = renewed(t, i, c, now)
			leaf := c.serving.Leaf
			if leaf.NotAfter.After(c.cas[0].NotAfter) || leaf.NotAfter.Sub(leaf.NotBefore) != i.lifetime+backdate {
				t.Fatalf("jitter %v, %s: the CA ends at %s, the certificate at %s", jitter, now, c.cas[0].NotAfter, leaf.NotAfter)
			}
			if len(c.cas) > 3 {
				t.Fatalf("%d CAs are trusted", len(c.cas))
			}
		}
	}
	// When nobody was there to replace the CA in time, it is.
	i := testIssuer()
	c := renewed(t, i, contents{}, began)
	leaf, err := i.newServing(c.cas[0], c.caKey, began.Add(300*day))
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.Leaf.NotAfter.Equal(c.cas[0].NotAfter) {
		t.Errorf("it ends at %s, its CA at %s", leaf.Leaf.NotAfter, c.cas[0].NotAfter)
	}
}

// What cannot sign is no CA, and one that could sign for others is not ours.
func TestOnlyOurCAsAreTrusted(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, template := range map[string]*x509.Certificate{
		"no CA":            {PermittedDNSDomains: []string{testDNSName}},
		"a CA for all":     {IsCA: true},
		"a CA for two":     {IsCA: true, PermittedDNSDomains: []string{testDNSName, "example.com"}},
		"a CA for another": {IsCA: true, PermittedDNSDomains: []string{"example.com"}},
	} {
		template.BasicConstraintsValid, template.NotAfter = true, began.Add(day)
		certificate, err := sign(template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		pem, err := certutil.EncodeCertificates(certificate)
		if err != nil {
			t.Fatal(err)
		}
		if trusted := testIssuer().parseCAs(pem); len(trusted) != 0 {
			t.Errorf("%s is trusted", name)
		}
	}
}

func TestCAsDoNotPileUp(t *testing.T) {
	i := testIssuer()
	var c contents
	for range 3 * maxCAs {
		c.caKey = nil
		c = renewed(t, i, c, began)
	}
	if len(c.cas) != maxCAs {
		t.Errorf("%d CAs are trusted, want %d", len(c.cas), maxCAs)
	}
	if !i.accepted(c, began) {
		t.Error("the newest is not among them")
	}
}

// Whatever the Secret holds, it can be read, and made good.
func FuzzSecret(f *testing.F) {
	i := testIssuer()
	data, err := renewed(f, i, contents{}, began).encode()
	if err != nil {
		f.Fatal(err)
	}
	cut := func(key string) []byte { return data[key][:len(data[key])/2] }
	f.Add(data[caCertKey], data[caKeyKey], data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	f.Add(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], data[caCertKey], data[caKeyKey])
	f.Add(cut(caCertKey), cut(caKeyKey), cut(corev1.TLSCertKey), cut(corev1.TLSPrivateKeyKey))
	f.Add([]byte(nil), []byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, caCert, caKey, cert, key []byte) {
		c := renewed(t, i, i.parse(map[string][]byte{caCertKey: caCert, caKeyKey: caKey, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}), began)
		data, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if again := i.parse(data); again.caKey == nil || again.serving == nil || !i.accepted(again, began) {
			t.Error("what was made good is not")
		}
	})
}
