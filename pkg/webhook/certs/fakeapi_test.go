// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
)

const (
	testNamespace = "everynode-system"
	testDNSName   = "everynode-webhook.everynode-system.svc"
)

// began is when the tests begin. Nothing depends on the machine's clock.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fakeAPI is client-go's fake of an API server, and keeps to what optimistic
// concurrency needs: each version of an object has a number, and a write that names
// another one is a conflict.
type fakeAPI struct {
	clienttesting.ObjectTracker
	mu      sync.Mutex
	version int
	// away says that nobody answers.
	away bool
	// calls are all calls but those of watches, as "verb resource".
	calls []string
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{ObjectTracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
}

// client returns a client. before, if not nil, is called before each call and may
// have it fail.
func (a *fakeAPI) client(before func(clienttesting.Action) error) *fake.Clientset {
	client := &fake.Clientset{}
	client.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if before != nil {
			if err := before(action); err != nil {
				return true, nil, err
			}
		}
		return a.react(action)
	})
	client.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := a.Watch(action.GetResource(), action.GetNamespace())
		return true, w, err
	})
	return client
}

var errAway = errors.New("connection refused")

func (a *fakeAPI) react(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if action.GetVerb() != "list" {
		a.calls = append(a.calls, action.GetVerb()+" "+action.GetResource().Resource)
	}
	if a.away {
		return true, nil, errAway
	}
	var err error
	switch action := action.(type) {
	case clienttesting.CreateActionImpl:
		a.version++
		err = setVersion(action.Object, a.version)
	case clienttesting.UpdateActionImpl:
		err = a.write(action.Object, action)
	case clienttesting.PatchActionImpl:
		obj, err := a.patched(action)
		if err == nil {
			err = a.write(obj, action)
		}
		if err == nil {
			err = a.Update(action.GetResource(), obj, action.GetNamespace())
		}
		return true, obj, err
	}
	if err != nil {
		return true, nil, err
	}
	return clienttesting.ObjectReaction(a.ObjectTracker)(action)
}

// write checks the version that a write is based on, and gives obj the next one.
func (a *fakeAPI) write(obj runtime.Object, action clienttesting.Action) error {
	written, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	current, err := a.Get(action.GetResource(), action.GetNamespace(), written.GetName())
	if err != nil {
		return err
	}
	known, err := meta.Accessor(current)
	if err != nil {
		return err
	}
	if written.GetResourceVersion() != known.GetResourceVersion() {
		return apierrors.NewConflict(action.GetResource().GroupResource(), written.GetName(), errors.New("the object has been modified"))
	}
	a.version++
	return setVersion(obj, a.version)
}

// patched applies a JSON patch.
func (a *fakeAPI) patched(action clienttesting.PatchActionImpl) (runtime.Object, error) {
	current, err := a.Get(action.GetResource(), action.GetNamespace(), action.GetName())
	if err != nil {
		return nil, err
	}
	document, err := json.Marshal(current)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(action.GetPatch())
	if err != nil {
		return nil, err
	}
	if document, err = patch.Apply(document); err != nil {
		return nil, err
	}
	obj := current.DeepCopyObject()
	switch obj := obj.(type) {
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		*obj = admissionregistrationv1.MutatingWebhookConfiguration{}
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		*obj = admissionregistrationv1.ValidatingWebhookConfiguration{}
	default:
		return nil, fmt.Errorf("%T is not patched", obj)
	}
	return obj, json.Unmarshal(document, obj)
}

func setVersion(obj runtime.Object, version int) error {
	accessor, err := meta.Accessor(obj)
	if err == nil {
		accessor.SetResourceVersion(strconv.Itoa(version))
	}
	return err
}

// setAway takes the API server away, or brings it back.
func (a *fakeAPI) setAway(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

// takeCalls returns the calls since it was asked last.
func (a *fakeAPI) takeCalls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := a.calls
	a.calls = nil
	return calls
}

var (
	secretsResource    = corev1.SchemeGroupVersion.WithResource("secrets")
	mutatingResource   = admissionregistrationv1.SchemeGroupVersion.WithResource("mutatingwebhookconfigurations")
	validatingResource = admissionregistrationv1.SchemeGroupVersion.WithResource("validatingwebhookconfigurations")
)

