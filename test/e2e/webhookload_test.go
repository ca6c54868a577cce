// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// webhookMemoryLimit is that of the chart (webhook.resources.limits.memory), in bytes.
const webhookMemoryLimit = 512 << 20

// peakMemory returns the most memory that the webhook has had resident, in bytes.
func (c *cluster) peakMemory() int {
	c.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process(localcluster.EverynodeWebhook).Pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		c.t.Fatalf("no peak in %s", status)
	}
	peak, err := strconv.Atoi(string(match[1]))
	if err != nil {
		c.t.Fatal(err)
	}
	return peak << 10
}

// webhookURL returns the URL by which the API server reaches the webhook for pods.
func (c *cluster) webhookURL() *url.URL {
	c.t.Helper()
	webhook, err := c.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(c.t.Context(), "everynode", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	address, err := url.Parse(*webhook.Webhooks[0].ClientConfig.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	return address
}

// drip is a body that comes byte by byte, one for each that is sent to it.
type drip chan struct{}

func (d drip) Read(p []byte) (int, error) {
	if _, ok := <-d; !ok {
		return 0, errors.New("the test has ended")
	}
	p[0] = ' '
	return 1, nil
}

// W1: clients that send headers only, or bodies byte by byte, on many connections and
// streams, take no more memory than the chart allows, and the API server's reviews are
// answered meanwhile.
func TestW1SlowClients(t *testing.T) {
	t.Parallel()
	if *installed {
		t.Skip("the address of an installed webhook is a Service")
	}
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 3)...)
	address := c.webhookURL()
	insecure := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // a hostile client does not care
	const length = 7 << 20

	for range 100 {
		connection, err := (&tls.Dialer{Config: insecure}).DialContext(t.Context(), "tcp", address.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { connection.Close() })
		fmt.Fprintf(connection, "POST /mutate/pods?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", length)
	}
	body := make(drip)
	for range 10 {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: insecure.Clone()}}
		post := func(body io.Reader, length int64) error {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address.String()+"?timeout=30s", body)
			if err != nil {
				return err
			}
			request.ContentLength = length
			request.Header.Set("Content-Type", "application/json")
			answer, err := client.Do(request)
			if err != nil {
				return err
			}
			return answer.Body.Close()
		}
		if err := post(http.NoBody, 0); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			go func() { _ = post(body, length) }() // It fails when it is cut off.
		}
	}
	// One byte a second for each stream, until the test ends.
	stopped := make(chan struct{})
	t.Cleanup(func() { <-stopped })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		defer close(stopped)
		defer close(body)
		for ctx.Err() == nil {
			select {
			case body <- struct{}{}:
			case <-ctx.Done():
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()

	// The webhook binds these pods; without it a scheduler would.
	c.apply(annotate(daemonSet("direct", "", ""), "direct", "everynode.dev/scheduling: direct"))
	c.eventually(30*time.Second, "the DaemonSet runs", func(ctx context.Context) error {
		return c.runsOn(ctx, app("direct"), "node-1", "node-2", "node-3")
	})
	for range 5 {
		before := c.boundUIDs("direct")
		c.kubectl("delete", "pod", "-l", "app=direct", "--wait=false")
		c.eventually(30*time.Second, "its pods are replaced", func(ctx context.Context) error {
			if len(c.gone("direct", before)) < 3 {
				return errors.New("not all pods have been replaced")
			}
			return c.runsOn(ctx, app("direct"), "node-1", "node-2", "node-3")
		})
		pods, err := c.pods(t.Context(), app("direct"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range pods {
			if wasScheduled(&pods[i]) {
				t.Errorf("pod %s was not sent through the webhook", pods[i].Name)
			}
		}
	}
	if peak := c.peakMemory(); peak > webhookMemoryLimit/2 {
		t.Errorf("the webhook has taken %d MiB, want at most half of its limit of %d MiB", peak>>20, webhookMemoryLimit>>20)
	} else {
		t.Logf("the webhook has taken %d MiB at most", peak>>20)
	}
}

// W3: a DaemonSet follows a policy that is changed, then removed, at its next update.
func TestW3PolicyIsFollowed(t *testing.T) {
	t.Parallel()
	const first = `  - {name: all, annotations: {everynode.dev/gate: "true"}, daemonSet: {tolerations: [{key: first, operator: Exists}], schedulerName: another}}`
	const second = `  - {name: all, annotations: {everynode.dev/gate: "false"}, daemonSet: {tolerations: [{key: second, operator: Exists}]}}`
	file := newPolicyFile(t, first)
	c := newCluster(t, file.used)
	c.apply(daemonSet("agent", "", "tolerations: [{key: own, operator: Exists}]"))
	state := func() string {
		ds, err := c.Client.AppsV1().DaemonSets("default").Get(t.Context(), "agent", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, toleration := range ds.Spec.Template.Spec.Tolerations {
			keys = append(keys, toleration.Key)
		}
		return fmt.Sprintf("gate %q, tolerations %s, scheduler %s", ds.Annotations["everynode.dev/gate"], strings.Join(keys, ","), ds.Spec.Template.Spec.SchedulerName)
	}
	if got, want := state(), `gate "true", tolerations own,first, scheduler another`; got != want {
		t.Errorf("with the policy: %s, want %s", got, want)
	}
	updates := 0
	follows := func(what, policies, want string) {
		t.Helper()
		file.write(t, policies)
		c.eventually(20*time.Second, what, func(context.Context) error {
			updates++
			c.kubectl("label", "daemonset", "agent", "--overwrite", fmt.Sprintf("update=%d", updates))
			if got := state(); got != want {
				return fmt.Errorf("%s, want %s", got, want)
			}
			return nil
		})
	}
	follows("the changed policy", second, `gate "false", tolerations own,second, scheduler `+corev1.DefaultSchedulerName)
	follows("no policy", "  []", `gate "", tolerations own, scheduler `+corev1.DefaultSchedulerName)
	ds, err := c.Client.AppsV1().DaemonSets("default").Get(t.Context(), "agent", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key := range ds.Annotations {
		if strings.Contains(key, "everynode.dev/") {
			t.Errorf("annotation %s is left", key)
		}
	}
}

// W4: a pod that asks for direct scheduling and has a claim of a WaitForFirstConsumer
// class is left to the scheduler, which has the claim bound, and runs.
func TestW4DirectWithClaim(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(`
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  local: {path: /data}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: buffer}
spec: {accessModes: [ReadWriteOnce], storageClassName: local, resources: {requests: {storage: 1Gi}}}
---
` + annotate(daemonSet("agent", "", "volumes: [{name: buffer, persistentVolumeClaim: {claimName: buffer}}]"), "agent", "everynode.dev/scheduling: direct"))
	c.addNodes(localcluster.Nodes(1, 1)...)
	c.eventually(30*time.Second, "the pod runs", func(ctx context.Context) error { return c.runsOn(ctx, app("agent"), "node-1") })
	pods, err := c.pods(t.Context(), app("agent"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) != 1 || !wasScheduled(&pods[0]) {
		t.Errorf("the scheduler did not place the pods: %v", pods)
	}
	if phase := c.kubectl("get", "pvc", "buffer", "-o", "jsonpath={.status.phase}"); phase != "Bound" {
		t.Errorf("the claim is %s", phase)
	}
}
