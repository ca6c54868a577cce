// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// classes compiles DaemonSets for a cluster with two PriorityClasses.
var classes = daemonset.Options{Priority: func(name string) int32 {
	return map[string]int32{"high": 1000, "low": -10}[name]
}}

func TestView(t *testing.T) {
	type resources = map[corev1.ResourceName]string
	logs := daemonsettest.Make("logs").Requests(resources{"cpu": "500m", "memory": "1Gi"})
	metrics := daemonsettest.Make("metrics").Requests(resources{"cpu": "300m"}).HostPort(9100)
	terminating := func(pod *corev1.Pod) *corev1.Pod {
		now := metav1.Now()
		pod.DeletionTimestamp = &now
		return pod
	}
	mirror := st.MakePod().Name("static").Annotation(corev1.MirrorPodAnnotationKey, "x").Req(resources{"cpu": "3600m"}).Obj()
	kruise := daemonsettest.BoundPod(daemonsettest.Make("kruise").Requests(resources{"cpu": "3600m"}).Obj(), "node")
	kruise.OwnerReferences[0].APIVersion = "apps.kruise.io/v1alpha1"
	ofRevision := func(pod *corev1.Pod, revision string) *corev1.Pod {
		pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = revision
		return pod
	}
	forged := daemonsettest.BoundPod(logs.Obj(), "node")
	forged.Namespace = "somewhere-else"

	// A hold is written as the DaemonSet's name and the CPU held so far.
	type hold struct {
		Name     string
		MilliCPU int64
		Pods     int64
		Ports    int
	}
	tests := map[string]struct {
		daemonSets []*appsv1.DaemonSet
		pods       []*corev1.Pod
		want       []hold
	}{
		"nothing is held without DaemonSets": {
			pods: []*corev1.Pod{st.MakePod().Req(resources{"cpu": "1"}).Obj()},
		},
		"missing ones are held in the order of their names": {
			daemonSets: []*appsv1.DaemonSet{metrics.Obj(), logs.Obj()},
			want:       []hold{{"logs", 500, 1, 0}, {"metrics", 800, 2, 1}},
		},
		"higher priorities come first": {
			daemonSets: []*appsv1.DaemonSet{
				daemonsettest.Make("a").PriorityClass("low").Obj(), daemonsettest.Make("b").Obj(), daemonsettest.Make("c").PriorityClass("high").Obj(),
			},
			want: []hold{{"c", 0, 1, 0}, {"b", 0, 2, 0}, {"a", 0, 3, 0}},
		},
		"what is present is not held": {
			daemonSets: []*appsv1.DaemonSet{metrics.Obj(), logs.Obj()},
			pods:       []*corev1.Pod{daemonsettest.BoundPod(logs.Obj(), "node")},
			want:       []hold{{"metrics", 300, 1, 1}},
		},
		"a pod in another namespace with the owner's UID is not the DaemonSet's": {
			daemonSets: []*appsv1.DaemonSet{logs.Obj()},
			pods:       []*corev1.Pod{forged},
			want:       []hold{{"logs", 500, 1, 0}},
		},
		"a DaemonSet that does not belong on the node is not held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("ssd").NodeSelector("disktype", "ssd").Obj()},
		},
		"the annotation turns holding off": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("off").Annotation(daemonset.HoldAnnotation, "false").Obj()},
		},
		"any other value of the annotation leaves it on": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("on").Annotation(daemonset.HoldAnnotation, "no").Obj()},
			want:       []hold{{"on", 0, 1, 0}},
		},
		"a DaemonSet that is being deleted is not held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("gone").Terminating().Obj()},
		},
		"what could never fit is not held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("a-giant").Requests(resources{"cpu": "5"}).Obj(), logs.Obj()},
			want:       []hold{{"logs", 500, 1, 0}},
		},
		"what does not fit beside present daemon pods is not held": {
			daemonSets: []*appsv1.DaemonSet{
				daemonsettest.Make("big").Requests(resources{"cpu": "3600m"}).Obj(), logs.Obj(), metrics.Obj(),
			},
			pods: []*corev1.Pod{daemonsettest.BoundPod(daemonsettest.Make("big").Requests(resources{"cpu": "3600m"}).Obj(), "node")},
			want: []hold{{"metrics", 300, 1, 1}},
		},
		"what does not fit beside static pods is not held": {
			daemonSets: []*appsv1.DaemonSet{logs.Obj(), metrics.Obj()},
			pods:       []*corev1.Pod{mirror},
			want:       []hold{{"metrics", 300, 1, 1}},
		},
		"ordinary pods do not matter for what is held": {
			daemonSets: []*appsv1.DaemonSet{logs.Obj()},
			pods:       []*corev1.Pod{st.MakePod().Req(resources{"cpu": "3900m"}).Obj()},
			want:       []hold{{"logs", 500, 1, 0}},
		},
		"of two that need one port, the first by name is held": {
			daemonSets: []*appsv1.DaemonSet{metrics.Obj(), daemonsettest.Make("other").HostPort(9100).Obj()},
			want:       []hold{{"metrics", 300, 1, 1}},
		},
		"a port that a present daemon pod uses is not held for another": {
			daemonSets: []*appsv1.DaemonSet{metrics.Obj(), daemonsettest.Make("a").HostPort(9100).Obj()},
			pods:       []*corev1.Pod{daemonsettest.BoundPod(metrics.Obj(), "node")},
		},
		"a terminating pod leaves its room to its successor": {
			daemonSets: []*appsv1.DaemonSet{metrics.Obj()},
			pods:       []*corev1.Pod{terminating(daemonsettest.BoundPod(metrics.Obj(), "node"))},
		},
		"the growth of a rolling update is held before the old pod goes": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m", "memory": "1Gi"}).Generation(2).Obj()},
			pods:       []*corev1.Pod{daemonsettest.BoundPod(logs.Obj(), "node")},
			want:       []hold{{"logs", 200, 0, 0}},
		},
		"the growth of an update that waits for deletions is not held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(2).OnDelete().Obj()},
			pods:       []*corev1.Pod{daemonsettest.BoundPod(logs.Obj(), "node")},
		},
		"a surging update needs the whole room once more": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(2).MaxSurge(1).Obj()},
			pods:       []*corev1.Pod{daemonsettest.BoundPod(logs.Obj(), "node")},
			want:       []hold{{"logs", 700, 1, 0}},
		},
		"a terminating pod of a surging update leaves its room to its successor": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(2).MaxSurge(1).Obj()},
			pods:       []*corev1.Pod{terminating(daemonsettest.BoundPod(logs.Obj(), "node"))},
			want:       []hold{{"logs", 200, 0, 0}},
		},
		"what the node does not list is left out": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("gpu").Requests(resources{"cpu": "1", "example.com/gpu": "1"}).Obj()},
			want:       []hold{{"gpu", 1000, 1, 0}},
		},
		"what the node lists as 0 is left out": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("gpu").Requests(resources{"cpu": "1", "example.com/dev": "2"}).Obj()},
			want:       []hold{{"gpu", 1000, 1, 0}},
		},
		"more of a device than the node has never fits": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("gpu").Requests(resources{"cpu": "1", "example.com/fpga": "2"}).Obj()},
		},
		"an absurd request changes nothing for others": {
			daemonSets: []*appsv1.DaemonSet{
				daemonsettest.Make("a").PriorityClass("high").Requests(resources{"memory": "8Ei", "cpu": "9223372036854775807"}).Obj(),
				daemonsettest.Make("b").PriorityClass("high").Requests(resources{"memory": "1Ei", "example.com/dev": "9223372036854775807"}).Obj(),
				logs.Obj(),
			},
			want: []hold{{"logs", 500, 1, 0}},
		},
		"a pod of another kind of daemon stays": {
			daemonSets: []*appsv1.DaemonSet{logs.Obj()},
			pods:       []*corev1.Pod{kruise},
		},
		"a rollback makes earlier pods current": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(3).Obj()},
			pods:       []*corev1.Pod{ofRevision(daemonsettest.BoundPod(logs.Obj(), "node"), "current")},
		},
		"a surging update that has both pods is complete": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(2).MaxSurge(1).Obj()},
			pods: []*corev1.Pod{
				daemonsettest.BoundPod(logs.Obj(), "node"),
				daemonsettest.BoundPod(daemonsettest.Make("logs").Requests(resources{"cpu": "700m"}).Generation(2).Obj(), "node"),
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "memory": "16Gi", "pods": "110", "example.com/dev": "0", "example.com/fpga": "1"}).Obj()
			options := classes
			options.Revision = func(*appsv1.DaemonSet) string { return "current" }
			set := daemonset.NewSet(nil, tc.daemonSets, options)
			view := daemonset.NewView(set, daemonset.Scope{Kinds: daemonset.DefaultKinds()}, node, set.Expected(node, nil), daemonsettest.Live(tc.pods...))
			var got []hold
			for _, h := range view.Held {
				got = append(got, hold{h.DaemonSet.Name, h.Total.MilliCPU, h.Total.Pods, len(h.HostPorts)})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("held (-want,+got):\n%s", diff)
			}
		})
	}
}

