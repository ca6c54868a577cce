// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	clienttesting "k8s.io/client-go/testing"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

const day = 24 * time.Hour

// syncNow synchronises until there is no race lost, and fails the test on an error.
func syncNow(t *testing.T, m *SelfManaged) {
	t.Helper()
	for {
		_, err := m.sync(t.Context())
		if err == nil {
			return
		}
		if !lostRace(err) {
			t.Fatal(err)
		}
	}
}

// syncAndSettle synchronises, and again when a new CA may be served.
func syncAndSettle(t *testing.T, m *SelfManaged, clock *clocktesting.FakeClock) {
	t.Helper()
	syncNow(t, m)
	clock.Step(m.settleTime)
	syncNow(t, m)
}

// Whatever has happened since everything was well, afterwards it is again.
func TestSync(t *testing.T) {
	garble := func(key string) func(*testing.T, *fakeAPI, *clocktesting.FakeClock) {
		return func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			a.editSecret(t, func(s *corev1.Secret) { s.Data[key] = []byte("garbage") })
		}
	}
	later := func(d time.Duration) func(*testing.T, *fakeAPI, *clocktesting.FakeClock) {
		return func(_ *testing.T, _ *fakeAPI, clock *clocktesting.FakeClock) { clock.Step(d) }
	}
	both, serving := []string{rotatedCA, rotatedServing}, []string{rotatedServing}
	tests := map[string]struct {
		happen func(*testing.T, *fakeAPI, *clocktesting.FakeClock)
		// flags of the replica from then on.
		edit func(*Options)
		// wantNew is what is new in the Secret, wantCAs how many CAs are trusted then.
		wantNew []string
		wantCAs int
	}{
		"nothing":                                    {wantCAs: 1},
		"the serving certificate is not due":         {happen: later(59 * day), wantCAs: 1},
		"the serving certificate is about to expire": {happen: later(65 * day), wantNew: serving, wantCAs: 1},
		"the serving certificate has expired":        {happen: later(91 * day), wantNew: serving, wantCAs: 1},
		"the CA is about to expire":                  {happen: later(260 * day), wantNew: both, wantCAs: 2},
		"the CA has expired":                         {happen: later(361 * day), wantNew: both, wantCAs: 1},
		"the clock was set back a little":            {happen: later(-30 * time.Minute), wantCAs: 1},
		"the clock was set back":                     {happen: later(-2 * time.Hour), wantNew: both, wantCAs: 2},
		"the clock was set to another age":           {happen: later(50 * 365 * day), wantNew: both, wantCAs: 1},
		"the CA is garbled":                          {happen: garble(caCertKey), wantNew: both, wantCAs: 2},
		"the key of the CA is garbled":               {happen: garble(caKeyKey), wantNew: both, wantCAs: 2},
		"the serving certificate is garbled":         {happen: garble(corev1.TLSCertKey), wantNew: serving, wantCAs: 1},
		"the key of the serving certificate is":      {happen: garble(corev1.TLSPrivateKeyKey), wantNew: serving, wantCAs: 1},
		"the Service has another name":               {edit: func(o *Options) { o.Service = "other" }, wantNew: both, wantCAs: 1},
		"the lifetime was lowered":                   {edit: func(o *Options) { o.Lifetime = 30 * day }, wantNew: both, wantCAs: 2},
		"the lifetime was raised":                    {edit: func(o *Options) { o.Lifetime = 300 * day }, wantCAs: 1},
		"the Secret was deleted":                     {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) { t.Helper(); a.deleteSecret(t) }, wantNew: both, wantCAs: 2},
		"the Secret was deleted and the CA is no use": {happen: func(t *testing.T, a *fakeAPI, clock *clocktesting.FakeClock) {
			t.Helper()
			a.deleteSecret(t)
			clock.Step(361 * day)
		}, wantNew: both, wantCAs: 1},
		"the Secret was emptied": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			a.editSecret(t, func(s *corev1.Secret) { s.Data, s.Annotations = nil, nil })
		}, wantNew: both, wantCAs: 2},
		"the Secret has the CA of somebody else too": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			a.editSecret(t, func(s *corev1.Secret) { s.Data[caCertKey] = append(s.Data[caCertKey], foreignCA(t)...) })
		}, wantCAs: 1},
		"the webhook configurations were deleted": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			if err := errors.Join(a.Delete(mutatingResource, "", "everynode"), a.Delete(validatingResource, "", "everynode")); err != nil {
				t.Fatal(err)
			}
		}, wantCAs: 1},
		"the Secret was deleted, and all who trust its CA": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			a.deleteSecret(t)
			a.addConfigurations(t)
		}, wantNew: both, wantCAs: 1},
		"a caBundle was removed": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			configuration := a.mutating(t)
			configuration.Webhooks[1].ClientConfig.CABundle = nil
			a.set(t, configuration)
		}, wantCAs: 1},
		"a caBundle trusts somebody else": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			configuration := a.mutating(t)
			bundle := &configuration.Webhooks[0].ClientConfig.CABundle
			*bundle = append(*bundle, foreignCA(t)...)
			a.set(t, configuration)
		}, wantCAs: 1},
		"a webhook was added": {happen: func(t *testing.T, a *fakeAPI, _ *clocktesting.FakeClock) {
			t.Helper()
			configuration := a.mutating(t)
			configuration.Webhooks = slices.Insert(configuration.Webhooks, 0, admissionregistrationv1.MutatingWebhook{Name: "new.everynode.dev"})
			a.set(t, configuration)
		}, wantCAs: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
			a.addConfigurations(t)
			syncAndSettle(t, newManager(t, a.client(nil), clock), clock)
			before := a.secret(t)

			if tc.happen != nil {
				tc.happen(t, a, clock)
			}
			var edits []func(*Options)
			if tc.edit != nil {
				edits = append(edits, tc.edit)
			}
			m := newManager(t, a.client(nil), clock, edits...)
			syncAndSettle(t, m, clock)

			if err := m.Healthy(); err != nil {
				t.Error(err)
			}
			after := a.secret(t)
			if diff := cmp.Diff(tc.wantNew, changedParts(before, after)); diff != "" {
				t.Errorf("new in the Secret (-want,+got):\n%s", diff)
			}
			held := m.issuer.parse(after.Data)
			if len(held.cas) != tc.wantCAs || !m.issuer.accepted(held, clock.Now()) {
				t.Errorf("%d CAs, want %d; or the certificate is not accepted", len(held.cas), tc.wantCAs)
			}
			want, err := held.bundle()
			if err != nil {
				t.Fatal(err)
			}
			for _, bundle := range a.bundles(t) {
				if diff := cmp.Diff(string(want), string(bundle)); diff != "" {
					t.Errorf("caBundle (-want,+got):\n%s", diff)
				}
			}
			if certificate, err := m.Get(nil); err != nil || !certificate.Leaf.Equal(held.serving.Leaf) {
				t.Errorf("another certificate is served than the one in the Secret (%v)", err)
			}

			// Everything is well now: nothing more is written.
			a.takeCalls()
			syncNow(t, m)
			wantCalls := []string{"get mutatingwebhookconfigurations", "get validatingwebhookconfigurations", "get secrets"}
			if diff := cmp.Diff(wantCalls, a.takeCalls()); diff != "" {
				t.Errorf("calls (-want,+got):\n%s", diff)
			}
		})
	}
}