// set creates or replaces an object, as somebody else would.
func (a *fakeAPI) set(t *testing.T, obj runtime.Object) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	resource, namespace := mutatingResource, ""
	switch obj := obj.(type) {
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		resource = validatingResource
	case *corev1.Secret:
		resource, namespace = secretsResource, obj.Namespace
	}
	err := setVersion(obj, a.version)
	if err == nil {
		err = a.Create(resource, obj, namespace)
	}
	if apierrors.IsAlreadyExists(err) {
		err = a.Update(resource, obj, namespace)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// secret returns the Secret, or nil.
func (a *fakeAPI) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	obj, err := a.Get(secretsResource, testNamespace, NewOptions().Secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*corev1.Secret)
}

// editSecret changes the Secret.
func (a *fakeAPI) editSecret(t *testing.T, edit func(*corev1.Secret)) {
	t.Helper()
	secret := a.secret(t).DeepCopy()
	edit(secret)
	a.set(t, secret)
}

func (a *fakeAPI) deleteSecret(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.Delete(secretsResource, testNamespace, NewOptions().Secret); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// mutating returns the MutatingWebhookConfiguration.
func (a *fakeAPI) mutating(t *testing.T) *admissionregistrationv1.MutatingWebhookConfiguration {
	t.Helper()
	obj, err := a.Get(mutatingResource, "", NewOptions().WebhookConfiguration)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*admissionregistrationv1.MutatingWebhookConfiguration).DeepCopy()
}

// bundles returns the caBundles of all webhooks.
func (a *fakeAPI) bundles(t *testing.T) [][]byte {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var bundles [][]byte
	obj, err := a.Get(mutatingResource, "", NewOptions().WebhookConfiguration)
	if err == nil {
		for _, webhook := range obj.(*admissionregistrationv1.MutatingWebhookConfiguration).Webhooks {
			bundles = append(bundles, webhook.ClientConfig.CABundle)
		}
	} else if !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	obj, err = a.Get(validatingResource, "", NewOptions().WebhookConfiguration)
	if err == nil {
		for _, webhook := range obj.(*admissionregistrationv1.ValidatingWebhookConfiguration).Webhooks {
			bundles = append(bundles, webhook.ClientConfig.CABundle)
		}
	} else if !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return bundles
}

// addConfigurations creates both webhook configurations without a caBundle.
func (a *fakeAPI) addConfigurations(t *testing.T) {
	t.Helper()
	service := admissionregistrationv1.WebhookClientConfig{
		Service: &admissionregistrationv1.ServiceReference{Namespace: testNamespace, Name: "everynode-webhook"},
	}
	object := metav1.ObjectMeta{Name: NewOptions().WebhookConfiguration, Labels: map[string]string{"app": "everynode"}}
	a.set(t, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: object, Webhooks: []admissionregistrationv1.MutatingWebhook{
		{Name: "pods.everynode.dev", ClientConfig: service}, {Name: "daemonsets.everynode.dev", ClientConfig: service},
	}})
	a.set(t, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: object, Webhooks: []admissionregistrationv1.ValidatingWebhook{
		{Name: "daemonsets.everynode.dev", ClientConfig: service},
	}})
}

// newManager returns a replica.
func newManager(t *testing.T, client *fake.Clientset, clock clock.Clock, edit ...func(*Options)) *SelfManaged {
	t.Helper()
	options := NewOptions()
	options.Namespace = testNamespace
	for _, edit := range edit {
		edit(&options)
	}
	m, err := NewSelfManaged(client, options, clock)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// accepts returns the chain by which an API server that trusts bundle accepts the
// certificate, or an error if it does not.
func accepts(bundle []byte, certificate *tls.Certificate, now time.Time) ([]*x509.Certificate, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the caBundle holds no CA")
	}
	// As crypto/tls does it for a client.
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return nil, err
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: testDNSName, CurrentTime: now})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

// acceptedByAll checks that all webhooks accept what m serves.
func acceptedByAll(t *testing.T, a *fakeAPI, m *SelfManaged) {
	t.Helper()
	certificate, err := m.Get(nil)
	if err != nil {
		t.Error(err)
		return
	}
	for _, bundle := range a.bundles(t) {
		if _, err := accepts(bundle, certificate, m.clock.Now()); err != nil {
			t.Error(err)
		}
	}
}

// same says whether the Secrets hold the same under a key.
func same(a, b *corev1.Secret, key string) bool {
	return a != nil && b != nil && bytes.Equal(a.Data[key], b.Data[key])
}

// changedParts returns what of the Secret is new, in the words of the metric.
func changedParts(before, after *corev1.Secret) []string {
	var changed []string
	if !same(before, after, caKeyKey) {
		changed = append(changed, rotatedCA)
	}
	if !same(before, after, corev1.TLSPrivateKeyKey) {
		changed = append(changed, rotatedServing)
	}
	return slices.Clip(changed)
}
