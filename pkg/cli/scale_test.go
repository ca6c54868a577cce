// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"reflect"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/snapshot"
	"everynode.dev/everynode/pkg/snapshot/snapshottest"
)

// What 100,000 pods keep of the memory that they came in, and status of all DaemonSets.
func BenchmarkShrunkPods(b *testing.B) {
	for b.Loop() {
		cluster := snapshottest.Cluster(5_000, 50, 100_000)
		shrinkAll(b, cluster)
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		b.ReportMetric(float64(stats.HeapAlloc>>20), "read-MiB")
		engine, err := explain.New(b.Context(), cluster, explain.Options{Now: snapshottest.Now.Time})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := engine.Statuses(b.Context(), engine.DaemonSets()); err != nil {
			b.Fatal(err)
		}
		runtime.ReadMemStats(&stats)
		b.ReportMetric(float64(stats.HeapSys>>20), "heap-MiB")
	}
}

// shrinkAll has the pods come over the wire one after the other.
func shrinkAll(tb testing.TB, cluster *snapshot.Cluster) {
	tb.Helper()
	s := &trimmer{}
	for n, pod := range cluster.Pods {
		content, err := pod.Marshal()
		if err != nil {
			tb.Fatal(err)
		}
		read := &corev1.Pod{}
		if err := read.Unmarshal(content); err != nil {
			tb.Fatal(err)
		}
		s.trim(read)
		cluster.Pods[n] = read
	}
}

// Pods of a controller in a zone share what is the same in them, and nothing else.
func TestPodsShare(t *testing.T) {
	t.Parallel()
	cluster := snapshottest.Cluster(200, 2, 1_000)
	s := &trimmer{}
	groups := make(map[string][]*corev1.Pod)
	for n, pod := range cluster.Pods {
		pod = pod.DeepCopy()
		if n == 1 {
			pod.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *pod.Spec.Containers[0].Resources.Requests.Memory()
		}
		want := pod.Spec.Containers[0].Resources
		s.trim(pod)
		if diff := cmp.Diff(want, pod.Spec.Containers[0].Resources); diff != "" {
			t.Errorf("%s (-want,+have):\n%s", pod.Name, diff)
		}
		if owner := metav1.GetControllerOf(pod); owner != nil {
			of := string(owner.UID) + " in " + pod.Labels[corev1.LabelTopologyZone]
			groups[of] = append(groups[of], pod)
		}
	}
	labels := func(pod *corev1.Pod) uintptr { return reflect.ValueOf(pod.Labels).Pointer() }
	shared := 0
	for of, pods := range groups {
		for _, pod := range pods[1:] {
			if equality.Semantic.DeepEqual(pod.Labels, pods[0].Labels) != (labels(pod) == labels(pods[0])) {
				t.Errorf("%s: labels of %s and %s are the same, or are shared, but not both", of, pod.Name, pods[0].Name)
			}
			same := &pod.Spec.Containers[0] == &pods[0].Spec.Containers[0]
			if equality.Semantic.DeepEqual(pod.Spec.Containers, pods[0].Spec.Containers) != same {
				t.Errorf("%s: containers of %s and %s are the same, or are shared, but not both", of, pod.Name, pods[0].Name)
			}
			if same {
				shared++
			}
		}
	}
	// Twenty controllers of ordinary pods and two DaemonSets are in three zones, and daemon pods that wait in none.
	if len(groups) != 3*22+2 || shared < 800 {
		t.Errorf("there are %d groups, and %d of 1000 pods share their containers", len(groups), shared)
	}
}