func TestHeldFor(t *testing.T) {
	node := st.MakeNode().Name("node").Capacity(map[corev1.ResourceName]string{"cpu": "4", "pods": "110"}).Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{
		daemonsettest.Make("high").PriorityClass("high").Obj(),
		daemonsettest.Make("middle").Obj(),
		daemonsettest.Make("low").PriorityClass("low").Obj(),
	}, classes)
	view := daemonset.NewView(set, daemonset.Scope{}, node, set.Expected(node, nil), daemonsettest.Live())
	for priority, want := range map[int32]int{2000: 0, 1000: 1, 1: 1, 0: 2, -9: 2, -10: 3, -1000: 3} {
		if got := len(view.HeldFor(priority)); got != want {
			t.Errorf("%d DaemonSets are held for at least priority %d, want %d", got, priority, want)
		}
	}
}

// Nothing is held, and nothing is missing, on nodes that run one pod each or none at all.
func TestViewOfVirtualNodes(t *testing.T) {
	wildcard := daemonsettest.Make("agent").Requests(map[corev1.ResourceName]string{"cpu": "1"}).Obj()
	wildcard.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{wildcard}, classes)
	for name, wrapper := range map[string]*st.NodeWrapper{
		"fargate":            st.MakeNode().Label("eks.amazonaws.com/compute-type", "fargate"),
		"virtual kubelet":    st.MakeNode().Label("type", "virtual-kubelet"),
		"virtual by a taint": st.MakeNode().Taints([]corev1.Taint{{Key: "virtual-kubelet.io/provider", Effect: corev1.TaintEffectNoSchedule}}),
	} {
		node := wrapper.Name("node").Capacity(map[corev1.ResourceName]string{"cpu": "4", "pods": "110"}).Obj()
		view := daemonset.NewView(set, daemonset.Scope{}, node, set.Expected(node, nil), daemonsettest.Live())
		if diff := cmp.Diff(&daemonset.View{}, view); diff != "" {
			t.Errorf("%s (-want,+got):\n%s", name, diff)
		}
	}
}

