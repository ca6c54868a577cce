// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package views_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/views"
)

type resources = map[corev1.ResourceName]string

var options = daemonset.Options{Priority: func(string) int32 { return 0 }}

func newViews(tb testing.TB, objects ...runtime.Object) (*views.Views, *plugintest.Scheduler) {
	tb.Helper()
	scheduler := plugintest.NewScheduler(tb, objects...)
	made, err := views.New(daemonset.Scope{}, scheduler.Handle.SharedInformerFactory().Core().V1().Nodes().Informer())
	if err != nil {
		tb.Fatal(err)
	}
	scheduler.Start(tb)
	return made, scheduler
}

func infoOf(node *corev1.Node, generation int64, pods ...*corev1.Pod) *framework.NodeInfo {
	info := framework.NewNodeInfo(pods...)
	info.SetNode(node)
	info.Generation = generation
	return info
}

// A view is computed anew when, and only when, the DaemonSets or the node have changed.
func TestOf(t *testing.T) {
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "110"}).Obj()
	labelled := st.MakeNode().Name("node").Label("disktype", "ssd").Capacity(resources{"cpu": "4", "pods": "110"}).Obj()
	logs := daemonsettest.Make("logs").NodeSelector("disktype", "ssd").Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{logs}, options)
	present := daemonsettest.BoundPod(logs, "node")
	v, _ := newViews(t, node)
	pod, member := st.MakePod().Obj(), st.MakePod().PodGroupName("gang").Obj()

	steps := []struct {
		name         string
		pod          *corev1.Pod
		set          *daemonset.Set
		info         *framework.NodeInfo
		wantHeld     int
		wantComputed uint64
	}{
		{"the first look", pod, set, infoOf(node, 1), 0, 1},
		{"nothing has changed", pod, set, infoOf(node, 1), 0, 1},
		{"a pod has come or gone", pod, set, infoOf(node, 2), 0, 2},
		{"the node has got the label", pod, set, infoOf(labelled, 3), 1, 3},
		{"the daemon pod is there", pod, set, infoOf(labelled, 4, present), 0, 4},
		{"a hold has lapsed somewhere", pod, set.WithLapsed(nil), infoOf(labelled, 4, present), 0, 5},
		// Its cycle changes nodes without a new generation.
		{"a pod of a group", member, set, infoOf(labelled, 4), 1, 6},
		{"a pod of a group comes first to a changed node", member, set, infoOf(node, 5), 0, 7},
		{"another pod comes to it", pod, set, infoOf(node, 5), 0, 8},
		{"a pod of a group comes first to a node with the label", member, set, infoOf(labelled, 6), 1, 9},
		{"its own look is not kept", pod, set, infoOf(labelled, 6, present), 0, 10},
	}
	for _, step := range steps {
		view := v.Of(step.set, step.pod, step.info)
		if len(view.Held) != step.wantHeld || v.Computed() != step.wantComputed {
			t.Errorf("%s: %d DaemonSets are held, %d views were computed; want %d and %d",
				step.name, len(view.Held), v.Computed(), step.wantHeld, step.wantComputed)
		}
	}
}

// A cycle that is under way goes on with a node that has been deleted. What it
// computes must not be kept for ever.
func TestDeletedNodesAreForgotten(t *testing.T) {
	node := st.MakeNode().Name("node").Obj()
	set := daemonset.NewSet(nil, nil, options)
	v, scheduler := newViews(t, node)
	v.Of(set, st.MakePod().Obj(), infoOf(node, 1))
	if got := v.Len(); got != 1 {
		t.Errorf("%d views are kept, want 1", got)
	}
	if err := scheduler.Client.CoreV1().Nodes().Delete(t.Context(), "node", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) { return v.Len() == 0, nil }); err != nil {
		t.Fatal("the deleted node's view is kept")
	}
	v.Of(set, st.MakePod().Obj(), infoOf(node, 2))
	if got := v.Len(); got != 0 {
		t.Errorf("%d views of deleted nodes are kept", got)
	}
}

// The bound follows the largest node.
func TestBounds(t *testing.T) {
	small := st.MakeNode().Name("small").Capacity(resources{"cpu": "2", "memory": "4Gi"}).Obj()
	large := st.MakeNode().Name("large").Capacity(resources{"cpu": "8", "memory": "2Gi"}).Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{
		daemonsettest.Make("a").Requests(resources{"cpu": "1"}).Obj(),
		daemonsettest.Make("b").Requests(resources{"cpu": "4", "memory": "1Ei"}).Obj(),
		daemonsettest.Make("c").Requests(resources{"cpu": "4"}).Annotation(daemonset.HoldAnnotation, "false").Obj(),
	}, options)
	v, scheduler := newViews(t, small)
	if got := v.Bounds(set).MaxHeld(0).Resources; got.MilliCPU != 1000 || got.Memory != 0 {
		t.Errorf("at most %dm and %d bytes are held, want 1000m and 0", got.MilliCPU, got.Memory)
	}
	if _, err := scheduler.Client.CoreV1().Nodes().Create(t.Context(), large, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		return v.Bounds(set).MaxHeld(0).Resources.MilliCPU == 5000, nil
	}); err != nil {
		t.Errorf("at most %dm are held on the larger node, want 5000m", v.Bounds(set).MaxHeld(0).Resources.MilliCPU)
	}
}

// BenchmarkOf measures a node of 100 pods in a cluster of 50 DaemonSets, the
// size of the project's performance goals.
func BenchmarkOf(b *testing.B) {
	var list []*appsv1.DaemonSet
	var pods []*corev1.Pod
	for i := range 50 {
		ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).Requests(resources{"cpu": "50m", "memory": "64Mi"}).Obj()
		list = append(list, ds)
		if i > 0 {
			pods = append(pods, daemonsettest.BoundPod(ds, "node"))
		}
	}
	for i := range 51 {
		pods = append(pods, st.MakePod().UID(strconv.Itoa(i)).Req(resources{"cpu": "100m"}).Obj())
	}
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "64", "memory": "256Gi", "pods": "250"}).Obj()
	v, _ := newViews(b, node)
	set := daemonset.NewSet(nil, list, options)
	pod := st.MakePod().Obj()
	complete := infoOf(node, 1, append(pods, daemonsettest.BoundPod(list[0], "node"))...)
	missing := infoOf(node, 1, pods...)
	look := func(pod *corev1.Pod, info *framework.NodeInfo, change func(i int64)) func(*testing.B) {
		return func(b *testing.B) { //nolint:thelper // it is the benchmark itself
			v.Of(set, pod, info)
			b.ReportAllocs()
			for i := int64(2); b.Loop(); i++ {
				change(i)
				v.Of(set, pod, info)
			}
		}
	}
	b.Run("nothing changed", look(pod, missing, func(int64) {}))
	b.Run("pods changed, nothing missing", look(pod, complete, func(i int64) { complete.Generation = i }))
	b.Run("pods changed, one missing", look(pod, missing, func(i int64) { missing.Generation = i }))
	b.Run("a pod group's pod, one missing", look(st.MakePod().PodGroupName("gang").Obj(), missing, func(int64) {}))
	b.Run("node changed, one missing", look(pod, missing, func(i int64) {
		missing.SetNode(node.DeepCopy())
		missing.Generation = i
	}))
}
