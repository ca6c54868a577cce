// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

func newReadiness(tb testing.TB, args string, objects ...runtime.Object) (*readiness.Readiness, *plugintest.Scheduler) {
	tb.Helper()
	scheduler := plugintest.NewScheduler(tb, objects...)
	return scheduler.Plugin(tb, readiness.NewFactory(cluster.NewPool()), args).(*readiness.Readiness), scheduler
}

func nodeInfo(node *corev1.Node, pods ...*corev1.Pod) *framework.NodeInfo {
	info := framework.NewNodeInfo(pods...)
	info.SetNode(node)
	return info
}

func ready(pod *corev1.Pod, status corev1.ConditionStatus) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	return pod
}

// cni gates its nodes, logs does not.
var (
	cni  = daemonsettest.Make("cni").Annotation(daemonset.GateAnnotation, "true").Obj()
	logs = daemonsettest.Make("logs").Obj()
	ssd  = daemonsettest.Make("ssd").NodeSelector("disktype", "ssd").Obj()
)

func refs(daemonSets ...*appsv1.DaemonSet) []*daemonset.DaemonSet {
	set := daemonset.NewSet(nil, daemonSets, daemonset.Options{Priority: func(string) int32 { return 0 }})
	return set.All()
}

func TestFilter(t *testing.T) {
	waitsForCNI := readiness.ErrReasonUnready(refs(cni)[0])
	waitsForLogs := readiness.ErrReasonUnready(refs(logs)[0])
	terminating := func(pod *corev1.Pod) *corev1.Pod {
		now := metav1.Now()
		pod.DeletionTimestamp = &now
		return pod
	}
	requires := func(value string) *corev1.Pod {
		return st.MakePod().Name("pod").UID("pod").Annotation(readiness.RequiresAnnotation, value).Obj()
	}
	ordinary := st.MakePod().Name("pod").UID("pod").Obj()

	tests := map[string]struct {
		args       string
		daemonSets []*appsv1.DaemonSet
		present    []*corev1.Pod
		pod        *corev1.Pod
		wantSkip   bool
		// wantPreFilter and want are the reasons for which the pod is refused.
		wantPreFilter string
		want          []string
	}{
		"nobody gates":                 {daemonSets: []*appsv1.DaemonSet{logs}, pod: ordinary, wantSkip: true},
		"a gating pod is missing":      {daemonSets: []*appsv1.DaemonSet{cni, logs}, pod: ordinary, want: []string{waitsForCNI}},
		"a gating pod is not Ready":    {daemonSets: []*appsv1.DaemonSet{cni}, present: []*corev1.Pod{ready(daemonsettest.BoundPod(cni, "node"), "False")}, pod: ordinary, want: []string{waitsForCNI}},
		"a gating pod has no status":   {daemonSets: []*appsv1.DaemonSet{cni}, present: []*corev1.Pod{daemonsettest.BoundPod(cni, "node")}, pod: ordinary, want: []string{waitsForCNI}},
		"a gating pod is Ready":        {daemonSets: []*appsv1.DaemonSet{cni}, present: []*corev1.Pod{ready(daemonsettest.BoundPod(cni, "node"), "True")}, pod: ordinary},
		"a gating pod is being killed": {daemonSets: []*appsv1.DaemonSet{cni}, present: []*corev1.Pod{terminating(ready(daemonsettest.BoundPod(cni, "node"), "True"))}, pod: ordinary, want: []string{waitsForCNI}},
		"a gate of another node": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("ssd").NodeSelector("disktype", "ssd").Annotation(daemonset.GateAnnotation, "true").Obj()},
			pod:        ordinary},
		"a gate that is being deleted": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("cni").Annotation(daemonset.GateAnnotation, "true").Terminating().Obj()},
			pod:        ordinary, wantSkip: true},
		"a daemon pod passes":            {daemonSets: []*appsv1.DaemonSet{cni, logs}, pod: daemonsettest.Pod(logs, "node"), wantSkip: true},
		"a critical pod passes":          {daemonSets: []*appsv1.DaemonSet{cni}, pod: st.MakePod().Priority(2000000000).Obj(), wantSkip: true},
		"a pod of exempt priority":       {args: `{"exemptPriority": 7}`, daemonSets: []*appsv1.DaemonSet{cni}, pod: st.MakePod().Priority(7).Obj(), wantSkip: true},
		"a running pod is left alone":    {daemonSets: []*appsv1.DaemonSet{cni}, pod: st.MakePod().Node("node").Obj(), wantSkip: true},
		"a forged daemon pod waits":      {daemonSets: []*appsv1.DaemonSet{cni}, pod: daemonsettest.Pod(daemonsettest.Make("forged").Obj(), "node"), want: []string{waitsForCNI}},
		"what the pod requires is short": {daemonSets: []*appsv1.DaemonSet{logs}, pod: requires("default/logs"), want: []string{waitsForLogs}},
		"what the pod requires is Ready": {daemonSets: []*appsv1.DaemonSet{logs}, present: []*corev1.Pod{ready(daemonsettest.BoundPod(logs, "node"), "True")}, pod: requires("default/logs")},
		"two requirements":               {daemonSets: []*appsv1.DaemonSet{cni, logs}, pod: requires("default/logs, default/cni"), want: []string{waitsForCNI, waitsForLogs}},
		"a requirement that is never met here": {daemonSets: []*appsv1.DaemonSet{ssd}, pod: requires("default/ssd"),
			want: []string{readiness.ErrReasonNotExpected("default/ssd")}},
		"a requirement of a daemon pod": {daemonSets: []*appsv1.DaemonSet{cni, logs},
			pod:  daemonsettest.Pod(daemonsettest.Make("logs").PodAnnotation(readiness.RequiresAnnotation, "default/cni").Obj(), "node"),
			want: []string{waitsForCNI}},
		"a requirement that does not exist": {pod: requires("default/nobody"), wantPreFilter: "annotation everynode.dev/requires: there is no DaemonSet default/nobody"},
		"a requirement without a namespace": {pod: requires("logs"), wantPreFilter: `annotation everynode.dev/requires: "logs" is not the namespace/name of a DaemonSet`},
		"an empty requirement":              {pod: requires(""), wantPreFilter: `annotation everynode.dev/requires: "" is not the namespace/name of a DaemonSet`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []runtime.Object
			for _, ds := range tc.daemonSets {
				objects = append(objects, ds)
			}
			for _, pod := range tc.present {
				objects = append(objects, pod)
			}
			node := st.MakeNode().Name("node").Obj()
			pl, _ := newReadiness(t, tc.args, append(objects, node)...)
			info := nodeInfo(node, tc.present...)
			state := framework.NewCycleState()
			_, status := pl.PreFilter(t.Context(), state, tc.pod, []fwk.NodeInfo{info})
			if status.IsSkip() != tc.wantSkip {
				t.Fatalf("PreFilter's status is %v, want skip: %v", status, tc.wantSkip)
			}
			var want *fwk.Status
			switch {
			case tc.wantPreFilter != "":
				want = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, tc.wantPreFilter)
				if diff := cmp.Diff(want, status); diff != "" {
					t.Fatalf("PreFilter's status (-want,+got):\n%s", diff)
				}
			case len(tc.want) > 0:
				want = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, tc.want...)
			}
			if !tc.wantSkip && tc.wantPreFilter == "" {
				if diff := cmp.Diff(want, pl.Filter(t.Context(), state, tc.pod, info)); diff != "" {
					t.Errorf("status (-want,+got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(want, pl.Filter(t.Context(), framework.NewCycleState(), tc.pod, info)); diff != "" {
				t.Errorf("status without PreFilter (-want,+got):\n%s", diff)
			}
		})
	}
}

