// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/joinstorm"
	"everynode.dev/everynode/test/localcluster"
)

// running checks that n pods of an app are ready.
func (c *cluster) running(name string, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := c.pods(ctx, app(name))
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if clustertest.IsReady(&pods[i]) {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d pods of %s are ready, want %d (of %d)", ready, name, n, len(pods))
		}
		return nil
	}
}

// allTried checks that all pods of an app are bound or have been refused, the
// refused ones for a reason that contains the text.
func (c *cluster) allTried(name string, all, wantBound int, reason string) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := c.pods(ctx, app(name))
		if err != nil {
			return err
		}
		if got := len(bound(pods)); len(pods) != all || got != wantBound {
			return fmt.Errorf("%d of %d pods of %s are bound, want %d of %d", got, len(pods), name, wantBound, all)
		}
		for i := range pods {
			if pods[i].Spec.NodeName == "" && !strings.Contains(whyWaiting(&pods[i]), reason) {
				return fmt.Errorf("pod %s waits: %q, want %q", pods[i].Name, whyWaiting(&pods[i]), reason)
			}
		}
		return nil
	}
}

// boundUIDs returns the pods of an app that are bound, by UID.
func (c *cluster) boundUIDs(name string) map[string]string {
	c.t.Helper()
	pods, err := c.pods(c.t.Context(), app(name))
	if err != nil {
		c.t.Fatal(err)
	}
	uids := make(map[string]string)
	for _, pod := range bound(pods) {
		uids[string(pod.UID)] = pod.Name
	}
	return uids
}

// gone returns those of the pods before that are not bound any more.
func (c *cluster) gone(name string, before map[string]string) map[string]string {
	c.t.Helper()
	gone := maps.Clone(before)
	for uid := range c.boundUIDs(name) {
		delete(gone, uid)
	}
	return gone
}

// A2, https://github.com/kubernetes/kubernetes/issues/140984: a daemon pod that is
// deleted from a full node gets its slot back.
func TestA2DeletedDaemonPodKeepsItsSlot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	node := localcluster.Nodes(1, 1)[0]
	node.Capacity = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("8")}
	c.addNodes(node)
	c.apply(daemonSet("agent", "", ""))
	c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
	c.apply(deployment("filler", 7+15, ""))
	c.eventually(20*time.Second, "seven fillers run, fifteen wait", c.running("filler", 7))
	fillers := c.boundUIDs("filler")

	for round := range 20 {
		before := c.boundUIDs("agent")
		c.kubectl("delete", "pod", "-l", "app=agent", "--wait=false")
		c.eventually(20*time.Second, fmt.Sprintf("round %d: the successor runs", round+1), func(ctx context.Context) error {
			pods, err := c.pods(ctx, app("agent"))
			if err != nil {
				return err
			}
			for i := range pods {
				if _, old := before[string(pods[i].UID)]; !old && clustertest.IsReady(&pods[i]) {
					return nil
				}
			}
			return fmt.Errorf("pods are %s", summary(pods))
		})
	}
	for uid, name := range c.boundUIDs("filler") {
		if _, ok := fillers[uid]; !ok {
			t.Errorf("filler %s came in", name)
		}
	}
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

func summary(pods []corev1.Pod) string {
	var lines []string
	for i := range pods {
		lines = append(lines, fmt.Sprintf("%s on %q: %s", pods[i].Name, pods[i].Spec.NodeName, whyWaiting(&pods[i])))
	}
	return strings.Join(lines, "; ")
}

// A5, https://github.com/kubernetes/kubernetes/issues/131171: the first node of a
// cluster opens to a DaemonSet and more ordinary pods than fit.
func TestA5FirstNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(daemonSet("agent", "cpu: 2500m", ""))
	c.apply(deployment("web", 6, "cpu: '1'") + deployment("api", 6, "cpu: 700m"))
	for n := 1; n <= 2; n++ {
		c.addNodes(localcluster.Nodes(n, 1)...)
		c.eventually(20*time.Second, fmt.Sprintf("the daemon pods of %d nodes run", n), func(ctx context.Context) error {
			return c.complete(ctx, "default", "agent", int32(n))
		})
		c.eventually(20*time.Second, "what is left is used", func(ctx context.Context) error {
			web, err := c.pods(ctx, app("web"))
			if err != nil {
				return err
			}
			api, err := c.pods(ctx, app("api"))
			if err != nil {
				return err
			}
			// 1500m a node: one web pod, or two api pods.
			if w, a := len(bound(web)), len(bound(api)); w+(a+1)/2 < n {
				return fmt.Errorf("%d web and %d api pods on %d nodes", w, a, n)
			}
			return nil
		})
	}
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

