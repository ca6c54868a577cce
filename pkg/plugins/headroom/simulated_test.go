// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/headroom"
)

// simulation changes a copy of a node as preemption does.
type simulation struct {
	plugin *headroom.Headroom
	pod    *corev1.Pod
	state  fwk.CycleState
	node   *framework.NodeInfo
}

func newSimulation(tb testing.TB, pl *headroom.Headroom, pod *corev1.Pod, node *framework.NodeInfo) *simulation {
	tb.Helper()
	state := framework.NewCycleState()
	if _, status := pl.PreFilter(tb.Context(), state, pod, nil); !status.IsSuccess() {
		tb.Fatal(status)
	}
	return (&simulation{pl, pod, state, node}).copy()
}

func (s *simulation) copy() *simulation {
	return &simulation{s.plugin, s.pod, s.state.Clone(), s.node.SnapshotConcrete()}
}

func (s *simulation) remove(tb testing.TB, info fwk.PodInfo) {
	tb.Helper()
	if err := s.node.RemovePod(klog.Background(), info.GetPod()); err != nil {
		tb.Fatal(err)
	}
	s.plugin.PreFilterExtensions().RemovePod(tb.Context(), s.state, s.pod, info, s.node)
}

func (s *simulation) add(tb testing.TB, info fwk.PodInfo) {
	tb.Helper()
	s.node.AddPodInfo(info)
	s.plugin.PreFilterExtensions().AddPod(tb.Context(), s.state, s.pod, info, s.node)
}

func (s *simulation) filter(tb testing.TB) *fwk.Status {
	tb.Helper()
	return s.plugin.Filter(tb.Context(), s.state, s.pod, s.node)
}

// busyNode returns a node with pods of all but the first, missing DaemonSets, ordinary pods and a
// static one, and these objects.
func busyNode(daemonSets, missing, ordinary int, daemonCPU string) (*framework.NodeInfo, []runtime.Object) {
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "16", "memory": "64Gi", "pods": "250"}).Obj()
	objects := []runtime.Object{node}
	var pods []*corev1.Pod
	for i := range daemonSets {
		ds := daemonsettest.Make(fmt.Sprintf("ds-%02d", i)).Requests(resources{"cpu": daemonCPU, "memory": "64Mi"}).Obj()
		objects = append(objects, ds)
		if i >= missing {
			pods = append(pods, daemonsettest.BoundPod(ds, "node"))
		}
	}
	for i := range ordinary {
		pods = append(pods, st.MakePod().Name(strconv.Itoa(i)).UID(strconv.Itoa(i)).Req(resources{"cpu": "150m"}).Node("node").Obj())
	}
	pods = append(pods, st.MakePod().Name("static").UID("static").Annotation(corev1.MirrorPodAnnotationKey, "x").Req(resources{"cpu": "100m"}).Node("node").Obj())
	for _, pod := range pods {
		objects = append(objects, pod)
	}
	return nodeInfo(node, pods...), objects
}

// A simulation on which pods of all kinds come and go gives the same answers as a look at
// the node as it is then.
func TestSimulatedNodesAreJudgedAsRealOnes(t *testing.T) {
	info, objects := busyNode(8, 3, 40, "1")
	pl := newHeadroom(t, "", objects...)
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nothing secret
		pod := st.MakePod().Name("pod").UID("pod").Req(resources{"cpu": fmt.Sprintf("%dm", 100+random.IntN(7000))}).Obj()
		s := newSimulation(t, pl, pod, info)
		var gone []fwk.PodInfo
		for step := range 60 {
			present := s.node.GetPods()
			switch {
			case random.IntN(8) == 0:
				s = s.copy()
			case len(present) > 0 && (len(gone) == 0 || random.IntN(2) == 0):
				chosen := present[random.IntN(len(present))]
				s.remove(t, chosen)
				gone = append(gone, chosen)
			default:
				last := len(gone) - 1
				s.add(t, gone[last])
				gone = gone[:last]
			}
			anew := framework.NewCycleState()
			pl.PreFilter(t.Context(), anew, pod, nil)
			if diff := cmp.Diff(pl.Filter(t.Context(), anew, pod, s.node), s.filter(t)); diff != "" {
				t.Fatalf("seed %d, step %d (-as it is,+simulated):\n%s", seed, step, diff)
			}
		}
	}
}

// BenchmarkSimulation takes all ordinary pods from a node with pods of 50 DaemonSets and puts
// them back one by one, with a Filter after each, as preemption does.
func BenchmarkSimulation(b *testing.B) {
	info, objects := busyNode(50, 2, 50, "100m")
	pl := newHeadroom(b, "", objects...)
	var ordinary []fwk.PodInfo
	for _, pod := range info.GetPods() {
		if pod.GetPod().OwnerReferences == nil && pod.GetPod().Name != "static" {
			ordinary = append(ordinary, pod)
		}
	}
	pod := st.MakePod().Name("pod").UID("pod").Req(resources{"cpu": "3"}).Obj()
	first := newSimulation(b, pl, pod, info)
	b.ReportAllocs()
	for b.Loop() {
		s := first.copy()
		for _, info := range ordinary {
			s.remove(b, info)
		}
		for _, info := range ordinary {
			s.filter(b)
			s.add(b, info)
		}
	}
}