// The snapshot of a cycle is older than the informers: a pod that has just been
// woken must not be refused for what was true a moment ago.
func TestFilterTrustsTheLatestStateOfThePod(t *testing.T) {
	node := st.MakeNode().Name("node").Obj()
	daemonPod := daemonsettest.BoundPod(cni, "node")
	pl, _ := newReadiness(t, "", cni, node, ready(daemonPod, "True"))
	if status := pl.Filter(t.Context(), framework.NewCycleState(), st.MakePod().Obj(), nodeInfo(node, ready(daemonPod, "False"))); !status.IsSuccess() {
		t.Errorf("status is %v", status)
	}
}

func TestPodsAreWokenWhenADaemonPodTurnsReady(t *testing.T) {
	node := st.MakeNode().Name("node").Obj()
	cniPod, logsPod := ready(daemonsettest.BoundPod(cni, "node"), "False"), ready(daemonsettest.BoundPod(logs, "node"), "False")
	pl, scheduler := newReadiness(t, "", cni, logs, node, cniPod, logsPod)
	pods := scheduler.Client.CoreV1().Pods(metav1.NamespaceDefault)
	update := func(pod *corev1.Pod) {
		t.Helper()
		if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(pod *corev1.Pod) {
		t.Helper()
		if pl.Filter(t.Context(), framework.NewCycleState(), pod, nodeInfo(node, cniPod, logsPod)).IsSuccess() {
			t.Fatalf("%s is not refused", pod.Name)
		}
	}
	gated := st.MakePod().Namespace("default").Name("gated").UID("gated").Obj()
	both := st.MakePod().Namespace("default").Name("both").UID("both").Annotation(readiness.RequiresAnnotation, "default/logs").Obj()
	refuse(gated)
	refuse(both)

	// The first pod does not wait for logs.
	update(ready(logsPod, "True"))
	if diff := cmp.Diff([]string{"default/both"}, names(<-scheduler.Activated)); diff != "" {
		t.Errorf("woken by logs (-want,+got):\n%s", diff)
	}
	refuse(both)
	update(ready(cniPod, "True"))
	if diff := cmp.Diff([]string{"default/both", "default/gated"}, names(<-scheduler.Activated)); diff != "" {
		t.Errorf("woken by cni (-want,+got):\n%s", diff)
	}
}

func names(pods map[string]*corev1.Pod) []string {
	var names []string
	for name := range pods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// readyPod is a Ready pod of ds on the node called node.
func readyPod(ds *appsv1.DaemonSet) *corev1.Pod {
	return ready(daemonsettest.BoundPod(ds, "node"), "True")
}

func TestScore(t *testing.T) {
	node := st.MakeNode().Name("node").Obj()
	metrics := daemonsettest.Make("metrics").Obj()
	tests := map[string]struct {
		daemonSets []*appsv1.DaemonSet
		present    []*corev1.Pod
		want       int64
	}{
		"no DaemonSet belongs here": {daemonSets: []*appsv1.DaemonSet{ssd}, want: 100},
		"nothing is Ready":          {daemonSets: []*appsv1.DaemonSet{cni, logs}, present: []*corev1.Pod{daemonsettest.BoundPod(logs, "node")}, want: 0},
		"a third is Ready":          {daemonSets: []*appsv1.DaemonSet{cni, logs, metrics}, present: []*corev1.Pod{readyPod(logs)}, want: 33},
		"half is Ready":             {daemonSets: []*appsv1.DaemonSet{cni, logs, ssd}, present: []*corev1.Pod{readyPod(logs)}, want: 50},
		"everything is Ready":       {daemonSets: []*appsv1.DaemonSet{cni, logs}, present: []*corev1.Pod{readyPod(logs), readyPod(cni)}, want: 100},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []runtime.Object
			for _, ds := range tc.daemonSets {
				objects = append(objects, ds)
			}
			pl, _ := newReadiness(t, "", append(objects, node)...)
			got, status := pl.Score(t.Context(), framework.NewCycleState(), st.MakePod().Obj(), nodeInfo(node, tc.present...))
			if !status.IsSuccess() || got != tc.want {
				t.Errorf("score is %d (%v), want %d", got, status, tc.want)
			}
		})
	}
}

