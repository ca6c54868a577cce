// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

type resources = map[corev1.ResourceName]string

func newHeadroom(tb testing.TB, args string, objects ...runtime.Object) *headroom.Headroom {
	tb.Helper()
	for name, value := range map[string]int32{"high": 1000, "low": -10} {
		objects = append(objects, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value})
	}
	factory := headroom.NewFactory(cluster.NewPool())
	return plugintest.NewScheduler(tb, objects...).Plugin(tb, factory, args).(*headroom.Headroom)
}

func nodeInfo(node *corev1.Node, pods ...*corev1.Pod) *framework.NodeInfo {
	info := framework.NewNodeInfo(pods...)
	info.SetNode(node)
	return info
}

func TestFilter(t *testing.T) {
	// One node with room for 4 cores, 8Gi, 10 pods and 2 GPUs, on which the
	// DaemonSets of the case are missing.
	capacity := resources{"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "pods": "10", "example.com/gpu": "2"}
	agent := daemonsettest.Make("agent").Requests(resources{"cpu": "1", "memory": "1Gi"})
	pod := func() *st.PodWrapper { return st.MakePod().Namespace("default").Name("pod").UID("pod") }
	fillers := func(n int) []*corev1.Pod {
		var pods []*corev1.Pod
		for i := range n {
			pods = append(pods, st.MakePod().Name(strconv.Itoa(i)).UID(strconv.Itoa(i)).Obj())
		}
		return pods
	}

	tests := map[string]struct {
		args       string
		daemonSets []*appsv1.DaemonSet
		nodeLabels map[string]string
		taints     []corev1.Taint
		present    []*corev1.Pod
		pod        *corev1.Pod
		want       []string
		// wantEvict: evicting pods can help.
		wantEvict bool
		wantSkip  bool
	}{
		"a pod that fits beside what is held": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Req(resources{"cpu": "3", "memory": "7Gi"}).Obj(),
		},
		"a pod that would take held cpu": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Req(resources{"cpu": "3001m", "memory": "1Gi"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"everything that is held and asked for is named": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("all").HostPort(9100).Requests(
				resources{"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "example.com/gpu": "1"}).Obj()},
			present: fillers(9),
			pod:     pod().Req(resources{"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "example.com/gpu": "2"}).HostPort(9100).Obj(),
			want: []string{headroom.ErrReason("cpu"), headroom.ErrReason("memory"), headroom.ErrReason("ephemeral-storage"),
				headroom.ErrReason("pods"), headroom.ErrReason("example.com/gpu"), headroom.ErrReason("host port 9100")},
		},
		"what the pod does not ask for is not counted": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			present:    []*corev1.Pod{pod().Name("big").UID("big").Req(resources{"cpu": "4"}).Obj()},
			pod:        pod().Req(resources{"memory": "1Gi"}).Obj(),
		},
		"what is short but not held is another plugin's reason": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").Requests(resources{"memory": "1Gi"}).Obj()},
			pod:        pod().Req(resources{"cpu": "5"}).Obj(),
		},
		"the last pod slot is held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").Obj()},
			present:    fillers(9),
			pod:        pod().Obj(),
			want:       []string{headroom.ErrReason("pods")},
			wantEvict:  true,
		},
		"evicting pods can make room beside what is held": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			present:    []*corev1.Pod{pod().Name("big").UID("big").Req(resources{"cpu": "2"}).Obj()},
			pod:        pod().Req(resources{"cpu": "2"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
			wantEvict:  true,
		},
		"an absurd DaemonSet of another tenant changes nothing": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj(), daemonsettest.Make("zzz").Requests(resources{"memory": "8Ei"}).Obj()},
			pod:        pod().Req(resources{"memory": "8Gi"}).Obj(),
			want:       []string{headroom.ErrReason("memory")},
		},
		"an absurd pod is refused without an overflow": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Req(resources{"memory": "8Ei"}).Obj(),
			want:       []string{headroom.ErrReason("memory")},
		},
		"a virtual node holds nothing": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			nodeLabels: map[string]string{"eks.amazonaws.com/compute-type": "fargate"},
			pod:        pod().Req(resources{"cpu": "4"}).Obj(),
		},
		"a device that the node does not list leaves the rest held": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").Requests(resources{"cpu": "1", "example.com/fpga": "1"}).Obj()},
			pod:        pod().Req(resources{"cpu": "4"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"a daemon pod that has come is held no more": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			present:    []*corev1.Pod{daemonsettest.BoundPod(agent.Obj(), "node")},
			pod:        pod().Req(resources{"cpu": "3"}).Obj(),
		},
		"another host port is free": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").HostPort(9100).Obj()},
			pod:        pod().HostPort(9101).Obj(),
		},
		"a DaemonSet that does not belong on the node holds nothing": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").NodeSelector("disktype", "ssd").Requests(resources{"cpu": "1"}).Obj()},
			pod:        pod().Req(resources{"cpu": "4"}).Obj(),
		},
		"a DaemonSet that belongs on the node by its label holds room": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").NodeSelector("disktype", "ssd").Requests(resources{"cpu": "1"}).Obj()},
			nodeLabels: map[string]string{"disktype": "ssd"},
			pod:        pod().Req(resources{"cpu": "4"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"room is held before the node is ready": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			taints:     []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}},
			pod:        pod().Req(resources{"cpu": "4"}).Toleration(corev1.TaintNodeNotReady).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"the list of start-up taints can be replaced": {
			args:       `{"startupTaints": ["example.com/warming-up"]}`,
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			taints:     []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}},
			pod:        pod().Req(resources{"cpu": "4"}).Obj(),
		},
		"a pod of the same priority leaves room": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").PriorityClass("high").Requests(resources{"cpu": "1"}).Obj()},
			pod:        pod().Priority(1000).Req(resources{"cpu": "4"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"a pod of higher priority leaves none": {
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").PriorityClass("high").Requests(resources{"cpu": "1"}).Obj()},
			pod:        pod().Priority(1001).Req(resources{"cpu": "4"}).Obj(),
			wantSkip:   true,
		},
		"on a node that could not hold everything what is held there counts": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj(), daemonsettest.Make("other").Requests(resources{"cpu": "2"}).Obj()},
			present:    []*corev1.Pod{daemonsettest.BoundPod(daemonsettest.Make("other").Requests(resources{"cpu": "2"}).Obj(), "node")},
			pod:        pod().Req(resources{"cpu": "1"}).Obj(),
		},
		"against a pod of higher priority too if so configured": {
			args:       `{"holdAgainst": "All"}`,
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Priority(1001).Req(resources{"cpu": "4"}).Obj(),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"a critical pod is exempt": {
			args:       `{"holdAgainst": "All"}`,
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Priority(2000000000).Req(resources{"cpu": "4"}).Obj(),
			wantSkip:   true,
		},
		"a pod of the configured priority is exempt": {
			args:       `{"exemptPriority": 50}`,
			daemonSets: []*appsv1.DaemonSet{daemonsettest.Make("agent").PriorityClass("high").Requests(resources{"cpu": "1"}).Obj()},
			pod:        pod().Priority(50).Req(resources{"cpu": "4"}).Obj(),
			wantSkip:   true,
		},
		"a daemon pod takes what is held": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        daemonsettest.Pod(agent.Obj(), "node"),
			wantSkip:   true,
		},
		"a pod that only says it is a daemon pod does not": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        daemonsettest.Pod(daemonsettest.Make("forged").Requests(resources{"cpu": "4"}).Obj(), "node"),
			want:       []string{headroom.ErrReason("cpu")},
		},
		"a running pod that waits for a resize is left alone": {
			daemonSets: []*appsv1.DaemonSet{agent.Obj()},
			pod:        pod().Node("node").Req(resources{"cpu": "4"}).Obj(),
			wantSkip:   true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []runtime.Object
			for _, ds := range tc.daemonSets {
				objects = append(objects, ds)
			}
			wrapper := st.MakeNode().Name("node").Capacity(capacity).Taints(tc.taints)
			for key, value := range tc.nodeLabels {
				wrapper.Label(key, value)
			}
			pl := newHeadroom(t, tc.args, append(objects, wrapper.Obj())...)
			info := nodeInfo(wrapper.Obj(), tc.present...)

			state := framework.NewCycleState()
			_, status := pl.PreFilter(t.Context(), state, tc.pod, []fwk.NodeInfo{info})
			if status.IsSkip() != tc.wantSkip {
				t.Fatalf("PreFilter's status is %v, want skip: %v", status.Code(), tc.wantSkip)
			}
			var want *fwk.Status
			if len(tc.want) > 0 {
				want = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, tc.want...)
			}
			if tc.wantEvict {
				want = fwk.NewStatus(fwk.Unschedulable, tc.want...)
			}
			if !tc.wantSkip {
				if diff := cmp.Diff(want, pl.Filter(t.Context(), state, tc.pod, info)); diff != "" {
					t.Errorf("status (-want,+got):\n%s", diff)
				}
				// The second time the view comes from memory.
				if diff := cmp.Diff(want, pl.Filter(t.Context(), state, tc.pod, info)); diff != "" {
					t.Errorf("status from memory (-want,+got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(want, pl.Filter(t.Context(), framework.NewCycleState(), tc.pod, info)); diff != "" {
				t.Errorf("status without PreFilter (-want,+got):\n%s", diff)
			}
		})
	}
}

