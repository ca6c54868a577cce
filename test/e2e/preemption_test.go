// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// onNode is a fragment of a pod's spec that selects a node.
func onNode(name string) string { return "nodeSelector: {kubernetes.io/hostname: " + name + "}" }

// restrict adds a fragment to the pod's spec of a manifest made by deployment.
func restrict(deployment, fragment string) string {
	return strings.Replace(deployment, "      containers:", "      "+fragment+"\n      containers:", 1)
}

// A1, https://github.com/kubernetes/kubernetes/issues/140984: a DaemonSet comes to a
// node whose slots are full of pods that are no less important.
func TestA1DaemonPodTakesEqualPriorityRoom(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 2)
	nodes[0].Capacity = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("8")}
	c.addNodes(nodes...)
	c.apply(restrict(deployment("filler", 8, ""), onNode("node-1")) + restrict(deployment("neighbour", 8, ""), onNode("node-2")))
	c.eventually(30*time.Second, "the node is full", c.running("filler", 8))
	c.eventually(30*time.Second, "the other one is not", c.running("neighbour", 8))
	neighbours := c.boundUIDs("neighbour")

	c.apply(daemonSet("agent", "", ""))
	c.eventually(30*time.Second, "the daemon pods run", c.running("agent", 2))
	c.eventually(20*time.Second, "the other fillers run, the evicted one's successor is held back",
		c.allTried("filler", 8, 7, "Too many pods"))
	if evicted := c.evictions(); len(evicted) != 1 || !strings.HasPrefix(evicted[0], "filler-") {
		t.Errorf("evicted: %v, want one filler", evicted)
	}
	if gone := c.gone("neighbour", neighbours); len(gone) > 0 {
		t.Errorf("these have gone from the other node: %v", gone)
	}
}

// The guards of equal-priority preemption: whoever must not be evicted is not, and
// the daemon pod waits.
func TestEqualPriorityGuards(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 1)...)
	filler := deployment("filler", 1, "cpu: '4'")
	annotated := func(annotation string) string {
		return strings.Replace(filler, "metadata: {labels: {app: filler}}", "metadata: {labels: {app: filler}, annotations: {"+annotation+"}}", 1)
	}
	budget := `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: filler}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: filler}}
---
`
	bare := `
apiVersion: v1
kind: Pod
metadata: {name: filler, labels: {app: filler}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "example/filler:1.0", resources: {requests: {cpu: '4'}}}]
---
`
	agent := daemonSet("agent", "cpu: 500m", "")
	tests := []struct{ name, filler, agent string }{
		{"a PodDisruptionBudget", filler + budget, agent},
		{"safe-to-evict", annotated(`cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`), agent},
		{"do-not-disrupt", annotated(`karpenter.sh/do-not-disrupt: "true"`), agent},
		{"a pod without a controller", bare, agent},
		{"a daemon pod", daemonSet("filler", "cpu: '4'", ""), agent},
		{"the DaemonSet's own annotation", filler, strings.Replace(agent, "{name: agent}", `{name: agent, annotations: {everynode.dev/preempt: "false"}}`, 1)},
	}
	for _, tc := range tests {
		c.apply(tc.filler)
		c.eventually(20*time.Second, tc.name+": the filler runs", c.running("filler", 1))
		c.apply(tc.agent)
		c.eventually(20*time.Second, tc.name+": the daemon pod is refused", c.allTried("agent", 1, 0, "Insufficient cpu"))
		if evicted := c.evictions(); len(evicted) > 0 {
			t.Fatalf("%s: evicted: %v", tc.name, evicted)
		}
		c.kubectl("delete", "daemonset,deployment,poddisruptionbudget", "--all", "--wait=false")
		c.kubectl("delete", "pod", "--all", "--wait=false")
		c.eventually(20*time.Second, tc.name+": nothing is left", func(ctx context.Context) error {
			pods, err := c.pods(ctx, nil)
			if err == nil && len(pods) > 0 {
				err = fmt.Errorf("pods are left: %s", summary(pods))
			}
			return err
		})
	}

	// A budget that allows more lets the daemon pod in at once.
	c.apply(filler + budget + agent)
	c.eventually(20*time.Second, "the node is full", func(ctx context.Context) error {
		if c.running("filler", 1)(ctx) == nil {
			return c.allTried("agent", 1, 0, "Insufficient cpu")(ctx)
		}
		return c.running("agent", 1)(ctx)
	})
	c.kubectl("patch", "poddisruptionbudget", "filler", "-p", `{"spec": {"minAvailable": 0}}`)
	c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
}