func TestPreScoreSkipsWhereThereIsNothingToPrefer(t *testing.T) {
	reporting := func(ready int32) *appsv1.DaemonSet {
		ds := logs.DeepCopy()
		ds.Status.DesiredNumberScheduled, ds.Status.NumberReady = 3, ready
		return ds
	}
	node := st.MakeNode().Name("node").Obj()
	settled := nodeInfo(node, readyPod(logs), readyPod(cni))
	unready := nodeInfo(node, readyPod(cni))
	for name, tc := range map[string]struct {
		objects  []runtime.Object
		pod      *corev1.Pod
		nodes    []fwk.NodeInfo
		wantSkip bool
	}{
		"there are no DaemonSets":        {nil, st.MakePod().Obj(), []fwk.NodeInfo{unready}, true},
		"all DaemonSets are Ready":       {[]runtime.Object{reporting(3), cni}, st.MakePod().Obj(), []fwk.NodeInfo{unready}, true},
		"a DaemonSet is not Ready there": {[]runtime.Object{reporting(2), cni}, st.MakePod().Obj(), []fwk.NodeInfo{settled, unready}, false},
		"a DaemonSet is not Ready apart": {[]runtime.Object{reporting(2), cni}, st.MakePod().Obj(), []fwk.NodeInfo{settled, settled}, true},
		"a pod group costs no look more": {[]runtime.Object{reporting(2), cni}, st.MakePod().PodGroupName("gang").Obj(), []fwk.NodeInfo{unready, unready}, false},
		"it is Ready on none of them":    {[]runtime.Object{reporting(2), cni}, st.MakePod().Obj(), []fwk.NodeInfo{unready, unready}, true},
		"a daemon pod has its node":      {[]runtime.Object{reporting(2)}, daemonsettest.Pod(logs, "node"), []fwk.NodeInfo{unready}, true},
	} {
		t.Run(name, func(t *testing.T) {
			pl, scheduler := newReadiness(t, "", tc.objects...)
			skips := func() bool {
				return pl.PreScore(t.Context(), framework.NewCycleState(), tc.pod, tc.nodes).IsSkip()
			}
			// The informer's handlers may be behind its cache.
			if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
				return skips() == tc.wantSkip, nil
			}); err != nil {
				t.Fatal(err)
			}
			if tc.wantSkip {
				return
			}
			if err := scheduler.Client.AppsV1().DaemonSets("default").Delete(t.Context(), "logs", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
				return skips(), nil
			}); err != nil {
				t.Error("it goes on after the DaemonSet has been deleted")
			}
		})
	}
}

