// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package real

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"everynode.dev/everynode/test/clustertest"
)

// everynode is installed as users do it, and what follows depends on its pods: the
// cluster's own kube-scheduler knows nothing of room for DaemonSets, and without an
// answer of the webhook no DaemonSet and none of its pods is admitted.
func TestRealNodes(t *testing.T) {
	skipIfMissing(t)
	before := takeInventory(t)
	c := newCluster(t)
	footprint := footprintOf(t, c.Process("node-1/machine").Pid())
	objects := clustertest.Objects(t, c.Cluster)
	c.install()
	c.apply(daemonSet("agent", "", "cpu: 10m", ""))
	c.eventually("the agent is ready on every node", func(ctx context.Context) error {
		return c.readyOn(ctx, "agent", everyNode...)
	})
	for name, test := range map[string]func(*cluster){
		"everynode runs without rights":          everynodeRunsWithoutRights,
		"everynode's scheduler places the agent": everynodePlacesAgent,
		"pods run without root's rights":         runsAsNobody,
		"probes are run":                         probesAreRun,
		"a Service leads to its pods":            serviceLeadsToPods,
		"an eviction stops a container":          evictionStopsContainer,
	} {
		t.Run(name, func(t *testing.T) { test(c.in(t)) })
	}
	t.Run("a pod starts with no scheduler running, by the webhook", func(t *testing.T) { startsWithoutScheduler(c.in(t)) })
	t.Run("everynode runs as any user", func(t *testing.T) { everynodeRunsAsAnyUser(c.in(t)) })
	t.Run("the webhook is reached on the host network", func(t *testing.T) { webhookOnHostNetwork(c.in(t)) })
	t.Run("a node comes back after a power cut", func(t *testing.T) { comesBack(c.in(t)) })
	t.Run("nothing of everynode stays when it is uninstalled", func(t *testing.T) { uninstallsCleanly(c.in(t), objects) })

	if diff := cmp.Diff(before, takeInventory(t)); diff != "" {
		t.Errorf("a running cluster changes the host (-before, +during):\n%s", diff)
	}
	c.stop()
	if left := footprint.left(); len(left) > 0 {
		t.Errorf("these are left behind: %s", strings.Join(left, ", "))
	}
	if diff := cmp.Diff(before, takeInventory(t)); diff != "" {
		t.Errorf("the host has changed (-before, +after):\n%s", diff)
	}
}

// The containers are what the pods' security contexts say, and kubectl reaches them.
func runsAsNobody(c *cluster) {
	for _, node := range everyNode {
		pod, err := c.podOn(c.Context(), "agent", node)
		if err != nil {
			c.Fatal(err)
		}
		want := "user 65532, group 65532\nopen /written: read-only file system\n"
		if diff := cmp.Diff(want, c.kubectl("exec", pod.Name, "--", "/workload", "whoami")); diff != "" {
			c.Errorf("%s on %s (-want, +got):\n%s", pod.Name, node, diff)
		}
		if diff := cmp.Diff(pod.Name+" serves\n", c.kubectl("logs", pod.Name)); diff != "" {
			c.Errorf("log of %s on %s (-want, +got):\n%s", pod.Name, node, diff)
		}
	}
}

// A pod is ready as long as its container says so.
func probesAreRun(c *cluster) {
	pod, err := c.podOn(c.Context(), "agent", "node-1")
	if err != nil {
		c.Fatal(err)
	}
	for _, ready := range []int32{2, 3} {
		c.kubectl("exec", pod.Name, "--", "/workload", "get", fmt.Sprintf("http://127.0.0.1:8080/healthz?ready=%t", ready == 3))
		c.eventually(fmt.Sprintf("the DaemonSet has %d ready pods", ready), func(ctx context.Context) error {
			ds, err := c.Client.AppsV1().DaemonSets("default").Get(ctx, "agent", metav1.GetOptions{})
			if err == nil && ds.Status.NumberReady != ready {
				err = fmt.Errorf("%d are", ds.Status.NumberReady)
			}
			return err
		})
	}
}

