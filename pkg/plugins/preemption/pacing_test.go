// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/preemption"
)

// manualClock is a clock that stands still until it is stepped. Like a real one, it
// calls functions in goroutines of their own.
type manualClock struct{ *clocktesting.FakeClock }

func newClock() manualClock { return manualClock{clocktesting.NewFakeClock(old.Add(24 * time.Hour))} }

// AfterFunc implements [clock.WithDelayedExecution].
func (c manualClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	return c.FakeClock.AfterFunc(d, func() { go f() })
}

// fleet is a number of full nodes with three pods of one core each, and a daemon pod
// that waits on each of them. The pods of web are the youngest.
func fleet(n int) (daemonPods []*corev1.Pod, objects []runtime.Object) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
	objects = append(objects, ds)
	for i := range n {
		node := fmt.Sprintf("node-%d", i)
		objects = append(objects, st.MakeNode().Name(node).Capacity(resources{"cpu": "3", "pods": "10"}).Obj())
		for j, controller := range []string{"batch", "batch", "web"} {
			pod := ownedBy(filler(fmt.Sprintf("%s-%d-%d", controller, i, j), "1", j).Node(node).Obj(), controller)
			objects = append(objects, pod)
		}
		pod := daemonsettest.Pod(ds, node)
		daemonPods, objects = append(daemonPods, pod), append(objects, pod)
	}
	return daemonPods, objects
}

// chosen returns the controllers of the pods that the cycle of a daemon pod evicts, or
// why it evicts none.
func (w *world) chosen(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	before, _ := w.evicted()
	_, status := w.cycle(t, pod)
	w.finish(t, pod)
	if !status.IsSuccess() {
		return status.Message()
	}
	after, _ := w.evicted()
	controllers := make([]string, 0, 1)
	for _, name := range after[len(before):] {
		controllers = append(controllers, strings.Split(name, "-")[0])
	}
	slices.Sort(controllers)
	return strings.Join(controllers, ",")
}

// wantPaced fails the test unless got says that the pod has to wait.
func wantPaced(t *testing.T, got string) {
	t.Helper()
	if !strings.Contains(got, preemption.ErrReasonPaced) {
		t.Errorf("got %q, want: %s", got, preemption.ErrReasonPaced)
	}
}

func (w *world) woken(t *testing.T) []string {
	t.Helper()
	select {
	case pods := <-w.activated:
		return slices.Sorted(maps.Keys(pods))
	case <-t.Context().Done():
		t.Fatal("nothing is tried again")
		return nil
	}
}

