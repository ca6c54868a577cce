// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/webhook/certs"
)

// startRoutes serves all routes as Run does. edit may change the server before it starts.
func startRoutes(t *testing.T, clientCAFile string, edit func(*server)) (s *server, host string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	pool = writeCertificate(t, dir, "only")
	options := testOptions(dir)
	options.ClientCAFile = clientCAFile
	certificate, err := newCertificates(nil, options)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := newClients(options.ClientCAFile)
	if err != nil {
		t.Fatal(err)
	}
	a := (&fakeCluster{}).admission()
	listener, err := listen(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	s = newServer(options, certificate)
	if edit != nil {
		edit(s)
	}
	s.http.Handler = routes{
		mutatePods: clients.only(a.mutatePods()), mutateDaemonSets: clients.only(a.mutateDaemonSets()), validateDaemonSets: clients.only(a.validateDaemonSets()),
		healthz: checks(), readyz: checks(), metrics: http.NotFoundHandler(),
	}.handler()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		// Requests that are in flight on purpose do not end by themselves.
		_ = s.http.Close()
		if err := <-ended; err != nil {
			t.Logf("serving ended: %v", err)
		}
	})
	return s, listener.Addr().String(), pool
}

// dial opens a connection without a request.
func dial(t *testing.T, host string, pool *x509.CertPool) *tls.Conn {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return connection.(*tls.Conn)
}

// clientOf returns a client that speaks HTTP/2.
func clientOf(t *testing.T, pool *x509.CertPool, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// send posts a body and returns what the server answers.
func send(t *testing.T, client *http.Client, host string, body io.Reader, length int64) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/mutate/pods?timeout=30s", body)
	if err != nil {
		return 0, "", err
	}
	request.ContentLength = length
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(content), err
}

// answersReviews fails the test unless a review has its answer.
func answersReviews(t *testing.T, host string, pool *x509.CertPool) {
	t.Helper()
	review := reviewOf(t, daemonsettest.BoundPod(daemonsettest.Agent("agent"), "node"), nil)
	status, body, err := send(t, clientOf(t, pool), host, bytes.NewReader(review), int64(len(review)))
	if err != nil || status != http.StatusOK || !strings.Contains(body, `"patch"`) {
		t.Errorf("a review is answered by %d %q (%v)", status, body, err)
	}
}

// trickle is a body that comes byte by byte, each when it is asked for.
type trickle chan struct{}

func (c trickle) Read(p []byte) (int, error) {
	if _, ok := <-c; !ok {
		return 0, errors.New("the test has ended")
	}
	p[0] = ' '
	return 1, nil
}

func (s *server) requests() int {
	s.inFlight.mu.Lock()
	defer s.inFlight.mu.Unlock()
	return s.inFlight.requests.Len()
}

func inUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse + stats.StackInuse
}

