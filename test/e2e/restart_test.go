// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// service does for connections what kube-proxy does: each goes to an endpoint that
// was ready when it was asked last, as kubelets ask.
type service struct {
	port     int
	mu       sync.Mutex
	ready    map[int]bool // by port
	failures map[int]int  // in a row, by port
}

// failureThreshold is after how many failures in a row an endpoint is not ready: one
// may be slow, as for kubelets.
const failureThreshold = 3

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{ready: make(map[int]bool), failures: make(map[int]int)}
	s.port = clustertest.Serve(t, s.forward)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { wait.UntilWithContext(ctx, s.probe, 100*time.Millisecond) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return s
}

// add adds an endpoint, which is not ready.
func (s *service) add(port int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready[port] = false
}

// isReady says whether connections go to an endpoint.
func (s *service) isReady(port int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready[port] {
		return fmt.Errorf("the replica on port %d is not ready", port)
	}
	return nil
}

// probe asks all endpoints whether they are ready.
func (s *service) probe(ctx context.Context) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // neither do kubelets
	}}
	s.mu.Lock()
	var ports []int
	for port := range s.ready {
		ports = append(ports, port)
	}
	s.mu.Unlock()
	for _, port := range ports {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/readyz", port), http.NoBody)
		if err != nil {
			continue
		}
		response, err := client.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		s.mu.Lock()
		if err == nil && response.StatusCode == http.StatusOK {
			s.ready[port], s.failures[port] = true, 0
		} else {
			s.failures[port]++
			s.ready[port] = s.ready[port] && s.failures[port] < failureThreshold
		}
		s.mu.Unlock()
	}
}

// forward connects a client with an endpoint that is ready.
func (s *service) forward(ctx context.Context, client net.Conn) {
	s.mu.Lock()
	target := 0
	for port, ready := range s.ready {
		if ready {
			target = port
		}
	}
	s.mu.Unlock()
	clustertest.Forward(ctx, client, target)
}

// Replicas of the webhook are replaced one after the other while pods are created: no
// admission fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *localcluster.Options) { o.Scheduler, o.Webhook = localcluster.None, false })
	c.apply(webhookService + "---" + daemonSet("owner", "", ""))
	service := newService(t)
	r := &replicas{cluster: c, ports: map[string]int{"service": service.port}}
	start := func(number int) {
		t.Helper()
		port, err := c.StartReplica(t.Context(), fmt.Sprintf("webhook-%d", number))
		if err != nil {
			t.Fatal(err)
		}
		service.add(port)
		c.eventually(30*time.Second, "the replica is ready", func(context.Context) error { return service.isReady(port) })
	}
	start(1)
	r.register()
	start(2)
	r.eventually(time.Minute, "the webhook is trusted", r.ready)

	l := r.startLoad()
	for number := 3; number <= 6; number++ {
		start(number)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := c.Process(fmt.Sprintf("webhook-%d", number-2)).Stop(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.end(l)
}
