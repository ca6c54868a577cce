// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"reflect"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"

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

// Pods of a controller share what is the same in them, and nothing else.
func TestPodsShare(t *testing.T) {
	t.Parallel()
	cluster := snapshottest.Cluster(200, 2, 1_000)
	s := &trimmer{}
	first := make(map[string]*corev1.Pod)
	labels := func(pod *corev1.Pod) uintptr { return reflect.ValueOf(pod.Labels).Pointer() }
	shared, requests := 0, ""
	for _, pod := range cluster.Pods {
		pod = pod.DeepCopy()
		if pod.Name == cluster.Pods[1].Name {
			pod.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *pod.Spec.Containers[0].Resources.Requests.Memory()
			requests = pod.Spec.Containers[0].Resources.Requests.Cpu().String()
		}
		s.trim(pod)
		owner := ""
		if len(pod.OwnerReferences) > 0 {
			owner = string(pod.OwnerReferences[0].UID) + " in " + pod.Labels[corev1.LabelTopologyZone]
		}
		switch before := first[owner]; {
		case owner == "":
		case before == nil:
			first[owner] = pod
		case &before.Spec.Containers[0] == &pod.Spec.Containers[0] && labels(before) == labels(pod):
			shared++
		case pod.Name == cluster.Pods[1].Name && pod.Spec.Containers[0].Resources.Requests.Cpu().String() != requests:
			t.Errorf("%s asks for %s", pod.Name, pod.Spec.Containers[0].Resources.Requests.Cpu())
		}
	}
	if shared < 850 {
		t.Errorf("%d of 1000 pods share their containers and labels", shared)
	}
}
