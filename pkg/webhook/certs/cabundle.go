// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
)

// configuration is a webhook configuration of either kind.
type configuration struct {
	kind            string
	resourceVersion string
	// bundles are the caBundles of its webhooks.
	bundles [][]byte
	// patch applies a JSON patch.
	patch func(ctx context.Context, patch []byte) error
}

// configurations returns the webhook configurations that exist.
func (s *SelfManaged) configurations(ctx context.Context) ([]configuration, error) {
	api := s.client.AdmissionregistrationV1()
	mutating, err := find(ctx, "MutatingWebhookConfiguration", s.configuration, api.MutatingWebhookConfigurations(),
		func(c *admissionregistrationv1.MutatingWebhookConfiguration) (bundles [][]byte) {
			for i := range c.Webhooks {
				bundles = append(bundles, c.Webhooks[i].ClientConfig.CABundle)
			}
			return bundles
		})
	if err != nil {
		return nil, err
	}
	validating, err := find(ctx, "ValidatingWebhookConfiguration", s.configuration, api.ValidatingWebhookConfigurations(),
		func(c *admissionregistrationv1.ValidatingWebhookConfiguration) (bundles [][]byte) {
			for i := range c.Webhooks {
				bundles = append(bundles, c.Webhooks[i].ClientConfig.CABundle)
			}
			return bundles
		})
	return append(mutating, validating...), err
}

// configurationClient is what the clients of both kinds have in common.
type configurationClient[T metav1.Object] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	Patch(ctx context.Context, name string, patchType types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (T, error)
}

// find returns the configuration of that name, or nothing if there is none.
func find[T metav1.Object](ctx context.Context, kind, name string, client configurationClient[T], bundles func(T) [][]byte) ([]configuration, error) {
	found, err := client.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", kind, err)
	}
	return []configuration{{
		kind:            kind,
		resourceVersion: found.GetResourceVersion(),
		bundles:         bundles(found),
		patch: func(ctx context.Context, patch []byte) error {
			_, err := client.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
			return err
		},
	}}, nil
}

// adopt returns the CAs of ours that the configurations trust and that known lacks,
// newest first, as they stand there. When they were made is no order: the clock may
// have been set. Those that have expired are left out, and those that are too many.
func (s *SelfManaged) adopt(configurations []configuration, known []*x509.Certificate) []*x509.Certificate {
	var cas []*x509.Certificate
	for _, c := range configurations {
		for _, bundle := range c.bundles {
			for _, ca := range unexpired(s.issuer.parseCAs(bundle), s.clock.Now()) {
				if !slices.ContainsFunc(known, ca.Equal) && !slices.ContainsFunc(cas, ca.Equal) {
					cas = append(cas, ca)
				}
			}
		}
	}
	return cas[:min(len(cas), max(maxCAs-len(known), 0))]
}

// publish makes every caBundle what the Secret says, and keeps track of since when
// all of them hold the newest CA.
func (s *SelfManaged) publish(ctx context.Context, held contents, configurations []configuration) error {
	newest := held.cas[0]
	if !newest.Equal(s.published.ca) || slices.ContainsFunc(configurations, func(c configuration) bool { return !c.holds(newest) }) {
		s.published = publication{}
	}
	bundle, err := held.bundle()
	if err != nil {
		return fmt.Errorf("encoding the CAs: %w", err)
	}
	for _, c := range configurations {
		patch, err := c.withBundle(bundle)
		if err != nil {
			return fmt.Errorf("making a patch of the %s: %w", c.kind, err)
		}
		if patch == nil {
			continue
		}
		if err := c.patch(ctx, patch); err != nil {
			return fmt.Errorf("patching the caBundle of the %s: %w", c.kind, err)
		}
		klog.FromContext(ctx).Info("Put the CAs into the caBundle", "kind", c.kind, "name", s.configuration, "cas", len(held.cas))
	}
	if s.published.ca == nil {
		s.published = publication{ca: newest, since: s.clock.Now()}
	}
	return nil
}

// holds says whether all webhooks trust ca.
func (c *configuration) holds(ca *x509.Certificate) bool {
	pem, err := certutil.EncodeCertificates(ca)
	return err == nil && !slices.ContainsFunc(c.bundles, func(bundle []byte) bool { return !bytes.Contains(bundle, pem) })
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// withBundle returns a patch of the caBundles that are different, or nil if none is.
// It touches no other field, and no other version than the one that was read: its
// first operation makes it a conflict with any other.
func (c *configuration) withBundle(bundle []byte) ([]byte, error) {
	patch := []operation{{"replace", "/metadata/resourceVersion", c.resourceVersion}}
	for i := range c.bundles {
		if !bytes.Equal(c.bundles[i], bundle) {
			patch = append(patch, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
		}
	}
	if len(patch) == 1 {
		return nil, nil
	}
	return json.Marshal(patch)
}
