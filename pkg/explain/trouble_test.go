// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/snapshot"
)

// Nodes with the same cause are one group, whatever values of their own they have.
func TestGroupsAreCauses(t *testing.T) {
	t.Parallel()
	agent := daemons("agent").Obj()
	flaps := func(n int) func(*corev1.Pod) { return container(flapping(int32(100 + n))) }
	tests := map[string]struct {
		ds   *appsv1.DaemonSet
		node func(n int) *corev1.Node
		pod  func(n int) func(*corev1.Pod)
		want string
	}{
		"a host name": {
			ds:   daemons("agent").NodeSelector(corev1.LabelHostname, "other").Obj(),
			want: "none NodeSelectorMismatch on 40: The nodeSelector wants kubernetes.io/hostname=other, the node has kubernetes.io/hostname=node-0, kubernetes.io/hostname=node-1 or 38 others.",
		},
		"a zone among two": {
			ds: affinity(agent, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"c"}}}}),
			node: func(n int) *corev1.Node {
				return node(fmt.Sprint("node-", n)).Label("zone", []string{"a", "b"}[n%2]).Obj()
			},
			want: "none NodeAffinityMismatch on 40: The required node affinity wants zone=c, the node has zone=a or zone=b.",
		},
		"a time in what the kubelet says": {
			ds: agent,
			node: func(n int) *corev1.Node {
				unready := notReady(fmt.Sprintf("PLEG is not healthy: pleg was last seen active %dm5s ago", n))
				unready.Name = fmt.Sprint("node-", n)
				return unready
			},
			pod: func(int) func(*corev1.Pod) { return func(*corev1.Pod) {} },
			want: "stuck NodeNotReady on 40: The pod is on the node, but the node is not Ready: PLEG is not healthy: pleg was last seen active 0m5s ago, " +
				"PLEG is not healthy: pleg was last seen active 1m5s ago or 38 others.",
		},
		"a number in a taint": {
			ds: agent,
			node: func(n int) *corev1.Node {
				return node(fmt.Sprint("node-", n)).Taints([]corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Value: strconv.Itoa(n % 2), Effect: corev1.TaintEffectNoSchedule}}).Obj()
			},
			want: "none TaintNotTolerated on 40: The node has the taint ToBeDeletedByClusterAutoscaler=0:NoSchedule or the taint ToBeDeletedByClusterAutoscaler=1:NoSchedule, " +
				"which the DaemonSet does not tolerate. The node is going: the cluster autoscaler is about to remove it.",
		},
		"restarts": {
			ds: agent, pod: flaps,
			want: "stuck CrashLoop on 40: The container main ends again and again, with exit code 137 (OOMKilled); it was restarted 100 to 139 times.",
		},
		"exit codes are causes": {
			ds: agent,
			pod: func(n int) func(*corev1.Pod) {
				s := flapping(9)
				s.LastTerminationState.Terminated.ExitCode = int32(1 + n/20)
				return container(s)
			},
			want: "stuck CrashLoop on 20: The container main ends again and again, with exit code 1 (OOMKilled); it was restarted 9 times.\n" +
				"stuck CrashLoop on 20: The container main ends again and again, with exit code 2 (OOMKilled); it was restarted 9 times.",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &snapshot.Cluster{DaemonSets: []*appsv1.DaemonSet{tc.ds}}
			for n := range 40 {
				on := node(fmt.Sprint("node-", n)).Obj()
				if tc.node != nil {
					on = tc.node(n)
				}
				c.Nodes = append(c.Nodes, on)
				if tc.pod != nil {
					c.Pods = append(c.Pods, pod(daemonsettest.BoundPod(tc.ds, on.Name), tc.pod(n)))
				}
			}
			e := newEngine(t, c)
			x, err := e.Explain(t.Context(), tc.ds, e.Nodes())
			if err != nil {
				t.Fatal(err)
			}
			var have []string
			for n := range x.Groups {
				g := &x.Groups[n]
				have = append(have, fmt.Sprintf("%s %s on %d: %s", g.State, g.Reason, len(g.Nodes), g.Message))
			}
			if diff := cmp.Diff(tc.want, strings.Join(have, "\n")); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

// A fix says how much it changes on all nodes of its group.
func TestFixesOfGroups(t *testing.T) {
	t.Parallel()
	requests := map[corev1.ResourceName]string{corev1.ResourceCPU: "3"}
	agent := daemons("agent").Requests(requests).Obj()
	waits := func(on string) *corev1.Pod { return pod(daemonsettest.Pod(agent, on), refused(everynodeSaid)) }
	bare := func(name, on string) *corev1.Pod {
		return pod(web(name, on, "1500m").Priority(10).Obj(), isReady, func(p *corev1.Pod) { p.OwnerReferences = nil })
	}
	static := func(name, on string) *corev1.Pod {
		return pod(web(name, on, "3").Priority(2_000_000_000).Obj(), isReady, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
	}
	ssd, hdd := daemons("ssd").NodeSelector("disktype", "ssd"), daemons("hdd").NodeSelector("disktype", "hdd").Obj()
	for name, tc := range map[string]struct {
		daemonSets []*appsv1.DaemonSet // the first is explained
		pods       []*corev1.Pod
		node       func(*st.NodeWrapper) *st.NodeWrapper
		want       string
	}{
		"room on two nodes": {
			daemonSets: []*appsv1.DaemonSet{agent},
			pods:       []*corev1.Pod{waits("a"), waits("b"), bare("1", "a"), bare("2", "b"), bare("3", "b")},
			want:       "above 10: that replaces all of its pods (2) and evicts 3 pods on a b.",
		},
		"room that no priority makes": {
			daemonSets: []*appsv1.DaemonSet{agent},
			pods:       []*corev1.Pod{waits("a"), waits("b"), bare("1", "a"), bare("2", "b"), static("3", "a"), static("4", "b")},
			want:       "A higher priority does not make enough room",
		},
		"room in a DaemonSet that is updated by hand": {
			daemonSets: []*appsv1.DaemonSet{func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
				return ds
			}()},
			pods: []*corev1.Pod{waits("a"), bare("1", "a")},
			want: "above 10: that replaces each of its pods (1) when that is deleted and evicts 1 pod on a.",
		},
		"a label that several DaemonSets want, and one does not": {
			daemonSets: []*appsv1.DaemonSet{ssd.Obj(), daemons("other").NodeSelector("disktype", "ssd").Obj(), hdd, daemons("all").Obj()},
			pods:       []*corev1.Pod{pod(daemonsettest.BoundPod(hdd, "a"), isReady), pod(daemonsettest.BoundPod(hdd, "b"), isReady)},
			node:       func(n *st.NodeWrapper) *st.NodeWrapper { return n.Label("disktype", "hdd") },
			want:       "label the node. That brings 4 pods of default/other and default/ssd, and removes 2 pods of default/hdd.",
		},
		"a taint": {
			daemonSets: []*appsv1.DaemonSet{daemons("agent").Obj(), daemons("all").Obj()},
			node: func(n *st.NodeWrapper) *st.NodeWrapper {
				return n.Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}})
			},
			want: "tolerate the taint: that replaces all of its pods (0), and brings it to 2 more nodes.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &snapshot.Cluster{DaemonSets: tc.daemonSets, Pods: tc.pods}
			for _, name := range []string{"a", "b"} {
				n := node(name)
				if tc.node != nil {
					n = tc.node(n)
				}
				c.Nodes = append(c.Nodes, n.Obj())
			}
			e := newEngine(t, c)
			x, err := e.Explain(t.Context(), tc.daemonSets[0], e.Nodes())
			if err != nil {
				t.Fatal(err)
			}
			if fix := x.Groups[0].Fix; fix == nil || !strings.Contains(fix.Text, tc.want) {
				t.Errorf("no %q in %+v", tc.want, fix)
			}
		})
	}
}

