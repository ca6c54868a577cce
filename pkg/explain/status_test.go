// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/snapshot"
)

// Status and map show where room is held no longer, until a pod appears.
func TestLapsedHolds(t *testing.T) {
	ds := daemons("agent").Requests(map[corev1.ResourceName]string{"cpu": "1"}).Obj()
	lapsed := &corev1.Event{Reason: "HoldLapsed", Type: corev1.EventTypeWarning, Message: "No pod was created"}
	lapsed.InvolvedObject.UID, lapsed.LastTimestamp = ds.UID, ago(10*time.Minute)
	on := func(node string, age time.Duration) *corev1.Pod {
		return pod(daemonsettest.BoundPod(ds, node), isReady, created(age))
	}
	for name, tc := range map[string]struct {
		events []*corev1.Event
		pods   []*corev1.Pod
		want   int
	}{
		"no event":                           {nil, []*corev1.Pod{on("a", time.Hour)}, 0},
		"the other nodes have no pod":        {[]*corev1.Event{lapsed}, []*corev1.Pod{on("a", time.Hour)}, 2},
		"a pod has appeared after the event": {[]*corev1.Event{lapsed}, []*corev1.Pod{on("a", time.Minute)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := &snapshot.Cluster{
				Nodes:      []*corev1.Node{node("a").Obj(), node("b").Obj(), node("c").Obj()},
				DaemonSets: []*appsv1.DaemonSet{ds}, Pods: tc.pods, Events: tc.events,
			}
			e, err := New(t.Context(), cluster, Options{Now: now.Time})
			if err != nil {
				t.Fatal(err)
			}
			statuses, err := e.Statuses(t.Context(), e.DaemonSets())
			if err != nil {
				t.Fatal(err)
			}
			m, err := e.Map(t.Context(), e.DaemonSets(), "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]int{tc.want, tc.want}, []int{statuses[0].LapsedNodes, m.DaemonSets[0].Lapsed}); diff != "" {
				t.Errorf("nodes in status and map (-want,+got):\n%s", diff)
			}
		})
	}
}

// A LimitRange gives all containers what they lack, as the API server does.
func TestPlannedPodsHaveDefaults(t *testing.T) {
	t.Parallel()
	ds := daemons("agent").Obj()
	ds.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
	}}}}
	pod := newEngine(t, &snapshot.Cluster{Nodes: []*corev1.Node{node("n").Obj()}, DaemonSets: []*appsv1.DaemonSet{ds}, LimitRanges: []*corev1.LimitRange{limits}}).NewPod(ds)
	for _, container := range []corev1.Container{pod.Spec.InitContainers[0], pod.Spec.Containers[0]} {
		if have := container.Resources.Requests.Cpu().String(); have != "1" {
			t.Errorf("container %s asks for %s", container.Name, have)
		}
	}
}
