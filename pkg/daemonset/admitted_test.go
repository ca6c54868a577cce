// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// What is held is what the pods will request once they are admitted, on nodes that their
// admission leaves to them.
func TestHeldAsAdmitted(t *testing.T) {
	type resources = map[corev1.ResourceName]string
	limitRange := &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypePod, Max: list(resources{"cpu": "8"})},
		{Type: corev1.LimitTypeContainer, DefaultRequest: list(resources{"cpu": "1"}), Default: list(resources{"cpu": "2"})},
	}}}
	gvisor := &nodev1.RuntimeClass{
		Overhead: &nodev1.Overhead{PodFixed: list(resources{"cpu": "500m"})},
		Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"runtime": "gvisor"},
			Tolerations:  []corev1.Toleration{{Key: "gvisor", Operator: corev1.TolerationOpExists}},
		},
	}
	withRuntime := func(w *daemonsettest.Wrapper) *appsv1.DaemonSet {
		name := "gvisor"
		w.Obj().Spec.Template.Spec.RuntimeClassName = &name
		return w.Obj()
	}
	admitted := func(ds *appsv1.DaemonSet, change func(*corev1.PodSpec)) *corev1.Pod {
		pod := daemonsettest.Pod(ds, "another-node")
		change(&pod.Spec)
		return pod
	}
	request := func(cpu string) func(*corev1.PodSpec) {
		return func(spec *corev1.PodSpec) {
			spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		}
	}
	agent := daemonsettest.Make("agent").Requests(resources{"cpu": "300m"}).Obj()
	sized := daemonsettest.Make("agent").Requests(resources{"cpu": "300m"}).Annotation(daemonset.ResourcesAnnotation, `{"main": {"cpu": "10%"}}`).Obj()

	// Each want is the CPU that is held on nodes without a label, with the label that gvisor
	// wants, and with it and a taint that gvisor tolerates.
	tests := map[string]struct {
		ds         *appsv1.DaemonSet
		limitRange bool
		newest     *corev1.Pod
		want       [3]int64
	}{
		"a template that requests":                       {ds: agent, want: [3]int64{300, 300}},
		"a request is no matter for a LimitRange":        {ds: agent, limitRange: true, want: [3]int64{300, 300}},
		"a LimitRange gives the default request":         {ds: daemonsettest.Make("agent").Obj(), limitRange: true, want: [3]int64{1000, 1000}},
		"a RuntimeClass adds overhead and a selector":    {ds: withRuntime(daemonsettest.Make("agent").Requests(resources{"cpu": "300m"})), want: [3]int64{0, 800}},
		"the newest pod requests more than its template": {ds: agent, newest: admitted(agent, request("700m")), want: [3]int64{700, 700}},
		"the newest pod counts, not the LimitRange": {
			ds: daemonsettest.Make("agent").Obj(), limitRange: true, newest: admitted(agent, request("100m")), want: [3]int64{100, 100}},
		"the newest pod has a node selector": {
			ds:     agent,
			newest: admitted(agent, func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{"runtime": "gvisor"} }),
			want:   [3]int64{0, 300},
		},
		"another webhook has narrowed the newest pod's affinity": {
			ds: agent,
			newest: admitted(agent, func(spec *corev1.PodSpec) {
				term := &spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
				term.MatchExpressions = []corev1.NodeSelectorRequirement{{Key: "runtime", Operator: corev1.NodeSelectorOpExists}}
			}),
			want: [3]int64{0, 300},
		},
		"the size rule is that of the node, not of the newest pod's": {
			ds: sized, newest: admitted(sized, request("6400m")), want: [3]int64{400, 400}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			options := classes
			options.Newest = func(*appsv1.DaemonSet, string) *corev1.Pod { return tc.newest }
			options.LimitRanges = func(string) []*corev1.LimitRange {
				if !tc.limitRange {
					return nil
				}
				return []*corev1.LimitRange{limitRange}
			}
			options.RuntimeClass = func(name string) *nodev1.RuntimeClass {
				if name != "gvisor" {
					return nil
				}
				return gvisor
			}
			set := daemonset.NewSet(nil, []*appsv1.DaemonSet{tc.ds}, options)
			var got [3]int64
			for i, node := range []*st.NodeWrapper{
				st.MakeNode(), st.MakeNode().Label("runtime", "gvisor"),
				st.MakeNode().Label("runtime", "gvisor").Taints([]corev1.Taint{{Key: "gvisor", Effect: corev1.TaintEffectNoSchedule}}),
			} {
				node := node.Name("node").Capacity(resources{"cpu": "4", "pods": "110"}).Obj()
				if held := daemonset.NewView(set, daemonset.Scope{}, node, set.Expected(node, nil), daemonsettest.Live()).Held; len(held) > 0 {
					got[i] = held[0].Total.MilliCPU
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("held CPU (-want,+got):\n%s", diff)
			}
		})
	}
}

// Pods of one DaemonSet on nodes of all sizes tell the same: a Set does not change with
// each pod.
func TestForesees(t *testing.T) {
	ds := daemonsettest.Make("agent").Annotation(daemonset.ResourcesAnnotation, `{"main": {"cpu": "10%"}}`).Obj()
	pod := func(node, cpu string) *corev1.Pod {
		pod := daemonsettest.Pod(ds, node)
		zero := int32(0)
		pod.Spec.Priority = &zero
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		return pod
	}
	options := classes
	options.Newest = func(*appsv1.DaemonSet, string) *corev1.Pod { return pod("small", "200m") }
	compiled := daemonset.New(ds, options)
	if !compiled.Foresees(pod("large", "6400m")) {
		t.Error("a pod that differs by the size of its node is not foreseen")
	}
	other := pod("large", "6400m")
	other.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	if compiled.Foresees(other) {
		t.Error("a pod with an overhead is foreseen by one without")
	}
}

func TestIsCurrent(t *testing.T) {
	ds := daemonsettest.Make("agent").Generation(3).Obj()
	for name, tc := range map[string]struct {
		labels map[string]string
		want   bool
	}{
		"the generation of the template": {map[string]string{"pod-template-generation": "3", "controller-revision-hash": "other"}, true},
		"the revision, after a rollback": {map[string]string{"pod-template-generation": "1", "controller-revision-hash": "current"}, true},
		"neither":                        {map[string]string{"pod-template-generation": "2", "controller-revision-hash": "other"}, false},
		"no labels":                      {nil, false},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: tc.labels}}
		if got := daemonset.IsCurrent(ds, "current", pod); got != tc.want {
			t.Errorf("%s: current %v, want %v", name, got, tc.want)
		}
	}
}

func TestPriorities(t *testing.T) {
	class := func(name string, value int32, isDefault bool) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault}
	}
	tests := map[string]struct {
		classes []*schedulingv1.PriorityClass
		want    map[string]int32
	}{
		"no default": {[]*schedulingv1.PriorityClass{class("high", 10, false)}, map[string]int32{"high": 10}},
		"of two defaults the lower one": {
			[]*schedulingv1.PriorityClass{class("a", 3, true), class("low", -5, false), class("b", 2, true), class("c", 4, true)},
			map[string]int32{"a": 3, "low": -5, "b": 2, "c": 4, "": 2},
		},
		"a default below 0": {[]*schedulingv1.PriorityClass{class("a", -1, true)}, map[string]int32{"a": -1, "": -1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, daemonset.Priorities(test.classes)); diff != "" {
				t.Errorf("(-want, +got):\n%s", diff)
			}
		})
	}
}
