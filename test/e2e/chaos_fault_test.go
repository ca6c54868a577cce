// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// fault is what a component suffers for a while.
type fault struct {
	at, lasts time.Duration
	component string
	kind      faultKind
}

func (f fault) String() string {
	if f.kind == killed {
		return fmt.Sprintf("%4.1fs %s is killed", f.at.Seconds(), f.component)
	}
	return fmt.Sprintf("%4.1fs %s is %s for %.1fs", f.at.Seconds(), f.component, f.kind, f.lasts.Seconds())
}

type faultKind string

// A killed process is started again as soon as it has ended, as by a kubelet, and a
// halted one goes on later. Of the others the network fails: their connections to the
// API server, or its connections to them, break, or nothing that is sent arrives.
const (
	killed              faultKind = "killed"
	halted              faultKind = "halted"
	cutOff              faultKind = "cut off"
	cutOffSilently      faultKind = "cut off silently"
	unreachable         faultKind = "unreachable"
	unreachableSilently faultKind = "unreachable silently"
)

var webhookReplicas = []string{"webhook-1", "webhook-2"}

// schedulerReplicas returns the names of the schedulers, one of which localcluster has started.
func schedulerReplicas() []string { return []string{schedulerProcess(), schedulerProcess() + "-2"} }

const (
	longestFault = 6 * time.Second
	// chaosLease is shorter than usual, so that leaders change often.
	chaosLease = 6 * time.Second
)

// drawFaults returns n faults that begin within a time, in their order.
func drawFaults(random *rand.Rand, n int, within time.Duration) []fault {
	faults := make([]fault, n)
	for i := range faults {
		component := pick(random, slices.Concat(schedulerReplicas(), webhookReplicas,
			[]string{localcluster.Etcd, localcluster.APIServer, localcluster.ControllerManager})...)
		kinds := []faultKind{killed, halted}
		if component != localcluster.Etcd && component != localcluster.APIServer {
			kinds = append(kinds, cutOff, cutOffSilently)
		}
		if slices.Contains(webhookReplicas, component) {
			kinds = append(kinds, unreachable, unreachableSilently)
		}
		faults[i] = fault{
			at:        time.Duration(random.Int64N(int64(within))).Round(100 * time.Millisecond),
			lasts:     time.Duration(random.Int64N(int64(longestFault))).Round(100 * time.Millisecond),
			component: component,
			kind:      pick(random, kinds...),
		}
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return int(a.at - b.at) })
	return faults
}

// storm is a cluster whose components suffer faults.
type storm struct {
	*cluster
	service *service
	// toAPI leads from a component to the API server, and fromAPI to a webhook.
	toAPI, fromAPI map[string]*clustertest.Link
	// touched is when an object was last changed for those who have to look at it again.
	touched time.Time
	// ports are the replicas' own.
	ports map[string]int
	// api is held by a step that needs the API server, and by a fault that takes it away.
	api sync.Mutex
}