// Clients that announce large bodies and send next to nothing take little memory, and
// do not keep the API server from an answer.
func TestSlowClients(t *testing.T) {
	// The clients' own memory is in it.
	const most = 128 << 20
	t.Run("headers only, HTTP/1.1", func(t *testing.T) {
		s, host, pool := startRoutes(t, "", nil)
		before := inUse()
		for range 100 {
			fmt.Fprintf(dial(t, host, pool), "POST /mutate/pods?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", maxBody)
		}
		eventually(t, "all requests are in flight", func() bool { return s.requests() == 100 })
		answersReviews(t, host, pool)
		if took := inUse() - before; took > most {
			t.Errorf("they take %d bytes, want at most %d", took, most)
		}
	})
	t.Run("1,000 streams of HTTP/2, byte by byte", func(t *testing.T) {
		s, host, pool := startRoutes(t, "", nil)
		body := make(trickle)
		defer close(body)
		before := inUse()
		for range 10 {
			client := clientOf(t, pool)
			// All streams then use the connection of the first request.
			if _, _, err := send(t, client, host, http.NoBody, 0); err != nil {
				t.Fatal(err)
			}
			for range maxStreams {
				go func() { _, _, _ = send(t, client, host, body, maxBody) }()
			}
		}
		eventually(t, "as many requests as allowed are in flight", func() bool { return s.requests() == maxRequests })
		for range 1000 {
			body <- struct{}{}
		}
		answersReviews(t, host, pool)
		if took := inUse() - before; took > most {
			t.Errorf("they take %d bytes, want at most %d", took, most)
		}
	})
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) { return condition(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Few bytes can become many objects.
func TestSmallTextLargeObjects(t *testing.T) {
	_, host, pool := startRoutes(t, "", nil)
	for name, element := range map[string]string{"containers": "{}", "strings": `""`, "lists": "[]"} {
		body := `{"request": {"object": {"spec": {"containers": [` + strings.Repeat(element+",", (maxBody-100)/(len(element)+1)) + `{}]}}}}`
		status, answer, err := send(t, clientOf(t, pool), host, strings.NewReader(body), int64(len(body)))
		if err != nil || status != http.StatusRequestEntityTooLarge || !strings.Contains(answer, errTooLarge.Error()) {
			t.Errorf("%s: the answer is %d %q (%v)", name, status, answer, err)
		}
	}
	answersReviews(t, host, pool)
}

// What is a large object in a cluster is answered: as large as etcd stores it by default.
func TestLargeObjectIsAnswered(t *testing.T) {
	_, host, pool := startRoutes(t, "", nil)
	pod := daemonsettest.BoundPod(daemonsettest.Agent("agent"), "node")
	pod.Annotations = map[string]string{"large": strings.Repeat("x", 1<<20)}
	for range 400 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, pod.Spec.Containers[0].Env[:20]...)
	}
	review := reviewOf(t, pod, nil)
	if len(review) < 1536<<10 {
		t.Fatalf("the review has %d bytes", len(review))
	}
	if status, answer, err := send(t, clientOf(t, pool), host, bytes.NewReader(review), int64(len(review))); err != nil || status != http.StatusOK {
		t.Errorf("the answer is %d %q (%v)", status, answer, err)
	}
}

// Whichever limit is reached: the oldest request ends, and the newest is answered.
func TestOldestRequestIsCutOff(t *testing.T) {
	for name, edit := range map[string]func(*inFlight){
		"too many requests": func(f *inFlight) { f.maxRequests = 2 },
		"too much memory":   func(f *inFlight) { f.maxMemory = 700 << 10 }, // two reviews of a pod
	} {
		t.Run(name, func(t *testing.T) {
			s, host, pool := startRoutes(t, "", func(s *server) { edit(s.inFlight) })
			body := make(trickle)
			defer close(body)
			begin := func(text string) *tls.Conn {
				t.Helper()
				before := s.requests()
				connection := dial(t, host, pool)
				fmt.Fprintf(connection, "POST /mutate/pods?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n%s", text)
				eventually(t, "the request is in flight", func() bool { return s.requests() == before+1 })
				return connection
			}
			oldest := begin(strings.Repeat("{", 500))
			begin("")
			answersReviews(t, host, pool)
			answer, err := io.ReadAll(oldest)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), errCutOff.Error()) {
				t.Errorf("the oldest request gets %q (%v)", answer, err)
			}
			if got := s.requests(); got != 1 {
				t.Errorf("%d requests are in flight, want the second one only", got)
			}
		})
	}
}

// No route waits for long for a body or for a header.
func TestSlowRequestsEndOnEveryRoute(t *testing.T) {
	t.Parallel()
	if s := newServer(testOptions(t.TempDir()), &certs.Files{}); s.http.ReadTimeout != readTimeout || s.http.ReadHeaderTimeout != headerTimeout ||
		s.http.WriteTimeout == 0 || s.http.IdleTimeout != idleTimeout || s.http.MaxHeaderBytes != maxHeader {
		t.Errorf("limits are missing: %+v", s.http)
	}
	_, host, pool := startRoutes(t, "", func(s *server) {
		s.http.ReadTimeout, s.http.ReadHeaderTimeout = 200*time.Millisecond, 200*time.Millisecond
	})
	for _, request := range []string{
		"POST /elsewhere", "GET /healthz", "GET /readyz", "GET /metrics", "PUT /mutate/pods",
		"POST /mutate/pods?timeout=200ms", "POST /mutate/daemonsets?timeout=200ms", "POST /validate/daemonsets?timeout=200ms",
	} {
		for name, rest := range map[string]string{"body": " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", "header": " HTTP/1.1\r\nHost: x\r\n"} {
			t.Run(request+" "+name, func(t *testing.T) {
				t.Parallel()
				connection := dial(t, host, pool)
				fmt.Fprint(connection, request+rest)
				if _, err := io.ReadAll(connection); err != nil {
					t.Errorf("the server does not end the connection: %v", err)
				}
			})
		}
	}
}

