// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package perf measures how many pods a second are scheduled, with the stock
// scheduler and with everynode, by Kubernetes' own benchmark of the scheduler
// (k8s.io/kubernetes/test/integration/scheduler_perf).
package perf

import (
	"fmt"
	"os"
	"testing"

	// The benchmark's log can be written as JSON.
	_ "k8s.io/component-base/logs/json/register"
	benchmark "k8s.io/kubernetes/test/integration/scheduler_perf"

	"everynode.dev/everynode/pkg/plugins"
)

func TestMain(m *testing.M) {
	if err := benchmark.InitTests(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// BenchmarkPerfSchedulingDaemonset schedules pods that are pinned to one node.
func BenchmarkPerfSchedulingDaemonset(b *testing.B) {
	benchmark.RunBenchmarkPerfScheduling(b, "daemonset.yaml", "daemonset", plugins.Registry())
}

// BenchmarkPerfSchedulingBasic schedules ordinary pods where 30 DaemonSets cover
// every node and have no pod yet, so that room is held for all of them everywhere.
func BenchmarkPerfSchedulingBasic(b *testing.B) {
	benchmark.RunBenchmarkPerfScheduling(b, "basic.yaml", "basic", plugins.Registry())
}
