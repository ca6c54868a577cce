// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	certutil "k8s.io/client-go/util/cert"

	"everynode.dev/everynode/pkg/webhook/certs"
)

// writeCertificate writes a new certificate for 127.0.0.1 over the files of an
// earlier one, and returns it for clients to trust.
func writeCertificate(t *testing.T, dir, name string) *x509.CertPool {
	t.Helper()
	cert, key, err := certutil.GenerateSelfSignedCertKey(name, []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{"tls.key": key, "tls.crt": cert} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func testOptions(dir string) *Options {
	options := NewOptions()
	options.BindAddress = net.IPv4(127, 0, 0, 1)
	options.SecurePort = 0
	options.TLSCertFile, options.TLSPrivateKeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	options.ShutdownDelay = 0
	return options
}

func fetch(t *testing.T, pool *x509.CertPool, url string, tlsVersion uint16) (int, string, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, MaxVersion: tlsVersion, MinVersion: tls.VersionTLS10}, //nolint:gosec // to be refused
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// start serves handler and returns its URL and the means to end it.
func start(t *testing.T, options *Options, certificate certs.Source, handler http.Handler) (s *server, url string, stop func() error) {
	t.Helper()
	listener, err := listen(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	s = newServer(options, certificate)
	s.http.Handler = handler
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, listener) }()
	return s, "https://" + listener.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

func TestServing(t *testing.T) {
	dir := t.TempDir()
	pool := writeCertificate(t, dir, "first")
	options := testOptions(dir)
	certificate, err := newCertificates(nil, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go certificate.Run(ctx)
	handler := routes{
		mutatePods: (&fakeCluster{}).admission().mutatePods(),
		healthz:    checks(),
		readyz:     checks(certificate.Healthy, func() error { return errors.New("not today") }),
		metrics:    http.NotFoundHandler(),
	}.handler()
	_, url, stop := start(t, options, certificate, handler)

	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/healthz":     {http.StatusOK, "ok\n"},
		"/readyz":      {http.StatusServiceUnavailable, "not today\n"},
		"/mutate/pods": {http.StatusMethodNotAllowed, ""},
		"/elsewhere":   {http.StatusNotFound, "404 page not found\n"},
	} {
		if status, body, err := fetch(t, pool, url+path, tls.VersionTLS13); err != nil || status != want.status || body != want.body {
			t.Errorf("%s answers %d %q (%v), want %d %q", path, status, body, err, want.status, want.body)
		}
	}
	if _, _, err := fetch(t, pool, url+"/healthz", tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2 is refused: %v", err)
	}
	if _, _, err := fetch(t, pool, url+"/healthz", tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is accepted")
	}

	// A new certificate is used without a restart.
	pool = writeCertificate(t, dir, "second")
	if err := wait.PollUntilContextCancel(t.Context(), 10*time.Millisecond, true, func(context.Context) (bool, error) {
		_, _, err := fetch(t, pool, url+"/healthz", tls.VersionTLS13)
		return err == nil, nil
	}); err != nil {
		t.Errorf("the new certificate is not used: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatAreUnderWayAreFinished(t *testing.T) {
	dir := t.TempDir()
	pool := writeCertificate(t, dir, "only")
	options := testOptions(dir)
	certificate, err := newCertificates(nil, options)
	if err != nil {
		t.Fatal(err)
	}
	arrived, finish := make(chan struct{}), make(chan struct{})
	s, url, stop := start(t, options, certificate, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		_, _ = io.WriteString(w, "done")
	}))
	answered := make(chan string, 1)
	go func() {
		_, body, err := fetch(t, pool, url, tls.VersionTLS13)
		answered <- body + errText(err)
	}()
	<-arrived
	if s.healthy() != nil {
		t.Error("not healthy while serving")
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		return s.healthy() != nil, nil
	}); err != nil {
		t.Error("healthy while leaving")
	}
	close(finish)
	if got := <-answered; got != "done" {
		t.Errorf("the request that was under way got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A client that sends a part of a request and no more gets its answer when the API
// server would have stopped waiting, and its connection is closed.
func TestSlowRequestsAreCutOff(t *testing.T) {
	dir := t.TempDir()
	pool := writeCertificate(t, dir, "only")
	options := testOptions(dir)
	certificate, err := newCertificates(nil, options)
	if err != nil {
		t.Fatal(err)
	}
	_, url, stop := start(t, options, certificate, (&fakeCluster{}).admission().mutatePods())
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(connection, "POST /?timeout=100ms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "reading the request: ") {
		t.Errorf("answer is %q (%v)", answer, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A client that keeps its connections, as the API server does, loses no request when
// the server ends while another one takes over.
func TestNoRequestIsLostWhenTheServerLeaves(t *testing.T) {
	dir := t.TempDir()
	pool := writeCertificate(t, dir, "only")
	options := testOptions(dir)
	// Each connection has to be used once more meanwhile, on a busy machine too.
	options.ShutdownDelay = time.Second
	certificate, err := newCertificates(nil, options)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	_, next, stopNext := start(t, options, certificate, handler)
	for range 5 {
		s, url, stop := start(t, options, certificate, handler)
		client := &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 25, // as client-go's
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			// As behind a Service: new connections go to a server that is ready.
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if s.healthy() != nil {
					addr = strings.TrimPrefix(next, "https://")
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
		}}
		ctx, cancel := context.WithCancel(t.Context())
		var sent atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for ctx.Err() == nil {
					request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("review"))
					if err != nil {
						t.Error(err)
						return
					}
					response, err := client.Do(request)
					if err != nil {
						t.Errorf("a request is lost: %v", err)
						return
					}
					response.Body.Close()
					sent.Add(1)
				}
			})
		}
		if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
			return sent.Load() > 100 || t.Failed(), nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		cancel()
		group.Wait()
		client.CloseIdleConnections()
	}
	if err := stopNext(); err != nil {
		t.Error(err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestErrorsNameTheFlag(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "only")
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(`{"apiVersion": "v1", "kind": "Config",
		"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
		"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	validate := func(o *Options) error { return o.Validate() }
	run := func(o *Options) error { return Run(t.Context(), o) }
	tests := map[string]struct {
		edit func(*Options)
		call func(*Options) error
		want string
	}{
		"a lease without a namespace": {
			func(o *Options) { o.Binder.SchedulerLeases = map[string]string{"a": "b"} }, validate, `--scheduler-leases: the lease of a is "b", must be namespace/name`,
		},
		"a port that is none":   {func(o *Options) { o.SecurePort = 70000 }, validate, "--secure-port is 70000, must be between 1 and 65535"},
		"half a certificate":    {func(o *Options) { o.TLSCertFile = "" }, validate, "--tls-cert-file and --tls-private-key-file: give both, or neither"},
		"a short life":          {func(o *Options) { o.Certificates.Lifetime = 0 }, validate, "--cert-lifetime is 0s, must be between 5s and 87600h0m0s"},
		"an old TLS version":    {func(o *Options) { o.TLSMinVersion = "VersionTLS10" }, validate, `--tls-min-version is "VersionTLS10", must be VersionTLS12 or VersionTLS13`},
		"an unknown cipher":     {func(o *Options) { o.TLSCipherSuites = []string{"ROT13"} }, validate, "--tls-cipher-suites: Cipher suite ROT13 not supported"},
		"a negative delay":      {func(o *Options) { o.ShutdownDelay = -time.Second }, validate, "--shutdown-delay is -1s, must not be negative"},
		"a missing certificate": {func(o *Options) { o.TLSCertFile = "/nowhere" }, run, "--tls-cert-file, --tls-private-key-file: open /nowhere: no such file or directory"},
		"a missing kubeconfig":  {func(o *Options) { o.Kubeconfig = "/nowhere" }, run, "--kubeconfig: stat /nowhere: no such file or directory"},
		"a port in use":         {func(o *Options) { o.SecurePort = taken.Addr().(*net.TCPAddr).Port }, run, "--bind-address, --secure-port: listen tcp " + taken.Addr().String() + ": bind: address already in use"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			options := testOptions(dir)
			options.SecurePort = 1
			options.Kubeconfig = filepath.Join(dir, "kubeconfig")
			tc.edit(options)
			if err := tc.call(options); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %s", err, tc.want)
			}
		})
	}
}
