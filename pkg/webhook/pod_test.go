// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// apply returns pod with the patch applied, as the API server applies it.
func apply(t *testing.T, pod *corev1.Pod, patch []operation) *corev1.Pod {
	t.Helper()
	if len(patch) == 0 {
		return pod
	}
	encode := func(v any) []byte {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	decoded, err := jsonpatch.DecodePatch(encode(patch))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := decoded.Apply(encode(pod))
	if err != nil {
		t.Fatalf("the patch does not apply: %v\n%s", err, encode(patch))
	}
	var result corev1.Pod
	if err := json.Unmarshal(patched, &result); err != nil {
		t.Fatal(err)
	}
	return &result
}

// factsOf returns the facts of a pod whose DaemonSet has those annotations, in a
// cluster that knows nothing else.
func factsOf(annotations map[string]string) facts {
	return facts{annotations: annotations, settings: &policy.Settings{}, classes: func(string) priorityClass { return priorityClass{forbidden: "it does not exist"} }}
}

var direct = map[string]string{daemonset.SchedulingAnnotation: daemonset.SchedulingDirect}

func TestMutatePod(t *testing.T) {
	tolerations := daemonset.DefaultTolerations(false)
	pod := func() *st.PodWrapper { return st.MakePod().Name("agent").Tolerations(tolerations) }
	ssd := []corev1.NodeSelectorRequirement{{Key: "disktype", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}
	named := func(nodes ...string) []corev1.NodeSelectorRequirement {
		var fields []corev1.NodeSelectorRequirement
		for _, node := range nodes {
			fields = append(fields, corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}})
		}
		return fields
	}
	notB := []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"b"}}}
	affinity := func(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	}
	with := func(pod *corev1.Pod, affinity *corev1.Affinity) *corev1.Pod {
		pod.Spec.Affinity = affinity
		return pod
	}
	preferred := &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
		{Weight: 1, Preference: corev1.NodeSelectorTerm{MatchExpressions: ssd}},
	}}
	spread := &corev1.PodAntiAffinity{}
	seconds := int64(300)
	limited := append([]corev1.Toleration{}, tolerations...)
	limited[0].TolerationSeconds = &seconds

	tests := map[string]struct {
		annotations  map[string]string
		pod          *corev1.Pod
		want         *corev1.Pod
		wantAudit    map[string]string
		wantProblems int
	}{
		"the controller's own pod is left as it is": {
			pod: daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "a"),
		},
		"a bound pod is pinned": {
			pod:       pod().Node("a").Obj(),
			want:      with(pod().Obj(), affinity(corev1.NodeSelectorTerm{MatchFields: named("a")})),
			wantAudit: map[string]string{"pinned": "a"},
		},
		"pod affinity is kept": {
			pod: with(pod().Node("a").Obj(), &corev1.Affinity{PodAntiAffinity: spread}),
			want: with(pod().Obj(), &corev1.Affinity{
				PodAntiAffinity: spread,
				NodeAffinity:    affinity(corev1.NodeSelectorTerm{MatchFields: named("a")}).NodeAffinity,
			}),
			wantAudit: map[string]string{"pinned": "a"},
		},
		"preferred node affinity is kept": {
			pod: with(pod().Node("a").Obj(), &corev1.Affinity{NodeAffinity: preferred}),
			want: with(pod().Obj(), &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				PreferredDuringSchedulingIgnoredDuringExecution: preferred.PreferredDuringSchedulingIgnoredDuringExecution,
				RequiredDuringSchedulingIgnoredDuringExecution: affinity(corev1.NodeSelectorTerm{MatchFields: named("a")}).
					NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution,
			}}),
			wantAudit: map[string]string{"pinned": "a"},
		},
		"every alternative of the required affinity is pinned": {
			pod: with(pod().Node("a").Obj(), affinity(
				corev1.NodeSelectorTerm{MatchExpressions: ssd}, corev1.NodeSelectorTerm{MatchFields: notB}, corev1.NodeSelectorTerm{MatchFields: named("a")})),
			want: with(pod().Obj(), affinity(
				corev1.NodeSelectorTerm{MatchExpressions: ssd, MatchFields: named("a")},
				corev1.NodeSelectorTerm{MatchFields: append(named("a"), notB...)},
				corev1.NodeSelectorTerm{MatchFields: named("a")})),
			wantAudit: map[string]string{"pinned": "a"},
		},
		"an alternative that matches no node is not made to match one": {
			pod: with(pod().Node("a").Obj(), affinity(corev1.NodeSelectorTerm{}, corev1.NodeSelectorTerm{MatchExpressions: ssd})),
			want: with(pod().Obj(), affinity(
				corev1.NodeSelectorTerm{}, corev1.NodeSelectorTerm{MatchExpressions: ssd, MatchFields: named("a")})),
			wantAudit: map[string]string{"pinned": "a"},
		},
		"a pod whose affinity matches no node stays bound": {
			pod:          with(pod().Node("a").Obj(), affinity(corev1.NodeSelectorTerm{})),
			wantProblems: 1,
		},
		"a pod whose affinity names another node stays bound": {
			pod:          with(pod().Node("a").Obj(), affinity(corev1.NodeSelectorTerm{MatchFields: named("b")})),
			wantProblems: 1,
		},
		"direct scheduling binds a pinned pod": {
			annotations: direct,
			pod:         with(pod().Obj(), affinity(corev1.NodeSelectorTerm{MatchFields: named("a")})),
			want:        with(pod().Node("a").Obj(), affinity(corev1.NodeSelectorTerm{MatchFields: named("a")})),
			wantAudit:   map[string]string{"bound": "a"},
		},
		"direct scheduling leaves a bound pod bound": {annotations: direct, pod: pod().Node("a").Obj()},
		"direct scheduling can't bind a pod with scheduling gates": {
			annotations: direct, wantProblems: 1,
			pod: with(pod().SchedulingGates([]string{"example.com/wait"}).Obj(), affinity(corev1.NodeSelectorTerm{MatchFields: named("a")})),
		},
		"direct scheduling can't bind a pod that is not limited to one node": {
			annotations: direct, pod: pod().Obj(), wantProblems: 1,
		},
		"scheduling through the scheduler can be asked for": {
			annotations: map[string]string{daemonset.SchedulingAnnotation: daemonset.SchedulingScheduler},
			pod:         daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "a"),
		},
		"a misspelt way of scheduling is told": {
			annotations:  map[string]string{daemonset.SchedulingAnnotation: "Direct"},
			pod:          daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "a"),
			wantProblems: 1,
		},
		"all tolerations are added to a pod that has none": {
			pod:       st.MakePod().Obj(),
			want:      st.MakePod().Tolerations(tolerations).Obj(),
			wantAudit: map[string]string{"tolerations": "node.kubernetes.io/not-ready:NoExecute,node.kubernetes.io/unreachable:NoExecute,node.kubernetes.io/disk-pressure:NoSchedule,node.kubernetes.io/memory-pressure:NoSchedule,node.kubernetes.io/pid-pressure:NoSchedule,node.kubernetes.io/unschedulable:NoSchedule"},
		},
		"missing tolerations are added behind the others": {
			pod:       st.MakePod().Tolerations(append(tolerations[1:], corev1.Toleration{Key: "mine", Operator: corev1.TolerationOpExists})).Obj(),
			want:      st.MakePod().Tolerations(append(append(tolerations[1:], corev1.Toleration{Key: "mine", Operator: corev1.TolerationOpExists}), tolerations[0])).Obj(),
			wantAudit: map[string]string{"tolerations": "node.kubernetes.io/not-ready:NoExecute"},
		},
		"no time limit is left on them": {
			pod:       st.MakePod().Tolerations(limited).Obj(),
			want:      pod().Name("").Obj(),
			wantAudit: map[string]string{"tolerations": "node.kubernetes.io/not-ready:NoExecute"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.want == nil {
				tc.want = tc.pod
			}
			m := mutatePod(tc.pod, factsOf(tc.annotations))
			got := apply(t, tc.pod, m.Patch)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("pod (-want,+got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantAudit, m.Audit); diff != "" {
				t.Errorf("audit annotations (-want,+got):\n%s", diff)
			}
			if len(m.Problems) != tc.wantProblems {
				t.Errorf("problems are %q, want %d", m.Problems, tc.wantProblems)
			}
		})
	}
}

