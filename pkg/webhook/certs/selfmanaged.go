// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	admissionregistrationv1informers "k8s.io/client-go/informers/admissionregistration/v1"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// settleTime is how long the caBundles must have held a CA before it is served:
	// API servers hear of a change within milliseconds, but there is no way to know.
	// It is a tenth of the lifetime at most.
	settleTime = 5 * time.Second
	// checkInterval is how long nothing is looked at if nothing happens and nothing
	// is due. Timers don't notice that the clock has been set, or that the machine
	// has slept.
	checkInterval = time.Minute
	// attemptTimeout bounds an attempt, so that an API server that does not answer
	// cannot hold it for ever.
	attemptTimeout = 30 * time.Second
)

// ownerAnnotation on a Secret says that its content is ours to replace.
const (
	ownerAnnotation = "everynode.dev/certificates"
	ownerValue      = "self-managed"
)

// SelfManaged makes the serving certificate and its CA itself, keeps them in a Secret
// that all replicas share, and keeps the caBundle of the webhook configurations
// right. The package comment says how.
//
// There are libraries for this. cert-controller of Open Policy Agent exchanges the
// CA without a time in which both are trusted, takes certificates from a mounted
// volume, where they arrive a minute late, reads all webhook configurations of the
// cluster, and needs a controller-runtime manager. The one in knative.dev/pkg makes
// a new CA for every certificate, again without an overlap, and needs a leader
// and knative's controllers. client-go's util/cert encodes and decodes for us, but
// makes RSA keys and CAs that live ten years by the machine's clock.
type SelfManaged struct {
	current
	client        kubernetes.Interface
	clock         clock.Clock
	namespace     string
	secret        string
	configuration string
	issuer        issuer
	settleTime    time.Duration
	// changed has an element when one of the objects has changed.
	changed chan struct{}
	// trusted is set once the API server can verify what is served.
	trusted atomic.Bool
	// published is the CA that all caBundles hold, and since when. Only Run uses it.
	published publication
}

// publication says since when a CA is trusted, as far as we have seen.
type publication struct {
	ca    *x509.Certificate
	since time.Time
}

// NewSelfManaged returns a source that has no certificate before it runs. options have
// to be valid.
func NewSelfManaged(client kubernetes.Interface, options Options, clock clock.Clock) (*SelfManaged, error) {
	registerMetrics()
	namespace := options.Namespace
	if namespace == "" {
		var err error
		if namespace, err = ownNamespace(namespaceFile); err != nil {
			return nil, err
		}
	}
	return &SelfManaged{
		current:       current{clock: clock},
		client:        client,
		clock:         clock,
		namespace:     namespace,
		secret:        options.Secret,
		configuration: options.WebhookConfiguration,
		issuer: issuer{
			dnsName:  options.Service + "." + namespace + ".svc",
			lifetime: options.Lifetime,
			jitter:   rand.Float64(), //nolint:gosec // nothing secret
		},
		settleTime: min(settleTime, options.Lifetime/10),
		changed:    make(chan struct{}, 1),
	}, nil
}

// Healthy returns an error until there is a valid certificate and the webhook
// configurations that exist trust it: before that, the API server could not talk
// to us anyway, and would be sent here in place of an older replica that it can
// talk to.
//
// This cannot deadlock. Nothing that Run does waits for somebody who waits for us to be
// ready: the API server never asks webhooks about webhook configurations, and it
// does not ask ours about Secrets. A configuration that does not exist yet, because
// it is installed after us, is not waited for. What remains is a caBundle that we
// may not write; a rollout that stops there, with the reason in the log, is what
// readiness is for.
//
// If a caBundle is destroyed later, we stay ready. That concerns all replicas alike,
// so nothing would be gained, and the Service would be without endpoints for much
// longer than the repair takes.
func (s *SelfManaged) Healthy() error {
	if err := s.current.Healthy(); err != nil {
		return err
	}
	if !s.trusted.Load() {
		return fmt.Errorf("the webhook configuration %s does not trust the serving certificate yet", s.configuration)
	}
	return nil
}

// Run implements Source. Without an API server it goes on with the certificate that
// it has.
func (s *SelfManaged) Run(ctx context.Context) {
	ctx = withoutBodies(ctx)
	var watches wait.Group
	defer watches.Wait()
	for _, informer := range s.informers() {
		watches.StartWithContext(ctx, informer.RunWithContext)
	}
	backoff := newBackoff()
	for ctx.Err() == nil {
		var delay time.Duration
		err := retry.OnError(retry.DefaultBackoff, lostRace, func() (err error) {
			delay, err = s.sync(ctx)
			return err
		})
		// While something is wrong, changes don't hurry us: one line for each failure, and
		// fewer the longer it lasts.
		var changed chan struct{}
		switch {
		case err == nil:
			backoff, changed = newBackoff(), s.changed
		case ctx.Err() == nil:
			failures.Inc()
			delay = backoff.Step()
			klog.FromContext(ctx).Error(err, "The certificates could not be brought up to date: check --kubeconfig and the rights of everynode-webhook", "retryIn", delay)
		}
		timer := s.clock.NewTimer(delay)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C():
		}
		timer.Stop()
	}
}

