// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package karpenter

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir    = flag.String("bin", "../../bin", "folder with the programs that make build and make build-karpenter make")
	artifacts = flag.String("artifacts", "", "folder that receives the table of K1, and the logs of the clusters of failed tests")
	rounds    = flag.Int("rounds", 1, "how often K1 is measured")
	// Karpenter looks for nodes to consolidate every 10 s, and waits 15 s before it acts and, in these tests, 15 s after
	// the last pod (consolidateAfter): a loop turns round three times in two minutes.
	watch = flag.Duration("watch", 2*time.Minute, "how long K2 and K3 look for a loop of buying and removing")
)

func TestMain(m *testing.M) {
	clustertest.Main(m, binDir, localcluster.Karpenter, "build build-karpenter")
}

// patience is how long anything may take on a busy machine.
const patience = 8 * time.Minute

// cluster is a cluster for one test, in which Karpenter buys the nodes. Its methods fail the test themselves.
type cluster struct {
	*localcluster.Cluster
	*ledger
	t *testing.T
}

// newCluster starts a cluster in which Karpenter has no NodePool yet. edit may change what it is made of.
func newCluster(t *testing.T, edit func(*localcluster.Options)) *cluster {
	t.Helper()
	options := localcluster.Options{
		BinDir:     *binDir,
		Webhook:    true,
		Autoscaler: localcluster.Karpenter,
		// The controllers are as fast as Kubernetes has them: with faster ones DaemonSets win some of the races that
		// they lose elsewhere.
		Args: map[string][]string{localcluster.ControllerManager: {"--kube-api-qps=20", "--kube-api-burst=30"}},
	}
	if edit != nil {
		edit(&options)
	}
	starting, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	started, err := localcluster.Start(starting, options)
	t.Cleanup(func() {
		if t.Failed() {
			clustertest.KeepLogs(t, started, *artifacts)
		}
		started.Stop()
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Cluster: started, t: t}
	c.kubectl("delete", "nodepool", "default")
	c.ledger = newLedger(t, started)
	return c
}

func (c *cluster) kubectl(args ...string) {
	c.t.Helper()
	clustertest.Kubectl(c.t, c.Cluster, args...)
}

func (c *cluster) apply(manifests string) {
	c.t.Helper()
	clustertest.Apply(c.t, c.Cluster, manifests)
}

func (c *cluster) eventually(what string, check func(context.Context) error) {
	c.t.Helper()
	clustertest.Eventually(c.t, patience, what, check)
}

// settle waits until check returns nil and nothing has changed for calm, within patience. It returns when the last
// change was.
func (c *cluster) settle(calm time.Duration, what string, check func(context.Context) error) time.Time {
	c.t.Helper()
	c.eventually(what, func(ctx context.Context) error {
		if err := check(ctx); err != nil {
			return err
		}
		if at, what := c.lastChange(); time.Since(at) < calm {
			return fmt.Errorf("%s ago something has changed: %s", time.Since(at), what)
		}
		return nil
	})
	at, last := c.lastChange()
	c.t.Logf("the last change was %s", last)
	return at
}

// during has step called every second until the time is over.
func (c *cluster) during(span time.Duration, step func()) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), span)
	defer cancel()
	wait.UntilWithContext(ctx, func(context.Context) { step() }, time.Second)
}

// allRun returns a check that so many ordinary pods are Ready, and on every node each of the DaemonSets.
func (c *cluster) allRun(ordinary int, daemonSets ...string) func(context.Context) error {
	return func(context.Context) error {
		ready, waiting := c.ordinary()
		if missing := c.missing(daemonSets); ready != ordinary || waiting > 0 || len(missing) > 0 {
			return fmt.Errorf("%d ordinary pods are Ready and %d are not, of %d; missing: %s", ready, waiting, ordinary, strings.Join(missing, ", "))
		}
		return nil
	}
}

// startupTaint is that of the DaemonSet network, whose nodes wear it until the pod there is Ready.
const startupTaint = "network.example.com/agent-not-ready"

// nodePool is a NodePool for nodes of so many CPUs, with a label and a start-up taint of its own. limit is the sum of
// the CPUs of its nodes at most, and after is when Karpenter consolidates: all nodes at once, if it wants to, where its
// default is a tenth of them.
func nodePool(cpus, limit, after string) string {
	return fmt.Sprintf(`
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  limits: {cpu: %q}
  template:
    metadata:
      labels: {team: web}
    spec:
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      expireAfter: Never
      startupTaints: [{key: %s, effect: NoSchedule}]
      requirements:
        - {key: kubernetes.io/arch, operator: In, values: [amd64]}
        - {key: kubernetes.io/os, operator: In, values: [linux]}
        - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
        - {key: karpenter.kwok.sh/instance-cpu, operator: In, values: [%s]}
  disruption:
    consolidationPolicy: WhenEmptyOrUnderutilized
    consolidateAfter: %s
    budgets: [{nodes: 100%%}]
`, limit, startupTaint, cpus, after)
}

// The DaemonSets of K1 and K2. The size of profiler is a share of its node; Karpenter counts with the template's until
// there is a pod, so the template has that of the largest node.
const (
	network  = "network"
	logs     = "logs"
	metrics  = "metrics"
	profiler = "profiler"
)

// daemonSets returns the four, with pods of the given PriorityClass, which may be empty.
func daemonSets(class string) string {
	return daemonSet(network, "200m", class, "tolerations: [{operator: Exists}]") +
		daemonSet(logs, "300m", class, fmt.Sprintf("tolerations: [{key: %s, operator: Exists}]", startupTaint)) +
		daemonSet(metrics, "200m", class, "nodeSelector: {team: web}") +
		strings.Replace(daemonSet(profiler, "320m", class, ""), "name: profiler",
			`name: profiler, annotations: {everynode.dev/resources: '{"main": {"cpu": "4%"}}'}`, 1)
}

// daemonSet returns a DaemonSet, with a further field of its pods.
func daemonSet(name, cpu, class, field string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      priorityClassName: %[3]q
      containers: [{name: main, image: "example/%[1]s:1", resources: {requests: {cpu: %[2]s, memory: 64Mi}}}]
      %[4]s
---
`, name, cpu, class, field)
}

// deployment returns a Deployment of ordinary pods.
func deployment(name string, replicas int, cpu, memory string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: main, image: "example/%[1]s:1", resources: {requests: {cpu: %[3]s, memory: %[4]s}}}]
---
`, name, replicas, cpu, memory)
}

// backlog returns ordinary pods of three sizes: half of them small, a third of a medium size, the rest large.
func backlog(pods int) (large, medium, small string) {
	return deployment("large", pods-pods/2-pods/3, "640m", "512Mi"),
		deployment("medium", pods/3, "250m", "256Mi"),
		deployment("small", pods/2, "100m", "128Mi")
}

// waits returns a check that so many ordinary pods wait, and have been tried.
func (c *cluster) waits(pods int) func(context.Context) error {
	return func(context.Context) error {
		refused := 0
		for _, pod := range c.pods() {
			for i := range pod.Status.Conditions {
				condition := &pod.Status.Conditions[i]
				if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable && !isDaemonPod(pod) {
					refused++
				}
			}
		}
		if refused != pods {
			return fmt.Errorf("%d pods wait, want %d", refused, pods)
		}
		return nil
	}
}