// drawFacts draws everything that a pod can be changed by.
func drawFacts(choose *daemonsettest.Chooser) facts {
	f := factsOf(map[string]string{})
	if choose.Bool() {
		f.annotations[daemonset.SchedulingAnnotation] = daemonsettest.Pick(choose, daemonset.SchedulingDirect, daemonset.SchedulingScheduler, "else")
	}
	if choose.Bool() {
		f.annotations[daemonset.ResourcesAnnotation] = daemonsettest.Pick(choose,
			`{"main": {"cpu": "2%"}}`, `{"main": {"cpu": "50%", "memory": "1.5%", "max": {"memory": "1Gi"}}, "init": {"cpu": "1%"}, "second": {"memory": "3%"}, "sidecar": {"cpu": "1%"}}`, "{")
	}
	if choose.Bool() {
		f.settings.SchedulerName = "another"
	}
	if choose.Bool() {
		f.settings.PriorityClassName = daemonsettest.Pick(choose, "known", "unknown")
	}
	if choose.Bool() {
		f.settings.Tolerations = choose.Placement().Tolerations
		configuration := policy.Configuration{Policies: []policy.Policy{{Name: "drawn", Pod: *f.settings}}}
		if len(configuration.Validate()) > 0 {
			// A file with it is not read.
			f.settings.Tolerations = nil
		}
	}
	if choose.Bool() {
		f.tolerations = whitelist{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists}}
	}
	if choose.Bool() {
		f.allocatable = daemonset.Resources{MilliCPU: 8000, Memory: 16 << 30}.List()
	}
	f.classes = func(name string) priorityClass {
		class := priorityClass{isDefault: name == "default"}
		if name == "unknown" {
			class.forbidden = "it does not exist"
		}
		return class
	}
	if choose.Bool() {
		f.templateClass = "known"
	}
	if choose.Bool() {
		f.limits = []corev1.LimitRangeItem{{
			Min: daemonset.Resources{MilliCPU: 300, Memory: 128 << 20}.List(), Max: daemonset.Resources{MilliCPU: 3000, Memory: 1 << 30}.List(),
			MaxLimitRequestRatio: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		}}
	}
	return f
}

