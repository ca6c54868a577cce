// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// tutorial lists the DaemonSets that a newcomer meets first: name, namespace.
var tutorial = map[string]string{
	"filebeat": "default", "fluentd": "default", "node-exporter": "default", "calico-node": "kube-system",
}

func (c *cluster) applyTutorial() {
	c.t.Helper()
	c.applyExamples("filebeat", "fluentd", "node-exporter", "calico-node")
}

func (c *cluster) tutorialComplete(nodes int32) func(context.Context) error {
	return func(ctx context.Context) error {
		var errs []error
		for name, namespace := range tutorial {
			errs = append(errs, c.complete(ctx, namespace, name, nodes))
		}
		return errors.Join(errs...)
	}
}

func TestT1TutorialReachesEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 4)...)
	c.applyTutorial()
	c.eventually(30*time.Second, "all DaemonSets are complete", c.tutorialComplete(4))

	table := strings.Fields(c.kubectl("get", "daemonset", "filebeat", "--no-headers"))
	if want := "filebeat 4 4 4 4 4"; strings.Join(table[:6], " ") != want {
		t.Errorf("kubectl get daemonset shows %v, want %s", table, want)
	}
	pods := strings.Split(strings.TrimSpace(c.kubectl("get", "pods", "-l", "app=filebeat", "--no-headers")), "\n")
	for _, pod := range pods {
		if columns := strings.Fields(pod); columns[1] != "1/1" || columns[2] != "Running" {
			t.Errorf("kubectl get pods shows %s", pod)
		}
	}
	if len(pods) != 4 {
		t.Errorf("kubectl get pods shows %d pods, want 4", len(pods))
	}
}

func TestT2NodesJoinAndLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 3)...)
	c.applyTutorial()
	c.eventually(30*time.Second, "all DaemonSets are complete", c.tutorialComplete(3))

	c.addNodes(localcluster.Nodes(4, 1)...)
	c.eventually(10*time.Second, "the new node has all daemon pods", c.tutorialComplete(4))

	c.kubectl("delete", "node", "node-4")
	// The pod garbage collector looks every 20 s and waits 40 s for the node to come
	// back. The DaemonSet controller hears of it by the pods.
	c.eventually(90*time.Second, "the pods of the deleted node are gone", func(ctx context.Context) error {
		pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node-4"})
		if err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("%d pods are left", len(pods.Items))
		}
		return nil
	})
	c.eventually(10*time.Second, "the DaemonSets count three nodes", c.tutorialComplete(3))
}

func TestT3NodeSelector(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 3)
	nodes[1].Labels["disktype"] = "ssd"
	c.addNodes(nodes...)
	c.applyExamples("node-selector")
	onlyOn := func(want ...string) func(context.Context) error {
		return func(ctx context.Context) error { return c.runsOn(ctx, app("node-selector"), want...) }
	}
	c.eventually(20*time.Second, "only the labelled node has a pod", onlyOn("node-2"))
	c.kubectl("label", "node", "node-3", "disktype=ssd")
	c.eventually(20*time.Second, "the newly labelled node gets a pod", onlyOn("node-2", "node-3"))
	c.kubectl("label", "node", "node-2", "disktype-")
	c.eventually(20*time.Second, "the node without the label loses its pod", onlyOn("node-3"))
}

func TestT4NodeAffinity(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 4) // zones a, b, c, a
	nodes[3].Labels["node-role.kubernetes.io/control-plane"] = ""
	c.addNodes(nodes...)
	c.applyExamples("zone-affinity", "exclude-control-plane")
	c.eventually(20*time.Second, "the zones have their pods", func(ctx context.Context) error {
		return c.runsOn(ctx, app("zone-affinity"), "node-1", "node-2", "node-4")
	})
	c.eventually(20*time.Second, "all but the control plane have pods", func(ctx context.Context) error {
		return c.runsOn(ctx, app("exclude-control-plane"), "node-1", "node-2", "node-3")
	})
	pods, err := c.pods(t.Context(), app("zone-affinity"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		if preferred := pods[i].Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(preferred) != 1 {
			t.Errorf("pod %s has lost its preferred affinity: %v", pods[i].Name, preferred)
		}
	}
}

