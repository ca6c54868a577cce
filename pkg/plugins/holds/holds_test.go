// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package holds

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/daemonsets"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

const (
	holdFor    = 10 * time.Second
	startupFor = time.Minute
)

// world is Holds on a cluster whose time the test tells.
type world struct {
	*testing.T
	scheduler  *plugintest.Scheduler
	daemonSets *daemonsets.DaemonSets
	holds      *Holds
	clock      *clocktesting.FakeClock
	away       bool
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{T: t, clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	leader, acquired := "controllers", metav1.NewMicroTime(w.clock.Now().Add(-time.Hour))
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: controllerNamespace, Name: controllerLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &leader, AcquireTime: &acquired, RenewTime: &acquired},
	}
	w.scheduler = plugintest.NewScheduler(t, append(objects, lease)...)
	factory := w.scheduler.Handle.SharedInformerFactory()
	var err error
	if w.daemonSets, err = daemonsets.New(t.Context(), factory, w.scheduler.Client); err != nil {
		t.Fatal(err)
	}
	w.holds, err = New(Options{HoldFor: holdFor, StartupFor: startupFor, Startup: daemonset.DefaultStartupTaints()}, Sources{
		DaemonSets: w.daemonSets,
		Informers:  factory,
		Client:     w.scheduler.Client,
		Recorder:   w.scheduler.Events,
		PodsOn: func(node string) []*corev1.Pod {
			var pods []*corev1.Pod
			for _, obj := range factory.Core().V1().Pods().Informer().GetStore().List() {
				if on, _ := daemonset.PinnedNode(obj.(*corev1.Pod)); on == node {
					pods = append(pods, obj.(*corev1.Pod))
				}
			}
			return pods
		},
		Clock: w.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.scheduler.Start(t)
	w.daemonSets.Set()
	return w
}

// pass lets time pass. The controller renews its lease, unless it is away.
func (w *world) pass(d time.Duration) {
	w.Helper()
	for range d / time.Second {
		w.clock.Step(time.Second)
		if !w.away {
			w.changeLease(func(spec *coordinationv1.LeaseSpec, now *metav1.MicroTime) { spec.RenewTime = now })
		}
		w.holds.tick(w.Context())
	}
}

func (w *world) changeLease(change func(*coordinationv1.LeaseSpec, *metav1.MicroTime)) {
	w.Helper()
	leases := w.scheduler.Client.CoordinationV1().Leases(controllerNamespace)
	lease, err := leases.Get(w.Context(), controllerLease, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	now := metav1.NewMicroTime(w.clock.Now())
	change(&lease.Spec, &now)
	if _, err := leases.Update(w.Context(), lease, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// lapsed returns the holds that have lapsed, as daemonset@node.
func (w *world) lapsed() []string {
	var all []string
	set := w.daemonSets.Set()
	for _, ds := range set.All() {
		for _, node := range []string{"a", "b"} {
			if set.HasLapsed(ds, node) {
				all = append(all, ds.Name+"@"+node)
			}
		}
	}
	return all
}

func (w *world) wantLapsed(when string, want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, w.lapsed()); diff != "" {
		w.Fatalf("%s: lapsed (-want,+got):\n%s", when, diff)
	}
}

// eventuallyLapsed waits for an event to arrive.
func (w *world) eventuallyLapsed(when string, want ...string) {
	w.Helper()
	if err := wait.PollUntilContextCancel(w.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		return slices.Equal(w.lapsed(), want), nil
	}); err != nil {
		w.Fatalf("%s: lapsed %v, want %v", when, w.lapsed(), want)
	}
}

func (w *world) wantEvent(parts ...string) {
	w.Helper()
	select {
	case event := <-w.scheduler.Events.Events:
		for _, part := range parts {
			if !strings.Contains(event, part) {
				w.Errorf("event %q, want one with %q", event, part)
			}
		}
	default:
		w.Errorf("there is no event with %q", parts)
	}
}

func node(name string) *st.NodeWrapper {
	return st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{"cpu": "4", "pods": "10"}).
		Condition(corev1.NodeReady, corev1.ConditionTrue, "", "")
}

func agent() *daemonsettest.Wrapper {
	return daemonsettest.Make("agent").Requests(map[corev1.ResourceName]string{"cpu": "1"})
}

// seen has the controller seen the DaemonSet as it is.
func seen(ds *appsv1.DaemonSet) *appsv1.DaemonSet {
	ds.Status.ObservedGeneration = ds.Generation
	return ds
}

func (w *world) create(pod *corev1.Pod) {
	w.Helper()
	if _, err := w.scheduler.Client.CoreV1().Pods(pod.Namespace).Create(w.Context(), pod, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) remove(pod *corev1.Pod) {
	w.Helper()
	if err := w.scheduler.Client.CoreV1().Pods(pod.Namespace).Delete(w.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
}

// renewed waits until an event has given the pair a deadline.
func (w *world) renewed(p pair) {
	w.Helper()
	if err := wait.PollUntilContextCancel(w.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		w.holds.mu.Lock()
		defer w.holds.mu.Unlock()
		_, renewed := w.holds.deadlines[p]
		return renewed, nil
	}); err != nil {
		w.Fatalf("%v has no deadline", p)
	}
}

func TestHoldLapsesWhenNoPodAppears(t *testing.T) {
	w := newWorld(t, seen(agent().Obj()), node("a").Obj(), node("b").Obj())
	w.pass(holdFor - time.Second)
	w.wantLapsed("before the time is over")
	w.pass(4 * time.Second)
	w.wantLapsed("after it", "agent@a", "agent@b")
	w.wantEvent("HoldLapsed", "No pod was created on 2 nodes (a, b) for 10s")

	// The first pod brings the holds on all nodes back.
	pod := daemonsettest.Pod(agent().Obj(), "a")
	w.create(pod)
	w.eventuallyLapsed("a pod has appeared")
	w.pass(holdFor + 4*time.Second)
	w.wantLapsed("the pod has appeared on one node only", "agent@b")
	w.wantEvent("HoldLapsed", "1 node (b)")

	w.remove(pod)
	w.renewed(pair{"agent", "a"})
	w.pass(holdFor - time.Second)
	w.wantLapsed("the pod has gone a moment ago", "agent@b")
	w.pass(5 * time.Second)
	w.wantLapsed("the pod has gone for long", "agent@a", "agent@b")
}

func TestHoldStaysWhile(t *testing.T) {
	agentPod := daemonsettest.Pod(agent().Obj(), "a")
	tests := map[string]struct {
		objects []runtime.Object
		away    bool
		want    []string
	}{
		"a pod is pending": {objects: []runtime.Object{seen(agent().Obj()), node("a").Obj(), agentPod}},
		"a pod runs":       {objects: []runtime.Object{seen(agent().Obj()), node("a").Obj(), daemonsettest.BoundPod(agent().Obj(), "a")}},
		"the controller has not seen the DaemonSet": {objects: []runtime.Object{agent().Obj(), node("a").Obj()}},
		"the controller is away":                    {objects: []runtime.Object{seen(agent().Obj()), node("a").Obj()}, away: true},
		"the node is not open": {objects: []runtime.Object{seen(agent().Obj()),
			node("a").Taints([]corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}).Obj()}},
		"nothing of it": {objects: []runtime.Object{seen(agent().Obj()), node("a").Obj()}, want: []string{"agent@a"}},
		"only an ordinary pod is there": {
			objects: []runtime.Object{seen(agent().Obj()), node("a").Obj(), st.MakePod().Name("x").UID("x").Node("a").Obj()}, want: []string{"agent@a"}},
		"an update has stalled": {objects: []runtime.Object{
			seen(agent().Generation(2).Requests(map[corev1.ResourceName]string{"cpu": "2"}).Obj()), node("a").Obj(),
			daemonsettest.BoundPod(agent().Obj(), "a")}, want: []string{"agent@a"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.objects...)
			w.away = tc.away
			w.pass(3 * holdFor)
			w.wantLapsed("after three times holdFor", tc.want...)
		})
	}
}