// foreignCA returns a CA of somebody else.
func foreignCA(t *testing.T) []byte {
	t.Helper()
	ca, _, err := (&issuer{dnsName: "other.example.svc", lifetime: 90 * day}).newCA(began)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := certutil.EncodeCertificates(ca)
	if err != nil {
		t.Fatal(err)
	}
	return pem
}

func TestTheFirstReplicaMakesTheSecret(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	before := a.mutating(t)
	m := newManager(t, a.client(nil), clock)
	if err := m.Healthy(); err == nil || err.Error() != "there is no serving certificate yet" {
		t.Errorf("without a certificate: %v", err)
	}
	syncNow(t, m)
	if err := m.Healthy(); err == nil || !strings.Contains(err.Error(), "does not trust the serving certificate yet") {
		t.Errorf("before the API servers have heard of the CA: %v", err)
	}
	clock.Step(m.settleTime)
	syncNow(t, m)
	if err := m.Healthy(); err != nil {
		t.Error(err)
	}
	acceptedByAll(t, a, m)

	secret := a.secret(t)
	if secret.Type != corev1.SecretTypeTLS || secret.Annotations[ownerAnnotation] != ownerValue {
		t.Errorf("type is %s, annotations are %v", secret.Type, secret.Annotations)
	}
	// Of the webhook configuration only caBundles have changed.
	after := a.mutating(t)
	after.ResourceVersion = before.ResourceVersion
	for i := range after.Webhooks {
		after.Webhooks[i].ClientConfig.CABundle = nil
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the webhook configuration (-want,+got):\n%s", diff)
	}
	clock.Step(91 * day)
	if err := m.Healthy(); err == nil || !strings.Contains(err.Error(), "the serving certificate is valid from 2025-12-31T23:00:00Z to 2026-04-01T00:00:00Z only") {
		t.Errorf("after its certificate has expired: %v", err)
	}
}