// informers watch the three objects, and nothing else, for changes.
func (s *SelfManaged) informers() []cache.SharedIndexInformer {
	only := func(name string) func(*metav1.ListOptions) {
		return func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}
	}
	informers := []cache.SharedIndexInformer{
		corev1informers.NewFilteredSecretInformer(s.client, s.namespace, 0, nil, only(s.secret)),
		admissionregistrationv1informers.NewFilteredMutatingWebhookConfigurationInformer(s.client, 0, nil, only(s.configuration)),
		admissionregistrationv1informers.NewFilteredValidatingWebhookConfigurationInformer(s.client, 0, nil, only(s.configuration)),
	}
	changed := func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	for _, informer := range informers {
		// Only an informer that has ended refuses a handler.
		_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		})
	}
	return informers
}

func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 30 * time.Second}
}

// lostRace says whether another replica, or anybody else, has written first.
func lostRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// sync brings everything up to date once, and returns when to look again.
func (s *SelfManaged) sync(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	// The configurations are read before the Secret. Whoever makes a newer CA than the one
	// that we are about to read has yet to write it into a caBundle, so that our own
	// patch, of what we have read before, fails and takes nothing away.
	configurations, err := s.configurations(ctx)
	if err != nil {
		return 0, err
	}
	held, err := s.renew(ctx, configurations)
	if err != nil {
		return 0, err
	}
	err = s.publish(ctx, held, configurations)
	// API servers that are not told to call us don't need to know us.
	settled := err == nil && (len(configurations) == 0 || s.clock.Since(s.published.since) >= s.settleTime)
	s.takeUp(ctx, held, settled)
	return s.untilNext(held, settled), err
}

// renew returns what the Secret holds, after it has written what has to be new.
func (s *SelfManaged) renew(ctx context.Context, configurations []configuration) (contents, error) {
	secrets := s.client.CoreV1().Secrets(s.namespace)
	secret, err := secrets.Get(ctx, s.secret, metav1.GetOptions{})
	write := func() (err error) { _, err = secrets.Update(ctx, secret, metav1.UpdateOptions{}); return err }
	switch {
	case apierrors.IsNotFound(err):
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.secret, Namespace: s.namespace}, Type: corev1.SecretTypeTLS}
		write = func() (err error) { _, err = secrets.Create(ctx, secret, metav1.CreateOptions{}); return err }
	case err != nil:
		return contents{}, fmt.Errorf("reading the Secret: %w", err)
	case len(secret.Data) > 0 && secret.Annotations[ownerAnnotation] != ownerValue:
		return contents{}, fmt.Errorf("--cert-secret: the Secret %s/%s belongs to somebody else: name another, delete it, or annotate it %s: %s to have it replaced",
			s.namespace, s.secret, ownerAnnotation, ownerValue)
	}

	held := s.issuer.parse(secret.Data)
	// If the Secret was lost, or replaced by an older one, replicas may still serve what
	// was in it.
	lost := s.adopt(configurations, held.cas)
	held.cas = append(held.cas, lost...)
	next, rotated, err := s.issuer.renew(held, s.clock.Now())
	if err != nil || len(rotated) == 0 && len(lost) == 0 {
		return next, err
	}
	data, err := next.encode()
	if err != nil {
		return contents{}, fmt.Errorf("encoding the certificates: %w", err)
	}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, ownerAnnotation, ownerValue)
	if secret.Data == nil {
		secret.Data = make(map[string][]byte)
	}
	maps.Copy(secret.Data, data)
	if err := write(); err != nil {
		return contents{}, fmt.Errorf("writing the Secret: %w", err)
	}
	for _, what := range rotated {
		rotations.WithLabelValues(what).Inc()
	}
	klog.FromContext(ctx).Info("Wrote the Secret", "secret", klog.KObj(secret), "made", rotated, "casFound", len(lost),
		"caExpires", next.cas[0].NotAfter, "servingExpires", next.serving.Leaf.NotAfter)
	return next, nil
}

// takeUp serves the certificate in the Secret, unless it is better to go on with
// the one that is served now because not every API server may trust the new one.
func (s *SelfManaged) takeUp(ctx context.Context, held contents, settled bool) {
	serving := s.certificate.Load()
	take := settled || serving == nil || s.current.Healthy() != nil || !held.trusts(serving) ||
		serving.Leaf.CheckSignatureFrom(held.cas[0]) == nil
	if take && (serving == nil || !serving.Leaf.Equal(held.serving.Leaf)) {
		s.set(held.serving)
		klog.FromContext(ctx).Info("Serving with a new certificate", "expires", held.serving.Leaf.NotAfter)
	}
	if settled && !s.trusted.Swap(true) {
		klog.FromContext(ctx).Info("The webhook configurations trust the certificate")
	}
}

// untilNext returns when there will be something to do even if nothing happens.
func (s *SelfManaged) untilNext(held contents, settled bool) time.Duration {
	now := s.clock.Now()
	delay := min(checkInterval, s.issuer.renewal(held.cas[0]).Sub(now), s.issuer.renewal(held.serving.Leaf).Sub(now))
	if !settled {
		delay = min(delay, s.settleTime)
	}
	return max(delay, 0)
}