// create adds a pod that the controller has created at the time of the clock.
func (w *world) create(t *testing.T, clock clock.PassiveClock, name, controller string, ready bool) {
	t.Helper()
	pod := ownedBy(filler(name, "1", 0).Node("").Obj(), controller)
	pod.CreationTimestamp = metav1.NewTime(clock.Now().Truncate(time.Second))
	if ready {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	if _, err := w.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) becomeReady(t *testing.T, name string) {
	t.Helper()
	pods := w.client.CoreV1().Pods("default")
	pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Three nodes, and a DaemonSet comes to all of them in a row.
func TestControllersLoseOnePodAtATime(t *testing.T) {
	start := func(t *testing.T, args string, edit func([]runtime.Object), more ...runtime.Object) (*world, manualClock, []*corev1.Pod) {
		t.Helper()
		clock := newClock()
		pods, objects := fleet(3)
		if edit != nil {
			edit(objects)
		}
		return newWorldAt(t, clock, args, append(objects, more...)...), clock, pods
	}
	farAway := st.MakeNode().Name("far-away").Capacity(resources{"cpu": "1", "pods": "10"}).Obj()
	t.Run("until the replacement is Ready", func(t *testing.T) {
		w, clock, pods := start(t, "", nil)
		got := []string{w.chosen(t, pods[0]), w.chosen(t, pods[1])}
		if diff := cmp.Diff([]string{"web", "batch"}, got); diff != "" {
			t.Errorf("evicted (-want,+got):\n%s", diff)
		}
		wantPaced(t, w.chosen(t, pods[2]))

		clock.Step(2 * time.Second)
		w.create(t, clock, "new", "web", false)
		w.becomeReady(t, "new")
		if diff := cmp.Diff([]string{"default/agent-node-2"}, w.woken(t)); diff != "" {
			t.Errorf("tried again (-want,+got):\n%s", diff)
		}
		if got := w.chosen(t, pods[2]); got != "web" {
			t.Errorf("evicted %q, want the pod of web", got)
		}
	})
	t.Run("or for the timeout", func(t *testing.T) {
		w, clock, pods := start(t, `{"evictionTimeout": "20s"}`, nil)
		w.chosen(t, pods[0])
		clock.Step(time.Second)
		w.chosen(t, pods[1])
		wantPaced(t, w.chosen(t, pods[2]))
		clock.Step(18 * time.Second)
		wantPaced(t, w.chosen(t, pods[2]))
		if len(w.activated) > 0 {
			t.Error("tried again before the timeout")
		}
		clock.Step(time.Second)
		if diff := cmp.Diff([]string{"default/agent-node-2"}, w.woken(t)); diff != "" {
			t.Errorf("tried again (-want,+got):\n%s", diff)
		}
		if got := w.chosen(t, pods[2]); got != "web" {
			t.Errorf("evicted %q, want the pod of web", got)
		}
	})
	t.Run("pods that were there before are no replacement", func(t *testing.T) {
		w, clock, pods := start(t, "", nil)
		w.create(t, clock, "earlier", "web", false)
		clock.Step(2 * time.Second)
		w.chosen(t, pods[0])
		w.chosen(t, pods[1])
		w.becomeReady(t, "earlier")
		w.create(t, clock, "other", "unrelated", true)
		w.create(t, clock, "new", "batch", true)
		// The informer tells the events in order: the first ones have ended nothing.
		refusedThenWoken := w.chosen(t, pods[2])
		if refusedThenWoken != "batch" {
			wantPaced(t, refusedThenWoken)
			w.woken(t)
			if got := w.chosen(t, pods[2]); got != "batch" {
				t.Errorf("evicted %q, want a pod of batch: web has no replacement", got)
			}
		}
	})
	t.Run("a terminating pod elsewhere counts", func(t *testing.T) {
		clock := newClock()
		going := ownedBy(filler("going", "1", 0).Node("far-away").Obj(), "web")
		going.DeletionTimestamp, going.Finalizers = &metav1.Time{Time: clock.Now().Add(30 * time.Second)}, []string{"example.com/slow"}
		pods, objects := fleet(3)
		w := newWorldAt(t, clock, "", append(objects, going, farAway)...)
		if got := w.chosen(t, pods[0]); got != "batch" {
			t.Errorf("evicted %q, want a pod of batch", got)
		}
		wantPaced(t, w.chosen(t, pods[1]))
		if err := w.client.CoreV1().Pods("default").Delete(t.Context(), "going", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.woken(t)
		if got := w.chosen(t, pods[1]); got != "web" {
			t.Errorf("evicted %q, want the pod of web", got)
		}
	})
	t.Run("a terminating pod that is stuck does not count", func(t *testing.T) {
		clock := newClock()
		stuck := ownedBy(filler("stuck", "1", 0).Node("far-away").Obj(), "web")
		stuck.DeletionTimestamp, stuck.Finalizers = &metav1.Time{Time: clock.Now().Add(-preemption.TerminationSlack)}, []string{"example.com/never"}
		pods, objects := fleet(3)
		w := newWorldAt(t, clock, "", append(objects, stuck, farAway)...)
		if got := w.chosen(t, pods[0]); got != "web" {
			t.Errorf("evicted %q, want the pod of web", got)
		}
	})
	t.Run("unless a budget covers them", func(t *testing.T) {
		w, _, pods := start(t, "", nil, budget(3, fillerLabels()))
		got := []string{w.chosen(t, pods[0]), w.chosen(t, pods[1]), w.chosen(t, pods[2])}
		if diff := cmp.Diff([]string{"web", "web", "web"}, got); diff != "" {
			t.Errorf("evicted (-want,+got):\n%s", diff)
		}
	})
	t.Run("or more are allowed", func(t *testing.T) {
		w, _, pods := start(t, `{"maxEvictionsPerController": 2}`, nil)
		got := []string{w.chosen(t, pods[0]), w.chosen(t, pods[1]), w.chosen(t, pods[2])}
		if diff := cmp.Diff([]string{"web", "web", "batch"}, got); diff != "" {
			t.Errorf("evicted (-want,+got):\n%s", diff)
		}
	})
	t.Run("an eviction that fails does not count", func(t *testing.T) {
		w, _, pods := start(t, "", nil)
		fail := true
		w.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetSubresource() == "eviction" && fail, nil, apierrors.NewInternalError(errTest)
		})
		w.cycle(t, pods[0])
		w.woken(t) // by the executor
		fail = false
		if got := w.chosen(t, pods[1]); got != "web" {
			t.Errorf("evicted %q, want the pod of web", got)
		}
	})
	t.Run("a preemptor that is gone waits no longer", func(t *testing.T) {
		w, clock, pods := start(t, "", nil)
		for _, pod := range pods {
			w.chosen(t, pod)
		}
		if err := w.client.CoreV1().Pods("default").Delete(t.Context(), pods[2].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.eventually(t, func() bool { return !w.plugin.Waits(pods[2]) })
		clock.Step(time.Minute)
		if len(w.activated) > 0 {
			t.Error("a pod is tried again that is gone")
		}
	})
}

// A daemon pod that needs the room of three pods of one controller takes one after
// the other, and keeps the room that it has.
func TestRoomOfOneControllerIsTakenStepByStep(t *testing.T) {
	clock := newClock()
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "3"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	objects := []runtime.Object{ds, pod, st.MakeNode().Name("node").Capacity(resources{"cpu": "3", "pods": "10"}).Obj()}
	for i, name := range []string{"a", "b", "c"} {
		objects = append(objects, filler(name, "1", i).Obj())
	}
	w := newWorldAt(t, clock, "", objects...)
	result, status := w.cycle(t, pod)
	if !status.IsSuccess() || result.NominatedNodeName != "node" {
		t.Errorf("result is %v, %v", result, status)
	}
	w.finish(t, pod)
	if evicted, _ := w.evicted(); !slices.Equal(evicted, []string{"c"}) {
		t.Errorf("evicted %v, want the youngest alone", evicted)
	}
	result, status = w.cycle(t, pod)
	wantPaced(t, status.Message())
	if result != nil {
		t.Errorf("result is %v, which ends the nomination", result)
	}
	clock.Step(30 * time.Second)
	w.woken(t)
}

// Thousands of pods may wait for one controller. They are tried a few at a time, as
// long as there is an eviction to spare.
func TestFewWaitingPodsAreTriedAtATime(t *testing.T) {
	clock := newClock()
	pods, objects := fleet(25)
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok && metav1.GetControllerOf(pod).Kind != "DaemonSet" {
			ownedBy(pod, "web")
		}
	}
	w := newWorldAt(t, clock, "", objects...)
	for _, pod := range pods {
		w.chosen(t, pod)
	}
	clock.Step(30 * time.Second)
	var tried []string
	for _, want := range []int{10, 10, 4} {
		woken := w.woken(t)
		if len(woken) != want {
			t.Errorf("%d are tried again at once, want %d", len(woken), want)
		}
		tried = append(tried, woken...)
		w.eventually(t, func() bool { return clock.HasWaiters() || want == 4 })
		clock.Step(time.Second)
	}
	slices.Sort(tried)
	if len(slices.Compact(tried)) != 24 {
		t.Errorf("tried again: %v, want each pod once", tried)
	}
}

// A scheduler that takes the lead knows of the evictions of the one before, which it has
// seen: each controller loses one pod at a time all the same.
func TestEvictionsOfAnotherSchedulerCount(t *testing.T) {
	clock := newClock()
	pods, objects := fleet(2)
	w := newWorldAt(t, clock, "", objects...)
	evicted, err := w.client.CoreV1().Pods("default").Get(t.Context(), "web-1-2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	evicted.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.NewTime(clock.Now())}}
	if _, err := w.client.CoreV1().Pods("default").UpdateStatus(t.Context(), evicted, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, func() bool { return w.plugin.Away("web") == 1 })
	if err := w.client.CoreV1().Pods("default").Delete(t.Context(), evicted.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.chosen(t, pods[0]); got != "batch" {
		t.Errorf("evicted %q, want a pod of the controller that has lost none", got)
	}
	w.create(t, clock, "successor", "web", true)
	w.eventually(t, func() bool { return w.plugin.Away("web") == 0 })
	if got := w.chosen(t, pods[0]); got != "web" {
		t.Errorf("evicted %q, want the pod of web when its successor is Ready", got)
	}
}