// What the Secret has besides is nobody's business.
func TestTheRestOfTheSecretIsKept(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	empty := &corev1.Secret{Type: corev1.SecretTypeOpaque}
	empty.Namespace, empty.Name, empty.Labels = testNamespace, NewOptions().Secret, map[string]string{"app": "everynode"}
	a.set(t, empty)
	m := newManager(t, a.client(nil), clock)
	syncNow(t, m)
	a.editSecret(t, func(s *corev1.Secret) { s.Data["note"] = []byte("x") })
	clock.Step(65 * day)
	syncNow(t, m)
	if secret := a.secret(t); string(secret.Data["note"]) != "x" || secret.Labels["app"] != "everynode" || secret.Type != corev1.SecretTypeOpaque || len(secret.Data) != 5 {
		t.Errorf("labels are %v, type is %s", secret.Labels, secret.Type)
	}
	// Nobody calls us, so nobody has to be waited for.
	if err := m.Healthy(); err != nil {
		t.Error(err)
	}
}

func TestTheSecretOfSomebodyElseIsLeftAlone(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	theirs := &corev1.Secret{Data: map[string][]byte{corev1.TLSCertKey: []byte("theirs")}}
	theirs.Namespace, theirs.Name = testNamespace, NewOptions().Secret
	a.set(t, theirs)
	m := newManager(t, a.client(nil), clock)
	_, err := m.sync(t.Context())
	want := "--cert-secret: the Secret everynode-system/everynode-webhook-tls belongs to somebody else: name another, delete it, or annotate it everynode.dev/certificates: self-managed to have it replaced"
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if diff := cmp.Diff(theirs, a.secret(t)); diff != "" {
		t.Errorf("(-want,+got):\n%s", diff)
	}
	a.editSecret(t, func(s *corev1.Secret) { s.Annotations = map[string]string{ownerAnnotation: ownerValue} })
	syncNow(t, m)
}