// A4, https://github.com/kubernetes/kubernetes/issues/141227: of two victims of the
// same priority, the one goes that can run elsewhere.
func TestA4PinnedPodsAreSpared(t *testing.T) {
	t.Parallel()
	const dummy = "example.com/dummy"
	for _, first := range []string{"daemon", "mover"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			nodes := localcluster.Nodes(1, 2)
			nodes[0].Capacity = corev1.ResourceList{dummy: resource.MustParse("3")}
			nodes[1].Capacity = corev1.ResourceList{dummy: resource.MustParse("1")}
			c.addNodes(nodes...)
			daemons := daemonSet("daemon", dummy+`: 1}, limits: {`+dummy+": 1", onNode("node-1"))
			// The mover begins on node-1 because node-2 is closed.
			movers := deployment("mover", 1, dummy+`: 1}, limits: {`+dummy+": 1")
			c.kubectl("cordon", "node-2")
			create := map[string]string{"daemon": daemons, "mover": movers}
			c.apply(create[first])
			c.eventually(20*time.Second, first+" runs", c.running(first, 1))
			delete(create, first)
			for second, manifest := range create {
				c.apply(manifest)
				c.eventually(20*time.Second, second+" runs", c.running(second, 1))
			}
			c.kubectl("uncordon", "node-2")
			daemonPods := c.boundUIDs("daemon")

			c.apply(priorityClasses + restrict(deployment("important", 1, dummy+`: 2}, limits: {`+dummy+": 2"), "priorityClassName: high"))
			c.eventually(30*time.Second, "the important pod runs", c.running("important", 1))
			c.eventually(30*time.Second, "the evicted pod has moved", func(ctx context.Context) error { return c.runsOn(ctx, app("mover"), "node-2") })
			if gone := c.gone("daemon", daemonPods); len(gone) > 0 {
				t.Errorf("the daemon pod was evicted: %v", gone)
			}
		})
	}
}

// A7, https://github.com/kubernetes/kubernetes/issues/64771: an update makes the pods
// of a DaemonSet larger than what is free on any node.
func TestA7UpdateThatNeedsMoreRoom(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 4)...)
	agent := func(cpu string) string { return daemonSet("agent", "cpu: "+cpu, "") }
	c.apply(agent("500m") + daemonSet("logs", "cpu: 500m", "") + daemonSet("metrics", "cpu: 500m", ""))
	c.eventually(30*time.Second, "the DaemonSets run", c.running("agent", 4))
	// 2500m a node are left. Two web pods of 1000m fit, and 500m stay free.
	c.apply(deployment("web", 8, "cpu: '1'") + `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: web}}
---
`)
	c.eventually(30*time.Second, "the nodes are busy", c.running("web", 8))
	// Room for the evicted ones elsewhere.
	c.addNodes(localcluster.Nodes(5, 4)...)
	c.eventually(30*time.Second, "the DaemonSets are complete", c.running("agent", 8))

	stop := c.watchBudget("web")
	c.apply(agent("1500m"))
	c.eventually(120*time.Second, "the update is complete", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 8) })
	c.eventually(60*time.Second, "the evicted pods run again", c.running("web", 8))
	if fewest := stop(); fewest < 7 {
		t.Errorf("only %d of 8 web pods were healthy at a time, the budget wants 7", fewest)
	}
	for _, evicted := range c.evictions() {
		if !strings.HasPrefix(evicted, "web-") {
			t.Errorf("%s was evicted", evicted)
		}
	}
}