func TestT5TaintsAndTolerations(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *localcluster.Options) {
		// Nodes are looked at that often, and given up after that long.
		o.Args = map[string][]string{localcluster.ControllerManager: {"--node-monitor-period=1s"}}
	})
	nodes := localcluster.Nodes(1, 3)
	nodes[2].Taints = []corev1.Taint{{Key: "node-role", Value: "compute", Effect: corev1.TaintEffectNoSchedule}}
	c.addNodes(nodes...)
	c.applyExamples("taints", "rolling-update")
	c.eventually(20*time.Second, "the tolerating DaemonSet is on every node", func(ctx context.Context) error {
		return c.runsOn(ctx, app("taints"), "node-1", "node-2", "node-3")
	})
	c.eventually(20*time.Second, "the other one is not on the tainted node", func(ctx context.Context) error {
		return c.runsOn(ctx, app("rolling-update"), "node-1", "node-2")
	})

	// An ordinary pod that leaves a failing node at once tells when the node's
	// pods are being evicted.
	c.apply(`
apiVersion: v1
kind: Pod
metadata: {name: canary}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}]
  containers: [{name: main, image: "example/canary:1.0"}]
`)
	before, err := c.pods(t.Context(), app("taints"))
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl("annotate", "node", "node-1", "localcluster.everynode.dev/ready=false")
	c.eventually(30*time.Second, "the canary leaves the node that is not ready", func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Pods("default").Get(ctx, "canary", metav1.GetOptions{})
		if err == nil {
			return errors.New("the canary is still there")
		}
		return nil
	})
	after, err := c.pods(t.Context(), app("taints"))
	if err != nil {
		t.Fatal(err)
	}
	uids := make(map[string]bool)
	for i := range before {
		uids[string(before[i].UID)] = true
	}
	for i := range after {
		if !uids[string(after[i].UID)] || after[i].DeletionTimestamp != nil {
			t.Errorf("daemon pod %s did not stay", after[i].Name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d daemon pods, want %d as before", len(after), len(before))
	}
}

func TestT6RollingUpdateAndRollback(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 4)...)
	c.applyExamples("rolling-update")
	c.kubectl("rollout", "status", "daemonset/rolling-update", "--timeout=30s")

	// From now on never more than one node may be without a ready pod.
	ctx, cancel := context.WithCancel(t.Context())
	broken := make(chan string, 1)
	watching := c.watchCoverage(ctx, app("rolling-update"), 4, 1, broken)

	c.kubectl("set", "image", "daemonset/rolling-update", "agent=example/agent:2.0")
	if output := c.kubectl("rollout", "status", "daemonset/rolling-update", "--timeout=60s"); !strings.Contains(output, "successfully rolled out") {
		t.Errorf("rollout status says %q", output)
	}
	c.hasImage("rolling-update", "example/agent:2.0")
	if history := c.kubectl("rollout", "history", "daemonset/rolling-update"); !strings.Contains(history, "1 ") || !strings.Contains(history, "2 ") {
		t.Errorf("rollout history shows\n%s", history)
	}

	c.kubectl("rollout", "undo", "daemonset/rolling-update", "--to-revision=1")
	c.kubectl("rollout", "status", "daemonset/rolling-update", "--timeout=60s")
	c.hasImage("rolling-update", "example/agent:1.0")

	before, err := c.pods(t.Context(), app("rolling-update"))
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl("rollout", "restart", "daemonset/rolling-update")
	c.kubectl("rollout", "status", "daemonset/rolling-update", "--timeout=60s")
	after, err := c.pods(t.Context(), app("rolling-update"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		for j := range after {
			if before[i].UID == after[j].UID {
				t.Errorf("pod %s was not restarted", after[j].Name)
			}
		}
	}

	cancel()
	<-watching
	select {
	case problem := <-broken:
		t.Error(problem)
	default:
	}
}

// hasImage checks that all pods of a DaemonSet run that image.
func (c *cluster) hasImage(name, image string) {
	c.t.Helper()
	pods, err := c.pods(c.t.Context(), app(name))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range pods {
		if got := pods[i].Spec.Containers[0].Image; got != image {
			c.t.Errorf("pod %s runs %s, want %s", pods[i].Name, got, image)
		}
	}
}

// watchCoverage watches pods until ctx ends, and reports the first moment at which
// more than maxMissing of the nodes had no ready pod. It watches when it returns.
func (c *cluster) watchCoverage(ctx context.Context, selector map[string]string, nodes, maxMissing int, broken chan<- string) <-chan struct{} {
	c.t.Helper()
	list, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: selector})})
	if err != nil {
		c.t.Fatal(err)
	}
	watcher, err := c.Client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{
		LabelSelector:   metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: selector}),
		ResourceVersion: list.ResourceVersion,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ready := make(map[string]string) // node by pod
	for i := range list.Items {
		if clustertest.IsReady(&list.Items[i]) {
			ready[list.Items[i].Name] = list.Items[i].Spec.NodeName
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer watcher.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case event, ok := <-watcher.ResultChan():
				if !ok {
					broken <- "the watch has ended"
					return
				}
				pod, ok := event.Object.(*corev1.Pod)
				if !ok {
					broken <- fmt.Sprintf("the watch says %v", event.Object)
					return
				}
				if event.Type != watch.Deleted && clustertest.IsReady(pod) {
					ready[pod.Name] = pod.Spec.NodeName
				} else {
					delete(ready, pod.Name)
				}
				covered := make(map[string]bool)
				for _, node := range ready {
					covered[node] = true
				}
				if missing := nodes - len(covered); missing > maxMissing {
					broken <- fmt.Sprintf("%d nodes had no ready pod at once, allowed is %d", missing, maxMissing)
					return
				}
			}
		}
	}()
	return done
}
