// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package joinstorm plays the scene that DaemonSets lose under a plain scheduler:
// nodes join while a backlog of ordinary pods waits for room.
package joinstorm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/test/localcluster"
)

// What the storm is made of. A node of 4 cores has room for the three daemon
// pods and nine ordinary ones.
const (
	Nodes        = 20
	OrdinaryPods = 400
	OrdinaryCPU  = "300m"
	DaemonCPU    = "400m"
)

// PriorityClass is what operators give DaemonSets today to win the race.
const PriorityClass = "system-node-critical"

// Options returns what the cluster is made of. Its controllers are as fast as
// Kubernetes has them by default: a local cluster's own are faster, and with them
// DaemonSets win some of the races that they lose elsewhere.
func Options(scheduler localcluster.Scheduler) localcluster.Options {
	return localcluster.Options{
		Scheduler: scheduler,
		Webhook:   scheduler == localcluster.Everynode,
		Args:      map[string][]string{localcluster.ControllerManager: {"--kube-api-qps=20", "--kube-api-burst=30"}},
	}
}

// DaemonSets are the names of the DaemonSets.
func DaemonSets() []string { return []string{"logs", "metrics", "network"} }

const namespace = "default"

// Result is how the storm ended.
type Result struct {
	// Covered says by DaemonSet and node (in the order of their numbers) whether
	// the pod runs.
	Covered map[string][]bool
	// Ordinary is the number of ordinary pods that run.
	Ordinary int
	// Evicted is the number of pods that were made to leave their node.
	Evicted int
	// BoundTwice is the number of pods that were bound more than once.
	BoundTwice int
	// Took is the time from the first node to the last change.
	Took time.Duration
}

// NoNodes returns how it stands before the first node joins.
func NoNodes() *Result {
	return count(nil)
}

// Daemons returns how many daemon pods run, of how many.
func (r *Result) Daemons() (running, wanted int) {
	for _, nodes := range r.Covered {
		wanted += len(nodes)
		for _, covered := range nodes {
			if covered {
				running++
			}
		}
	}
	return running, wanted
}

// Picture draws which node has which daemon pod, a line of 36 columns per
// DaemonSet.
func (r *Result) Picture() []string {
	var lines []string
	for _, name := range DaemonSets() {
		var cells strings.Builder
		running := 0
		for _, covered := range r.Covered[name] {
			if covered {
				running++
				cells.WriteString("■")
			} else {
				cells.WriteString("·")
			}
		}
		lines = append(lines, fmt.Sprintf("%-8s %s %3d/%d", name, cells.String(), running, Nodes))
	}
	return lines
}