// A6, https://github.com/aws/karpenter-provider-aws/issues/9269: the DaemonSet
// controller is slow, and the node is open long before its daemon pods exist.
func TestA6SlowController(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	// A node is one workload pod and all of its daemons.
	names := []string{"logs", "metrics", "network", "storage"}
	for _, name := range names {
		c.apply(daemonSet(name, "cpu: 500m", ""))
	}
	c.apply(deployment("workload", 10, "cpu: '2'"))
	c.eventually(20*time.Second, "the workload waits", c.allTried("workload", 10, 0, "no nodes available"))

	resume := c.openNodeWithoutControllers()
	c.eventually(20*time.Second, "one workload pod takes what is not held, the others are held back",
		c.allTried("workload", 10, 1, "held for DaemonSet pods"))
	resume()
	for _, name := range names {
		c.eventually(30*time.Second, name+" is complete", func(ctx context.Context) error { return c.complete(ctx, "default", name, 1) })
	}
	if got := len(c.boundUIDs("workload")); got != 1 {
		t.Errorf("%d workload pods run, want 1", got)
	}
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

// A20: for a DaemonSet that can never fit nothing is held and nobody is evicted.
func TestA20WhatNeverFitsHoldsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 1)...)
	c.apply(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: important}
value: 1000
---
` + daemonSet("giant", "cpu: '5'", "priorityClassName: important"))
	c.eventually(20*time.Second, "the giant is refused", c.allTried("giant", 1, 0, "Insufficient cpu"))
	c.apply(deployment("web", 9, "cpu: 500m"))
	c.eventually(20*time.Second, "ordinary pods fill the node to the last millicore", c.running("web", 8))
	web := c.boundUIDs("web")

	// Tried again, the giant still evicts nobody.
	c.kubectl("delete", "pod", "-l", "app=giant", "--wait=false")
	c.eventually(20*time.Second, "the giant is refused again", c.allTried("giant", 1, 0, "Insufficient cpu"))
	if gone := c.gone("web", web); len(gone) > 0 {
		t.Errorf("these have gone: %v", gone)
	}
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

// A21, the join storm, beside the same storm under the stock scheduler.
func TestA21JoinStorm(t *testing.T) {
	results := make(map[string]*joinstorm.Result)
	storm := func(name string) {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, func(o *localcluster.Options) {
				bin := o.BinDir
				*o = joinstorm.Options(localcluster.Scheduler(name))
				o.BinDir = bin
			})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			result, err := joinstorm.Run(ctx, c.Cluster, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			running, wanted := result.Daemons()
			t.Logf("%s: %d/%d daemon pods, %d ordinary pods, %d evictions, settled in %s\n%s",
				name, running, wanted, result.Ordinary, result.Evicted, result.Took.Round(100*time.Millisecond), strings.Join(result.Picture(), "\n"))
			results[name] = result
		})
	}
	// One after the other: who wins the race must not depend on what else runs.
	storm("stock")
	storm(*scheduler)

	result := results[*scheduler]
	if result == nil {
		t.FailNow()
	}
	if running, wanted := result.Daemons(); running != 60 || wanted != 60 {
		t.Errorf("%d of %d daemon pods run, want 60 of 60", running, wanted)
	}
	if result.Ordinary != 180 {
		t.Errorf("%d ordinary pods run, want 180", result.Ordinary)
	}
	if result.Evicted != 0 || result.BoundTwice != 0 {
		t.Errorf("%d pods were evicted and %d bound twice, want none", result.Evicted, result.BoundTwice)
	}
}

// The scheduler is killed in the middle of the storm, twice, and the API server is
// restarted: it ends as it would have.
//
// The API server gets a moment to end what it is doing. To kill it at once would be
// another matter: the reply to a binding may be lost whose effect is not, and the
// scheduler takes the pod's room for free. Kubelets refuse the pods that are then too
// many on a node; kwok does not. The nodes have to be ready before, because the node
// lifecycle controller does not try again to remove a taint when that has failed.
func TestCrashesInTheStorm(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *localcluster.Options) {
		bin := o.BinDir
		*o = joinstorm.Options(localcluster.Scheduler(*scheduler))
		o.BinDir = bin
		// As long as nobody takes the lease of one that was killed, nothing moves, and the storm seems over.
		o.ChartValues = []byte("scheduler: {extraArgs: [--leader-elect=false]}")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	world := c.watchPods()
	crashes := make(chan error)
	go func() {
		defer close(crashes)
		for _, crash := range []struct {
			process string
			at      int // when so many pods are bound
			restart func(context.Context) error
		}{
			{schedulerProcess(), 20, c.StartScheduler},
			{schedulerProcess(), 80, c.StartScheduler},
			{localcluster.APIServer, 140, c.StartAPIServer},
		} {
			err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) {
				return world.bound() >= crash.at, nil
			})
			if err == nil {
				t.Logf("ending %s when %d pods are bound", crash.process, world.bound())
				process := c.Process(crash.process)
				if crash.process == localcluster.APIServer {
					err = c.WaitNodesReady(ctx)
					stopping, cancel := context.WithTimeout(ctx, 3*time.Second)
					// It would wait a minute for watches to end.
					_ = process.Stop(stopping)
					cancel()
				}
				process.Kill()
			}
			if err == nil {
				err = crash.restart(ctx)
			}
			if err != nil {
				crashes <- err
				return
			}
		}
	}()
	result, err := joinstorm.Run(ctx, c.Cluster, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-crashes; err != nil {
		t.Fatal(err)
	}
	running, wanted := result.Daemons()
	if running != wanted || wanted != 60 || result.Ordinary != 180 || result.Evicted != 0 || result.BoundTwice != 0 {
		t.Errorf("%d of %d daemon pods and %d ordinary pods run, %d were evicted, %d bound twice; want 60 of 60, 180, none and none",
			running, wanted, result.Ordinary, result.Evicted, result.BoundTwice)
	}
}

// A rolling update of 200 nodes, with a backlog that wants every slot that is free
// for a moment: every new daemon pod is placed at its first attempt.
func TestLargeRollingUpdate(t *testing.T) {
	t.Parallel()
	const nodes = 200
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, nodes)...)
	agent := strings.Replace(daemonSet("agent", "cpu: '1'", ""), "spec:", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: 10%}}", 1)
	c.apply(agent)
	c.eventually(60*time.Second, "the DaemonSet runs", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", nodes) })
	c.apply(deployment("web", 3*nodes+100, "cpu: '1'"))
	c.eventually(90*time.Second, "the nodes are full, and a hundred pods wait", c.running("web", 3*nodes))
	web := c.boundUIDs("web")

	world := c.watchPods()
	c.apply(strings.Replace(agent, "agent:1.0", "agent:2.0", 1))
	c.eventually(180*time.Second, "the update is complete", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", nodes) })
	if refused := world.refused("agent-"); len(refused) > 0 {
		t.Errorf("%d daemon pods were refused: %v", len(refused), refused)
	}
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
	for uid, name := range c.boundUIDs("web") {
		if _, ok := web[uid]; !ok {
			t.Errorf("%s has come in", name)
		}
	}
}

// A23: nobody else takes the host port of a daemon pod that is missing.
func TestA23HostPorts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.applyExamples("node-exporter")
	resume := c.openNodeWithoutControllers()
	for _, port := range []int{9100, 9101} {
		c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: port-%[1]d, labels: {app: port-%[1]d}}
spec:
  containers: [{name: main, image: "example/web:1.0", ports: [{containerPort: 80, hostPort: %[1]d}]}]
`, port))
	}
	c.eventually(20*time.Second, "the pod with another port runs", c.running("port-9101", 1))
	c.eventually(20*time.Second, "the pod with the DaemonSet's port is held back", c.allTried("port-9100", 1, 0, "host port 9100 held for DaemonSet pods"))
	resume()
	c.eventually(30*time.Second, "node-exporter runs", func(ctx context.Context) error { return c.complete(ctx, "default", "node-exporter", 1) })
	if got := len(c.boundUIDs("port-9100")); got != 0 {
		t.Error("the pod has taken the port after all")
	}
}