// What tells nodes with trouble from nodes without is said where it is clean.
func TestContrast(t *testing.T) {
	t.Parallel()
	ds := daemons("agent").Obj()
	for name, tc := range map[string]struct {
		arch func(n int) string
		want string
	}{
		"clean":     {func(n int) string { return []string{"amd64", "arm64"}[n/4] }, "All of these nodes, and none where it is Ready, have the architecture arm64."},
		"not clean": {func(n int) string { return []string{"amd64", "arm64"}[min(n/3, 1)] }, ""},
		"the same":  {func(int) string { return "amd64" }, ""},
	} {
		c := &snapshot.Cluster{DaemonSets: []*appsv1.DaemonSet{ds}}
		for n := range 8 {
			on := node(fmt.Sprint("node-", n)).Label(corev1.LabelArchStable, tc.arch(n)).Obj()
			c.Nodes = append(c.Nodes, on)
			state := isReady
			if n >= 4 {
				state = crashes
			}
			c.Pods = append(c.Pods, pod(daemonsettest.BoundPod(ds, on.Name), state))
		}
		e := newEngine(t, c)
		x, err := e.Explain(t.Context(), ds, e.Nodes())
		if err != nil {
			t.Fatal(err)
		}
		if x.Groups[0].Contrast != tc.want {
			t.Errorf("%s: %q, want %q", name, x.Groups[0].Contrast, tc.want)
		}
	}
}