// While an old CA is trusted everywhere and the new one perhaps not, the old one's
// certificate is served; a certificate of the same CA is taken up at once.
func TestWhenACertificateIsTakenUp(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	m, other := newManager(t, a.client(nil), clock), newManager(t, a.client(nil), clock)
	serves := func(what string, want bool) {
		t.Helper()
		certificate, err := m.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if held := m.issuer.parse(a.secret(t).Data); certificate.Leaf.Equal(held.serving.Leaf) != want {
			t.Errorf("%s: the certificate in the Secret is served: %v, want %v", what, !want, want)
		}
		acceptedByAll(t, a, m)
	}
	// untilNewCA lets time pass until other has made a CA and m has heard of it.
	untilNewCA := func() {
		t.Helper()
		for before := a.secret(t); same(before, a.secret(t), caKeyKey); {
			clock.Step(day)
			syncNow(t, other)
			syncNow(t, m)
		}
	}
	syncAndSettle(t, m, clock)
	clock.Step(65 * day)
	syncNow(t, other)
	syncNow(t, m)
	serves("a new certificate of the same CA", true)

	untilNewCA()
	serves("a new CA", false)
	clock.Step(m.settleTime - time.Millisecond)
	syncNow(t, m)
	serves("a CA that is not known long enough", false)
	clock.Step(time.Millisecond)
	syncNow(t, m)
	serves("a CA that is known", true)

	// The time counts anew if the CA was not there.
	untilNewCA()
	configuration := a.mutating(t)
	configuration.Webhooks[0].ClientConfig.CABundle = nil
	a.set(t, configuration)
	clock.Step(m.settleTime)
	syncNow(t, m)
	serves("a CA that was removed from a caBundle", false)
	clock.Step(m.settleTime)
	syncNow(t, m)
	serves("a CA that is back", true)

	// There is nothing to wait for when what is served is no use.
	clock.Step(361 * day)
	syncNow(t, m)
	serves("after everything has expired", true)
}

// Who puts back a Secret of another time, as from a backup, takes no CA away whose
// certificates are still served.
func TestAnOlderSecretIsNoHarm(t *testing.T) {
	for name, tc := range map[string]struct {
		made time.Duration
		// wantCAs are those that are trusted then: what was served, what was put back unless
		// it has expired, and a new one where that cannot sign.
		wantCAs int
	}{
		"a backup":                  {made: -30 * day, wantCAs: 2},
		"one that has expired":      {made: -1000 * day, wantCAs: 2},
		"one that is not valid yet": {made: 1000 * day, wantCAs: 3},
		"one that is due":           {made: -300 * day, wantCAs: 3},
	} {
		t.Run(name, func(t *testing.T) {
			a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
			a.addConfigurations(t)
			replicas := []*SelfManaged{newManager(t, a.client(nil), clock), newManager(t, a.client(nil), clock)}
			for _, m := range replicas {
				syncAndSettle(t, m, clock)
			}
			issuer := replicas[0].issuer
			older, _, err := issuer.renew(contents{}, began.Add(tc.made))
			if err != nil {
				t.Fatal(err)
			}
			data, err := older.encode()
			if err != nil {
				t.Fatal(err)
			}
			a.editSecret(t, func(s *corev1.Secret) { s.Data = data })
			for range 3 {
				for _, m := range replicas {
					syncNow(t, m)
					for _, m := range replicas {
						acceptedByAll(t, a, m)
					}
				}
				clock.Step(settleTime)
			}
			held := issuer.parse(a.secret(t).Data)
			if len(held.cas) != tc.wantCAs {
				t.Errorf("%d CAs are trusted, want %d", len(held.cas), tc.wantCAs)
			}
			for _, m := range replicas {
				if certificate, err := m.Get(nil); err != nil || !certificate.Leaf.Equal(held.serving.Leaf) {
					t.Errorf("another certificate is served than the one in the Secret (%v)", err)
				}
			}
		})
	}
}

