// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

func start(t *testing.T, objects ...runtime.Object) *cluster.Cluster {
	t.Helper()
	scheduler := plugintest.NewScheduler(t, objects...)
	made, err := cluster.NewPool().Get(t.Context(), scheduler.Handle)
	if err != nil {
		t.Fatal(err)
	}
	scheduler.Start(t)
	return made
}

func TestPoolGivesAllProfilesOfASchedulerOneCluster(t *testing.T) {
	pool := cluster.NewPool()
	get := func(scheduler *plugintest.Scheduler) *cluster.Cluster {
		made, err := pool.Get(t.Context(), scheduler.Handle)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	one, other := plugintest.NewScheduler(t), plugintest.NewScheduler(t)
	first := get(one)
	if get(one) != first {
		t.Error("one scheduler got two clusters")
	}
	if get(other) == first {
		t.Error("two schedulers got one cluster")
	}
}

// The first cycle runs when the listers are full, not when the handlers have run.
func TestSetIsCompleteAsSoonAsTheListersAre(t *testing.T) {
	cluster := start(t, daemonsettest.Make("logs").Obj(), daemonsettest.Make("metrics").Obj())
	for _, name := range []string{"logs", "metrics"} {
		if cluster.Set().Get(daemonsettest.Make(name).Obj().UID) == nil {
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
			cluster := start(t, objects...)
			got := make(map[string]int32)
			for className := range tc.want {
				got[className] = cluster.Set().Get(daemonsettest.Make("ds-" + className).Obj().UID).Priority
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("priorities (-want,+got):\n%s", diff)
			}
		})
	}
}