// newStorm starts a cluster with two schedulers and two webhooks behind a Service, with
// each component's network a Link, and with processes that are started again when they
// have ended. A leader that has gone is missed after lease. edit may
// change what the cluster is made of.
func newStorm(t *testing.T, lease time.Duration, edit func(*localcluster.Options)) *storm {
	t.Helper()
	leases := []string{
		"--leader-elect=true", fmt.Sprintf("--leader-elect-lease-duration=%s", lease),
		fmt.Sprintf("--leader-elect-renew-deadline=%s", lease-lease/6), "--leader-elect-retry-period=400ms",
	}
	s := &storm{
		service: newService(t), toAPI: make(map[string]*clustertest.Link), fromAPI: make(map[string]*clustertest.Link), ports: make(map[string]int),
	}
	s.cluster = newCluster(t, func(o *localcluster.Options) {
		o.Webhook = false
		randomArgs(o)
		if edit != nil {
			edit(o)
		}
	})
	s.patience = time.Minute
	s.apply(webhookService)
	var apiServer int
	if _, err := fmt.Sscanf(s.Config.Host, "https://127.0.0.1:%d", &apiServer); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var supervisors sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		supervisors.Wait()
	})
	supervise := func(name string) { supervisors.Go(func() { s.supervise(ctx, name) }) }
	begin := func(name string, start func(port int) error) {
		s.toAPI[name] = clustertest.NewLink(t, apiServer)
		if err := start(s.toAPI[name].Port); err != nil {
			t.Fatal(err)
		}
		supervise(name)
	}
	// The leases of the schedulers that were started without links are not waited for.
	s.Process(localcluster.ControllerManager).Kill()
	s.Process(schedulerProcess()).Kill()
	s.kubectl("delete", "lease", "--namespace=kube-system", "--ignore-not-found", localcluster.ControllerManager, localcluster.KubeScheduler)
	begin(localcluster.ControllerManager, func(port int) error {
		if err := s.Reroute(localcluster.ControllerManager, port); err != nil {
			return err
		}
		_, err := s.StartAgain(localcluster.ControllerManager, localcluster.ControllerManager, leases...)
		return err
	})
	for _, name := range schedulerReplicas() {
		begin(name, func(port int) error {
			own, err := s.ReservePort()
			s.ports[name] = own
			if err == nil {
				_, err = s.StartAgain(schedulerProcess(), name,
					slices.Concat(leases, []string{fmt.Sprintf("--secure-port=%d", own), fmt.Sprintf("--master=https://127.0.0.1:%d", port)})...)
			}
			return err
		})
	}
	for _, name := range webhookReplicas {
		port, err := s.StartReplica(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		s.ports[name], s.fromAPI[name] = port, clustertest.NewLink(t, port)
		s.service.add(s.fromAPI[name].Port)
		begin(name, func(port int) error {
			s.Process(name).Kill()
			return s.Reroute(name, port)
		})
	}
	supervise(localcluster.Etcd)
	supervise(localcluster.APIServer)
	s.apply(strings.ReplaceAll(string(deploy.Webhook), "path: /", fmt.Sprintf("port: %d\n        path: /", s.service.port)))
	return s
}

// supervise starts a process again whenever it has ended.
func (s *storm) supervise(ctx context.Context, name string) {
	for ctx.Err() == nil {
		select {
		case <-s.Process(name).Done():
			passes(ctx, 200*time.Millisecond)
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		if _, err := s.StartAgain(name, name); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// passes returns when so much time has passed, or ctx ends.
func passes(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// rage takes the steps one after the other within a time in which the faults begin. The
// API server is there while a step is taken, so only the webhook can make it fail. It returns
// when all faults have ended.
func (s *storm) rage(faults []fault, within time.Duration, steps ...func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	for _, f := range faults {
		group.Go(func() {
			passes(ctx, f.at)
			s.suffer(ctx, f)
		})
	}
	defer func() {
		// A step that has failed the test ends the storm.
		if s.t.Failed() {
			cancel()
		}
	}()
	for _, step := range steps {
		passes(ctx, within/time.Duration(len(steps)))
		func() {
			s.api.Lock()
			defer s.api.Unlock()
			step()
		}()
	}
	group.Wait()
	cancel()
}

// suffer has a fault happen, and end.
func (s *storm) suffer(ctx context.Context, f fault) {
	if f.component == localcluster.Etcd || f.component == localcluster.APIServer {
		s.api.Lock()
		defer s.api.Unlock()
		defer s.answers(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	process := s.Process(f.component)
	switch f.kind {
	case killed:
		process.Kill()
		err := wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) { return s.Process(f.component) != process, nil })
		if err != nil && ctx.Err() == nil {
			s.t.Error(err)
		}
		return
	case halted:
		// It may have ended by itself.
		_ = process.Pause()
		defer func() { _ = process.Resume() }()
	case cutOff:
		s.toAPI[f.component].Break()
		defer s.toAPI[f.component].Mend()
	case cutOffSilently:
		s.toAPI[f.component].Silence()
		defer s.toAPI[f.component].Mend()
	case unreachable:
		s.fromAPI[f.component].Break()
		defer s.fromAPI[f.component].Mend()
	case unreachableSilently:
		s.fromAPI[f.component].Silence()
		defer s.fromAPI[f.component].Mend()
	}
	passes(ctx, f.lasts)
}

// answers waits until the API server is ready.
func (s *storm) answers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var last error
	if err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last = s.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		return last == nil, nil
	}); err != nil && !s.t.Failed() {
		s.t.Errorf("the API server does not come back: %v", last)
	}
}