// A replica that has lost sight of a newer Secret does not take its CA away.
func TestAConflictIsNoHarm(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	first := newManager(t, a.client(nil), clock)
	syncAndSettle(t, first, clock)
	clock.Step(260 * day)

	// Before slow writes anything, fast has done it all.
	fast := newManager(t, a.client(nil), clock)
	for _, verb := range []string{"update", "patch"} {
		t.Run(verb, func(t *testing.T) {
			var once sync.Once
			slow := newManager(t, a.client(func(action clienttesting.Action) error {
				if action.GetVerb() == verb {
					once.Do(func() { syncNow(t, fast) })
				}
				return nil
			}), clock)
			if verb == "patch" {
				configuration := a.mutating(t)
				configuration.Webhooks[0].ClientConfig.CABundle = nil
				a.set(t, configuration)
			}
			_, err := slow.sync(t.Context())
			if !apierrors.IsConflict(err) {
				t.Errorf("error is %v, want a conflict", err)
			}
			after := a.secret(t)
			syncNow(t, slow)
			if diff := cmp.Diff(after, a.secret(t)); diff != "" {
				t.Errorf("the loser has written again (-want,+got):\n%s", diff)
			}
			acceptedByAll(t, a, slow)
			acceptedByAll(t, a, fast)
		})
	}
}

func TestWithoutAnAPIServer(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	m := newManager(t, a.client(nil), clock)
	syncAndSettle(t, m, clock)
	a.setAway(true)
	clock.Step(65 * day)
	if _, err := m.sync(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("error is %v, want %v", err, errAway)
	}
	if err := m.Healthy(); err != nil {
		t.Error(err)
	}
	acceptedByAll(t, a, m)
	a.setAway(false)
	before := a.secret(t)
	syncNow(t, m)
	if diff := cmp.Diff([]string{rotatedServing}, changedParts(before, a.secret(t))); diff != "" {
		t.Errorf("new in the Secret (-want,+got):\n%s", diff)
	}
}

// A certificate is taken up even if the caBundles cannot be written: what was served
// before may be about to expire.
func TestACertificateIsServedThoughItCannotBePublished(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	m := newManager(t, a.client(func(action clienttesting.Action) error {
		if action.GetVerb() == "patch" {
			return errAway
		}
		return nil
	}), clock)
	if _, err := m.sync(t.Context()); err == nil || err.Error() != "patching the caBundle of the MutatingWebhookConfiguration: connection refused" {
		t.Errorf("error is %v", err)
	}
	if _, err := m.Get(nil); err != nil {
		t.Error(err)
	}
	if m.Healthy() == nil {
		t.Error("ready, though nobody trusts it")
	}
}

// run runs a source until the test ends.
func run(t *testing.T, source Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// eventually waits for a condition that does not need the clock to move.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("it does not come true: %s", what)
	}
}

// Two replicas that start at once agree, and see at once what happens to the three
// objects: the clock moves only to let them trust a CA.
func TestReplicasFollowChanges(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	a.addConfigurations(t)
	managers := []*SelfManaged{newManager(t, a.client(nil), clock), newManager(t, a.client(nil), clock)}
	for _, m := range managers {
		run(t, m)
	}
	well := func() bool {
		secret := a.secret(t)
		if secret == nil {
			return false
		}
		held := managers[0].issuer.parse(secret.Data)
		if held.serving == nil || len(held.cas) == 0 {
			return false
		}
		want, err := held.bundle()
		if err != nil {
			return false
		}
		for _, bundle := range a.bundles(t) {
			if !bytes.Equal(bundle, want) {
				return false
			}
		}
		for _, m := range managers {
			if certificate, err := m.Get(nil); err != nil || m.Healthy() != nil || !certificate.Leaf.Equal(held.serving.Leaf) {
				return false
			}
		}
		return true
	}
	settled := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			if clock.Waiters() == len(managers) {
				clock.Step(managers[0].settleTime)
			}
			return well()
		})
	}
	settled("both serve what is in the Secret")
	made := a.secret(t)
	if cas := managers[0].issuer.parse(made.Data).cas; len(cas) != 1 {
		t.Errorf("%d CAs were made", len(cas))
	}

	configuration := a.mutating(t)
	configuration.Webhooks[0].ClientConfig.CABundle = nil
	a.set(t, configuration)
	eventually(t, "an emptied caBundle is filled", well)
	a.editSecret(t, func(s *corev1.Secret) { s.Data[corev1.TLSCertKey] = []byte("garbage") })
	eventually(t, "a garbled certificate is made anew and served", well)
	a.deleteSecret(t)
	settled("a deleted Secret is made anew")
	if changed := changedParts(made, a.secret(t)); len(changed) != 2 {
		t.Errorf("only %v is new", changed)
	}
}

