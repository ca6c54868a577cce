// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/placement"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

func newPlacement(t *testing.T, objects ...runtime.Object) *placement.Placement {
	t.Helper()
	factory := placement.NewFactory(cluster.NewPool())
	return plugintest.NewScheduler(t, objects...).Plugin(t, factory, "").(*placement.Placement)
}

// unpinned returns a daemon pod that may run anywhere.
func unpinned(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Affinity = nil
	return pod
}

func named(pod *corev1.Pod, name, revision string) *corev1.Pod {
	pod.Name, pod.UID = name, types.UID(name)
	pod.Labels["controller-revision-hash"] = revision
	return pod
}

var room = map[corev1.ResourceName]string{"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "3"}

// A pinned pod is refused for want of room by the plugin's own hand, with the status that
// NodeResourcesFit gives.
func TestFilterForRoom(t *testing.T) {
	daemon := func(requests map[corev1.ResourceName]string) (ds *appsv1.DaemonSet, pod *corev1.Pod) {
		ds = daemonsettest.Make("agent").Requests(requests).Obj()
		return ds, daemonsettest.Pod(ds, "node")
	}
	small, smallPod := daemon(map[corev1.ResourceName]string{"cpu": "500m"})
	large, largePod := daemon(map[corev1.ResourceName]string{"cpu": "3", "memory": "1Gi"})
	gpu, gpuPod := daemon(map[corev1.ResourceName]string{"example.com/gpu": "1"})
	_, bound := daemon(map[corev1.ResourceName]string{"cpu": "3"})
	bound.Spec.NodeName = "node"
	node := func(change func(*st.NodeWrapper)) *corev1.Node {
		wrapper := st.MakeNode().Name("node").Capacity(room)
		change(wrapper)
		return wrapper.Obj()
	}
	open, tainted := node(func(*st.NodeWrapper) {}), node(func(n *st.NodeWrapper) {
		n.Taints([]corev1.Taint{{Key: "closed", Effect: corev1.TaintEffectNoSchedule}})
	})
	busy := []*corev1.Pod{st.MakePod().Name("a").UID("a").Req(map[corev1.ResourceName]string{"cpu": "1600m"}).Obj()}
	crowd := []*corev1.Pod{st.MakePod().Name("a").UID("a").Obj(), st.MakePod().Name("b").UID("b").Obj(), st.MakePod().Name("c").UID("c").Obj()}
	tests := map[string]struct {
		daemonSet *appsv1.DaemonSet
		pod       *corev1.Pod
		node      *corev1.Node
		present   []*corev1.Pod
		want      *fwk.Status
	}{
		"room enough":                              {small, smallPod, open, nil, nil},
		"too little is left":                       {small, smallPod, open, busy, fwk.NewStatus(fwk.Unschedulable, "Insufficient cpu")},
		"no pod slot is left":                      {small, smallPod, open, crowd, fwk.NewStatus(fwk.Unschedulable, "Too many pods")},
		"the node is too small":                    {large, largePod, open, nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "Insufficient cpu")},
		"an extended resource":                     {gpu, gpuPod, open, nil, nil},
		"a taint has the first word":               {small, smallPod, tainted, busy, nil},
		"not pinned":                               {small, unpinned(smallPod.DeepCopy()), open, busy, nil},
		"bound, and resized":                       {small, bound, open, busy, nil},
		"an ordinary pod":                          {small, st.MakePod().Req(map[corev1.ResourceName]string{"cpu": "1"}).Obj(), open, busy, nil},
		"a pod that only says it is a DaemonSet's": {small, largePod, open, busy, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			daemonSet := tc.daemonSet.DeepCopy()
			if tc.pod == largePod && tc.daemonSet == small {
				daemonSet.UID = "another"
			}
			info := framework.NewNodeInfo(tc.present...)
			info.SetNode(tc.node)
			got := newPlacement(t, daemonSet).Filter(t.Context(), framework.NewCycleState(), tc.pod, info)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("status (-want,+got):\n%s", diff)
			}
		})
	}
}

var shuttingDown = st.MakeNode().Name("node").
	Condition(corev1.NodeReady, corev1.ConditionFalse, "[container runtime is down, node is shutting down]", "KubeletNotReady").Obj()

