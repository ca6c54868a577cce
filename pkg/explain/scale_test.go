// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"runtime"
	"testing"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/snapshot"
	"everynode.dev/everynode/pkg/snapshot/snapshottest"
)

// The largest clusters that Kubernetes is made for have 5,000 nodes.
const (
	manyNodes      = 5_000
	manyDaemonSets = 50
	manyPods       = 100_000
)

func newLargeEngine(tb testing.TB, cluster *snapshot.Cluster) *explain.Engine {
	tb.Helper()
	engine, err := explain.New(tb.Context(), cluster, explain.Options{Now: snapshottest.Now.Time})
	if err != nil {
		tb.Fatal(err)
	}
	return engine
}

// Status of all DaemonSets, from the moment when the objects have been read.
func BenchmarkStatus(b *testing.B) {
	cluster := snapshottest.Cluster(manyNodes, manyDaemonSets, manyPods)
	b.ReportAllocs()
	for b.Loop() {
		engine := newLargeEngine(b, cluster)
		statuses, err := engine.Statuses(b.Context(), engine.DaemonSets())
		if err != nil || len(statuses) != manyDaemonSets {
			b.Fatal(len(statuses), err)
		}
	}
	b.ReportMetric(float64(heapOf(b)>>20), "heap-MiB")
}

// Explaining a DaemonSet that is on all nodes, from the same moment.
func BenchmarkExplain(b *testing.B) {
	cluster := snapshottest.Cluster(manyNodes, manyDaemonSets, manyPods)
	b.ReportAllocs()
	for b.Loop() {
		engine := newLargeEngine(b, cluster)
		explanation, err := engine.Explain(b.Context(), engine.Find("default", "daemons-0"), engine.Nodes())
		if err != nil || len(explanation.Groups) < 4 {
			b.Fatal(explanation, err)
		}
	}
	b.ReportMetric(float64(heapOf(b)>>20), "heap-MiB")
}

// A map of all DaemonSets on all nodes, from the same moment.
func BenchmarkMap(b *testing.B) {
	cluster := snapshottest.Cluster(manyNodes, manyDaemonSets, manyPods)
	b.ReportAllocs()
	for b.Loop() {
		engine := newLargeEngine(b, cluster)
		m, err := engine.Map(b.Context(), engine.DaemonSets(), "topology.kubernetes.io/zone")
		if err != nil || len(m.Nodes) != manyNodes {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heapOf(b)>>20), "heap-MiB")
}

// heapOf returns how much the heap has taken from the system at its largest.
func heapOf(tb testing.TB) uint64 {
	tb.Helper()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapSys
}

// The verdicts of a tenth of the largest cluster are those that were built in. How long
// they take, make perf-cli measures.
func TestLargeCluster(t *testing.T) {
	t.Parallel()
	const nodes = manyNodes / 10
	cluster := snapshottest.Cluster(nodes, manyDaemonSets, manyPods/10)
	engine := newLargeEngine(t, cluster)
	statuses, err := engine.Statuses(t.Context(), engine.DaemonSets())
	if err != nil {
		t.Fatal(err)
	}
	explanation, err := engine.Explain(t.Context(), engine.Find("default", "daemons-0"), engine.Nodes())
	if err != nil {
		t.Fatal(err)
	}
	if s := statuses[0]; s.Desired != nodes*99/100 || s.Missing != nodes*2/100 || s.Ready != nodes*96/100 || s.Top.Reason != explain.ReasonNoRoom {
		t.Errorf("status: %+v", s)
	}
	reasons := make(map[explain.Reason]int)
	for n := range explanation.Groups {
		reasons[explanation.Groups[n].Reason] += len(explanation.Groups[n].Nodes)
	}
	if reasons[explain.ReasonNoRoom] != 10 || reasons[explain.ReasonImage] != 5 || reasons[explain.ReasonTaint] != 5 || reasons[explain.ReasonReady] != 480 {
		t.Errorf("reasons: %v", reasons)
	}
}