func TestLargeHeaderIsRefused(t *testing.T) {
	_, host, pool := startRoutes(t, "", nil)
	connection := dial(t, host, pool)
	go fmt.Fprintf(connection, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*maxHeader))
	answer := make([]byte, len("HTTP/1.1 431 "))
	if _, err := io.ReadFull(connection, answer); err != nil || string(answer) != "HTTP/1.1 431 " {
		t.Errorf("the answer is %q (%v)", answer, err)
	}
}

// Connections beyond the limit close those that have waited for longest: with a
// request, the handshake or half a header, whatever they are at.
func TestConnectionsAreLimited(t *testing.T) {
	const most = 5
	limits := &connections{max: most}
	_, host, pool := startRoutes(t, "", func(s *server) { s.http.ConnState = limits.changed })
	open := func() int {
		limits.mu.Lock()
		defer limits.mu.Unlock()
		return len(limits.open)
	}
	for name, text := range map[string]string{"idle": "", "half a header": "GET /healthz HTTP/1.1\r\n"} {
		oldest := dial(t, host, pool)
		fmt.Fprint(oldest, text)
		for range 2 * most {
			fmt.Fprint(dial(t, host, pool), text)
		}
		if _, err := oldest.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("%s: the oldest connection is not closed: %v", name, err)
		}
		answersReviews(t, host, pool)
		if got := open(); got > most {
			t.Errorf("%s: %d connections are open, want at most %d", name, got, most)
		}
	}
}

// With --client-ca-file reviews are for clients with a certificate of it, and probes for all.
func TestClientCA(t *testing.T) {
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	ours, others := newClientCA(t), newClientCA(t)
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.certificate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, host, pool := startRoutes(t, caFile, nil)
	for name, tc := range map[string]struct {
		certificates []tls.Certificate
		want         int
	}{
		"without":               {nil, http.StatusUnauthorized},
		"of another CA":         {[]tls.Certificate{others.issue(t, x509.ExtKeyUsageClientAuth)}, http.StatusUnauthorized},
		"for servers":           {[]tls.Certificate{ours.issue(t, x509.ExtKeyUsageServerAuth)}, http.StatusUnauthorized},
		"of the CA in the file": {[]tls.Certificate{ours.issue(t, x509.ExtKeyUsageClientAuth)}, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			client := clientOf(t, pool, tc.certificates...)
			review := reviewOf(t, daemonsettest.BoundPod(daemonsettest.Make("agent").Obj(), "node"), nil)
			if status, answer, err := send(t, client, host, bytes.NewReader(review), int64(len(review))); err != nil || status != tc.want {
				t.Errorf("the answer is %d %q (%v), want %d", status, answer, err, tc.want)
			}
		})
	}
	// Nothing of its body is waited for.
	connection := dial(t, host, pool)
	fmt.Fprintf(connection, "POST /mutate/pods?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", maxBody)
	answer := make([]byte, len("HTTP/1.1 401 "))
	if _, err := io.ReadFull(connection, answer); err != nil || string(answer) != "HTTP/1.1 401 " {
		t.Errorf("the answer is %q (%v)", answer, err)
	}
	if status, _, err := fetch(t, pool, "https://"+host+"/healthz", tls.VersionTLS13); err != nil || status != http.StatusOK {
		t.Errorf("the probe gets %d (%v)", status, err)
	}
}

// clientCA issues client certificates.
type clientCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newClientCA(t *testing.T) *clientCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &clientCA{certificate, key}
}

func (ca *clientCA) issue(t *testing.T, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ca.key}
}