// A preemption dry run takes pods out of a copy of the node.
func TestFilterSeesWhatADryRunRemoves(t *testing.T) {
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "10"}).Obj()
	pl := newHeadroom(t, "", daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj(), node)
	victim := st.MakePod().Name("victim").UID("victim").Req(resources{"cpu": "3"}).Obj()
	info := nodeInfo(node, victim)
	pod := st.MakePod().Req(resources{"cpu": "1"}).Obj()

	state := framework.NewCycleState()
	pl.PreFilter(t.Context(), state, pod, nil)
	if status := pl.Filter(t.Context(), state, pod, info); status.IsSuccess() {
		t.Error("the pod fits beside the victim")
	}
	dryRun := info.SnapshotConcrete()
	if err := dryRun.RemovePod(klog.Background(), victim); err != nil {
		t.Fatal(err)
	}
	if status := pl.Filter(t.Context(), state, pod, dryRun); !status.IsSuccess() {
		t.Errorf("without the victim the pod does not fit: %v", status)
	}
	if status := pl.Filter(t.Context(), state, pod, info); status.IsSuccess() {
		t.Error("after the dry run the pod fits beside the victim")
	}
}

// A pod group's cycle puts pods on nodes without a new generation.
func TestFilterSeesThePodsOfAGroupsCycle(t *testing.T) {
	agent := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "10"}).Obj()
	pl := newHeadroom(t, "", agent, node)
	info := nodeInfo(node)
	pod := st.MakePod().Req(resources{"cpu": "4"}).PodGroupName("gang").Obj()

	state := framework.NewCycleState()
	pl.PreFilter(t.Context(), state, pod, nil)
	if status := pl.Filter(t.Context(), state, pod, info); status.IsSuccess() {
		t.Error("nothing is held")
	}
	generation := info.Generation
	info.AddPod(daemonsettest.BoundPod(daemonsettest.Make("agent").Obj(), "node"))
	info.Generation = generation
	if status := pl.Filter(t.Context(), state, pod, info); !status.IsSuccess() {
		t.Errorf("room is held for a pod that is there: %v", status)
	}
}

