// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/test/localcluster"
)

// The admission controller of the VerticalPodAutoscaler sets requests, too. Each sizes
// the containers that it is asked to, in both scheduling modes; where both are asked
// to, everynode has the last word, and nobody changes it back.
func TestVerticalPodAutoscaler(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	c.startVPA()

	sizes := func(container string) string {
		return `everynode.dev/resources: '{"` + container + `": {"cpu": "10%"}}'`
	}
	for name, tc := range map[string]struct {
		annotations   string
		main, sidecar string
		direct        bool
	}{
		"apart":     {sizes("sidecar"), "300m", "400m", false},
		"direct":    {sizes("sidecar") + ", everynode.dev/scheduling: direct", "300m", "400m", true},
		"contended": {sizes("main"), "400m", "20m", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{Cluster: c.Cluster, t: t}
			c.recommend(name, "main", "300m")
			manifest := strings.Replace(daemonSet(name, "cpu: 10m", ""), "containers: [",
				`containers: [{name: sidecar, image: "example/sidecar:1.0", resources: {requests: {cpu: 20m}}}, `, 1)
			c.apply(annotate(manifest, name, tc.annotations))
			c.eventually(30*time.Second, "one pod runs on each node, sized by both", func(ctx context.Context) error {
				return c.sizedByVPA(ctx, name, tc.main, tc.sidecar)
			})
			pods, err := c.pods(t.Context(), app(name))
			if err != nil {
				t.Fatal(err)
			}
			for i := range pods {
				if scheduled := wasScheduled(&pods[i]); scheduled == tc.direct {
					t.Errorf("pod %s went through the scheduler: %v", pods[i].Name, scheduled)
				}
			}
		})
	}
}

// sizedByVPA checks the pods of an app. Pods that were made before the recommendation
// was known to the autoscaler are made again.
func (c *cluster) sizedByVPA(ctx context.Context, agent, main, sidecar string) error {
	if err := c.runsOn(ctx, app(agent), "node-1", "node-2"); err != nil {
		return err
	}
	pods, err := c.pods(ctx, app(agent))
	if err != nil {
		return err
	}
	for i := range pods {
		pod := &pods[i]
		if pod.Annotations["vpaUpdates"] == "" {
			err := c.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
			return fmt.Errorf("the autoscaler did not know pod %s yet; deleted: %w", pod.Name, err)
		}
		for name, want := range map[string]string{"main": main, "sidecar": sidecar} {
			if got := container(pod, name).Resources.Requests.Cpu().String(); got != want {
				return fmt.Errorf("container %s of %s requests %s, want %s", name, pod.Name, got, want)
			}
		}
	}
	return nil
}

// recommend makes a VerticalPodAutoscaler for a DaemonSet, with what its recommender
// would say of a container.
func (c *cluster) recommend(name, container, cpu string) {
	c.t.Helper()
	c.apply(`
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: ` + name + `}
spec:
  targetRef: {apiVersion: apps/v1, kind: DaemonSet, name: ` + name + `}
  updatePolicy: {updateMode: Initial}
`)
	c.kubectl("patch", "verticalpodautoscaler", name, "--subresource=status", "--type=merge", "-p",
		`{"status": {"recommendation": {"containerRecommendations": [{"containerName": "`+container+`", "target": {"cpu": "`+cpu+`"}}]}}}`)
}

// startVPA starts the admission controller of the VerticalPodAutoscaler, and registers
// it as it does itself, but so that requests fail rather than pass without it.
func (c *cluster) startVPA() {
	c.t.Helper()
	c.kubectl("apply", "-f", filepath.Join(*binDir, "vpa-v1-crd-gen.yaml"))
	c.kubectl("wait", "--for=condition=Established", "crd", "verticalpodautoscalers.autoscaling.k8s.io", "--timeout=30s")

	certificate, encoded := issue(c.t, time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		c.t.Fatal(err)
	}
	dir, port := c.t.TempDir(), freePort(c.t)
	for name, content := range map[string][]byte{"tls.crt": encoded, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	controller := exec.CommandContext(c.t.Context(), filepath.Join(*binDir, "vpa-admission-controller"), "--kubeconfig="+c.Kubeconfig,
		"--register-webhook=false", fmt.Sprintf("--port=%d", port), "--address=127.0.0.1:0",
		"--tls-cert-file="+filepath.Join(dir, "tls.crt"), "--tls-private-key="+filepath.Join(dir, "tls.key"), "--client-ca-file="+filepath.Join(dir, "tls.crt"))
	var log strings.Builder
	controller.Stdout, controller.Stderr = &log, &log
	if err := controller.Start(); err != nil {
		c.t.Fatalf("%v: run make test-e2e", err)
	}
	c.t.Cleanup(func() {
		_ = controller.Wait() // It was killed when the test's context ended.
		if c.t.Failed() {
			c.t.Log(log.String())
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	c.eventually(30*time.Second, "the autoscaler listens", func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})

	_, err = c.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(c.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "vpa-webhook-config"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name:         "vpa.k8s.io",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new("https://" + address), CABundle: encoded},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// freePort returns a port that nobody listens on, for a program that cannot choose one
// itself nor share it. It is below those that the kernel gives to whoever asks for any.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 20000 + rand.IntN(10000) //nolint:gosec // no secret
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
}