func TestFilter(t *testing.T) {
	agent, surging := daemonsettest.Make("agent").Obj(), daemonsettest.Make("agent").MaxSurge(1).Obj()
	terminating := named(daemonsettest.BoundPod(agent, "node"), "old", "1")
	terminating.DeletionTimestamp = st.MakePod().Terminating().Obj().DeletionTimestamp
	node := st.MakeNode().Name("node").Capacity(room).Condition(corev1.NodeReady, corev1.ConditionTrue, "", "KubeletReady").Obj()
	tests := map[string]struct {
		daemonSet runtime.Object
		pod       *corev1.Pod
		node      *corev1.Node
		present   []*corev1.Pod
		want      string
	}{
		"a pinned pod on its node":                   {agent, daemonsettest.Pod(agent, "node"), node, nil, ""},
		"an unpinned pod on an empty node":           {agent, unpinned(daemonsettest.Pod(agent, "node")), node, nil, ""},
		"a second pod of the DaemonSet":              {agent, unpinned(daemonsettest.Pod(agent, "node")), node, []*corev1.Pod{named(daemonsettest.BoundPod(agent, "node"), "old", "1")}, placement.ErrReasonPresent},
		"beside a pod of another DaemonSet":          {agent, daemonsettest.Pod(agent, "node"), node, []*corev1.Pod{daemonsettest.BoundPod(daemonsettest.Make("other").Obj(), "node")}, ""},
		"beside a terminating pod":                   {agent, daemonsettest.Pod(agent, "node"), node, []*corev1.Pod{terminating}, ""},
		"beside itself, nominated":                   {agent, daemonsettest.Pod(agent, "node"), node, []*corev1.Pod{daemonsettest.Pod(agent, "node")}, ""},
		"a surging update":                           {surging, named(daemonsettest.Pod(surging, "node"), "new", "2"), node, []*corev1.Pod{named(daemonsettest.BoundPod(surging, "node"), "old", "1")}, ""},
		"a second pod of one revision while surging": {surging, named(daemonsettest.Pod(surging, "node"), "new", "1"), node, []*corev1.Pod{named(daemonsettest.BoundPod(surging, "node"), "old", "1")}, placement.ErrReasonPresent},
		"a node that is shutting down":               {agent, daemonsettest.Pod(agent, "node"), shuttingDown, nil, placement.ErrReasonShutdown},
		"an ordinary pod on such a node":             {agent, st.MakePod().Obj(), shuttingDown, nil, ""},
		"a node that is not ready for other reasons": {agent, daemonsettest.Pod(agent, "node"), st.MakeNode().Name("node").Capacity(room).Condition(corev1.NodeReady, corev1.ConditionFalse, "no network", "KubeletNotReady").Obj(), nil, ""},
		"an ordinary pod beside daemon pods":         {agent, st.MakePod().Obj(), node, []*corev1.Pod{daemonsettest.BoundPod(agent, "node")}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			info := framework.NewNodeInfo(tc.present...)
			info.SetNode(tc.node)
			var want *fwk.Status
			if tc.want != "" {
				want = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, tc.want)
			}
			got := newPlacement(t, tc.daemonSet).Filter(t.Context(), framework.NewCycleState(), tc.pod, info)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("status (-want,+got):\n%s", diff)
			}
		})
	}
}

