// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"fmt"
	"iter"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func TestMemo(t *testing.T) {
	node := st.MakeNode().Name("node").Capacity(map[corev1.ResourceName]string{"cpu": "4", "pods": "110"}).Obj()
	logs := daemonsettest.Make("logs").NodeSelector("disktype", "ssd").Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{logs}, options)
	none := daemonsettest.Live()
	memo := daemonset.NewMemo(nil)

	if view := memo.Get(set, "node", 1); view != nil {
		t.Errorf("an empty memo knows %v", view)
	}
	view := memo.Compute(set, node, 1, none)
	if got := memo.Get(set, "node", 1); got != view {
		t.Errorf("the memo lost the view it has computed: %v", got)
	}
	if got := memo.Get(set, "node", 2); got != nil {
		t.Error("a later generation got the earlier view")
	}
	if got := memo.Get(daemonset.NewSet(nil, nil, options), "node", 1); got != nil {
		t.Error("other DaemonSets got the view of these")
	}

	// Which DaemonSets are expected is kept as well: it has to follow the node.
	labelled := st.MakeNode().Name("node").Label("disktype", "ssd").Capacity(map[corev1.ResourceName]string{"cpu": "4", "pods": "110"}).Obj()
	if held := memo.Compute(set, labelled, 2, none).Held; len(held) != 1 {
		t.Errorf("%d DaemonSets are held on the node that got their label, want 1", len(held))
	}
	pods := daemonsettest.Live(daemonsettest.BoundPod(logs, "node"))
	if held := memo.Compute(set, labelled, 3, pods).Held; len(held) != 0 {
		t.Errorf("%d DaemonSets are held on the node that got their pod, want 0", len(held))
	}

	memo.Forget("node")
	if got := memo.Get(set, "node", 3); got != nil {
		t.Error("the memo did not forget")
	}
}

// BenchmarkView measures a node of 100 pods in a cluster of 50 DaemonSets, the
// size of the project's performance goals.
func BenchmarkView(b *testing.B) {
	var list []*appsv1.DaemonSet
	var pods []*corev1.Pod
	for i := range 50 {
		ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).
			Requests(map[corev1.ResourceName]string{"cpu": "50m", "memory": "64Mi"}).Obj()
		list = append(list, ds)
		if i > 0 {
			pods = append(pods, daemonsettest.BoundPod(ds, "node"))
		}
	}
	for range 51 {
		pods = append(pods, st.MakePod().Req(map[corev1.ResourceName]string{"cpu": "100m"}).Obj())
	}
	node := st.MakeNode().Name("node").Capacity(map[corev1.ResourceName]string{"cpu": "64", "memory": "256Gi", "pods": "250"}).Obj()
	set := daemonset.NewSet(nil, list, options)

	b.Run("memo hit", func(b *testing.B) {
		memo := daemonset.NewMemo(nil)
		memo.Compute(set, node, 1, daemonsettest.Live(pods...))
		b.ReportAllocs()
		for b.Loop() {
			memo.Get(set, "node", 1)
		}
	})
	miss := func(pods iter.Seq2[*corev1.Pod, daemonset.Resources], newNode bool) func(*testing.B) {
		return func(b *testing.B) { //nolint:thelper // it is the benchmark itself
			memo := daemonset.NewMemo(daemonset.DefaultStartupTaints())
			b.ReportAllocs()
			for b.Loop() {
				if newNode {
					memo.Forget("node")
				}
				memo.Compute(set, node, 1, pods)
			}
		}
	}
	complete := append(slices.Clone(pods), daemonsettest.BoundPod(list[0], "node"))
	b.Run("pods changed, nothing missing", miss(daemonsettest.Live(complete...), false))
	b.Run("pods changed, one missing", miss(daemonsettest.Live(pods...), false))
	b.Run("node changed, one missing", miss(daemonsettest.Live(pods...), true))
}
