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
// 5,000, each with a pod of 50 DaemonSets and 50 other pods. A pod came to one of them since the
// cycle before, and one of the cluster's nodes always lacks a Ready pod.
func BenchmarkPreScore(b *testing.B) {
	const found, daemonSets = 500, 50
	for name, status := range map[string]corev1.ConditionStatus{"all Ready here": "True", "none Ready anywhere": "False"} {
		b.Run(name, func(b *testing.B) {
			other := st.MakeNode().Name("other").Obj()
			objects := []runtime.Object{other}
			nodes := make([]fwk.NodeInfo, found)
			infos := make([]*framework.NodeInfo, found)
			for i := range infos {
				node := st.MakeNode().Name(fmt.Sprintf("node-%04d", i)).Obj()
				infos[i] = nodeInfo(node)
				nodes[i] = infos[i]
				objects = append(objects, node)
			}
			for i := range daemonSets {
				ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).Obj()
				ds.Status.DesiredNumberScheduled, ds.Status.NumberReady = found+1, found
				objects = append(objects, ds)
				for _, info := range infos {
					pod := ready(daemonsettest.BoundPod(ds, info.Node().Name), status)
					pod.Name = ds.Name + "-" + info.Node().Name
					info.AddPod(pod)
					objects = append(objects, pod)
				}
			}
			for _, info := range infos {
				for i := range 50 {
					info.AddPod(st.MakePod().UID(fmt.Sprintf("%s-%d", info.Node().Name, i)).Obj())
				}
			}
			pl, _ := newReadiness(b, "", objects...)
			pod := st.MakePod().Obj()
			preScore := func() {
				if status := pl.PreScore(b.Context(), framework.NewCycleState(), pod, nodes); !status.IsSkip() {
					b.Fatalf("status is %v, want Skip", status)
				}
			}
			preScore()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				infos[i%found].Generation = int64(-i - 1)
				preScore()
			}
		})
	}
}
