// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// waiting is 10,000 in the scenario. The default keeps the test within a minute.
var waiting = flag.Int("waiting", 1000, "number of waiting pods in the test of which pods events wake")

// sum returns the sum of a metric of the scheduler over those of its series that have a label.
func (c *cluster) sum(ctx context.Context, metric, label string) (float64, error) {
	metrics, err := c.Get(ctx, schedulerProcess(), "/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(metrics) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, metric+"{") || !strings.Contains(series, label) {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += number
	}
	return sum, nil
}

// settledAttempts returns how often the scheduler has tried to place a pod, once so many pods
// wait and none is about to be tried.
func (c *cluster) settledAttempts(waiting int) (attempts int) {
	c.t.Helper()
	c.eventually(2*time.Minute, fmt.Sprintf("%d pods wait", waiting), func(ctx context.Context) error {
		before, err := c.sum(ctx, "scheduler_schedule_attempts_total", "")
		if err != nil {
			return err
		}
		for label, want := range map[string]int{`queue="active"`: 0, `queue="backoff"`: 0, `queue="unschedulable"`: waiting} {
			got, err := c.sum(ctx, "scheduler_pending_pods", label)
			if err != nil {
				return err
			}
			if int(got) != want {
				return fmt.Errorf("%v pods with %s, want %d", got, label, want)
			}
		}
		after, err := c.sum(ctx, "scheduler_schedule_attempts_total", "")
		if err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("the scheduler has tried %v pods meanwhile", after-before)
		}
		attempts = int(after)
		return nil
	})
	return attempts
}

// createPods creates n pods, several at a time.
func (c *cluster) createPods(name string, n int, edit func(*corev1.Pod)) {
	c.t.Helper()
	group, ctx := errgroup.WithContext(c.t.Context())
	group.SetLimit(16)
	for i := range n {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, i), Labels: app(name)},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/" + name + ":1.0", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
			}}}},
		}
		edit(pod)
		group.Go(func() error {
			_, err := c.Client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

// F14: many pods wait, half of them refused by everynode. An event wakes only those that it helps.
func TestF14WakeUps(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	// Each node has room held for one DaemonSet, whose pods do not exist.
	c.apply(daemonSet("agent", "cpu: 3500m", onNode("node-1")) + daemonSet("logs", "cpu: 3500m", "nodeSelector: {disktype: ssd}"))
	nodes := localcluster.Nodes(1, 2)
	nodes[1].Labels["disktype"] = "ssd"
	c.openNodesWithoutControllers(nodes...)
	uid := strings.TrimSpace(c.kubectl("get", "daemonset", "agent", "-o", "jsonpath={.metadata.uid}"))

	quarter := *waiting / 4
	c.createPods("held", quarter, func(*corev1.Pod) {})
	c.createPods("needy", quarter, func(pod *corev1.Pod) { pod.Annotations = map[string]string{"everynode.dev/requires": "default/agnet"} })
	c.createPods("elsewhere", 2*quarter, func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{"colour": "blue"} })
	waiting := 4 * quarter
	before := c.settledAttempts(waiting)
	if err := c.allTried("held", quarter, 0, cpuHeld)(t.Context()); err != nil {
		t.Fatal(err)
	}

	// own are attempts of other pods that belong to the event.
	events := []struct {
		what                   string
		do                     func()
		own, atMost, wantBound int
	}{
		{what: "a daemon pod is bound and turns Ready", own: 1, do: func() {
			c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: agent-1
  labels: {app: agent}
  ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: agent, uid: %s, controller: true}]
spec:
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]}}}
  containers: [{name: main, image: "example/agent:1.0", resources: {requests: {cpu: 3500m}}}]
`, uid))
			c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
		}},
		{what: "a node gets a label that no pod selects", do: func() { c.kubectl("label", "node", "node-1", "shape=round") }},
		{what: "a DaemonSet gets another image", do: func() { c.kubectl("set", "image", "daemonset/logs", "main=example/logs:2.0") }},
		{what: "a DaemonSet gives up the room held for it", atMost: quarter, wantBound: 4, do: func() { c.kubectl("annotate", "daemonset", "logs", "everynode.dev/hold=false") }},
		{what: "a node gets the label that half of them select", atMost: 2 * quarter, do: func() { c.kubectl("label", "node", "node-1", "colour=blue") }},
	}
	for i, event := range events {
		event.do()
		waiting -= event.wantBound
		// The scheduler sees the event before it sees this pod.
		probe := fmt.Sprintf("probe-%d", i)
		c.apply(barePod(probe, "cpu: 1m", onNode("node-1")))
		c.eventually(time.Minute, "a later pod runs", c.running(probe, 1))
		after := c.settledAttempts(waiting)
		woken := after - before - 1 - event.own
		t.Logf("%s: %d of %d waiting pods were tried again", event.what, woken, waiting+event.wantBound)
		if woken > event.atMost || woken < event.wantBound {
			t.Errorf("%s: %d pods were tried again, want %d to %d", event.what, woken, event.wantBound, event.atMost)
		}
		before = after
	}
	if got := len(c.boundUIDs("held")); got != 4 {
		t.Errorf("%d pods run in the room that was given up, want 4", got)
	}
}

// A DaemonSet pod that its node has no room for is tried again when that node changes, and
// not when pods go elsewhere.
func TestPinnedPodsWaitForTheirOwnNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	for _, node := range []string{"node-1", "node-2"} {
		c.createPods("full-"+node, 4, func(pod *corev1.Pod) { pod.Spec.NodeName = node })
	}
	c.apply(strings.Replace(daemonSet("agent", "cpu: 1", ""), "{name: agent}", `{name: agent, annotations: {everynode.dev/preempt: "false"}}`, 1))
	before := c.settledAttempts(2)
	for i, node := range []string{"node-2", "node-1"} {
		c.kubectl("delete", "pod", "full-"+node+"-0")
		c.eventually(time.Minute, "the pod of "+node+" runs", c.running("agent", i+1))
		after := c.settledAttempts(1 - i)
		if after != before+1 {
			t.Errorf("%d pods were tried when a pod of %s went, want the one of this node", after-before, node)
		}
		before = after
	}
}
