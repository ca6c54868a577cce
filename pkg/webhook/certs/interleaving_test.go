// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
)

var seeds = flag.Uint64("seeds", 10, "how many interleavings to try")

// In the interleavings time is counted in these.
const (
	modelLifetime = 1000 * time.Second
	// shortTick and longTick are how far the clock moves at a time.
	shortTick, longTick = time.Second, 15 * time.Second
	// modelLag is how much later than others an API server may hear of a caBundle.
	modelLag = 2 * time.Second
	// modelPatience is how late a replica may be to look again, and
	modelPatience = 20 * time.Second
	// modelAbsence how long the API server may be away.
	modelAbsence = 60 * time.Second
	// faultPause is what it takes to get over a fault, at most.
	faultPause = 2 * (settleTime + modelPatience)
)

// replica is a manager that is stopped before each of its calls of the API, until it
// is told how the call ends.
type replica struct {
	m       *SelfManaged
	arrived chan struct{}
	proceed chan outcome
	ended   chan error
	syncing bool
	// begun is when the sync that is under way began, and done when the last one
	// began that has ended.
	begun, done time.Time
	// well says that it has had one without an error since the last fault.
	well bool
}

// outcome is what becomes of a call.
type outcome int

const (
	succeeds outcome = iota
	// refused calls have no effect.
	refused
	// lost calls have one, but the replica does not hear of it.
	lost
)

// model is a cluster with two replicas.
type model struct {
	t        *testing.T
	random   *rand.Rand
	api      *fakeAPI
	clock    *clocktesting.FakeClock
	replicas []*replica
	// trusted are the caBundles that an API server may still go by, with the time at
	// which they were replaced; the last of each webhook is the present one.
	trusted []trusted
	// excused says that nobody need be trusted until both replicas have looked.
	excused bool
	// faulted is when the last fault was, and awayAt when the API server went away.
	faulted, awayAt time.Time
	history         []string
	// accepted is until when a caBundle and a certificate are known to go together:
	// signatures take time to verify.
	accepted map[string]window
	// checks counts how often a replica was checked.
	checks int
}

type window struct{ from, to time.Time }

type trusted struct {
	bundles [][]byte
	until   time.Time
}

func newModel(t *testing.T, seed uint64) *model {
	t.Helper()
	m := &model{
		t:      t,
		random: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // nothing secret
		api:    newFakeAPI(),
		clock:  clocktesting.NewFakeClock(began),

		accepted: make(map[string]window),
	}
	m.api.addConfigurations(t)
	m.excused, m.faulted = true, began
	for range 2 {
		m.replicas = append(m.replicas, m.newReplica())
	}
	return m
}

func (m *model) newReplica() *replica {
	r := &replica{arrived: make(chan struct{}), proceed: make(chan outcome), ended: make(chan error), done: m.clock.Now()}
	client := m.api.client(nil)
	client.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		r.arrived <- struct{}{}
		switch <-r.proceed {
		case refused:
			return true, nil, errAway
		case lost:
			if _, _, err := m.api.react(action); err != nil {
				return true, nil, err
			}
			return true, nil, errAway
		default:
			return m.api.react(action)
		}
	})
	r.m = newManager(m.t, client, m.clock, func(o *Options) { o.Lifetime = modelLifetime })
	r.m.issuer.jitter = m.random.Float64()
	return r
}

// advance lets a replica go on until its next call, or the end of its sync.
func (m *model) advance(r *replica, how outcome) {
	if r.syncing {
		r.proceed <- how
	} else {
		r.syncing, r.begun = true, m.clock.Now()
		go func() {
			_, err := r.m.sync(m.t.Context())
			r.ended <- err
		}()
	}
	select {
	case <-r.arrived:
	case err := <-r.ended:
		r.syncing, r.done = false, r.begun
		r.well = r.well || err == nil
	}
}

// finish lets a replica end what it does.
func (m *model) finish(r *replica, how outcome) {
	for r.syncing {
		m.advance(r, how)
	}
}

// outcomeNow is how a call ends as things are.
func (m *model) outcomeNow() outcome {
	if m.awayAt.IsZero() {
		return succeeds
	}
	return refused
}

// step does one thing at random and checks what has to be true always.
func (m *model) step() {
	switch n := m.random.IntN(1000); {
	case n < 700:
		i := m.random.IntN(len(m.replicas))
		m.note("replica %d goes on", i)
		m.advance(m.replicas[i], m.outcomeNow())
	case n < 985:
		m.tick()
	case n < 988:
		i := m.random.IntN(len(m.replicas))
		if r := m.replicas[i]; r.syncing && m.awayAt.IsZero() {
			m.note("replica %d does not hear of its call", i)
			m.advance(r, lost)
		}
	case n < 991:
		i := m.random.IntN(len(m.replicas))
		m.note("replica %d is replaced", i)
		m.finish(m.replicas[i], refused)
		m.replicas[i] = m.newReplica()
	case n < 993:
		if m.awayAt.IsZero() {
			m.note("the API server goes away")
			m.awayAt = m.clock.Now()
		}
	default:
		if m.clock.Since(m.faulted) >= faultPause && m.awayAt.IsZero() {
			m.faulted = m.clock.Now()
			m.fault()
		}
	}
	m.observe()
	m.check()
}

