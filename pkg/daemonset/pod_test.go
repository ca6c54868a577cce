// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodeaffinity"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func TestOwnerOf(t *testing.T) {
	owned := func(apiVersion, kind string, controller bool) *corev1.Pod {
		pod := st.MakePod().Obj()
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, UID: "owner", Controller: &controller}}
		return pod
	}
	tests := map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"a DaemonSet":                         {owned("apps/v1", "DaemonSet", true), "owner"},
		"a DaemonSet of another group":        {owned("apps.kruise.io/v1alpha1", "DaemonSet", true), ""},
		"an owner that is not the controller": {owned("apps/v1", "DaemonSet", false), ""},
		"another controller":                  {owned("apps/v1", "ReplicaSet", true), ""},
		"no owner":                            {st.MakePod().Obj(), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got string
			if owner := daemonset.OwnerOf(tc.pod); owner != nil {
				got = string(owner.UID)
			}
			if got != tc.want {
				t.Errorf("owner is %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzPinnedNode compares PinnedNode with the nodes that the scheduler's
// NodeAffinity plugin would look at.
func FuzzPinnedNode(f *testing.F) {
	daemonsettest.Seed(f)
	plugin, err := nodeaffinity.New(f.Context(), &config.NodeAffinityArgs{}, nil, feature.Features{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		terms := choose.Terms()
		pod := func(terms []corev1.NodeSelectorTerm) *corev1.Pod {
			return &corev1.Pod{Spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
			}}}}
		}
		// PreFilter looks at all nodes for an empty term, which matches none.
		notEmpty := slices.DeleteFunc(slices.Clone(terms), func(term corev1.NodeSelectorTerm) bool {
			return len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0
		})
		var want string
		result, _ := plugin.(*nodeaffinity.NodeAffinity).PreFilter(t.Context(), framework.NewCycleState(), pod(notEmpty), nil)
		if !result.AllNodes() && len(result.NodeNames) == 1 {
			want = result.NodeNames.UnsortedList()[0]
		}
		if got, ok := daemonset.PinnedNode(pod(terms)); got != want || ok != (want != "") {
			t.Errorf("pinned to %q (%v), NodeAffinity says %q\nterms: %+v", got, ok, want, terms)
		}
	})
}

// FuzzTargetNode compares TargetNode with the DaemonSet controller's own function.
func FuzzTargetNode(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		pod := &corev1.Pod{Spec: daemonsettest.NewChooser(data).Placement()}
		want, err := daemonutil.GetTargetNodeName(pod)
		if got, ok := daemonset.TargetNode(pod); got != want || ok != (err == nil) {
			t.Errorf("target is %q (%v), the controller says %q (%v)\npod: %+v", got, ok, want, err, pod.Spec)
		}
	})
}

func TestPinnedNode(t *testing.T) {
	tests := map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"bound":                             {st.MakePod().Node("a").Obj(), "a"},
		"pinned by affinity":                {st.MakePod().NodeAffinityIn("metadata.name", []string{"a"}, st.NodeSelectorTypeMatchFields).Obj(), "a"},
		"a label of that name":              {st.MakePod().NodeAffinityIn("metadata.name", []string{"a"}, st.NodeSelectorTypeMatchExpressions).Obj(), ""},
		"several nodes":                     {st.MakePod().NodeAffinityIn("metadata.name", []string{"a", "b"}, st.NodeSelectorTypeMatchFields).Obj(), ""},
		"all nodes but one":                 {st.MakePod().NodeAffinityNotIn("metadata.name", []string{"a"}).Obj(), ""},
		"no affinity":                       {st.MakePod().Obj(), ""},
		"required but no terms":             {&corev1.Pod{Spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}}}, ""},
		"pod affinity and no node affinity": {&corev1.Pod{Spec: corev1.PodSpec{Affinity: &corev1.Affinity{}}}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got, ok := daemonset.PinnedNode(tc.pod); got != tc.want || ok != (tc.want != "") {
				t.Errorf("PinnedNode is %q (%v), want %q", got, ok, tc.want)
			}
		})
	}
}

func TestKindsOwn(t *testing.T) {
	pod := func(apiVersion, kind string, pinned bool) *corev1.Pod {
		pod := daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "node")
		pod.OwnerReferences[0].APIVersion, pod.OwnerReferences[0].Kind = apiVersion, kind
		if !pinned {
			pod.Spec.Affinity = nil
		}
		return pod
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"a pod of OpenKruise's DaemonSet":       {pod("apps.kruise.io/v1beta1", "DaemonSet", true), true},
		"any version of it":                     {pod("apps.kruise.io/v2", "DaemonSet", true), true},
		"a pod of Datadog's":                    {pod("datadoghq.com/v1alpha1", "ExtendedDaemonSetReplicaSet", true), true},
		"a pod that is not pinned":              {pod("apps.kruise.io/v1beta1", "DaemonSet", false), false},
		"another kind of the group":             {pod("apps.kruise.io/v1beta1", "CloneSet", true), false},
		"a group that begins like it":           {pod("apps.kruise.io.evil/v1", "DaemonSet", true), false},
		"the kind in the core group":            {pod("v1", "DaemonSet", true), false},
		"an apps/v1 DaemonSet, which is no one": {pod("apps/v1", "DaemonSet", true), false},
		"a pod without an owner":                {st.MakePod().Obj(), false},
	} {
		if got := daemonset.DefaultKinds().Own(tc.pod); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
