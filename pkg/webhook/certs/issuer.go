// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// The data of the Secret, besides tls.crt and tls.key.
const (
	caCertKey = "ca.crt"
	caKeyKey  = "ca.key"
)

const (
	// backdate is how long before it is made a certificate is valid: the clocks of
	// API servers and of replicas may differ by that much.
	backdate = time.Hour
	// caLifetimes is how many lifetimes of serving certificates a CA lives. It is
	// replaced before three of them have passed, so that what it has signed until
	// then ends before itself.
	caLifetimes = 4
	// maxCAs is how many CAs are trusted at most. Two is normal; but if the Secret is
	// destroyed again and again, or clocks disagree, it must not grow for ever.
	maxCAs = 10
)

// contents are what the Secret holds, as far as it can be used.
type contents struct {
	// cas are the CAs to trust, newest first.
	cas []*x509.Certificate
	// caKey belongs to the first of them, which signs; nil if it is missing.
	caKey crypto.Signer
	// serving is the certificate to serve; nil if it is missing.
	serving *tls.Certificate
}

// bundle returns the CAs to trust as PEM. The same contents give the same bytes.
func (c contents) bundle() ([]byte, error) {
	return certutil.EncodeCertificates(c.cas...)
}

// trusts says whether one of the CAs has signed certificate.
func (c contents) trusts(certificate *tls.Certificate) bool {
	return slices.ContainsFunc(c.cas, func(ca *x509.Certificate) bool { return certificate.Leaf.CheckSignatureFrom(ca) == nil })
}

// encode returns the data of the Secret.
func (c contents) encode() (map[string][]byte, error) {
	cas, err := c.bundle()
	if err != nil {
		return nil, err
	}
	caKey, err := keyutil.MarshalPrivateKeyToPEM(c.caKey)
	if err != nil {
		return nil, err
	}
	cert, err := certutil.EncodeCertificates(c.serving.Leaf)
	if err != nil {
		return nil, err
	}
	key, err := keyutil.MarshalPrivateKeyToPEM(c.serving.PrivateKey)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{caCertKey: cas, caKeyKey: caKey, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, nil
}

// issuer makes CAs and serving certificates.
type issuer struct {
	// dnsName is by which the API server knows us.
	dnsName string
	// lifetime is that of serving certificates.
	lifetime time.Duration
	// jitter from 0 to 1 sets this replica apart from the others, so that they don't
	// all renew a certificate at the same moment.
	jitter float64
}

// parse returns what of the Secret's data can be used. What is missing or garbled
// is left out.
func (i *issuer) parse(data map[string][]byte) contents {
	c := contents{cas: i.parseCAs(data[caCertKey])}
	if key, err := keyutil.ParsePrivateKeyPEM(data[caKeyKey]); err == nil && len(c.cas) > 0 {
		signer, ok := key.(*ecdsa.PrivateKey)
		if ok && signer.PublicKey.Equal(c.cas[0].PublicKey) {
			c.caKey = signer
		}
	}
	if pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey]); err == nil {
		c.serving = &pair
	}
	return c
}

// parseCAs returns the CAs in PEM that can sign for us and nobody else, as ours do, or
// nothing if they are garbled. No other is trusted, whoever has put it there.
func (i *issuer) parseCAs(pem []byte) []*x509.Certificate {
	cas, err := certutil.ParseCertsPEM(pem)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(cas, func(ca *x509.Certificate) bool {
		return !ca.IsCA || !slices.Equal(ca.PermittedDNSDomains, []string{i.dnsName})
	})
}

// renew replaces what is missing, cannot be used or is due, and says what it was.
func (i *issuer) renew(c contents, now time.Time) (contents, []string, error) {
	var rotated []string
	if c.caKey == nil || i.due(c.cas[0], caLifetimes*i.lifetime, now) {
		ca, key, err := i.newCA(now)
		if err != nil {
			return c, nil, fmt.Errorf("making a CA: %w", err)
		}
		rotated = append(rotated, rotatedCA)
		// A certificate of a CA that has lost its key could not be renewed either.
		c = contents{cas: append([]*x509.Certificate{ca}, unexpired(c.cas, now)...), caKey: key}
		c.cas = c.cas[:min(len(c.cas), maxCAs)]
	}
	if c.serving == nil || !i.accepted(c, now) || i.due(c.serving.Leaf, i.lifetime, now) {
		serving, err := i.newServing(c.cas[0], c.caKey, now)
		if err != nil {
			return c, nil, fmt.Errorf("making a serving certificate: %w", err)
		}
		rotated = append(rotated, rotatedServing)
		c.serving = serving
	}
	return c, rotated, nil
}

// unexpired returns the certificates that are valid, or will be: another replica's
// clock may be ahead.
func unexpired(certificates []*x509.Certificate, now time.Time) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(certificates), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
}

// accepted says whether a client that trusts the CA that signs would accept the
// serving certificate.
func (i *issuer) accepted(c contents, now time.Time) bool {
	roots := x509.NewCertPool()
	roots.AddCert(c.cas[0])
	_, err := c.serving.Leaf.Verify(x509.VerifyOptions{
		DNSName:     i.dnsName,
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err == nil
}

// due says whether a certificate has to be replaced.
func (i *issuer) due(certificate *x509.Certificate, lifetime time.Duration, now time.Time) bool {
	return now.Before(certificate.NotBefore) || !now.Before(i.renewal(certificate)) ||
		// Made when the lifetime was set higher.
		certificate.NotAfter.After(now.Add(lifetime+backdate))
}

// renewal returns when a certificate is to be replaced: after two thirds of its own
// lifetime, and up to a twentieth of it more.
func (i *issuer) renewal(certificate *x509.Certificate) time.Time {
	made := certificate.NotBefore.Add(backdate)
	return made.Add(time.Duration((2.0/3 + i.jitter/20) * float64(certificate.NotAfter.Sub(made))))
}

func (i *issuer) newCA(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "everynode-webhook-ca"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetimes * i.lifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// Whoever gets hold of the key can be us, but nobody else.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{i.dnsName},
	}
	certificate, err := sign(template, template, key.Public(), key)
	return certificate, key, err
}

func (i *issuer) newServing(ca *x509.Certificate, caKey crypto.Signer, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(i.lifetime)
	if notAfter.After(ca.NotAfter) {
		notAfter = ca.NotAfter
	}
	leaf, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "everynode-webhook"},
		DNSNames:    []string{i.dnsName},
		NotBefore:   now.Add(-backdate),
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// sign makes a certificate. Its serial number is random.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