// priorityClasses are used by TestA24.
const priorityClasses = `
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: -10
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: middle}
value: 1000
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 2000
---
`

// A24: room is held against pods of the same or a lower priority; if it is held
// against all, critical pods are exempt.
func TestA24Priorities(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		held   []string
		passes []string
	}{
		"SameOrLower": {[]string{"low", "middle"}, []string{"high", "system-cluster-critical"}},
		"All":         {[]string{"low", "middle", "high"}, []string{"system-cluster-critical"}},
	}
	for holdAgainst, tc := range tests {
		t.Run(holdAgainst, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(o *localcluster.Options) {
				o.PluginArgs = map[string]map[string]any{"DaemonSetHeadroom": {"holdAgainst": holdAgainst}}
			})
			c.apply(priorityClasses + daemonSet("agent", "cpu: '3'", "priorityClassName: middle"))
			c.openNodeWithoutControllers()
			apply := func(class string) {
				c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  priorityClassName: %[1]s
  containers: [{name: main, image: "example/web:1.0", resources: {requests: {cpu: 1500m}}}]
`, class))
			}
			for _, class := range tc.held {
				apply(class)
				c.eventually(20*time.Second, class+" is held back", c.allTried(class, 1, 0, "cpu held for DaemonSet pods"))
			}
			for _, class := range tc.passes {
				apply(class)
				c.eventually(20*time.Second, class+" is not held back", c.running(class, 1))
			}
		})
	}
}

// openNodeWithoutControllers is openNodesWithoutControllers with node-1.
func (c *cluster) openNodeWithoutControllers() (resume func()) {
	c.t.Helper()
	return c.openNodesWithoutControllers(localcluster.Nodes(1, 1)...)
}

// openNodesWithoutControllers adds nodes and opens them to pods while the
// controllers, which would create daemon pods there, are halted. The function that
// it returns lets them go on.
func (c *cluster) openNodesWithoutControllers(nodes ...localcluster.Node) (resume func()) {
	c.t.Helper()
	controllers := c.Process(localcluster.ControllerManager)
	if err := controllers.Pause(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.AddNodes(c.t.Context(), nodes...); err != nil {
		c.t.Fatal(err)
	}
	for i := range nodes {
		// Every new node wears this taint until the controllers have seen it ready.
		c.kubectl("taint", "node", nodes[i].Name, corev1.TaintNodeNotReady+"-")
	}
	return func() {
		c.t.Helper()
		if err := controllers.Resume(); err != nil {
			c.t.Fatal(err)
		}
	}
}
