// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
	"everynode.dev/everynode/test/rights"
)

var (
	binDir            = flag.String("bin", "../../bin", "folder with the programs that make build makes")
	scheduler         = flag.String("scheduler", "everynode", "scheduler to test: everynode or stock")
	kubernetesVersion = flag.String("kubernetes", "", "minor version of the control plane: one of localcluster.Versions; default: the newest")
	installed         = flag.Bool("installed", false, "whether everynode is what the chart installs, with no other rights")
	artifacts         = flag.String("artifacts", "", "folder that receives the logs of the clusters of failed tests")
)

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "localcluster", "build") }

// cluster is a cluster for one test. Its methods fail the test themselves.
type cluster struct {
	*localcluster.Cluster
	t *testing.T
	// patience is how much longer than usual things may take.
	patience time.Duration
}

// newCluster starts a cluster without nodes. edit may change what it is made of.
func newCluster(t *testing.T, edit func(*localcluster.Options)) *cluster {
	t.Helper()
	options := localcluster.Options{
		BinDir:    *binDir,
		Scheduler: localcluster.Scheduler(*scheduler),
		Webhook:   true,
	}
	if edit != nil {
		edit(&options)
	}
	options.Kubernetes = *kubernetesVersion
	var audit *rights.Log
	if *installed {
		var err error
		if audit, err = rights.NewLog(t.TempDir()); err != nil {
			t.Fatal(err)
		}
		options.Chart = "../../charts/everynode"
		options.Args = maps.Clone(options.Args)
		if options.Args == nil {
			options.Args = make(map[string][]string)
		}
		options.Args[localcluster.APIServer] = append(audit.Flags(), options.Args[localcluster.APIServer]...)
	}
	// A scheduler without a right that it needs waits for it.
	starting, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	started, err := localcluster.Start(starting, options)
	c := &cluster{Cluster: started, t: t}
	t.Cleanup(func() {
		if *installed {
			c.checkRights(audit)
		}
		if t.Failed() {
			clustertest.KeepLogs(c.t, c.Cluster, *artifacts)
		}
		started.Stop()
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checkRights fails the test if everynode wanted to do what the chart does not allow.
func (c *cluster) checkRights(audit *rights.Log) {
	for _, program := range []string{localcluster.EverynodeScheduler, localcluster.EverynodeWebhook} {
		done, denied, err := audit.Of(deploy.Namespace + ":" + program)
		if err != nil {
			c.t.Error(err)
		}
		for _, right := range denied.Sorted() {
			// An API server that has just been started knows no roles for a moment.
			if !done[right] {
				c.t.Errorf("%s was not allowed to %s", program, right)
			}
		}
	}
}

// schedulerProcess returns the name of the process that schedules.
func schedulerProcess() string {
	if localcluster.Scheduler(*scheduler) == localcluster.Stock {
		return localcluster.KubeScheduler
	}
	return localcluster.EverynodeScheduler
}

// kubectl runs kubectl and returns what it prints.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return clustertest.Kubectl(c.t, c.Cluster, args...)
}

// apply applies manifests.
func (c *cluster) apply(manifests string) {
	c.t.Helper()
	clustertest.Apply(c.t, c.Cluster, manifests)
}

// applyExamples applies files of examples/.
func (c *cluster) applyExamples(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.kubectl("apply", "--validate=strict", "-f", "../../examples/"+name+".yaml")
	}
}

// addNodes adds nodes and waits until they are ready.
func (c *cluster) addNodes(nodes ...localcluster.Node) {
	c.t.Helper()
	if err := c.AddNodes(c.t.Context(), nodes...); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	if err := c.WaitNodesReady(ctx); err != nil {
		c.t.Fatal(err)
	}
}

// eventually waits until check returns nil, within at most the given time.
func (c *cluster) eventually(within time.Duration, what string, check func(context.Context) error) {
	c.t.Helper()
	clustertest.Eventually(c.t, within+c.patience, what, check)
}

// pods returns the pods with those labels in the namespace default.
func (c *cluster) pods(ctx context.Context, selector map[string]string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(selector).String()})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// app selects the pods of an app.
func app(name string) map[string]string { return map[string]string{"app": name} }

// runsOn checks that the ready pods of an app are on those nodes, one on each, and
// that there are no others.
func (c *cluster) runsOn(ctx context.Context, selector map[string]string, nodes ...string) error {
	pods, err := c.pods(ctx, selector)
	if err != nil {
		return err
	}
	ready := make(map[string]int)
	for i := range pods {
		if !clustertest.IsReady(&pods[i]) {
			return fmt.Errorf("pod %s on node %q is not ready: %s", pods[i].Name, pods[i].Spec.NodeName, whyWaiting(&pods[i]))
		}
		ready[pods[i].Spec.NodeName]++
	}
	for _, node := range nodes {
		if ready[node] != 1 {
			return fmt.Errorf("%d pods on node %s, want 1; all: %v", ready[node], node, ready)
		}
	}
	if len(ready) != len(nodes) {
		return fmt.Errorf("pods on nodes %v, want %v", ready, nodes)
	}
	return nil
}

// complete checks that a DaemonSet wants n pods and has them, up to date and ready.
func (c *cluster) complete(ctx context.Context, namespace, name string, n int32) error {
	ds, err := c.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	status := ds.Status
	if status.ObservedGeneration < ds.Generation || status.DesiredNumberScheduled != n || status.NumberReady != n ||
		status.CurrentNumberScheduled != n || status.UpdatedNumberScheduled != n || status.NumberMisscheduled != 0 {
		return fmt.Errorf("DaemonSet %s wants %d, has %d, up to date %d, ready %d, misscheduled %d; want %d of all",
			name, status.DesiredNumberScheduled, status.CurrentNumberScheduled, status.UpdatedNumberScheduled,
			status.NumberReady, status.NumberMisscheduled, n)
	}
	return nil
}

// evictions returns the pods that were made to leave a node.
func (c *cluster) evictions() []string {
	c.t.Helper()
	events, err := c.Client.EventsV1().Events("").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var evicted []string
	for i := range events.Items {
		if event := &events.Items[i]; event.Reason == "Preempted" {
			evicted = append(evicted, event.Regarding.Name)
		}
	}
	return evicted
}

// whyWaiting returns what the scheduler says of a pod that has no node.
func whyWaiting(pod *corev1.Pod) string {
	for i := range pod.Status.Conditions {
		if condition := &pod.Status.Conditions[i]; condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Message
		}
	}
	return string(pod.Status.Phase)
}

// bound returns the pods that have a node and are not on their way out.
func bound(pods []corev1.Pod) []corev1.Pod {
	var have []corev1.Pod
	for i := range pods {
		if pods[i].Spec.NodeName != "" && pods[i].DeletionTimestamp == nil {
			have = append(have, pods[i])
		}
	}
	return have
}

// daemonSet returns a manifest. fragment is YAML in the pod's spec, at its indent.
func daemonSet(name, requests, fragment string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "example/%[1]s:1.0", resources: {requests: {%[2]s}}}]
      %[3]s
---
`, name, requests, fragment)
}

// deployment returns a manifest.
func deployment(name string, replicas int, requests string) string {
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
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "example/%[1]s:1.0", resources: {requests: {%[3]s}}}]
---
`, name, replicas, requests)
}