// watchBudget follows how many pods a PodDisruptionBudget counts as healthy. The
// function that it returns ends that and says how few they were.
func (c *cluster) watchBudget(name string) (stop func() int32) {
	c.t.Helper()
	budgets := c.Client.PolicyV1().PodDisruptionBudgets("default")
	budget, err := budgets.Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	watcher, err := budgets.Watch(c.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: budget.ResourceVersion})
	if err != nil {
		c.t.Fatal(err)
	}
	fewest := make(chan int32)
	go func() {
		least := budget.Status.CurrentHealthy
		for event := range watcher.ResultChan() {
			if budget, ok := event.Object.(*policyv1.PodDisruptionBudget); ok {
				least = min(least, budget.Status.CurrentHealthy)
			}
		}
		fewest <- least
	}()
	return func() int32 {
		watcher.Stop()
		return <-fewest
	}
}

// A11, https://github.com/kubernetes/kubernetes/issues/58868: the second of two
// DaemonSets gets in as soon as the first has gone.
func TestA11SuccessorOfADeletedDaemonSet(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	node := localcluster.Nodes(1, 1)[0]
	node.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	c.addNodes(node)
	c.apply(daemonSet("first", "cpu: 700m, memory: 700Mi", ""))
	c.eventually(20*time.Second, "the first runs", c.running("first", 1))
	c.apply(daemonSet("second", "cpu: 700m, memory: 700Mi", ""))
	c.eventually(20*time.Second, "the second waits", c.allTried("second", 1, 0, "Insufficient cpu"))
	c.kubectl("delete", "daemonset", "first", "--wait=false")
	c.eventually(10*time.Second, "the second runs", c.running("second", 1))
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

// A25: a pod that only says it belongs to a DaemonSet gets nothing that a policy gives to
// daemon pods, evicts nobody, and room is held against it.
func TestA25ForgedOwner(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policies := newPolicyFile(t, "  - {name: all, pod: {priorityClassName: middle, tolerations: [{key: for-pods, operator: Exists}]}}")
			c := newCluster(t, policies.used)
			c.addNodes(localcluster.Nodes(1, 1)...)
			c.apply(priorityClasses + daemonSet("agent", "cpu: 500m", "") + deployment("web", 3, "cpu: '1'"))
			c.eventually(20*time.Second, "the daemon pod has the policy's priority", c.hasPriority("agent", 1000))
			c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
			c.eventually(20*time.Second, "the web pods run", c.running("web", 3))

			// The garbage collector would delete the pod for its false owner.
			if err := c.Process(localcluster.ControllerManager).Pause(); err != nil {
				t.Fatal(err)
			}
			c.apply(`
apiVersion: v1
kind: Pod
metadata:
  name: forged
  labels: {app: forged}
  ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: agent, uid: 00000000-0000-0000-0000-000000000000, controller: true}]
spec:
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]}}}
  containers: [{name: main, image: "example/forged:1.0", resources: {requests: {cpu: '1'}}}]
`)
			c.eventually(20*time.Second, "the pod is refused", c.allTried("forged", 1, 0, "Insufficient cpu"))
			if got := len(c.boundUIDs("web")); got != 3 {
				t.Errorf("%d web pods run, want 3", got)
			}
			if evicted := c.evictions(); len(evicted) > 0 {
				t.Errorf("evicted: %v", evicted)
			}
			pods, err := c.pods(t.Context(), app("forged"))
			if err != nil || len(pods) != 1 {
				t.Fatal(pods, err)
			}
			for _, toleration := range pods[0].Spec.Tolerations {
				if toleration.Key == corev1.TaintNodeDiskPressure || toleration.Key == "for-pods" {
					t.Errorf("the pod has got a toleration of a daemon pod: %s", toleration.Key)
				}
			}
			if priority := *pods[0].Spec.Priority; priority != 0 {
				t.Errorf("the pod has got the priority of a daemon pod: %d", priority)
			}
		})
	}
}
