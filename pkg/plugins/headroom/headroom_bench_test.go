// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom_test

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// BenchmarkFilter measures a cluster of 5,000 nodes with 100 pods each, 50 of
// them of as many DaemonSets. One DaemonSet is missing everywhere, so that room
// is held on every node.
func BenchmarkFilter(b *testing.B) {
	const nodes, pods, daemonSets = 5000, 100, 50
	var objects []runtime.Object
	var present []*corev1.Pod
	for i := range daemonSets {
		ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).Requests(resources{"cpu": "50m", "memory": "64Mi"}).Obj()
		objects = append(objects, ds)
		if i > 0 {
			present = append(present, daemonsettest.BoundPod(ds, "node"))
		}
	}
	for i := range pods - len(present) {
		present = append(present, st.MakePod().Name(strconv.Itoa(i)).UID(strconv.Itoa(i)).Req(resources{"cpu": "100m"}).Obj())
	}
	infos := make([]*framework.NodeInfo, nodes)
	for i := range infos {
		node := st.MakeNode().Name(fmt.Sprintf("node-%04d", i)).Capacity(resources{"cpu": "64", "memory": "256Gi", "pods": "250"}).Obj()
		infos[i] = nodeInfo(node, present...)
		objects = append(objects, node)
	}
	pl := newHeadroom(b, "", objects...)

	filter := func(pod *corev1.Pod, wantFit, touch bool) func(*testing.B) {
		return func(b *testing.B) { //nolint:thelper // it is the benchmark itself
			state := framework.NewCycleState()
			pl.PreFilter(b.Context(), state, pod, nil)
			for _, info := range infos {
				if fits := pl.Filter(b.Context(), state, pod, info).IsSuccess(); fits != wantFit {
					b.Fatalf("the pod fits: %v, want %v", fits, wantFit)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				info := infos[i%nodes]
				if touch {
					// What the scheduler's cache does when a pod comes or goes.
					info.Generation = int64(-i - 1)
				}
				pl.Filter(b.Context(), state, pod, info)
				i++
			}
		}
	}
	pod := func(cpu string) *corev1.Pod { return st.MakePod().Req(resources{"cpu": cpu, "memory": "1Gi"}).Obj() }
	// A node has 56450m left, 50m of which are held; all DaemonSets want 2500m.
	b.Run("room for everybody", filter(pod("100m"), true, false))
	b.Run("hit, fits", filter(pod("56300m"), true, false))
	b.Run("hit, held back", filter(pod("56440m"), false, false))
	b.Run("miss, fits", filter(pod("56300m"), true, true))
}

// BenchmarkHint measures one event, a pod that goes from a node of 100 pods, for as many pods
// that wait. What the event changes is computed once for all of them.
func BenchmarkHint(b *testing.B) {
	info, objects := busyNode(50, 2, 50, "100m")
	pl := newHeadroom(b, "", objects...)
	events, err := pl.EventsToRegister(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	hint := events[0].QueueingHintFn
	waiting := make([]*corev1.Pod, 10_000)
	for i := range waiting {
		waiting[i] = st.MakePod().Name(fmt.Sprintf("waiting-%d", i)).UID(fmt.Sprintf("waiting-%d", i)).Req(resources{"cpu": "9"}).Obj()
		state := framework.NewCycleState()
		pl.PreFilter(b.Context(), state, waiting[i], nil)
		if pl.Filter(b.Context(), state, waiting[i], info).IsSuccess() {
			b.Fatal("the pod fits")
		}
	}
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("%d pods wait", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				// An event brings an object of its own.
				gone := st.MakePod().Name("0").UID("0").Req(resources{"cpu": "150m"}).Node("node").Obj()
				for _, pod := range waiting[:n] {
					if got, err := hint(klog.Background(), pod, gone, nil); got != fwk.QueueSkip || err != nil {
						b.Fatal(got, err)
					}
				}
			}
		})
	}
}
