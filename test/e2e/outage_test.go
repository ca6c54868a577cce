// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/localcluster"
)

// issue returns a certificate for 127.0.0.1 that signs itself, and its PEM.
func issue(t *testing.T, expires time.Time) (certificate tls.Certificate, encoded []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: expires.Add(-time.Hour), NotAfter: expires, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serveWebhook starts a webhook and returns how to reach it.
func serveWebhook(t *testing.T, expires time.Time, handler http.HandlerFunc) admissionregistrationv1.WebhookClientConfig {
	t.Helper()
	certificate, encoded := issue(t, expires)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return admissionregistrationv1.WebhookClientConfig{URL: &server.URL, CABundle: encoded}
}

// replaceWebhook has the API server send to another server what is meant for ours.
func (c *cluster) replaceWebhook(client admissionregistrationv1.WebhookClientConfig) {
	c.t.Helper()
	api := c.Client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(c.t.Context(), "everynode", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range mutating.Webhooks {
		mutating.Webhooks[i].ClientConfig = client
	}
	if _, err := api.MutatingWebhookConfigurations().Update(c.t.Context(), mutating, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	validating, err := api.ValidatingWebhookConfigurations().Get(c.t.Context(), "everynode", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range validating.Webhooks {
		validating.Webhooks[i].ClientConfig = client
	}
	if _, err := api.ValidatingWebhookConfigurations().Update(c.t.Context(), validating, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// Whatever happens to the webhook, DaemonSets are admitted and their pods start, and
// ordinary pods notice nothing.
func TestWebhookOutage(t *testing.T) { //nolint:tparallel // one cluster, one trouble at a time
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 3)...)
	tests := []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"garbage", func(t *testing.T) {
			t.Helper()
			c.replaceWebhook(serveWebhook(t, time.Now().Add(time.Hour), func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "garbage")
			}))
		}},
		{"an expired certificate", func(t *testing.T) {
			t.Helper()
			c.replaceWebhook(serveWebhook(t, time.Now().Add(-time.Minute), func(http.ResponseWriter, *http.Request) {
				t.Error("the API server has talked to a server whose certificate is expired")
			}))
		}},
		{"hanging", func(t *testing.T) {
			t.Helper()
			c.replaceWebhook(serveWebhook(t, time.Now().Add(time.Hour), func(_ http.ResponseWriter, r *http.Request) {
				// A server notices that the client has gone once it has read the request.
				body, err := io.ReadAll(r.Body)
				for what, wrong := range map[string]bool{
					"what stays out of it": bytes.Contains(body, []byte(`"everynode.dev/webhook":"false"`)),
					"what is our own":      bytes.Contains(body, []byte(`"namespace":"everynode-system"`)),
					"an ordinary pod":      !bytes.Contains(body, []byte(`"DaemonSet"`)),
				} {
					if wrong && err == nil {
						t.Errorf("%s was sent: %s", what, body)
					}
				}
				<-r.Context().Done()
			}))
		}},
		{"killed", func(*testing.T) {
			c.Process(localcluster.EverynodeWebhook).Kill()
			nowhere := "https://127.0.0.1:1/"
			c.replaceWebhook(admissionregistrationv1.WebhookClientConfig{URL: &nowhere})
		}},
	}
	for i, tc := range tests {
		if !t.Run(tc.name, func(t *testing.T) {
			tc.damage(t)
			agent, web := fmt.Sprintf("agent-%d", i), fmt.Sprintf("web-%d", i)
			began := time.Now()
			c.apply(deployment(web, 3, "cpu: 10m"))
			c.eventually(20*time.Second, "ordinary pods run", c.running(web, 3))
			t.Logf("ordinary pods run after %s", time.Since(began).Round(100*time.Millisecond))
			began = time.Now()
			c.apply(daemonSet(agent, "cpu: 10m", ""))
			// A hanging webhook takes 2 s each time it is asked: for the DaemonSet twice, and then for its pods.
			c.eventually(40*time.Second, "daemon pods run", func(ctx context.Context) error {
				return c.runsOn(ctx, app(agent), "node-1", "node-2", "node-3")
			})
			t.Logf("daemon pods run after %s", time.Since(began).Round(100*time.Millisecond))

			// The network that leads to the webhook does not wait for it.
			network := fmt.Sprintf("network-%d", i)
			began = time.Now()
			const outside = `labels: {everynode.dev/webhook: "false"`
			c.apply(strings.NewReplacer("metadata: {name: ", "metadata: {"+outside+"}, name: ", "metadata: {labels: {", "metadata: {"+outside+", ").
				Replace(daemonSet(network, "cpu: 10m", "")))
			c.eventually(20*time.Second, "daemon pods that stay out of it run", func(ctx context.Context) error {
				return c.runsOn(ctx, app(network), "node-1", "node-2", "node-3")
			})
			t.Logf("daemon pods that stay out of it run after %s", time.Since(began).Round(100*time.Millisecond))

			// Nor does what is our own. The namespace is restricted.
			own := fmt.Sprintf("own-%d", i)
			c.apply(strings.NewReplacer("metadata: {name: ", "metadata: {namespace: "+deploy.Namespace+", name: ",
				"image:", "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, image:").
				Replace(daemonSet(own, "cpu: 10m", "securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}")))
			c.eventually(20*time.Second, "daemon pods of our own namespace run", func(ctx context.Context) error {
				return c.complete(ctx, deploy.Namespace, own, 3)
			})
		}) {
			return
		}
	}
}