// drawPod draws a pod, as the API server sends it: with its defaults.
func drawPod(choose *daemonsettest.Chooser) *corev1.Pod {
	pod := &corev1.Pod{Spec: choose.Placement()}
	pod.Namespace, pod.Name = "default", "agent"
	if choose.Bool() {
		pod.Spec.NodeName = choose.NodeName()
	}
	for _, toleration := range daemonset.DefaultTolerations(true) {
		if choose.Bool() {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, toleration)
		}
	}
	pod.Spec.PriorityClassName = daemonsettest.Pick(choose, "", "default", "known")
	if choose.Bool() {
		pod.Spec.Priority, pod.Spec.PreemptionPolicy = new(int32), new(corev1.PreemptLowerPriority)
	}
	containers := choose.Containers()
	pod.Spec.Containers, pod.Spec.InitContainers, pod.Spec.Resources = containers.Containers, containers.InitContainers, containers.Resources
	name := func(containers []corev1.Container, names ...string) {
		for i := range containers {
			containers[i].Name, containers[i].Image = names[i], "example/agent:1.0"
		}
	}
	name(pod.Spec.Containers, "main", "second", "third")
	name(pod.Spec.InitContainers, "init", "sidecar")
	if choose.Bool() {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	}
	if choose.Bool() {
		pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "static"}
	}
	corev1defaults.SetObjectDefaults_Pod(pod)
	return pod
}

// refused returns why the API server would refuse a pod.
func refused(t *testing.T, pod *corev1.Pod) error {
	t.Helper()
	var internal core.Pod
	if err := corev1defaults.Convert_v1_Pod_To_core_Pod(pod.DeepCopy(), &internal, nil); err != nil {
		t.Fatal(err)
	}
	return validation.ValidatePodCreate(&internal, podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)).ToAggregate()
}

