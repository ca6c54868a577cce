// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// BenchmarkPreScore measures the 500 nodes that the scheduler finds for a pod in a cluster of
// 5,000, each with a pod of 50 DaemonSets and 50 other pods.
func BenchmarkPreScore(b *testing.B) {
	const found, daemonSets, others = 500, 50, 50
	preScore := func(status corev1.ConditionStatus, changes bool) func(*testing.B) {
		return func(b *testing.B) { //nolint:thelper // it is the benchmark itself
			var objects []runtime.Object
			var nodes []fwk.NodeInfo
			for i := range found {
				name := fmt.Sprintf("node-%04d", i)
				node := st.MakeNode().Name(name).Obj()
				nodes = append(nodes, nodeInfo(node))
				objects = append(objects, node)
				for i := range others {
					objects = append(objects, st.MakePod().Namespace("default").Name(fmt.Sprintf("%s-%d", name, i)).Node(name).Obj())
				}
			}
			for i := range daemonSets {
				ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).Obj()
				objects = append(objects, ds)
				for _, info := range nodes {
					pod := ready(daemonsettest.BoundPod(ds, info.Node().Name), status)
					pod.Name = ds.Name + "-" + info.Node().Name
					objects = append(objects, pod)
				}
			}
			pl, _ := newReadiness(b, "", objects...)
			pod, state := st.MakePod().Obj(), framework.NewCycleState()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if changes {
					pl.Forget(nodes[i%found].Node())
				}
				if status := pl.PreScore(b.Context(), state, pod, nodes); !status.IsSkip() {
					b.Fatalf("status is %v, want Skip", status)
				}
			}
		}
	}
	b.Run("all Ready", preScore("True", false))
	b.Run("all Ready, one node has changed", preScore("True", true))
	b.Run("none Ready", preScore("False", false))
}