// A controller that comes back gets as much time as one that was never away.
func TestControllerThatWasAway(t *testing.T) {
	for name, comeBack := range map[string]func(*coordinationv1.LeaseSpec, *metav1.MicroTime){
		"it goes on": func(spec *coordinationv1.LeaseSpec, now *metav1.MicroTime) { spec.RenewTime = now },
		"another one takes over": func(spec *coordinationv1.LeaseSpec, now *metav1.MicroTime) {
			other := "other"
			spec.HolderIdentity, spec.AcquireTime, spec.RenewTime = &other, now, now
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, seen(agent().Obj()), node("a").Obj())
			w.away = true
			w.pass(10 * time.Minute)
			w.changeLease(comeBack)
			w.away = false
			w.pass(holdFor - time.Second)
			w.wantLapsed("it has just come back")
			w.pass(6 * time.Second)
			w.wantLapsed("it was at work for long enough", "agent@a")
		})
	}
}

// A lease that was not renewed for an hour tells nothing: the second hold ends in time.
func TestAbandonedLease(t *testing.T) {
	w := newWorld(t, seen(agent().Obj()), node("a").Obj())
	w.away = true
	w.pass(abandonedAfter)
	w.wantLapsed("for an hour")
	w.pass(holdFor + 15*time.Second)
	w.wantLapsed("after an hour", "agent@a")
	if _, err := w.scheduler.Client.AppsV1().DaemonSets("default").Create(t.Context(), seen(daemonsettest.Make("later").Obj()), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		return len(w.daemonSets.Set().All()) == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	w.pass(holdFor + 2*time.Second)
	w.wantLapsed("a later hold", "agent@a", "later@a")
}

// Without a lease, or the right to read it, there is no way to tell.
func TestControllerWithoutLease(t *testing.T) {
	w := newWorld(t, seen(agent().Obj()), node("a").Obj())
	if err := w.scheduler.Client.CoordinationV1().Leases(controllerNamespace).Delete(t.Context(), controllerLease, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.away = true
	w.pass(holdFor + time.Second)
	w.wantLapsed("without a lease", "agent@a")
}

func TestDaemonSetThatChangesIsExpectedAgain(t *testing.T) {
	changes := map[string]func(*appsv1.DaemonSet){
		"its template":          func(ds *appsv1.DaemonSet) { ds.Generation, ds.Status.ObservedGeneration = 2, 2 },
		"an annotation of ours": func(ds *appsv1.DaemonSet) { ds.Annotations[daemonset.GateAnnotation] = "true" },
		"its update moves":      func(ds *appsv1.DaemonSet) { ds.Status.UpdatedNumberScheduled = 1 },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			ds := seen(agent().Obj())
			w := newWorld(t, ds.DeepCopy(), node("a").Obj())
			w.pass(holdFor + 4*time.Second)
			w.wantLapsed("before the change", "agent@a")
			change(ds)
			if _, err := w.scheduler.Client.AppsV1().DaemonSets("default").Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			w.eventuallyLapsed("after the change")
			w.pass(holdFor + 4*time.Second)
			w.wantLapsed("later", "agent@a")
		})
	}
}