func TestQueueingHints(t *testing.T) {
	withAnnotation := func(value string) *corev1.Pod {
		return st.MakePod().Annotation(readiness.RequiresAnnotation, value).Obj()
	}
	tests := map[string]struct {
		event    fwk.ClusterEvent
		old, new any
		want     fwk.QueueingHint
	}{
		"the pod requires something else": {fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.Update}, withAnnotation("a/b"), withAnnotation("a/c"), fwk.Queue},
		"the pod requires the same":       {fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.Update}, withAnnotation("a/b"), withAnnotation("a/b"), fwk.QueueSkip},
		"a node comes":                    {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, nil, st.MakeNode().Name("node").Obj(), fwk.Queue},
		"a node gets a DaemonSet":         {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}, st.MakeNode().Obj(), st.MakeNode().Label("disktype", "ssd").Obj(), fwk.Queue},
		"a node gets another label":       {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}, st.MakeNode().Obj(), st.MakeNode().Label("disktype", "tape").Obj(), fwk.QueueSkip},
		"something that is no node":       {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, nil, withAnnotation("a/b"), fwk.Queue},
		"something that is no pod":        {fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.Update}, nil, st.MakeNode().Obj(), fwk.Queue},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pl, _ := newReadiness(t, "", cni, ssd)
			if got := plugintest.Hint(t, pl, tc.event, st.MakePod().Obj(), tc.old, tc.new); got != tc.want {
				t.Errorf("hint is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSignPod(t *testing.T) {
	pl, _ := newReadiness(t, "", cni)
	sign := func(pod *corev1.Pod) []fwk.SignFragment {
		fragments, status := pl.SignPod(t.Context(), pod)
		if !status.IsSuccess() {
			t.Fatal(status)
		}
		return fragments
	}
	if diff := cmp.Diff(sign(st.MakePod().Name("a").Priority(1).Obj()), sign(st.MakePod().Name("b").Priority(2).Obj())); diff != "" {
		t.Errorf("pods that are treated alike are signed differently:\n%s", diff)
	}
	for name, pod := range map[string]*corev1.Pod{
		"exempt priority": st.MakePod().Priority(2000000000).Obj(),
		"requirement":     st.MakePod().Annotation(readiness.RequiresAnnotation, "default/logs").Obj(),
	} {
		if cmp.Equal(sign(st.MakePod().Obj()), sign(pod)) {
			t.Errorf("a pod with another %s has the same signature", name)
		}
	}
	if _, status := pl.SignPod(t.Context(), daemonsettest.Pod(cni, "node")); status.Code() != fwk.Unschedulable {
		t.Errorf("a daemon pod is signed: %v", status)
	}
}

func TestBadArgs(t *testing.T) {
	for args, want := range map[string]string{
		`{"exemptPriorty": 1}`:              `decoding the args of DaemonSetReadiness: unknown field "exemptPriorty"`,
		`{"exemptPriority": null}`:          `args of DaemonSetReadiness: args.exemptPriority: Required value`,
		`{"startupTaints": ["a b"]}`:        `args.startupTaints[0]: Invalid value: "a b"`,
		`{"daemonKinds": ["DaemonSet"]}`:    `args.daemonKinds[0]: Invalid value: "DaemonSet": has to be Kind.group, for example DaemonSet.apps.kruise.io`,
		`{"daemonKinds": [".apps"]}`:        `args.daemonKinds[0]: Invalid value: ".apps"`,
		`{"daemonKinds": [{"group": "a"}]}`: `decoding the args of DaemonSetReadiness: json: cannot unmarshal object`,
	} {
		_, err := readiness.NewFactory(cluster.NewPool())(t.Context(), plugintest.Args(args), plugintest.NewScheduler(t).Handle)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("args %s: error is %v, want one with %q", args, err, want)
		}
	}
}

