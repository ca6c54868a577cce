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
	return readyPodOn(ds, "node")
}

func readyPodOn(ds *appsv1.DaemonSet, node string) *corev1.Pod {
	return ready(daemonsettest.BoundPod(ds, node), "True")
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
	named := func(name string) *corev1.Node { return st.MakeNode().Name(name).Obj() }
	on := func(node string, ds *appsv1.DaemonSet, status corev1.ConditionStatus) *corev1.Pod {
		return ready(daemonsettest.BoundPod(ds, node), status)
	}
	ordinary := st.MakePod().Obj()
	for name, tc := range map[string]struct {
		objects  []runtime.Object
		pod      *corev1.Pod
		nodes    []string
		wantSkip bool
	}{
		"there are no DaemonSets":        {nil, ordinary, []string{"a", "b"}, true},
		"one is Ready on none of them":   {[]runtime.Object{logs, on("a", logs, "False")}, ordinary, []string{"a", "b"}, true},
		"one is Ready on one of them":    {[]runtime.Object{logs, on("a", logs, "True"), on("b", logs, "False")}, ordinary, []string{"a", "b"}, false},
		"one is missing on one of them":  {[]runtime.Object{logs, on("a", logs, "True")}, ordinary, []string{"a", "b"}, false},
		"a pod group has a choice too":   {[]runtime.Object{logs, on("a", logs, "True")}, st.MakePod().PodGroupName("gang").Obj(), []string{"a", "b"}, false},
		"all are Ready on both of them":  {[]runtime.Object{logs, on("a", logs, "True"), on("b", logs, "True")}, ordinary, []string{"a", "b"}, true},
		"one of few is Ready here":       {[]runtime.Object{logs, cni, on("a", logs, "True"), on("b", cni, "True")}, ordinary, []string{"a", "b"}, true},
		"it belongs to one of them only": {[]runtime.Object{ssd}, ordinary, []string{"a", "ssd"}, false},
		"it belongs to neither":          {[]runtime.Object{ssd}, ordinary, []string{"a", "b"}, true},
		"a daemon pod has its node":      {[]runtime.Object{logs, on("a", logs, "True")}, daemonsettest.Pod(logs, "b"), []string{"a", "b"}, true},
		"there is one node to choose":    {[]runtime.Object{logs, on("a", logs, "True")}, ordinary, []string{"b"}, true},
		"a virtual node owes nothing": {
			[]runtime.Object{logs, on("a", logs, "True"), st.MakeNode().Name("virtual").Label("type", "virtual-kubelet").Obj()}, ordinary, []string{"a", "virtual"}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := []runtime.Object{named("a"), named("b"), st.MakeNode().Name("ssd").Label("disktype", "ssd").Obj()}
			pl, _ := newReadiness(t, "", append(nodes, tc.objects...)...)
			waitForPreScore(t, pl, tc.pod, tc.wantSkip, tc.nodes...)
		})
	}
}

// waitForPreScore waits until PreScore skips the pod, or does not: handlers may be behind the
// informer's cache.
func waitForPreScore(tb testing.TB, pl *readiness.Readiness, pod *corev1.Pod, wantSkip bool, nodes ...string) {
	tb.Helper()
	infos := make([]fwk.NodeInfo, len(nodes))
	for i, name := range nodes {
		infos[i] = nodeInfo(st.MakeNode().Name(name).Obj())
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) {
		return pl.PreScore(ctx, framework.NewCycleState(), pod, infos).IsSkip() == wantSkip, nil
	}); err != nil {
		tb.Fatalf("PreScore skips: %v", !wantSkip)
	}
}

// PreScore follows pods, nodes and DaemonSets.
func TestPreScoreFollowsTheCluster(t *testing.T) {
	onA, onB := readyPodOn(logs, "a"), readyPodOn(logs, "b")
	pl, scheduler := newReadiness(t, "", logs, st.MakeNode().Name("a").Obj(), st.MakeNode().Name("b").Obj(), onA, onB)
	pods, nodes, daemonSets := scheduler.Client.CoreV1().Pods("default"), scheduler.Client.CoreV1().Nodes(), scheduler.Client.AppsV1().DaemonSets("default")
	create, update, remove := metav1.CreateOptions{}, metav1.UpdateOptions{}, metav1.DeleteOptions{}
	errorOf := func(_ any, err error) error { return err }
	for _, step := range []struct {
		name     string
		change   func(context.Context) error
		wantSkip bool
	}{
		{"both are Ready", func(context.Context) error { return nil }, true},
		{"a pod is no longer Ready", func(ctx context.Context) error { return errorOf(pods.UpdateStatus(ctx, ready(onB, "False"), update)) }, false},
		{"it is Ready again", func(ctx context.Context) error { return errorOf(pods.UpdateStatus(ctx, onB, update)) }, true},
		{"a pod has gone", func(ctx context.Context) error { return pods.Delete(ctx, onA.Name, remove) }, false},
		{"its node has gone", func(ctx context.Context) error { return nodes.Delete(ctx, "a", remove) }, true},
		{"a node has come", func(ctx context.Context) error {
			return errorOf(nodes.Create(ctx, st.MakeNode().Name("a").Obj(), create))
		}, false},
		{"its pod has come", func(ctx context.Context) error {
			return errorOf(pods.Create(ctx, daemonsettest.Pod(logs, "a"), create))
		}, false},
		{"it is bound and Ready", func(ctx context.Context) error { return errorOf(pods.Update(ctx, onA, update)) }, true},
		{"it has gone again", func(ctx context.Context) error { return pods.Delete(ctx, onA.Name, remove) }, false},
		{"it is back, bound and Ready", func(ctx context.Context) error { return errorOf(pods.Create(ctx, onA, create)) }, true},
		{"a DaemonSet has come", func(ctx context.Context) error { return errorOf(daemonSets.Create(ctx, ssd, create)) }, true},
		{"a node belongs to it now", func(ctx context.Context) error {
			return errorOf(nodes.Update(ctx, st.MakeNode().Name("b").Label("disktype", "ssd").Obj(), update))
		}, false},
		{"the DaemonSet has gone", func(ctx context.Context) error { return daemonSets.Delete(ctx, ssd.Name, remove) }, true},
	} {
		if err := step.change(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		waitForPreScore(t, pl, st.MakePod().Obj(), step.wantSkip, "a", "b")
		t.Log(step.name)
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