// Run creates the DaemonSets, of the named PriorityClass or none (""), and the backlog
// in an empty cluster without nodes, has the nodes join, and waits until nothing moves any
// more. progress is told how it stands, now and then; it may be nil.
func Run(ctx context.Context, cluster *localcluster.Cluster, priorityClass string, progress func(*Result)) (*Result, error) {
	for _, name := range DaemonSets() {
		if _, err := cluster.Client.AppsV1().DaemonSets(namespace).Create(ctx, daemonSet(name, priorityClass), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	if _, err := cluster.Client.AppsV1().Deployments(namespace).Create(ctx, backlog(), metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	// The backlog waits before the first node comes: every pod has been tried.
	if err := poll(ctx, "the backlog to wait", func(pods []corev1.Pod) bool {
		waiting := 0
		for i := range pods {
			if isUnschedulable(&pods[i]) {
				waiting++
			}
		}
		return waiting == OrdinaryPods
	}, cluster); err != nil {
		return nil, err
	}

	began := time.Now()
	if err := cluster.AddNodes(ctx, localcluster.Nodes(1, Nodes)...); err != nil {
		return nil, err
	}
	if err := cluster.WaitNodesReady(ctx); err != nil {
		return nil, err
	}
	result, err := settle(ctx, cluster, progress)
	if err != nil {
		return nil, err
	}
	result.Took = time.Since(began) - calm
	result.Evicted, result.BoundTwice, err = countEvents(ctx, cluster)
	return result, err
}

// calm is how long nothing may have changed for the storm to be over. It is
// longer than a pod that failed once waits to be tried again at most (10 s).
const calm = 12 * time.Second

// settle waits until every daemon pod exists and nothing has changed for a while.
func settle(ctx context.Context, cluster *localcluster.Cluster, progress func(*Result)) (*Result, error) {
	var result *Result
	var before string
	changed := time.Now()
	err := poll(ctx, "the storm to settle", func(pods []corev1.Pod) bool {
		result = count(pods)
		if progress != nil {
			progress(result)
		}
		if now := state(pods); now != before {
			before, changed = now, time.Now()
		}
		return len(pods) >= OrdinaryPods+Nodes*len(DaemonSets()) && time.Since(changed) > calm
	}, cluster)
	return result, err
}

// state is the same as long as no pod comes, goes, is bound or becomes ready.
func state(pods []corev1.Pod) string {
	lines := make([]string, len(pods))
	for i := range pods {
		lines[i] = fmt.Sprint(pods[i].UID, pods[i].Spec.NodeName, isReady(&pods[i]))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func poll(ctx context.Context, what string, done func([]corev1.Pod) bool, cluster *localcluster.Cluster) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		pods, err := cluster.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			last = err
			return false, nil //nolint:nilerr // the API server may be away for a moment: a storm can include that
		}
		return done(pods.Items), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, errors.Join(err, last))
	}
	return nil
}

func count(pods []corev1.Pod) *Result {
	result := &Result{Covered: make(map[string][]bool)}
	for _, name := range DaemonSets() {
		result.Covered[name] = make([]bool, Nodes)
	}
	index := make(map[string]int)
	for i, node := range localcluster.Nodes(1, Nodes) {
		index[node.Name] = i
	}
	for i := range pods {
		pod := &pods[i]
		if !isReady(pod) {
			continue
		}
		if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "DaemonSet" {
			result.Covered[owner.Name][index[pod.Spec.NodeName]] = true
		} else {
			result.Ordinary++
		}
	}
	return result
}

// countEvents counts what the end state does not show.
func countEvents(ctx context.Context, cluster *localcluster.Cluster) (evicted, boundTwice int, err error) {
	events, err := cluster.Client.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	bound := make(map[types.UID]int)
	for i := range events.Items {
		event := &events.Items[i]
		switch event.Reason {
		case "Preempted", "TaintManagerEviction":
			evicted++
		case "Scheduled":
			bound[event.Regarding.UID]++
		}
	}
	for _, times := range bound {
		if times > 1 {
			boundTwice++
		}
	}
	return evicted, boundTwice, nil
}

func isReady(pod *corev1.Pod) bool {
	return condition(pod, corev1.PodReady) == corev1.ConditionTrue
}

func isUnschedulable(pod *corev1.Pod) bool {
	return condition(pod, corev1.PodScheduled) == corev1.ConditionFalse
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return pod.Status.Conditions[i].Status
		}
	}
	return corev1.ConditionUnknown
}

func daemonSet(name, priorityClass string) *appsv1.DaemonSet {
	ds := &appsv1.DaemonSet{}
	ds.Name = name
	ds.Spec.Selector, ds.Spec.Template = podsNamed(name, DaemonCPU)
	ds.Spec.Template.Spec.PriorityClassName = priorityClass
	return ds
}

func backlog() *appsv1.Deployment {
	deployment := &appsv1.Deployment{}
	deployment.Name = "web"
	deployment.Spec.Replicas = ptr.To[int32](OrdinaryPods)
	deployment.Spec.Selector, deployment.Spec.Template = podsNamed("web", OrdinaryCPU)
	return deployment
}

func podsNamed(name, cpu string) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": name}
	var template corev1.PodTemplateSpec
	template.Labels = labels
	template.Spec.Containers = []corev1.Container{{
		Name:  "main",
		Image: "example/" + name + ":1.0",
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
		},
	}}
	return &metav1.LabelSelector{MatchLabels: labels}, template
}