func TestQueueingHints(t *testing.T) {
	const node = "node"
	agent := daemonsettest.Make("agent").NodeSelector("agent", "yes").Requests(resources{"cpu": "1"}).Obj()
	giant := daemonsettest.Make("giant").NodeSelector("giant", "yes").PriorityClass("high").Requests(resources{"cpu": "3"}).Obj()
	surging := func(generation int64) *appsv1.DaemonSet {
		return daemonsettest.Make("surging").NodeSelector("surging", "yes").MaxSurge(1).Generation(generation).Requests(resources{"cpu": "1"}).Obj()
	}
	makeNode := func() *st.NodeWrapper {
		return st.MakeNode().Name(node).Label("agent", "yes").Capacity(resources{"cpu": "4", "pods": "10"})
	}
	daemonPod := func(cpu string) *corev1.Pod {
		pod := daemonsettest.BoundPod(agent, node)
		pod.Spec.Containers = st.MakePod().Req(resources{"cpu": cpu}).Obj().Spec.Containers
		return pod
	}
	bound := func(name, cpu string) *st.PodWrapper {
		return st.MakePod().Namespace("default").Name(name).UID(name).Node(node).Req(resources{"cpu": cpu})
	}
	ordinary := bound("ordinary", "1").Obj()
	static := bound("static", "1").Annotation(corev1.MirrorPodAnnotationKey, "x").Obj()
	earlier := daemonsettest.BoundPod(surging(1), node)
	earlier.Name, earlier.UID = "earlier", "earlier"

	var (
		added    = fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add}
		deleted  = fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}
		shrunk   = fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.UpdatePodScaleDown}
		nodeAdd  = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}
		resized  = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeAllocatable}
		labelled = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}
		tainted  = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeTaint}
	)
	// The pod that waits requests 1 CPU unless the case says otherwise. The node has 4 CPU,
	// and room for 1 is held for the agent. Pods that are present are known to the informer.
	tests := map[string]struct {
		node     *corev1.Node
		present  []*corev1.Pod
		pod      *corev1.Pod
		event    fwk.ClusterEvent
		old, new any
		want     fwk.QueueingHint
	}{
		"an ordinary pod arrives":                            {event: added, new: ordinary, want: fwk.QueueSkip},
		"a daemon pod arrives and takes what was held":       {event: added, new: daemonPod("1"), want: fwk.QueueSkip},
		"a daemon pod arrives and takes less":                {event: added, new: daemonPod("500m"), want: fwk.Queue},
		"a daemon pod arrives and takes less on a full node": {event: added, new: daemonPod("500m"), present: []*corev1.Pod{bound("full", "3").Obj()}, want: fwk.QueueSkip},
		"a daemon pod arrives and a static pod leaves no room for another": {
			node: makeNode().Label("giant", "yes").Obj(), present: []*corev1.Pod{static},
			event: added, new: daemonPod("1"), want: fwk.Queue},
		"a static pod arrives and leaves no room for a DaemonSet": {
			node: makeNode().Label("giant", "yes").Obj(), present: []*corev1.Pod{daemonPod("500m")},
			event: added, new: static, want: fwk.Queue},
		"an ordinary pod goes": {event: deleted, old: ordinary, want: fwk.Queue},
		"an ordinary pod goes that makes not enough room": {
			event: deleted, old: bound("small", "100m").Obj(), present: []*corev1.Pod{bound("full", "2900m").Obj()}, want: fwk.QueueSkip},
		"two ordinary pods have gone at the same time": {event: deleted, old: ordinary, pod: st.MakePod().Req(resources{"cpu": "3"}).Obj(), want: fwk.Queue},
		"a pod goes from a node where the pod has no room by another resource": {
			event: deleted, old: ordinary, pod: st.MakePod().Req(resources{"cpu": "1", "example.com/gpu": "1"}).Obj(), want: fwk.QueueSkip},
		"a pod shrinks":                                          {event: shrunk, old: ordinary, new: bound("ordinary", "500m").Obj(), present: []*corev1.Pod{bound("full", "1500m").Obj()}, want: fwk.Queue},
		"an unbound pod goes":                                    {event: deleted, old: st.MakePod().Obj(), want: fwk.QueueSkip},
		"a nominated pod goes":                                   {event: deleted, old: st.MakePod().UID("n").NominatedNodeName(node).Req(resources{"cpu": "2"}).Obj(), want: fwk.Queue},
		"a pod goes from a node that is not known":               {event: deleted, old: st.MakePod().UID("n").Node("elsewhere").Obj(), want: fwk.QueueSkip},
		"a daemon pod goes and leaves its room to its successor": {event: deleted, old: daemonPod("1"), want: fwk.QueueSkip},
		"a daemon pod goes that was larger than its successor":   {event: deleted, old: daemonPod("2"), want: fwk.Queue},
		"the earlier pod of a surging update goes": {
			node: makeNode().Label("surging", "yes").Obj(), present: []*corev1.Pod{daemonsettest.BoundPod(surging(2), node), bound("filler", "1").Obj()},
			event: deleted, old: earlier, want: fwk.Queue},
		"a daemon pod goes because the node has lost its label": {
			node:  st.MakeNode().Name(node).Capacity(resources{"cpu": "4", "pods": "10"}).Obj(),
			event: deleted, old: daemonPod("1"), want: fwk.Queue},
		"a node comes": {event: nodeAdd, new: makeNode().Obj(), want: fwk.Queue},
		"a node comes that is too small beside what is held there": {
			event: nodeAdd, new: makeNode().Capacity(resources{"cpu": "1900m", "pods": "10"}).Obj(), want: fwk.QueueSkip},
		"a node comes that lacks a device": {event: nodeAdd, new: makeNode().Obj(), pod: st.MakePod().Req(resources{"example.com/gpu": "1"}).Obj(), want: fwk.QueueSkip},
		"a node grows":                     {event: resized, old: makeNode().Obj(), new: makeNode().Capacity(resources{"cpu": "8", "pods": "10"}).Obj(), want: fwk.Queue},
		"a node gets a resource that the pod requests": {
			event: resized, pod: st.MakePod().Req(resources{"example.com/gpu": "1"}).Obj(),
			old: makeNode().Obj(), new: makeNode().Capacity(resources{"cpu": "4", "pods": "10", "example.com/gpu": "1"}).Obj(), want: fwk.Queue},
		"a node gets a resource that the pod does not request": {
			event: resized,
			old:   makeNode().Obj(), new: makeNode().Capacity(resources{"cpu": "4", "pods": "10", "example.com/gpu": "1"}).Obj(), want: fwk.QueueSkip},
		"a node loses the label of a DaemonSet": {
			event: labelled,
			old:   makeNode().Obj(), new: st.MakeNode().Name(node).Capacity(resources{"cpu": "4", "pods": "10"}).Obj(), want: fwk.Queue},
		"a node gets a label that no DaemonSet asks for": {event: labelled, old: makeNode().Obj(), new: makeNode().Label("colour", "blue").Obj(), want: fwk.QueueSkip},
		"a node gets a taint that keeps the DaemonSet out": {
			event: tainted,
			old:   makeNode().Obj(), new: makeNode().Taints([]corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}).Obj(), want: fwk.Queue},
		"a node loses a start-up taint": {
			event: tainted,
			old:   makeNode().Taints([]corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			new:   makeNode().Obj(), want: fwk.QueueSkip},
		"a pod of lower priority stays in the way, which can be evicted": {
			event: labelled, pod: st.MakePod().Priority(5).Req(resources{"cpu": "4"}).Obj(), present: []*corev1.Pod{bound("low", "3").Obj()},
			node: makeNode().Label("giant", "yes").Obj(), old: makeNode().Label("giant", "yes").Obj(), new: makeNode().Obj(), want: fwk.Queue},
		"something that is no node": {event: nodeAdd, new: ordinary, want: fwk.Queue},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.node == nil {
				tc.node = makeNode().Obj()
			}
			if tc.pod == nil {
				tc.pod = st.MakePod().Req(resources{"cpu": "1"}).Obj()
			}
			objects := []runtime.Object{agent, giant, surging(2), tc.node}
			for _, pod := range tc.present {
				objects = append(objects, pod)
			}
			pl := newHeadroom(t, "", objects...)
			if got := plugintest.Hint(t, pl, tc.event, tc.pod, tc.old, tc.new); got != tc.want {
				t.Errorf("hint is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSignPod(t *testing.T) {
	pl := newHeadroom(t, "")
	sign := func(pod *corev1.Pod) []fwk.SignFragment {
		fragments, status := pl.SignPod(t.Context(), pod)
		if !status.IsSuccess() {
			t.Fatal(status)
		}
		return fragments
	}
	base := func() *st.PodWrapper { return st.MakePod().Name("a").Req(resources{"cpu": "1"}) }
	if diff := cmp.Diff(sign(base().Obj()), sign(base().Name("b").Label("x", "y").Obj())); diff != "" {
		t.Errorf("pods that are treated alike are signed differently:\n%s", diff)
	}
	for name, pod := range map[string]*corev1.Pod{
		"priority":  base().Priority(5).Obj(),
		"resources": base().Req(resources{"cpu": "2"}).Obj(),
		"host port": base().HostPort(80).Obj(),
	} {
		if cmp.Equal(sign(base().Obj()), sign(pod)) {
			t.Errorf("a pod with another %s has the same signature", name)
		}
	}
	if _, status := pl.SignPod(t.Context(), daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "node")); status.Code() != fwk.Unschedulable {
		t.Errorf("a daemon pod is signed: %v", status)
	}
}

func TestBadArgs(t *testing.T) {
	for args, want := range map[string]string{
		`{"holdAgaints": "All"}`:           `decoding the args of DaemonSetHeadroom: unknown field "holdAgaints"`,
		`{"holdAgainst": "Everything"}`:    `args of DaemonSetHeadroom: args.holdAgainst: Unsupported value: "Everything": supported values: "SameOrLower", "All"`,
		`{"holdFor": "10ms"}`:              `args.holdFor: Invalid value: "10ms": has to be one second at least`,
		`{"startupFor": "-1m"}`:            `args.startupFor: Invalid value: "-1m0s"`,
		`{"holdFor": 10}`:                  `decoding the args of DaemonSetHeadroom:`,
		`{"exemptPriority": null}`:         `args of DaemonSetHeadroom: args.exemptPriority: Required value`,
		`{"startupTaints": ["", "a b"]}`:   `args.startupTaints[1]: Invalid value: "a b"`,
		`{"startupTaints": "not-a-list"}`:  `decoding the args of DaemonSetHeadroom: json: cannot unmarshal string`,
		`{"exemptPriority": 99999999999}`:  `decoding the args of DaemonSetHeadroom: json: cannot unmarshal number`,
		`{"holdAgainst": "All"} trailing`:  `decoding the args of DaemonSetHeadroom: invalid character`,
		`["holdAgainst", "exemptPriority]`: `decoding the args of DaemonSetHeadroom:`,
	} {
		_, err := headroom.NewFactory(cluster.NewPool())(t.Context(), plugintest.Args(args), plugintest.NewScheduler(t).Handle)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("args %s: error is %v, want one with %q", args, err, want)
		}
	}
}