// A start-up taint on a Ready node does not hold room for ever.
func TestStartupTaintThatStays(t *testing.T) {
	taints := []corev1.Taint{{Key: "efs.csi.aws.com/agent-not-ready", Effect: corev1.TaintEffectNoExecute}}
	w := newWorld(t, seen(agent().Obj()), node("a").Taints(taints).Obj())
	w.pass(startupFor - time.Second)
	w.wantLapsed("while the node starts")
	w.pass(2 * time.Second)
	w.wantLapsed("the taint stays", "agent@a")
	w.wantEvent("StartupTaintStays", "efs.csi.aws.com/agent-not-ready", "1m0s")
	if diff := cmp.Diff(map[string]int{"efs.csi.aws.com/agent-not-ready": 1}, w.holds.Overdue()); diff != "" {
		t.Errorf("overdue taints (-want,+got):\n%s", diff)
	}

	// It goes after all.
	if _, err := w.scheduler.Client.CoreV1().Nodes().Update(t.Context(), node("a").Obj(), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventuallyLapsed("the node has opened")
	if overdue := w.holds.Overdue(); len(overdue) > 0 {
		t.Errorf("overdue taints: %v", overdue)
	}
}

// What is remembered of objects goes with them.
func TestForgets(t *testing.T) {
	w := newWorld(t, seen(agent().Obj()), node("a").Obj(), node("b").Obj())
	w.pass(holdFor + 4*time.Second)
	w.wantLapsed("before", "agent@a", "agent@b")
	if err := w.scheduler.Client.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventuallyLapsed("the node has gone", "agent@b")
	if err := w.scheduler.Client.AppsV1().DaemonSets("default").Delete(t.Context(), "agent", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		w.holds.mu.Lock()
		defer w.holds.mu.Unlock()
		return len(w.holds.lapsed) == 0, nil
	}); err != nil {
		t.Error("the DaemonSet is remembered")
	}
	w.pass(holdFor + time.Second)
	if len(w.holds.deadlines) > 0 {
		t.Errorf("deadlines are left: %v", w.holds.deadlines)
	}
}
