// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package real

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/image"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir    = flag.String("bin", "../../bin", "folder with the programs that make build-real makes")
	artifacts = flag.String("artifacts", "", "folder that receives the logs of clusters whose test failed")
)

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "localcluster", "build-real") }

// skipIfMissing skips the test where real nodes cannot run.
func skipIfMissing(t *testing.T) {
	t.Helper()
	if missing := localcluster.MissingForRealNodes(*binDir); len(missing) > 0 {
		t.Skip("real nodes need " + strings.Join(missing, "; "))
	}
}

// registry and tag are those of all images of the tests.
const (
	registry = "localhost"
	tag      = "test"
)

// writeImages writes the images of the tests into a folder.
func writeImages(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	for _, program := range []string{filepath.Join("node", "workload"), localcluster.EverynodeScheduler, localcluster.EverynodeWebhook} {
		name := filepath.Base(program)
		path := filepath.Join(dir, name+".tar")
		image := image.Image{Reference: registry + "/" + name + ":" + tag, Programs: []string{filepath.Join(*binDir, program)}, User: "65532:65532"}
		if err := image.WriteArchive(path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// cluster is a cluster with real nodes. t is that of the test that uses it now.
type cluster struct {
	*localcluster.Cluster
	*testing.T
	stopped bool
}

// newCluster starts a cluster with three nodes, node-1 to node-3.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	began := time.Now()
	started, err := localcluster.Start(t.Context(), localcluster.Options{
		BinDir:    *binDir,
		Scheduler: localcluster.Stock,
		RealNodes: 3,
		Images:    writeImages(t, t.TempDir()),
		Args: map[string][]string{
			// How long a node may be silent before it counts as not ready. The default is
			// 50 s, a kubelet here speaks every 4 s.
			localcluster.ControllerManager: {"--node-monitor-grace-period=15s"},
		},
	})
	c := &cluster{Cluster: started, T: t}
	t.Cleanup(c.stop)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the cluster was ready in %.1fs", time.Since(began).Seconds())
	return c
}

// stop ends the cluster. It may be called more than once.
func (c *cluster) stop() {
	if c.stopped {
		return
	}
	c.stopped = true
	if c.Failed() {
		clustertest.KeepLogs(c, c.Cluster, *artifacts)
	}
	c.Stop()
}

// in returns the cluster for a subtest.
func (c *cluster) in(t *testing.T) *cluster {
	t.Helper()
	return &cluster{Cluster: c.Cluster, T: t}
}

// kubectl runs kubectl and returns what it prints.
func (c *cluster) kubectl(args ...string) string {
	c.Helper()
	return clustertest.Kubectl(c, c.Cluster, args...)
}

// apply applies manifests.
func (c *cluster) apply(manifests string) {
	c.Helper()
	clustertest.Apply(c, c.Cluster, manifests)
}

// applyForTest applies manifests, and deletes what they describe when the test has ended.
func (c *cluster) applyForTest(manifests string) {
	c.Helper()
	c.apply(manifests)
	c.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), patience)
		defer cancel()
		if _, err := c.Kubectl(ctx, []byte(manifests), "delete", "--ignore-not-found", "-f", "-"); err != nil {
			c.Error(err)
		}
	})
}

// patience is how long anything may take on a busy machine.
const patience = 2 * time.Minute

// eventually waits until check returns nil.
func (c *cluster) eventually(what string, check func(context.Context) error) {
	c.Helper()
	clustertest.Eventually(c, patience, what, check)
}

// pods returns the pods of an app that are not on their way out.
func (c *cluster) pods(ctx context.Context, app string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			pods = append(pods, list.Items[i])
		}
	}
	return pods, nil
}

// podOn returns the pod of an app on a node.
func (c *cluster) podOn(ctx context.Context, app, node string) (*corev1.Pod, error) {
	pods, err := c.pods(ctx, app)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if pods[i].Spec.NodeName == node {
			return &pods[i], nil
		}
	}
	return nil, fmt.Errorf("no pod of %s is on %s", app, node)
}

// readyOn checks that an app has one pod on each of the nodes, that it is ready,
// and that it has no others.
func (c *cluster) readyOn(ctx context.Context, app string, nodes ...string) error {
	pods, err := c.pods(ctx, app)
	if err != nil {
		return err
	}
	if len(pods) != len(nodes) {
		return fmt.Errorf("%s has %d pods, want %d", app, len(pods), len(nodes))
	}
	for _, node := range nodes {
		pod, err := c.podOn(ctx, app, node)
		if err != nil {
			return err
		}
		if !clustertest.IsReady(pod) {
			return fmt.Errorf("%s on %s is not ready: %s", pod.Name, node, whyNot(pod))
		}
	}
	return nil
}

// whyNot returns what is said of a pod that does not run.
func whyNot(pod *corev1.Pod) string {
	for i := range pod.Status.ContainerStatuses {
		if waiting := pod.Status.ContainerStatuses[i].State.Waiting; waiting != nil {
			return waiting.Reason + ": " + waiting.Message
		}
	}
	for i := range pod.Status.Conditions {
		if condition := &pod.Status.Conditions[i]; condition.Status == corev1.ConditionFalse {
			return fmt.Sprintf("%s: %s %s", condition.Type, condition.Reason, condition.Message)
		}
	}
	return string(pod.Status.Phase)
}

// restarts returns how often a pod's container was started again.
func restarts(pod *corev1.Pod) int32 {
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// everyNode are the nodes of a cluster.
var everyNode = []string{"node-1", "node-2", "node-3"}

// template returns a pod template as hardened as an agent's can be. All pods are
// placed by everynode: kube-scheduler would give room that it frees to others.
func template(app, requests string) string {
	return fmt.Sprintf(`
    metadata: {labels: {app: %[1]s}}
    spec:
      schedulerName: everynode-scheduler
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: main
          image: %[2]s/workload:%[3]s
          args: [serve]
          resources: {requests: {%[4]s}}
          securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          readinessProbe: {httpGet: {port: 8080, path: /healthz}, periodSeconds: 1, failureThreshold: 1}
`, app, registry, tag, requests)
}

// daemonSet returns a manifest. annotations are those of the DaemonSet.
func daemonSet(name, annotations, requests, nodeSelector string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, annotations: {%[2]s}}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template: %[3]s
      nodeSelector: {%[4]s}
---
`, name, annotations, template(name, requests), nodeSelector)
}

// deployment returns a manifest.
func deployment(name string, replicas int, requests, nodeSelector string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template: %[3]s
      nodeSelector: {%[4]s}
---
`, name, replicas, template(name, requests), nodeSelector)
}