// kube-proxy sends what pods on every node send to a Service to its pods on all nodes.
func serviceLeadsToPods(c *cluster) {
	c.applyForTest(`
apiVersion: v1
kind: Service
metadata: {name: agent}
spec:
  selector: {app: agent}
  ports: [{port: 80, targetPort: 8080}]
`)
	service, err := c.Client.CoreV1().Services("default").Get(c.Context(), "agent", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	pods, err := c.pods(c.Context(), "agent")
	if err != nil {
		c.Fatal(err)
	}
	for _, from := range pods {
		answered := make(map[string]bool)
		c.eventually("the Service leads from "+from.Spec.NodeName+" to pods on every node", func(ctx context.Context) error {
			answer, err := c.Kubectl(ctx, nil, "exec", from.Name, "--", "/workload", "get", "http://"+service.Spec.ClusterIP)
			if err != nil {
				return err
			}
			answered[strings.TrimSpace(answer)] = true
			if len(answered) < len(pods) {
				return fmt.Errorf("only these answered: %v", answered)
			}
			return nil
		})
	}
}

// Where a DaemonSet pod takes the room of a pod of its own priority, that pod's
// container ends, and the other one's does not notice.
func evictionStopsContainer(c *cluster) {
	node, err := c.Client.CoreV1().Nodes().Get(c.Context(), "node-2", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	share := func(percent int64) string {
		return fmt.Sprintf("cpu: %dm", node.Status.Allocatable.Cpu().MilliValue()*percent/100)
	}
	// The others take no pods until the node is full, and then have room for what is evicted.
	c.kubectl("cordon", "node-1", "node-3")
	c.applyForTest(deployment("filler", 2, share(40), ""))
	var fillers []corev1.Pod
	c.eventually("the node is full", func(ctx context.Context) (err error) {
		if fillers, err = c.pods(ctx, "filler"); err != nil {
			return err
		}
		if len(fillers) != 2 {
			return fmt.Errorf("%d pods exist, want 2", len(fillers))
		}
		for i := range fillers {
			if !clustertest.IsReady(&fillers[i]) {
				return errors.New(whyNot(&fillers[i]))
			}
		}
		return nil
	})
	c.kubectl("uncordon", "node-1", "node-3")
	for i := range fillers {
		if n := len(processesOfPod(&fillers[i])); n != 1 {
			c.Fatalf("%s has %d processes, want 1", fillers[i].Name, n)
		}
	}

	c.applyForTest(daemonSet("claims", "", share(30), "kubernetes.io/hostname: node-2"))
	c.eventually("the DaemonSet pod is ready", func(ctx context.Context) error {
		return c.readyOn(ctx, "claims", "node-2")
	})
	var stopped, spared []corev1.Pod
	for i := range fillers {
		if len(processesOfPod(&fillers[i])) == 0 {
			stopped = append(stopped, fillers[i])
		} else {
			spared = append(spared, fillers[i])
		}
	}
	if len(stopped) != 1 || len(spared) != 1 {
		c.Fatalf("%d containers were stopped and %d spared, want 1 of each", len(stopped), len(spared))
	}
	if killed := c.kubectl("get", "events", "--field-selector=reason=Killing,involvedObject.name="+stopped[0].Name, "-o", "name"); killed == "" {
		c.Errorf("the kubelet says nothing of having stopped %s", stopped[0].Name)
	}
	same, err := c.Client.CoreV1().Pods("default").Get(c.Context(), spared[0].Name, metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	if same.UID != spared[0].UID || restarts(same) != 0 {
		c.Errorf("%s was disturbed: it was restarted %d times", same.Name, restarts(same))
	}
}

// With everynode.dev/scheduling: direct the webhook gives pods their node. They
// start then although nothing schedules, and other pods don't.
func startsWithoutScheduler(c *cluster) {
	c.scaleScheduler(0)
	c.applyForTest(daemonSet("direct", "everynode.dev/scheduling: direct", "cpu: 10m", ""))
	c.applyForTest(daemonSet("scheduled", "", "cpu: 10m", ""))
	c.eventually("the pods are ready on every node", func(ctx context.Context) error {
		return c.readyOn(ctx, "direct", everyNode...)
	})
	pods, err := c.pods(c.Context(), "scheduled")
	if err != nil {
		c.Fatal(err)
	}
	if len(pods) != len(everyNode) || slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Spec.NodeName != "" }) {
		c.Errorf("%d pods of the other DaemonSet exist, want 3, none with a node", len(pods))
	}
	c.scaleScheduler(2)
	c.eventually("the others are ready with the scheduler", func(ctx context.Context) error {
		return c.readyOn(ctx, "scheduled", everyNode...)
	})
}

// A node whose power is cut takes its containers along. When it boots again, its
// DaemonSet pod goes on there: the same pod, in a new container.
func comesBack(c *cluster) {
	before, err := c.podOn(c.Context(), "agent", "node-3")
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	if err := c.CutPower(ctx, "node-3"); err != nil {
		c.Fatal(err)
	}
	if n := len(processesOfPod(before)); n != 0 {
		c.Fatalf("%d processes of %s are left", n, before.Name)
	}
	c.eventually("the node and the pod on it are not ready", func(ctx context.Context) error {
		pod, err := c.podOn(ctx, "agent", "node-3")
		if err == nil && podutil.IsPodReady(pod) {
			err = errors.New("the pod is")
		}
		return err
	})
	if err := c.BootNode(ctx, "node-3"); err != nil {
		c.Fatal(err)
	}
	c.eventually("the agent is ready on every node again", func(ctx context.Context) error {
		return c.readyOn(ctx, "agent", everyNode...)
	})
	after, err := c.podOn(c.Context(), "agent", "node-3")
	if err != nil {
		c.Fatal(err)
	}
	if after.UID != before.UID || restarts(after) <= restarts(before) {
		c.Errorf("pod %s was restarted %d times, and is pod %s now, restarted %d times; want the same pod restarted",
			before.UID, restarts(before), after.UID, restarts(after))
	}
	if n := len(processesOfPod(after)); n != 1 {
		c.Errorf("%s has %d processes, want 1", after.Name, n)
	}
}
