// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption_test

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func BenchmarkSelectVictimsOnNode(b *testing.B) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	objects := []runtime.Object{ds, pod, st.MakeNode().Name("node").Capacity(resources{"cpu": "10", "pods": "110"}).Obj()}
	for i := range 100 {
		objects = append(objects, filler(strconv.Itoa(i), "100m", i).Obj())
	}
	w := newWorld(b, "", objects...)
	b.ReportAllocs()
	for b.Loop() {
		if victims, reason := w.victims(b, pod); len(victims) != 5 {
			b.Fatal(victims, reason)
		}
	}
}

// A pod that no node has room for, on 5,000 full nodes where all pods have its
// priority, as in most clusters.
func BenchmarkPostFilterWithoutLowerPriority(b *testing.B) {
	var objects []runtime.Object
	for i := range 5000 {
		node := fmt.Sprintf("node-%04d", i)
		objects = append(objects, st.MakeNode().Name(node).Capacity(resources{"cpu": "3", "pods": "110"}).Obj())
		for j := range 30 {
			objects = append(objects, filler(fmt.Sprintf("p-%d-%d", i, j), "100m", 0).Node(node).Obj())
		}
	}
	pod := st.MakePod().Namespace("default").Name("pending").UID("pending").Req(resources{"cpu": "100m"}).Obj()
	w := newWorld(b, "", append(objects, pod)...)
	state := framework.NewCycleState()
	statuses := w.statuses(b, state, pod)
	b.ReportAllocs()
	for b.Loop() {
		w.plugin.PostFilter(b.Context(), state, pod, statuses)
	}
}

// A daemon pod that cannot get room: 50 controllers on its node, 5,000 full nodes.
func BenchmarkHopelessDaemonPod(b *testing.B) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "3"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	objects := []runtime.Object{ds, pod, st.MakeNode().Name("node").Capacity(resources{"cpu": "5", "pods": "110"}).Obj(),
		filler("important", "2500m", 0).Priority(1000).Obj()}
	for i := range 50 {
		objects = append(objects, ownedBy(filler(strconv.Itoa(i), "50m", i).Obj(), strconv.Itoa(i)))
	}
	for i := range 5000 {
		node := fmt.Sprintf("full-%04d", i)
		objects = append(objects, st.MakeNode().Name(node).Capacity(resources{"cpu": "1", "pods": "110"}).Obj(),
			filler("x"+strconv.Itoa(i), "1", 0).Node(node).Obj())
	}
	w := newWorld(b, "", objects...)
	b.ReportAllocs()
	for b.Loop() {
		if victims, _ := w.victims(b, pod); len(victims) != 0 {
			b.Fatal(victims)
		}
	}
}

// A daemon pod that takes the room of one of 50 controllers, of which some ask for
// nodes by a label, on 5,000 full nodes.
func BenchmarkDaemonPodAmongFullNodes(b *testing.B) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "50m"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	objects := []runtime.Object{ds, pod, st.MakeNode().Name("node").Label(corev1.LabelHostname, "node").Capacity(resources{"cpu": "2500m", "pods": "110"}).Obj()}
	for i := range 50 {
		victim := filler(strconv.Itoa(i), "50m", i)
		if i%2 == 0 {
			victim = victim.NodeSelector(map[string]string{corev1.LabelHostname: "node"})
		}
		objects = append(objects, ownedBy(victim.Obj(), strconv.Itoa(i)))
	}
	for i := range 5000 {
		node := fmt.Sprintf("full-%04d", i)
		objects = append(objects, st.MakeNode().Name(node).Label(corev1.LabelHostname, node).Capacity(resources{"cpu": "1", "pods": "110"}).Obj(),
			filler("x"+strconv.Itoa(i), "1", 0).Node(node).Obj())
	}
	w := newWorld(b, "", objects...)
	b.ReportAllocs()
	for b.Loop() {
		if victims, reason := w.victims(b, pod); len(victims) != 1 {
			b.Fatal(victims, reason)
		}
	}
}