// A hold that has lapsed makes room for the hold of another DaemonSet.
func TestViewOfLapsedHolds(t *testing.T) {
	type resources = map[corev1.ResourceName]string
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "110"}).Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{
		daemonsettest.Make("a").Requests(resources{"cpu": "3"}).Obj(), daemonsettest.Make("b").Requests(resources{"cpu": "2"}).Obj(),
	}, classes)
	names := func(set *daemonset.Set) (held, lapsed []string) {
		view := daemonset.NewView(set, daemonset.Scope{}, node, set.Expected(node, nil), daemonsettest.Live())
		for i := range view.Held {
			held = append(held, view.Held[i].DaemonSet.Name)
		}
		for _, ds := range view.Lapsed {
			lapsed = append(lapsed, ds.Name)
		}
		return held, lapsed
	}
	later := set.WithLapsed(daemonset.Lapsed{"a": sets.New("node")})
	for _, tc := range []struct {
		set          *daemonset.Set
		held, lapsed []string
	}{
		{set, []string{"a"}, nil},
		{later, []string{"b"}, []string{"a"}},
		{later.WithLapsed(daemonset.Lapsed{"a": sets.New("other")}), []string{"a"}, nil},
		// Another change of DaemonSets keeps what has lapsed.
		{daemonset.NewSet(later, []*appsv1.DaemonSet{daemonsettest.Make("a").Requests(resources{"cpu": "3"}).Obj()}, classes), nil, []string{"a"}},
	} {
		held, lapsed := names(tc.set)
		if diff := cmp.Diff([][]string{tc.held, tc.lapsed}, [][]string{held, lapsed}); diff != "" {
			t.Errorf("held and lapsed (-want,+got):\n%s", diff)
		}
	}
}

func TestSetIsTheSameUntilSomethingThatCountsChanges(t *testing.T) {
	list := func(logs *daemonsettest.Wrapper) []*appsv1.DaemonSet {
		return []*appsv1.DaemonSet{logs.Obj(), daemonsettest.Make("metrics").Obj()}
	}
	before := daemonset.NewSet(nil, list(daemonsettest.Make("logs")), options)
	status := daemonsettest.Make("logs")
	status.Obj().Status.NumberReady = 3
	tests := map[string]struct {
		list     []*appsv1.DaemonSet
		options  daemonset.Options
		wantSame bool
	}{
		"a status":           {list(status), options, true},
		"another annotation": {list(daemonsettest.Make("logs").Annotation("owner", "me")), options, true},
		"a template":         {list(daemonsettest.Make("logs").Generation(2)), options, false},
		"the annotation":     {list(daemonsettest.Make("logs").Annotation(daemonset.HoldAnnotation, "false")), options, false},
		"a deletion":         {list(daemonsettest.Make("logs").Terminating()), options, false},
		"a priority":         {list(daemonsettest.Make("logs")), daemonset.Options{Priority: func(string) int32 { return 7 }}, false},
		"one more":           {append(list(daemonsettest.Make("logs")), daemonsettest.Make("third").Obj()), options, false},
		"one less":           {list(daemonsettest.Make("logs"))[:1], options, false},
		"one replaced":       {list(daemonsettest.Make("lags")), options, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			after := daemonset.NewSet(before, tc.list, tc.options)
			if same := after == before; same != tc.wantSame {
				t.Errorf("same set: %v, want %v", same, tc.wantSame)
			}
			if !tc.wantSame && tc.options.Priority("") == 0 && after.Get("metrics") != nil && after.Get("metrics") != before.Get("metrics") {
				t.Error("a DaemonSet that did not change was compiled again")
			}
		})
	}
}