// refusedPod returns a pod that the plugin has just refused on the node.
func refusedPod(t *testing.T, pl *headroom.Headroom, pod *corev1.Pod, info *framework.NodeInfo) {
	t.Helper()
	state := framework.NewCycleState()
	pl.PreFilter(t.Context(), state, pod, nil)
	if pl.Filter(t.Context(), state, pod, info).IsSuccess() {
		t.Fatalf("pod %s is not refused", pod.Name)
	}
}

// Changes that no queueing hint hears of wake the refused pods that fit afterwards.
func TestWakesWhomAChangeHelps(t *testing.T) {
	agent := daemonsettest.Make("agent").Requests(resources{"cpu": "1"})
	other := daemonsettest.Make("other").Requests(resources{"cpu": "1"}).Obj()
	orphan := daemonsettest.BoundPod(agent.Obj(), "node")
	orphan.OwnerReferences = nil
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "10"}).Obj()
	tests := map[string]struct {
		present *corev1.Pod
		change  func(*testing.T, *plugintest.Scheduler)
		want    []string
	}{
		"a DaemonSet goes": {
			change: func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				if err := s.Client.AppsV1().DaemonSets("default").Delete(t.Context(), "agent", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}, want: []string{"default/needs-3"}},
		"a DaemonSet is not held for any more": {
			change: func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Annotation(daemonset.HoldAnnotation, "false").Obj()
				if _, err := s.Client.AppsV1().DaemonSets("default").Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}, want: []string{"default/needs-3"}},
		"a pod is adopted": {
			present: orphan,
			change: func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				if _, err := s.Client.CoreV1().Pods("default").Update(t.Context(), daemonsettest.BoundPod(agent.Obj(), "node"), metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}, want: []string{"default/needs-2"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{agent.Obj(), other, node}
			var present []*corev1.Pod
			if tc.present != nil {
				objects, present = append(objects, tc.present), append(present, tc.present)
			}
			scheduler := plugintest.NewScheduler(t, objects...)
			pl := scheduler.Plugin(t, headroom.NewFactory(cluster.NewPool()), "").(*headroom.Headroom)
			pod := func(cpu string) *corev1.Pod {
				return st.MakePod().Namespace("default").Name("needs-" + cpu).UID(cpu).Req(resources{"cpu": cpu}).Obj()
			}
			for _, cpu := range []string{"2", "3", "4"} {
				if cpu == "2" && tc.present == nil {
					continue
				}
				refusedPod(t, pl, pod(cpu), nodeInfo(node, present...))
			}
			tc.change(t, scheduler)
			select {
			case pods := <-scheduler.Activated:
				if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(pods))); diff != "" {
					t.Errorf("pods tried again (-want,+got):\n%s", diff)
				}
			case <-t.Context().Done():
				t.Fatal("no pod was tried again")
			}
		})
	}
}