// timers is a clock that tells how long somebody waits.
type timers struct {
	*clocktesting.FakeClock
	started chan time.Duration
	// ended is closed when nobody listens any more.
	ended <-chan struct{}
}

func (c timers) NewTimer(d time.Duration) clock.Timer {
	timer := c.FakeClock.NewTimer(d)
	select {
	case c.started <- d:
	case <-c.ended:
	}
	return timer
}

func counted(t *testing.T, counter metrics.CounterMetric) float64 {
	t.Helper()
	value, err := testutil.GetCounterMetricValue(counter)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// Failures are counted, and retried less and less often until the cause is gone.
func TestFailuresBackOff(t *testing.T) {
	a, clock := newFakeAPI(), timers{clocktesting.NewFakeClock(began), make(chan time.Duration), t.Context().Done()}
	a.setAway(true)
	m := newManager(t, a.client(nil), clock)
	before := counted(t, failures)
	run(t, m)
	for round := range 10 {
		clock.Step(36 * time.Second)
		atLeast := min(200*time.Millisecond<<round, 30*time.Second)
		if delay := <-clock.started; delay < atLeast || delay > atLeast*6/5 {
			t.Errorf("after failure %d it waits %s, want %s to %s", round+1, delay, atLeast, atLeast*6/5)
		}
	}
	a.setAway(false)
	clock.Step(36 * time.Second)
	if delay := <-clock.started; delay != checkInterval {
		t.Errorf("when all is well it waits %s, want %s", delay, checkInterval)
	}
	if got := counted(t, failures) - before; got != 10 {
		t.Errorf("%v failures are counted, want 10", got)
	}
	a.setAway(true)
	// Changes that it has heard of meanwhile may wake it as well.
	for delay := checkInterval; delay == checkInterval; {
		clock.Step(checkInterval)
		if delay = <-clock.started; delay > 240*time.Millisecond && delay != checkInterval {
			t.Errorf("after the first failure since, it waits %s", delay)
		}
	}
}

// Whoever loses a race has nothing to complain of.
func TestALostRaceIsNoFailure(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	before := counted(t, failures)
	fast := newManager(t, a.client(nil), clock)
	var once sync.Once
	slow := newManager(t, a.client(func(action clienttesting.Action) error {
		if action.GetVerb() == "create" {
			once.Do(func() { syncNow(t, fast) })
		}
		return nil
	}), clock)
	run(t, slow)
	eventually(t, "it is ready", func() bool { return slow.Healthy() == nil })
	if got := counted(t, failures) - before; got != 0 {
		t.Errorf("%v failures are counted", got)
	}
}

func TestMetrics(t *testing.T) {
	a, clock := newFakeAPI(), clocktesting.NewFakeClock(began)
	m := newManager(t, a.client(nil), clock)
	rotated := func(what string) float64 { return counted(t, rotations.WithLabelValues(what)) }
	cas, serving := rotated(rotatedCA), rotated(rotatedServing)
	syncNow(t, m)
	clock.Step(65 * day)
	syncNow(t, m)
	if got := rotated(rotatedCA) - cas; got != 1 {
		t.Errorf("%v CAs are counted, want 1", got)
	}
	if got := rotated(rotatedServing) - serving; got != 2 {
		t.Errorf("%v serving certificates are counted, want 2", got)
	}
	if got, err := testutil.GetGaugeMetricValue(expiration); err != nil || got != float64(clock.Now().Add(90*day).Unix()) {
		t.Errorf("expiration is %v (%v)", got, err)
	}
}