func TestQueueingHints(t *testing.T) {
	agent := daemonsettest.Make("agent").Obj()
	ready := st.MakeNode().Name("node").Capacity(map[corev1.ResourceName]string{"cpu": "1", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "3"}).Obj()
	larger := st.MakeNode().Name("node").Capacity(room).Obj()
	deleted := fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}
	shrunk := fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.UpdatePodScaleDown}
	resized := fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeAllocatable}
	ordinary := st.MakePod().Node("node").Obj()
	tests := map[string]struct {
		event    fwk.ClusterEvent
		pod      *corev1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		"a pod of the same DaemonSet goes":    {deleted, daemonsettest.Pod(agent, "node"), daemonsettest.BoundPod(agent, "node"), nil, fwk.Queue},
		"a pod of another DaemonSet goes":     {deleted, unpinned(daemonsettest.Pod(agent, "node")), daemonsettest.BoundPod(daemonsettest.Make("other").Obj(), "node"), nil, fwk.QueueSkip},
		"an ordinary pod goes":                {deleted, daemonsettest.Pod(agent, "node"), ordinary, nil, fwk.Queue},
		"one goes from another node":          {deleted, daemonsettest.Pod(agent, "node"), st.MakePod().Node("other").Obj(), nil, fwk.QueueSkip},
		"one that was only nominated goes":    {deleted, daemonsettest.Pod(agent, "node"), st.MakePod().NominatedNodeName("node").Obj(), nil, fwk.Queue},
		"an ordinary pod shrinks":             {shrunk, daemonsettest.Pod(agent, "node"), ordinary, ordinary, fwk.Queue},
		"the node grows":                      {resized, daemonsettest.Pod(agent, "node"), ready, larger, fwk.Queue},
		"the node shrinks":                    {resized, daemonsettest.Pod(agent, "node"), larger, ready, fwk.QueueSkip},
		"another node grows":                  {resized, daemonsettest.Pod(agent, "elsewhere"), ready, larger, fwk.QueueSkip},
		"the pod's node comes":                {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, daemonsettest.Pod(agent, "node"), nil, ready, fwk.Queue},
		"another node comes":                  {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, daemonsettest.Pod(agent, "elsewhere"), nil, ready, fwk.QueueSkip},
		"any node comes for an unpinned pod":  {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, unpinned(daemonsettest.Pod(agent, "node")), nil, ready, fwk.Queue},
		"the node no longer shuts down":       {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeCondition}, daemonsettest.Pod(agent, "node"), shuttingDown, ready, fwk.Queue},
		"the node still shuts down":           {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeCondition}, daemonsettest.Pod(agent, "node"), shuttingDown, shuttingDown, fwk.QueueSkip},
		"its node loses a taint":              {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeTaint}, daemonsettest.Pod(agent, "node"), st.MakeNode().Name("node").Taints([]corev1.Taint{{Key: "a"}}).Obj(), st.MakeNode().Name("node").Obj(), fwk.Queue},
		"another condition of the node moves": {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeCondition}, daemonsettest.Pod(agent, "node"), ready, ready, fwk.QueueSkip},
		"something that is no node":           {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, daemonsettest.Pod(agent, "node"), nil, agent, fwk.Queue},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := plugintest.Hint(t, newPlacement(t), tc.event, tc.pod, tc.old, tc.new); got != tc.want {
				t.Errorf("hint is %v, want %v", got, tc.want)
			}
		})
	}
}

// Other nodes matter to a pod that may evict pods: those that could run nowhere else before
// are spared.
func TestOtherNodesMatterToPodsThatMayEvict(t *testing.T) {
	other := func() *st.NodeWrapper { return st.MakeNode().Name("other").Capacity(room) }
	cordoned := other().Unschedulable(true).Obj()
	added := fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}
	labelled := fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}
	tainted := fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeTaint}
	resized := fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeAllocatable}
	tests := map[string]struct {
		event    fwk.ClusterEvent
		old, new any
		want     fwk.QueueingHint
	}{
		"a node comes":              {added, nil, other().Obj(), fwk.Queue},
		"a node gets a label":       {labelled, other().Obj(), other().Label("a", "b").Obj(), fwk.Queue},
		"a node is uncordoned":      {tainted, cordoned, other().Obj(), fwk.Queue},
		"a node loses a taint":      {tainted, other().Taints([]corev1.Taint{{Key: "a"}}).Obj(), other().Obj(), fwk.Queue},
		"a node grows":              {resized, st.MakeNode().Name("other").Obj(), other().Obj(), fwk.QueueSkip},
		"a node comes and goes off": {added, nil, shuttingDown, fwk.QueueSkip},
	}
	for name, tc := range tests {
		for _, preempt := range []string{"true", "false"} {
			t.Run(name+", preempt "+preempt, func(t *testing.T) {
				agent := daemonsettest.Make("agent").Annotation(daemonset.PreemptAnnotation, preempt).Obj()
				want := tc.want
				if preempt == "false" {
					want = fwk.QueueSkip
				}
				if got := plugintest.Hint(t, newPlacement(t, agent), tc.event, daemonsettest.Pod(agent, "mine"), tc.old, tc.new); got != want {
					t.Errorf("hint is %v, want %v", got, want)
				}
			})
		}
	}
}

func TestSignPod(t *testing.T) {
	pl := newPlacement(t)
	if fragments, status := pl.SignPod(t.Context(), st.MakePod().Obj()); !status.IsSuccess() || len(fragments) != 0 {
		t.Errorf("an ordinary pod is signed %v, %v", fragments, status)
	}
	if _, status := pl.SignPod(t.Context(), daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "node")); status.Code() != fwk.Unschedulable {
		t.Errorf("a daemon pod is signed: %v", status)
	}
}

func TestArgsAreRefused(t *testing.T) {
	_, err := placement.NewFactory(cluster.NewPool())(t.Context(), plugintest.Args(`{"a": 1}`), plugintest.NewScheduler(t).Handle)
	want := `decoding the args of DaemonSetPlacement: unknown field "a"`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}