// Hints never skip a pod that an event lets pass. Nodes, DaemonSets and events are random;
// the oracle is Filter, before and after.
func TestHintsMissNothing(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // nothing secret
		amount := func(most int) string { return fmt.Sprintf("%dm", 100*random.IntN(most)) }
		node := st.MakeNode().Name("node").Capacity(resources{"cpu": "4", "pods": "6"}).Obj()
		objects := []runtime.Object{node}
		var bound []*corev1.Pod
		for i := range 1 + random.IntN(4) {
			ds := daemonsettest.Make(fmt.Sprintf("ds-%d", i)).Generation(2).Requests(resources{"cpu": amount(20)})
			if random.IntN(3) == 0 {
				ds.PriorityClass("high")
			}
			if random.IntN(3) == 0 {
				ds.MaxSurge(1)
			}
			objects = append(objects, ds.Obj())
			for n := range random.IntN(3) {
				pod := daemonsettest.BoundPod(ds.Obj(), "node")
				pod.Name = fmt.Sprintf("%s-%d", pod.Name, n)
				pod.UID = types.UID(pod.Name)
				pod.Spec.Containers = st.MakePod().Req(resources{"cpu": amount(20)}).Obj().Spec.Containers
				pod.Labels["pod-template-generation"] = strconv.Itoa(1 + random.IntN(2))
				bound = append(bound, pod)
			}
		}
		for i := range random.IntN(4) {
			wrapper := st.MakePod().Namespace("default").Name(strconv.Itoa(i)).UID(strconv.Itoa(i)).Node("node").Req(resources{"cpu": amount(15)})
			if random.IntN(3) == 0 {
				wrapper.Annotation(corev1.MirrorPodAnnotationKey, "x")
			}
			bound = append(bound, wrapper.Obj())
		}
		if len(bound) == 0 {
			continue
		}
		// One of the pods comes or goes; the informer has the state afterwards.
		n := random.IntN(len(bound))
		subject, others := bound[n], slices.Delete(slices.Clone(bound), n, n+1)
		event, before, after := fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, bound, others
		var oldObj, newObj any = subject, nil
		if random.IntN(2) == 0 {
			event.ActionType, before, after = fwk.Add, others, bound
			oldObj, newObj = nil, subject
		}
		for _, pod := range after {
			objects = append(objects, pod)
		}
		pl := newHeadroom(t, "", objects...)
		for range 10 {
			pod := st.MakePod().Namespace("default").Name("pod").UID("pod").Priority([]int32{0, 500, 2000}[random.IntN(3)]).Req(resources{"cpu": amount(40)}).Obj()
			pass := func(pods []*corev1.Pod) bool {
				state := framework.NewCycleState()
				if _, status := pl.PreFilter(t.Context(), state, pod, nil); status.IsSkip() {
					return true
				}
				info := nodeInfo(node, pods...)
				free := info.Allocatable.MilliCPU - info.Requested.MilliCPU
				return pl.Filter(t.Context(), state, pod, info).IsSuccess() && daemonset.PodResources(pod).MilliCPU <= free && len(pods) < 6
			}
			if pass(before) || !pass(after) {
				continue
			}
			if got := plugintest.Hint(t, pl, event, pod, oldObj, newObj); got != fwk.Queue {
				t.Fatalf("seed %d: the pod passes after %v of %s, and the hint is %v", seed, event, subject.Name, got)
			}
		}
	}
}
