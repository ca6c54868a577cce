// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dryrun

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/snapshot"
)

func prepare(tb testing.TB, cluster *snapshot.Cluster) *Schedulers {
	tb.Helper()
	s, err := New(tb.Context(), cluster)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func onNode(tb testing.TB, s *Schedulers, name string) fwk.NodeInfo {
	tb.Helper()
	node, err := s.Node(name)
	if err != nil {
		tb.Fatal(err)
	}
	return node
}

// refusedBy returns the plugins that refuse a node, in the order of their names.
func refusedBy(a *Attempt) []string {
	var plugins []string
	for _, refusal := range a.Refusals {
		plugins = append(plugins, refusal.Plugin)
	}
	slices.Sort(plugins)
	return plugins
}

// A full node refuses a daemon pod. kube-scheduler evicts pods of lower priority for it, everynode-scheduler also one
// of its own priority that is controlled. Pods that have ended, and those of nodes that are gone, take no room.
func TestEvict(t *testing.T) {
	t.Parallel()
	ds := daemonsettest.Make("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "1"}).Obj()
	holder := func(name string, priority int32) *corev1.Pod {
		pod := st.MakePod().Namespace("default").Name(name).UID(name).Node("node-a").Priority(priority).
			Req(map[corev1.ResourceName]string{corev1.ResourceCPU: "2"}).Obj()
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "web", Controller: new(true)}}
		return pod
	}
	tests := map[string]struct {
		pod              *corev1.Pod
		edit             func(*corev1.Pod)
		stock, everynode string
	}{
		"lower priority":     {pod: holder("low", -1), stock: "low", everynode: "low"},
		"the same priority":  {pod: holder("same", 0), stock: "no pod on the node has a lower priority than 0", everynode: "same"},
		"higher priority":    {pod: holder("high", 1), stock: "no pod on the node has a lower priority than 0", everynode: "none of the pods of priority 0 and lower may make room, or it would not be enough"},
		"it has ended":       {pod: holder("ended", 0), edit: func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded }},
		"its node has gone":  {pod: holder("gone", 0), edit: func(pod *corev1.Pod) { pod.Spec.NodeName = "node-b" }},
		"taken to have left": {pod: holder("leaving", 0), edit: func(pod *corev1.Pod) { pod.DeletionTimestamp = new(metav1.Now()) }},
		"it takes nothing":   {pod: holder("low", -1), edit: func(pod *corev1.Pod) { pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{} }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.edit != nil {
				tc.edit(tc.pod)
			}
			node := st.MakeNode().Name("node-a").Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "2", corev1.ResourcePods: "10"}).Obj()
			s := prepare(t, &snapshot.Cluster{Nodes: []*corev1.Node{node}, DaemonSets: []*appsv1.DaemonSet{ds}, Pods: []*corev1.Pod{tc.pod}})
			if nodes, err := s.nodes.NodeInfos().List(); err != nil || len(nodes) != 1 {
				t.Errorf("the schedulers see %d nodes (%v)", len(nodes), err)
			}
			var gone []*corev1.Pod
			if tc.pod.DeletionTimestamp != nil {
				gone = append(gone, tc.pod)
			}
			for scheduler, want := range map[*Scheduler]string{s.Stock: tc.stock, s.Everynode: tc.everynode} {
				eviction, err := scheduler.Evict(t.Context(), daemonsettest.Pod(ds, node.Name), onNode(t, s, node.Name), nil, gone)
				if err != nil {
					t.Fatal(err)
				}
				have := []string{eviction.WhyNot}
				for _, victim := range eviction.Victims {
					have = append(have, victim.Name)
				}
				if have := strings.Join(have, ""); have != want {
					t.Errorf("%q, want %q", have, want)
				}
			}
		})
	}
}

// A refused pod hears all plugins that refuse it.
func TestTry(t *testing.T) {
	t.Parallel()
	node := st.MakeNode().Name("node-a").Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "1", corev1.ResourcePods: "10"}).
		Taints([]corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}).Obj()
	s := prepare(t, &snapshot.Cluster{Nodes: []*corev1.Node{node}})
	pod := st.MakePod().Namespace("default").Name("web").NodeSelector(map[string]string{"disk": "ssd"}).Req(map[corev1.ResourceName]string{corev1.ResourceCPU: "2"}).Obj()
	a, err := s.Stock.Try(t.Context(), pod, onNode(t, s, node.Name))
	if err != nil {
		t.Fatal(err)
	}
	have := refusedBy(a)
	if want := []string{names.NodeAffinity, names.NodeResourcesFit, names.TaintToleration}; !slices.Equal(want, have) || a.Fits() || !a.Final() {
		t.Errorf("refused by %s, want %s; fits: %t, final: %t", strings.Join(have, " "), strings.Join(want, " "), a.Fits(), a.Final())
	}
}

// What a node is refused for is what kubelet and scheduler check for a pod that comes to
// it (scheduler.AdmissionCheck).
func FuzzRefusals(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		n := st.MakeNode().Name("node-a").Capacity(map[corev1.ResourceName]string{
			corev1.ResourceCPU: "6", corev1.ResourceMemory: "9", corev1.ResourceEphemeralStorage: "9", corev1.ResourcePods: "3", "example.com/gpu": "2",
		}).Obj()
		n.Labels = choose.Node().Labels
		var others []*corev1.Pod
		for i := range choose.Intn(4) {
			other := &corev1.Pod{Spec: choose.Containers()}
			other.Name = fmt.Sprintf("other-%d", i)
			other.UID = types.UID(other.Name)
			other.Spec.NodeName = n.Name
			others = append(others, other)
		}
		ds := daemonsettest.Make("agent").Obj()
		candidate := daemonsettest.Pod(ds, choose.NodeName())
		candidate.Spec.Containers = choose.Containers().Containers
		candidate.Spec.NodeSelector = choose.Placement().NodeSelector

		info := framework.NewNodeInfo(others...)
		info.SetNode(n)
		var want []string
		for _, result := range kubescheduler.AdmissionCheck(candidate, info, true) {
			want = append(want, cmp.Or(result.Name, names.NodeResourcesFit))
		}

		s := prepare(t, &snapshot.Cluster{Nodes: []*corev1.Node{n}, DaemonSets: []*appsv1.DaemonSet{ds}, Pods: others})
		a, err := s.Stock.Try(t.Context(), candidate, onNode(t, s, n.Name))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		if diff := gocmp.Diff(slices.Compact(want), refusedBy(a)); diff != "" {
			t.Errorf("refusals (-AdmissionCheck,+have):\n%s", diff)
		}
	})
}
