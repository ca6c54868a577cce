// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package queuesort_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	upstream "k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/queuesort"
)

// epoch is when the queues of these tests begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func queued(tb testing.TB, pod *corev1.Pod, second int) fwk.QueuedEntityInfo {
	tb.Helper()
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		tb.Fatal(err)
	}
	queued := &framework.QueuedPodInfo{PodInfo: info}
	queued.Timestamp = epoch.Add(time.Duration(second) * time.Second)
	return queued
}

func group(priority int32, second int) fwk.QueuedEntityInfo {
	info := &framework.QueuedPodGroupInfo{PodGroupInfo: &framework.PodGroupInfo{
		PodGroup: &schedulingv1beta1.PodGroup{Spec: schedulingv1beta1.PodGroupSpec{Priority: &priority}},
	}}
	info.Timestamp = epoch.Add(time.Duration(second) * time.Second)
	return info
}

func daemonPod(priority int32, pinned bool) *corev1.Pod {
	pod := daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "node")
	pod.Spec.Priority = &priority
	if !pinned {
		pod.Spec.Affinity = nil
	}
	return pod
}

func TestLess(t *testing.T) {
	ordinary := func(priority int32) *corev1.Pod { return st.MakePod().Priority(priority).Obj() }
	pl := &queuesort.Sort{}
	for name, tc := range map[string]struct{ first, second fwk.QueuedEntityInfo }{
		"higher priority":                        {queued(t, ordinary(2), 2), queued(t, ordinary(1), 1)},
		"a daemon pod of the same priority":      {queued(t, daemonPod(1, true), 2), queued(t, ordinary(1), 1)},
		"not a daemon pod of lower priority":     {queued(t, ordinary(2), 2), queued(t, daemonPod(1, true), 1)},
		"the older of two ordinary pods":         {queued(t, ordinary(1), 1), queued(t, ordinary(1), 2)},
		"the older of two daemon pods":           {queued(t, daemonPod(1, true), 1), queued(t, daemonPod(1, true), 2)},
		"not a daemon pod that may run anywhere": {queued(t, ordinary(1), 1), queued(t, daemonPod(1, false), 2)},
		"a daemon pod before a group":            {queued(t, daemonPod(1, true), 2), group(1, 1)},
		"a group before a younger pod":           {group(1, 1), queued(t, ordinary(1), 2)},
		"a group of higher priority":             {group(2, 2), queued(t, daemonPod(1, true), 1)},
	} {
		t.Run(name, func(t *testing.T) {
			if !pl.Less(tc.first, tc.second) {
				t.Error("it does not come first")
			}
			if pl.Less(tc.second, tc.first) {
				t.Error("the other comes first as well")
			}
		})
	}
}

// A heap needs a strict weak order: irreflexive, asymmetric, transitive, and
// transitive in what it takes to be equal.
func TestLessIsAStrictWeakOrder(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nothing secret
		var entities []fwk.QueuedEntityInfo
		for range 30 {
			priority, second := random.Int32N(3), random.IntN(3)
			switch random.IntN(4) {
			case 0:
				entities = append(entities, group(priority, second))
			case 1:
				entities = append(entities, queued(t, st.MakePod().Priority(priority).Obj(), second))
			default:
				entities = append(entities, queued(t, daemonPod(priority, random.IntN(2) == 0), second))
			}
		}
		less := (&queuesort.Sort{}).Less
		equal := func(a, b fwk.QueuedEntityInfo) bool { return !less(a, b) && !less(b, a) }
		for _, a := range entities {
			if less(a, a) {
				t.Fatalf("seed %d: %v is before itself", seed, a)
			}
			for _, b := range entities {
				if less(a, b) && less(b, a) {
					t.Fatalf("seed %d: %v and %v are before one another", seed, a, b)
				}
				for _, c := range entities {
					if less(a, b) && less(b, c) && !less(a, c) {
						t.Fatalf("seed %d: %v < %v < %v, but not the first < the last", seed, a, b, c)
					}
					if equal(a, b) && equal(b, c) && !equal(a, c) {
						t.Fatalf("seed %d: %v = %v = %v, but not the first = the last", seed, a, b, c)
					}
				}
			}
		}
	}
}

// Where there is no daemon pod, the order is that of PrioritySort.
func TestOrdinaryPodsAreOrderedAsByPrioritySort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // nothing secret
	entity := func() fwk.QueuedEntityInfo {
		if random.IntN(3) == 0 {
			return group(random.Int32N(3), random.IntN(3))
		}
		return queued(t, st.MakePod().Priority(random.Int32N(3)).Obj(), random.IntN(3))
	}
	for range 1000 {
		a, b := entity(), entity()
		if got, want := (&queuesort.Sort{}).Less(a, b), (&upstream.PrioritySort{}).Less(a, b); got != want {
			t.Fatalf("%v < %v is %v, want %v", a, b, got, want)
		}
	}
}

func TestBadArgs(t *testing.T) {
	_, err := queuesort.New(t.Context(), plugintest.Args(`{"order": "random"}`), nil)
	if err == nil || !strings.Contains(err.Error(), `unknown field "order"`) {
		t.Errorf("error is %v", err)
	}
}

func BenchmarkLess(b *testing.B) {
	daemon, ordinary := queued(b, daemonPod(1, true), 1), queued(b, st.MakePod().Priority(1).Obj(), 1)
	pl := &queuesort.Sort{}
	b.ReportAllocs()
	for b.Loop() {
		pl.Less(daemon, ordinary)
	}
}