// Another webhook that changes the same pods before us, or after us, so that we are
// asked again: both changes stand. Each pod is changed once, however often the webhooks are asked.
func TestSecondWebhook(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	for app, webhook := range map[string]string{"a": "a-before-everynode", "z": "z-after-everynode"} {
		c.otherWebhook(webhook, &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}})
	}
	for _, name := range []string{"a", "z"} {
		c.apply(annotate(daemonSet(name, "cpu: 10m", ""), name, `everynode.dev/resources: '{"main": {"cpu": "10%"}}'`))
		c.eventually(30*time.Second, name+" runs with both changes", func(ctx context.Context) error {
			if err := c.complete(ctx, "default", name, 2); err != nil {
				return err
			}
			pods, err := c.pods(ctx, app(name))
			if err != nil {
				return err
			}
			for i := range pods {
				containers := pods[i].Spec.Containers
				if len(containers) != 2 || containers[1].Name != "main" || containers[1].Resources.Requests.Cpu().String() != "400m" {
					return fmt.Errorf("containers of %s are %v", pods[i].Name, containers)
				}
				if n := len(containers[0].Resources.Requests); n != 0 {
					return fmt.Errorf("the sidecar of %s has been sized", pods[i].Name)
				}
			}
			return nil
		})
	}
}

// A webhook that is told to end goes on answering until nobody sends it requests any
// more. Told once more, it ends at once.
func TestWebhookEndsAtTheSecondSignal(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	r.start("--shutdown-delay=10m")
	owner, err := r.Client.AppsV1().DaemonSets("default").Get(t.Context(), "owner", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cas, err := r.trusted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leaving := r.Process("webhook-a")
	if err := syscall.Kill(leaving.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.eventually(10*time.Second, "it says that it is about to end", func(ctx context.Context) error {
		if _, err := r.get(ctx, "webhook-a", "/readyz", cas); err == nil || !strings.Contains(err.Error(), "the server is shutting down") {
			return fmt.Errorf("/readyz says %w", err)
		}
		return nil
	})
	// Both replicas are asked about it, and it is refused if one does not answer.
	if err := r.createPod(t.Context(), owner.UID); err != nil {
		t.Errorf("a pod that is created meanwhile: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := leaving.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// It ends at the second interrupt also where whoever started it ignores interrupts, as
// shells do for what runs in their background.
func TestWebhookEndsAtTheSecondInterrupt(t *testing.T) {
	t.Parallel()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "-c", `trap "" INT; exec "$0" "$@"`, filepath.Join(*binDir, "everynode-webhook"),
		"--kubeconfig="+kubeconfig, "--namespace=default", "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", freePort(t)), "--shutdown-delay=10m")
	serving, stop := context.WithCancel(ctx)
	command.Stderr = &until{want: "Serving", then: stop}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	<-serving.Done()
	if ctx.Err() != nil {
		t.Fatal("it does not serve")
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	// Two signals are one to a program that has not seen the first.
	for again := time.Tick(100 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit status 1", err)
			}
			return
		case <-again:
			// It may just have ended.
			_ = command.Process.Signal(syscall.SIGINT)
		}
	}
}