// A pod that is ending where no pod is wanted any more uses up what an update may take
// away, as the controller counts it.
func TestLeftoversStallUpdates(t *testing.T) {
	t.Parallel()
	old, ds := daemons("agent").NodeSelector("pool", "a").Obj(), daemons("agent").NodeSelector("pool", "a").Generation(2).Obj()
	ds.Status.ObservedGeneration = 2
	ending := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = new(ago(time.Hour)), []string{"example.com/wait"}
	}
	for name, tc := range map[string]struct {
		nodes   []*corev1.Node
		edit    func(*corev1.Pod)
		stalled bool
		want    string
	}{
		"a node that is deselected": {
			nodes: []*corev1.Node{node("dead").Obj()}, edit: ending, stalled: true,
			want: "0 of 2 nodes have the current template. Pod agent-dead is still on dead, where the DaemonSet no longer belongs, and counts as unavailable. " +
				"It goes no further before a pod becomes available on dead: maxUnavailable is 1.",
		},
		"a node that is gone": {
			edit: ending, stalled: true,
			want: "0 of 2 nodes have the current template. Pod agent-dead is still on dead, a node that is gone, and counts as unavailable. " +
				"It goes no further before a pod becomes available on dead: maxUnavailable is 1.",
		},
		"a pod that is ending for a moment": {
			edit: func(p *corev1.Pod) {
				ending(p)
				p.DeletionTimestamp = new(ago(time.Minute))
			},
			want: "0 of 2 nodes have the current template. Pod agent-dead is still on dead, a node that is gone, and counts as unavailable. " +
				"It goes no further before a pod becomes available on dead: maxUnavailable is 1.",
		},
		"a pod that has ended": {
			edit: func(p *corev1.Pod) {
				ending(p)
				p.Status.Phase = corev1.PodFailed
			},
			want: "0 of 2 nodes have the current template.",
		},
	} {
		c := &snapshot.Cluster{
			DaemonSets: []*appsv1.DaemonSet{ds},
			Nodes:      append(tc.nodes, node("a").Label("pool", "a").Obj(), node("b").Label("pool", "a").Obj()),
			Pods: []*corev1.Pod{
				pod(daemonsettest.BoundPod(old, "a"), isReady), pod(daemonsettest.BoundPod(old, "b"), isReady), pod(daemonsettest.BoundPod(old, "dead"), tc.edit),
			},
		}
		e := newEngine(t, c)
		x, err := e.Explain(t.Context(), ds, e.Nodes())
		if err != nil {
			t.Fatal(err)
		}
		if x.Rollout.Stalled != tc.stalled || x.Rollout.Message != tc.want {
			t.Errorf("%s: stalled: %t, %q, want %q", name, x.Rollout.Stalled, x.Rollout.Message, tc.want)
		}
		if stalled := x.Status.Stalled != ""; stalled != tc.stalled {
			t.Errorf("%s: status says %q", name, x.Status.Stalled)
		}
	}
}

// Room is held where everynode-scheduler has been seen.
func TestRoomIsHeldByEverynode(t *testing.T) {
	t.Parallel()
	ds := daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "500m"}).Obj()
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"nobody knows":      {web("web", "n", "1").Obj(), ""},
		"its own pod":       {web("scheduler", "n", "1").Container("registry.example/everynode-scheduler:v1").Obj(), "cpu 500m"},
		"a pod that it has": {web("web", "n", "1").SchedulerName("everynode-scheduler").Obj(), "cpu 500m"},
		"what it said":      {pod(web("web", "", "1").Obj(), refused("0/1 nodes are available: 1 node(s) had cpu held for DaemonSet pods.")), "cpu 500m"},
		"another one":       {web("scheduler", "n", "1").Container("registry.example/not-everynode-scheduler:v1").Obj(), ""},
	} {
		e := newEngine(t, &snapshot.Cluster{DaemonSets: []*appsv1.DaemonSet{ds}, Nodes: []*corev1.Node{node("n").Obj()}, Pods: []*corev1.Pod{tc.pod}})
		statuses, err := e.Statuses(t.Context(), e.DaemonSets())
		if err != nil {
			t.Fatal(err)
		}
		if have := statuses[0].HeldText(); have != tc.want {
			t.Errorf("%s: %q, want %q", name, have, tc.want)
		}
	}
}

// The time after which what is on its way is trouble can be set.
func TestPatience(t *testing.T) {
	t.Parallel()
	ds := daemons("agent").Obj()
	c := &snapshot.Cluster{DaemonSets: []*appsv1.DaemonSet{ds}, Nodes: []*corev1.Node{node("n").Obj()}, Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(ds, "n"))}}
	for patience, want := range map[time.Duration]State{0: StateWaiting, 4 * time.Minute: StateStuck, 6 * time.Minute: StateWaiting} {
		e, err := New(t.Context(), c, Options{Now: now.Time, Patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		v, err := e.verdict(t.Context(), ds, c.Nodes[0], true)
		if err != nil || v.Outcome != want || v.Next != "" {
			t.Errorf("%s: %s (%v), want %s and no command", patience, v.Outcome, err, want)
		}
	}
}