func FuzzParseRequires(f *testing.F) {
	for _, seed := range []string{"", "a/b", "a/b, c/d", "a", "/", "a/b/c", ",,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		names, err := readiness.ParseRequires(value)
		if err != nil {
			return
		}
		if len(names) != strings.Count(value, ",")+1 {
			t.Errorf("%q has %d names", value, len(names))
		}
		for _, name := range names {
			if name.Namespace == "" || name.Name == "" || strings.Contains(name.Namespace+name.Name, "/") {
				t.Errorf("%q has the name %v", value, name)
			}
		}
	})
}

// A pod is woken by what it waits for, and by nothing else.
func TestWakesOnlyWhoWaits(t *testing.T) {
	daemon := daemonsettest.BoundPod(logs, "node")
	requires := func(name, value string) *corev1.Pod {
		return st.MakePod().Namespace("default").Name(name).UID(name).Annotation(readiness.RequiresAnnotation, value).Obj()
	}
	misspelt, waiting, bound := requires("misspelt", "default/lags"), requires("waiting", "default/logs"), requires("bound", "default/logs")
	pl, s := newReadiness(t, "", logs, daemon, bound, st.MakeNode().Name("node").Obj())
	info := nodeInfo(st.MakeNode().Name("node").Obj(), daemon)
	for _, pod := range []*corev1.Pod{misspelt, waiting, bound} {
		state := framework.NewCycleState()
		if _, status := pl.PreFilter(t.Context(), state, pod, nil); status.IsSuccess() {
			pl.Filter(t.Context(), state, pod, info)
		}
	}
	activated := func(want ...string) {
		t.Helper()
		select {
		case pods := <-s.Activated:
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(pods))); diff != "" {
				t.Errorf("pods tried again (-want,+got):\n%s", diff)
			}
		case <-t.Context().Done():
			t.Fatal("no pod was tried again")
		}
	}
	// It has been placed elsewhere.
	placed := bound.DeepCopy()
	placed.Spec.NodeName = "other"
	if _, err := s.Client.CoreV1().Pods("default").Update(t.Context(), placed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) { return pl.Refused() == 2, nil }); err != nil {
		t.Fatalf("%d pods are remembered, want 2", pl.Refused())
	}
	if _, err := s.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), ready(daemon, "True"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	activated("default/waiting")
	if _, err := s.Client.AppsV1().DaemonSets("default").Create(t.Context(), daemonsettest.Make("lags").Obj(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	activated("default/misspelt")
}
