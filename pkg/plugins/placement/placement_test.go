// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

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

var shuttingDown = st.MakeNode().Name("node").
	Condition(corev1.NodeReady, corev1.ConditionFalse, "[container runtime is down, node is shutting down]", "KubeletNotReady").Obj()

func TestFilter(t *testing.T) {
	agent, surging := daemonsettest.Make("agent").Obj(), daemonsettest.Make("agent").MaxSurge(1).Obj()
	terminating := named(daemonsettest.BoundPod(agent, "node"), "old", "1")
	terminating.DeletionTimestamp = st.MakePod().Terminating().Obj().DeletionTimestamp
	node := st.MakeNode().Name("node").Condition(corev1.NodeReady, corev1.ConditionTrue, "", "KubeletReady").Obj()
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
		"a node that is not ready for other reasons": {agent, daemonsettest.Pod(agent, "node"), st.MakeNode().Name("node").Condition(corev1.NodeReady, corev1.ConditionFalse, "no network", "KubeletNotReady").Obj(), nil, ""},
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
	ready := st.MakeNode().Name("node").Obj()
	deleted := fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}
	tests := map[string]struct {
		event    fwk.ClusterEvent
		pod      *corev1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		"a pod of the same DaemonSet goes":    {deleted, daemonsettest.Pod(agent, "node"), daemonsettest.BoundPod(agent, "node"), nil, fwk.Queue},
		"a pod of another DaemonSet goes":     {deleted, daemonsettest.Pod(agent, "node"), daemonsettest.BoundPod(daemonsettest.Make("other").Obj(), "node"), nil, fwk.QueueSkip},
		"an ordinary pod goes":                {deleted, daemonsettest.Pod(agent, "node"), st.MakePod().Node("node").Obj(), nil, fwk.QueueSkip},
		"the pod's node comes":                {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, daemonsettest.Pod(agent, "node"), nil, ready, fwk.Queue},
		"another node comes":                  {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, daemonsettest.Pod(agent, "elsewhere"), nil, ready, fwk.QueueSkip},
		"any node comes for an unpinned pod":  {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, unpinned(daemonsettest.Pod(agent, "node")), nil, ready, fwk.Queue},
		"the node no longer shuts down":       {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeCondition}, daemonsettest.Pod(agent, "node"), shuttingDown, ready, fwk.Queue},
		"the node still shuts down":           {fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeCondition}, daemonsettest.Pod(agent, "node"), shuttingDown, shuttingDown, fwk.QueueSkip},
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