// FuzzMutatePod checks, for any pod and policy, what must never happen: that the
// DaemonSet controller sees the pod on another node than before, that the pod may run
// on a node where it might not, that its node ends it sooner than others, that the API
// server refuses it for our sake, or that there is no end of changes.
func FuzzMutatePod(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		facts := drawFacts(choose)
		pod := drawPod(choose)
		patched := apply(t, pod, mutatePod(pod, facts).Patch)

		before, errBefore := daemonutil.GetTargetNodeName(pod)
		after, errAfter := daemonutil.GetTargetNodeName(patched)
		if before != after || (errBefore == nil) != (errAfter == nil) {
			t.Errorf("the controller saw the pod on %q (%v), now it sees it on %q (%v)", before, errBefore, after, errAfter)
		}
		if node, ok := daemonset.PinnedNode(pod); ok {
			if now, ok := daemonset.PinnedNode(patched); !ok || now != node {
				t.Errorf("the pod was pinned to %q, now it is to %q (%v)", node, now, ok)
			}
		}
		if diff := cmp.Diff(narrowing(pod), narrowing(patched)); diff != "" {
			t.Errorf("the pod is kept from nodes by more than its pin (-before, +after):\n%s", diff)
		}
		for _, toleration := range patched.Spec.Tolerations {
			asked := func(other corev1.Toleration) bool { return other.MatchToleration(&toleration) }
			if toleration.Key == "" && !slices.ContainsFunc(pod.Spec.Tolerations, asked) && !slices.ContainsFunc(facts.settings.Tolerations, asked) {
				t.Errorf("nobody has asked for %+v, by which pods stay on nodes that are being emptied", toleration)
			}
		}
		if before, after := qos.ComputePodQOS(pod), qos.ComputePodQOS(patched); slices.Index(qualities, after) < slices.Index(qualities, before) {
			t.Errorf("the node would end the pod sooner: it was %s, and is %s", before, after)
		}
		if err := refused(t, patched); err != nil && refused(t, pod) == nil {
			t.Errorf("the API server would have taken the pod, and refuses it now: %v", err)
		}
		if again := mutatePod(patched, facts).Patch; len(again) > 0 {
			t.Errorf("applied twice, it changes more: %+v", again)
		}
		if len(facts.tolerations) > 0 && !facts.tolerations.coverAll(patched.Spec.Tolerations) && facts.tolerations.coverAll(pod.Spec.Tolerations) {
			t.Errorf("the namespace allowed the pod's tolerations, and does no longer: %+v", patched.Spec.Tolerations)
		}
	})
}

// qualities are the QoS classes, from the one whose pods a node without memory ends first.
var qualities = []corev1.PodQOSClass{corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed}

// narrowing returns what keeps a pod from nodes but for its pin: a pod that has more of
// it than its template waits for ever, and uses up the maxUnavailable of a rolling
// update.
func narrowing(pod *corev1.Pod) any {
	type narrowing struct {
		NodeSelector map[string]string
		Gates        []corev1.PodSchedulingGate
		Labels       [][]corev1.NodeSelectorRequirement
		Affinity     *corev1.PodAffinity
		AntiAffinity *corev1.PodAntiAffinity
	}
	n := narrowing{NodeSelector: pod.Spec.NodeSelector, Gates: pod.Spec.SchedulingGates}
	affinity := pod.Spec.Affinity
	if affinity == nil {
		return n
	}
	n.Affinity, n.AntiAffinity = affinity.PodAffinity, affinity.PodAntiAffinity
	if affinity.NodeAffinity != nil && affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			if len(term.MatchExpressions) > 0 {
				n.Labels = append(n.Labels, term.MatchExpressions)
			}
		}
	}
	return n
}

func (w whitelist) coverAll(tolerations []corev1.Toleration) bool {
	return !slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return !w.covers(&t) })
}

func BenchmarkMutatePod(b *testing.B) {
	pod := daemonsettest.BoundPod(daemonsettest.Make("agent").Obj(), "node")
	facts := factsOf(nil)
	b.ReportAllocs()
	for b.Loop() {
		mutatePod(pod, facts)
	}
}
