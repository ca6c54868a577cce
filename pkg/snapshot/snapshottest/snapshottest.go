// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package snapshottest makes large clusters for tests.
package snapshottest

import (
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/snapshot"
)

// Now is when the clusters are read.
var Now = metav1.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// groups is how many groups of nodes there are, each with DaemonSets of its own.
const groups = 10

// Cluster returns a cluster of that size, always the same. A fifth of the DaemonSets
// are on all nodes, the others on the nodes of a group. The ordinary pods, which are
// those that daemon pods leave of the number of pods, fill some nodes: two of a
// hundred daemon pods wait for room, and a few have other trouble.
func Cluster(nodes, daemonSets, pods int) *snapshot.Cluster {
	c := &snapshot.Cluster{}
	for n := range nodes {
		c.Nodes = append(c.Nodes, node(n))
	}
	for d := range daemonSets {
		ds := daemonSet(d)
		c.DaemonSets = append(c.DaemonSets, ds)
		for n := range nodes {
			if d%5 != 0 && n%groups != d%groups || n%100 == 99 {
				continue
			}
			ds.Status.DesiredNumberScheduled++
			c.Pods = append(c.Pods, daemonPod(ds, n))
		}
	}
	for p := 0; len(c.Pods) < pods; p++ {
		c.Pods = append(c.Pods, web(p, p%nodes))
	}
	// Admission labels pods that are bound with their zone.
	zones := make(map[string]string)
	for _, node := range c.Nodes {
		zones[node.Name] = node.Labels[corev1.LabelTopologyZone]
	}
	for _, pod := range c.Pods {
		if pod.Spec.NodeName != "" {
			metav1.SetMetaDataLabel(&pod.ObjectMeta, corev1.LabelTopologyZone, zones[pod.Spec.NodeName])
		}
	}
	return c
}

func name(n int) string { return fmt.Sprintf("node-%d", n) }

// node is tainted if it is the last of a hundred.
func node(n int) *corev1.Node {
	w := st.MakeNode().Name(name(n)).Label(corev1.LabelHostname, name(n)).Label("group", strconv.Itoa(n%groups)).
		Label(corev1.LabelTopologyZone, strconv.Itoa(n%3)).
		Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "16", corev1.ResourceMemory: "64Gi", corev1.ResourcePods: "110"})
	if n%100 == 99 {
		w.Taints([]corev1.Taint{{Key: "role", Value: "database", Effect: corev1.TaintEffectNoSchedule}})
	}
	w.CreationTimestamp = metav1.NewTime(Now.Add(-48 * time.Hour))
	w.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: w.CreationTimestamp}}
	return w.Obj()
}

func daemonSet(d int) *appsv1.DaemonSet {
	w := daemonsettest.Make(fmt.Sprintf("daemons-%d", d)).Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "100m", corev1.ResourceMemory: "200Mi"})
	if d%5 != 0 {
		w.NodeSelector("group", strconv.Itoa(d%groups))
	}
	ds := w.Obj()
	ds.CreationTimestamp = metav1.NewTime(Now.Add(-24 * time.Hour))
	ds.Status.ObservedGeneration = 1
	ds.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": ds.Name}}
	ds.Spec.Template.Spec.SchedulerName = corev1.DefaultSchedulerName
	return ds
}

func daemonPod(ds *appsv1.DaemonSet, n int) *corev1.Pod {
	pod := daemonsettest.Pod(ds, name(n))
	pod.CreationTimestamp = metav1.NewTime(Now.Add(-time.Hour))
	switch n % 100 {
	case 0, 1:
		// Here ordinary pods have all there is.
		pod.Status.Phase = corev1.PodPending
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: "0/5000 nodes are available: 1 Insufficient cpu. preemption: 0/5000 nodes are available: 1 No preemption victims found for incoming pod.",
		}}
	case 2:
		pod.Spec.NodeName = name(n)
		pod.Status.Phase = corev1.PodPending
		pod.Status.StartTime = &pod.CreationTimestamp
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
	default:
		pod.Spec.NodeName = name(n)
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: pod.CreationTimestamp}}
		ds.Status.NumberReady++
	}
	return pod
}

// web is an ordinary pod. Four of them are a full node.
func web(p, n int) *corev1.Pod {
	cpu := "1"
	if n%100 < 2 {
		cpu = "4"
	}
	pod := st.MakePod().Namespace("default").Name(fmt.Sprintf("web-%d", p)).UID(fmt.Sprintf("web-%d", p)).Node(name(n)).
		Label("app", "web").Label(appsv1.DefaultDeploymentUniqueLabelKey, "abc").
		Req(map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: "1Gi"}).StartTime(Now).Obj()
	owner := fmt.Sprintf("web-%d-abc", p%20)
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: new(true)}}
	pod.Status.Phase = corev1.PodRunning
	return pod
}