// tick moves the clock. First it has everybody do what is overdue.
func (m *model) tick() {
	if !m.awayAt.IsZero() && m.clock.Since(m.awayAt) >= modelAbsence {
		m.note("the API server comes back")
		m.awayAt = time.Time{}
	}
	for i, r := range m.replicas {
		for m.clock.Since(r.done) >= modelPatience {
			m.note("replica %d goes on, at last", i)
			m.advance(r, m.outcomeNow())
			m.observe()
			m.check()
		}
	}
	tick := shortTick
	if m.random.IntN(4) == 0 {
		tick = longTick
	}
	m.clock.Step(tick)
	m.note("the clock moves on")
}

// fault has something go wrong in the cluster.
func (m *model) fault() {
	switch m.random.IntN(6) {
	case 0:
		m.note("the Secret is deleted")
		m.api.deleteSecret(m.t)
	case 1:
		keys := []string{caCertKey, caKeyKey, corev1.TLSCertKey, corev1.TLSPrivateKeyKey}
		key := keys[m.random.IntN(len(keys))]
		if m.api.secret(m.t) != nil {
			m.note("%s is garbled", key)
			m.api.editSecret(m.t, func(s *corev1.Secret) { s.Data[key] = []byte("garbage") })
		}
	case 2:
		m.note("a caBundle is emptied")
		configuration := m.api.mutating(m.t)
		configuration.Webhooks[m.random.IntN(len(configuration.Webhooks))].ClientConfig.CABundle = nil
		m.api.set(m.t, configuration)
		m.excuse()
	case 3:
		m.note("a webhook is added")
		configuration := m.api.mutating(m.t)
		if len(configuration.Webhooks) < 5 {
			configuration.Webhooks = append([]admissionregistrationv1.MutatingWebhook{{Name: "more"}}, configuration.Webhooks...)
		} else {
			configuration.Webhooks = configuration.Webhooks[1:]
		}
		m.api.set(m.t, configuration)
		m.excuse()
	case 4:
		m.note("the clock is set back")
		m.clock.SetTime(m.clock.Now().Add(-2 * time.Hour))
		m.jumped()
	case 5:
		m.note("the clock is set forward")
		m.clock.SetTime(m.clock.Now().Add(2 * modelLifetime))
		m.jumped()
	}
}

// jumped brings the model's own times in line with a clock that was set.
func (m *model) jumped() {
	m.faulted = m.clock.Now()
	m.excuse()
	for _, r := range m.replicas {
		r.done = m.clock.Now()
	}
}

// excuse has nobody trusted until all replicas have looked.
func (m *model) excuse() {
	m.excused = true
	for _, r := range m.replicas {
		m.finish(r, m.outcomeNow())
		r.well = false
	}
}

// observe keeps track of the caBundles that an API server may go by.
func (m *model) observe() {
	now, bundles := m.clock.Now(), m.api.bundles(m.t)
	if m.excused {
		// What was trusted before the fault does not count any more.
		m.trusted = []trusted{{bundles: bundles}}
		m.excused = slices.ContainsFunc(m.replicas, func(r *replica) bool { return !r.well })
		return
	}
	latest := &m.trusted[len(m.trusted)-1]
	if !equalBundles(latest.bundles, bundles) {
		latest.until = now
		m.trusted = append(m.trusted, trusted{bundles: bundles})
	}
	for len(m.trusted) > 1 && now.Sub(m.trusted[0].until) > modelLag {
		m.trusted = m.trusted[1:]
	}
}

func equalBundles(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, []byte("|")), bytes.Join(b, []byte("|")))
}

// check fails the test if an API server would not accept what a ready replica serves.
func (m *model) check() {
	if m.excused {
		return
	}
	for i, r := range m.replicas {
		if !r.m.trusted.Load() {
			continue
		}
		certificate, err := r.m.Get(nil)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, known := range m.trusted {
			for _, bundle := range known.bundles {
				if err := m.accepts(bundle, certificate); err != nil {
					m.t.Fatalf("%s: replica %d is not accepted: %v\nWhat has happened last:\n%s", m.clock.Now().Sub(began), i, err, strings.Join(m.history, "\n"))
				}
			}
		}
	}
}

// accepts returns an error if an API server that trusts bundle would refuse the
// certificate now.
func (m *model) accepts(bundle []byte, certificate *tls.Certificate) error {
	m.checks++
	now, key := m.clock.Now(), string(bundle)+string(certificate.Certificate[0])
	if known, ok := m.accepted[key]; ok && !now.Before(known.from) && !now.After(known.to) {
		return nil
	}
	chain, err := accepts(bundle, certificate, now)
	if err != nil {
		return err
	}
	known := window{chain[0].NotBefore, chain[0].NotAfter}
	for _, c := range chain {
		if c.NotBefore.After(known.from) {
			known.from = c.NotBefore
		}
		if c.NotAfter.Before(known.to) {
			known.to = c.NotAfter
		}
	}
	m.accepted[key] = known
	return nil
}

func (m *model) note(format string, args ...any) {
	m.history = append(m.history[max(0, len(m.history)-99):], m.clock.Now().Sub(began).String()+" "+fmt.Sprintf(format, args...))
}

// However the calls of two replicas interleave, and whatever goes wrong in between:
// an API server that trusts the caBundle, or the one of a moment ago, accepts what
// every ready replica serves.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	const steps = 4_000
	for seed := range *seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			for range steps {
				m.step()
			}
			for _, r := range m.replicas {
				m.finish(r, succeeds)
			}
			if m.checks < steps/2 {
				t.Errorf("the certificates were checked only %d times", m.checks)
			}
		})
	}
}
