// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package tracker_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/tracker"
)

func start(t *testing.T, objects ...runtime.Object) (*plugintest.Scheduler, *tracker.Tracker) {
	t.Helper()
	scheduler := plugintest.NewScheduler(t, objects...)
	tracker, err := tracker.NewPool().Get(t.Context(), scheduler.Handle)
	if err != nil {
		t.Fatal(err)
	}
	scheduler.Start(t)
	return scheduler, tracker
}

func TestPoolGivesAllProfilesOfASchedulerOneTracker(t *testing.T) {
	pool := tracker.NewPool()
	get := func(scheduler *plugintest.Scheduler) *tracker.Tracker {
		tracker, err := pool.Get(t.Context(), scheduler.Handle)
		if err != nil {
			t.Fatal(err)
		}
		return tracker
	}
	one, other := plugintest.NewScheduler(t), plugintest.NewScheduler(t)
	first := get(one)
	if get(one) != first {
		t.Error("one scheduler got two trackers")
	}
	if get(other) == first {
		t.Error("two schedulers got one tracker")
	}
}

// The first cycle runs when the listers are full, not when the handlers have run.
func TestSetIsCompleteAsSoonAsTheListersAre(t *testing.T) {
	_, tracker := start(t, daemonsettest.Make("logs").Obj(), daemonsettest.Make("metrics").Obj())
	for _, name := range []string{"logs", "metrics"} {
		if tracker.Set().Get(daemonsettest.Make(name).Obj().UID) == nil {
			t.Errorf("DaemonSet %s is not in the set", name)
		}
	}
}

func TestPrioritiesAreResolvedAsAdmissionDoes(t *testing.T) {
	class := func(name string, value int32, globalDefault bool) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: globalDefault}
	}
	tests := map[string]struct {
		classes []runtime.Object
		want    map[string]int32
	}{
		"without a default": {
			[]runtime.Object{class("high", 1000, false)}, map[string]int32{"": 0, "high": 1000, "unknown": 0}},
		"with a default": {
			[]runtime.Object{class("high", 1000, false), class("normal", 10, true)}, map[string]int32{"": 10, "high": 1000}},
		"with two defaults the lower counts": {
			[]runtime.Object{class("a", 30, true), class("b", 20, true)}, map[string]int32{"": 20, "a": 30}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			objects := tc.classes
			for className := range tc.want {
				objects = append(objects, daemonsettest.Make("ds-"+className).PriorityClass(className).Obj())
			}
			_, tracker := start(t, objects...)
			got := make(map[string]int32)
			for className := range tc.want {
				got[className] = tracker.Set().Get(daemonsettest.Make("ds-" + className).Obj().UID).Priority
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("priorities (-want,+got):\n%s", diff)
			}
		})
	}
}

// TestPodsAreTriedAgain changes DaemonSets while pods wait.
func TestPodsAreTriedAgain(t *testing.T) {
	logs := daemonsettest.Make("logs").Obj()
	late := daemonsettest.Make("late").Obj()
	waiting := []runtime.Object{
		st.MakePod().Namespace("default").Name("ordinary").Obj(),
		daemonsettest.Pod(late, "node"),
		st.MakePod().Namespace("default").Name("bound").Node("node").Obj(),
		st.MakePod().Namespace("default").Name("leaving").Terminating().Obj(),
	}
	all := []string{"default/late-node", "default/ordinary"}

	tests := map[string]struct {
		change func(*testing.T, *plugintest.Scheduler)
		want   []string
	}{
		"a DaemonSet that goes frees its room": {
			func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				if err := s.Client.AppsV1().DaemonSets("default").Delete(t.Context(), "logs", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}, all},
		"a template that changes may free room": {
			func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				update(t, s, daemonsettest.Make("logs").Generation(2).Obj())
			}, all},
		"a priority that changes may free room": {
			func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Value: -5, GlobalDefault: true}
				if _, err := s.Client.SchedulingV1().PriorityClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}, all},
		"a DaemonSet that comes concerns its own pods only": {
			func(t *testing.T, s *plugintest.Scheduler) {
				t.Helper()
				if _, err := s.Client.AppsV1().DaemonSets("default").Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}, []string{"default/late-node"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			scheduler, tracker := start(t, append(waiting, logs)...)
			before := tracker.Set()
			// A status changes nothing: if it did, the pods of the next event would come twice.
			ready := logs.DeepCopy()
			ready.Status.NumberReady = 1
			update(t, scheduler, ready)
			tc.change(t, scheduler)
			select {
			case pods := <-scheduler.Activated:
				if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(pods))); diff != "" {
					t.Errorf("pods tried again (-want,+got):\n%s", diff)
				}
			case <-t.Context().Done():
				t.Fatal("no pod was tried again")
			}
			if tracker.Set() == before {
				t.Error("pods were tried again before the set had changed")
			}
			if len(scheduler.Activated) > 0 {
				t.Error("pods were tried again twice")
			}
		})
	}
}

func update(t *testing.T, s *plugintest.Scheduler, ds *appsv1.DaemonSet) {
	t.Helper()
	if _, err := s.Client.AppsV1().DaemonSets(ds.Namespace).Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
