// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/webhook/binder"
	"everynode.dev/everynode/pkg/webhook/certs"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// Run serves until ctx ends, then until the requests that are under way are done.
// options have to be valid.
func Run(ctx context.Context, options *Options) error {
	registerMetrics()
	config, err := clientConfig(options.Kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "everynode-webhook"
	policies, err := policy.NewSource(options.Config, observeConfig)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	observeConfig(nil)
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making the API client: %w", err)
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making the API client: %w", err)
	}
	cluster := newCluster(meta, client, options.LimitedPriorityClasses)
	admission := &admission{cluster: cluster, policies: policies.Policies}
	// Each binding takes a request or two, and many pods may wait.
	config.QPS, config.Burst = 50, 100
	bindingClient, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making the API client: %w", err)
	}
	outages := binder.New(bindingClient, options.Binder, admission.schedulesAuto)
	certificate, err := newCertificates(client, options)
	if err != nil {
		return err
	}
	clients, err := newClients(options.ClientCAFile)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, options)
	if err != nil {
		return err
	}

	s := newServer(options, certificate)
	s.http.Handler = routes{
		mutatePods:         clients.only(admission.mutatePods()),
		mutateDaemonSets:   clients.only(admission.mutateDaemonSets()),
		validateDaemonSets: clients.only(admission.validateDaemonSets()),
		healthz:            checks(),
		readyz:             checks(s.healthy, certificate.Healthy, cluster.healthy),
		metrics:            legacyregistry.HandlerWithReset(),
	}.handler()

	klog.FromContext(ctx).Info("Serving", "address", listener.Addr().String())
	// What requests need lives until the last of them is done.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error { cluster.run(background); return nil })
	group.Go(func() error { policies.Run(background); return nil })
	group.Go(func() error { certificate.Run(background); return nil })
	group.Go(func() error { clients.run(background); return nil })
	group.Go(func() error { outages.Run(ctx); return nil })
	err = s.serve(ctx, listener)
	stop()
	return errors.Join(err, group.Wait())
}

// clientConfig says how to reach the API server: as kubeconfig does, or as a pod does.
func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig is required outside of a cluster: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}

// newCertificates returns the source of certificates that options ask for.
func newCertificates(client kubernetes.Interface, options *Options) (certs.Source, error) {
	if options.TLSCertFile != "" {
		return certs.NewFiles(options.TLSCertFile, options.TLSPrivateKeyFile, clock.RealClock{})
	}
	return certs.NewSelfManaged(client, options.Certificates, clock.RealClock{})
}

func listen(ctx context.Context, options *Options) (net.Listener, error) {
	var config net.ListenConfig
	if options.PermitPortSharing {
		config.Control = func(_, _ string, conn syscall.RawConn) error {
			var err error
			return errors.Join(conn.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}), err)
		}
	}
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(options.BindAddress.String(), strconv.Itoa(options.SecurePort)))
	if err != nil {
		return nil, fmt.Errorf("--bind-address, --secure-port: %w", err)
	}
	return listener, nil
}

func tlsConfig(options *Options, certificate certs.Source) *tls.Config {
	// Options.Validate has seen that both are known.
	minVersion, _ := cliflag.TLSVersion(options.TLSMinVersion)
	suites, _ := cliflag.TLSCipherSuites(options.TLSCipherSuites)
	config := &tls.Config{
		MinVersion:     minVersion,
		CipherSuites:   suites,
		GetCertificate: certificate.Get,
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if options.ClientCAFile != "" {
		// Kubelets probe without a certificate, so the routes decide who needs one.
		config.ClientAuth = tls.RequestClientCert
	}
	return config
}

// server is an HTTP server that limits its clients, and that ends without losing a request.
type server struct {
	http          *http.Server
	inFlight      *inFlight
	shutdownDelay time.Duration
	leaving       atomic.Bool
}

// newServer returns a server that has no handler yet.
func newServer(options *Options, certificate certs.Source) *server {
	connections := &connections{max: maxConnections}
	return &server{
		http: &http.Server{
			TLSConfig:         tlsConfig(options, certificate),
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			// No request takes longer than the 30 s that a webhook configuration may allow.
			WriteTimeout:   maxTimeout + 5*time.Second,
			IdleTimeout:    idleTimeout,
			MaxHeaderBytes: maxHeader,
			HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame},
			ConnState:      connections.changed,
			ErrorLog:       klog.NewStandardLogger("INFO"),
		},
		inFlight:      newInFlight(),
		shutdownDelay: options.ShutdownDelay,
	}
}

// serve serves until ctx ends. Then it reports that it is not ready, goes on for
// a while until everybody has noticed, and finishes what it has begun.
func (s *server) serve(ctx context.Context, listener net.Listener) error {
	s.http.Handler = s.inFlight.limit(s.closeWhenLeaving(s.http.Handler))
	ended := make(chan error, 1)
	go func() { ended <- s.http.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	s.leaving.Store(true)
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-time.After(s.shutdownDelay):
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxTimeout)
	defer cancel()
	return s.http.Shutdown(drain)
}

// closeWhenLeaving asks clients of a server that is about to end to close their connections.
// The API server keeps connections, and sends no POST again: one that it sends in
// the moment in which Shutdown closes its idle connection is lost (EOF). With this,
// Shutdown finds only connections that nobody uses.
func (s *server) closeWhenLeaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// healthy returns an error when the server is about to end.
func (s *server) healthy() error {
	if s.leaving.Load() {
		return errors.New("the server is shutting down")
	}
	return nil
}

// checks answers "ok", or 503 and all that is wrong.
func checks(checks ...func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check())
		}
		if err := errors.Join(errs...); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}
