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
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/util/flowcontrol"
	// The benchmark's log can be written as JSON.
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/kubernetes/pkg/controller/daemon"
	benchmark "k8s.io/kubernetes/test/integration/scheduler_perf"
	"k8s.io/kubernetes/test/utils/client-go/ktesting"

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

// BenchmarkPerfSchedulingFull schedules ordinary pods on nodes that are 90 % full and have
// a pod of each of 20 DaemonSets.
func BenchmarkPerfSchedulingFull(b *testing.B) {
	benchmark.RunBenchmarkPerfScheduling(b, "full.yaml", "full", plugins.Registry(), benchmark.WithPrepareFn(runDaemonSets))
}

// BenchmarkPerfSchedulingJoin schedules the ordinary pods that have waited for nodes, which
// join now and get the pods of 20 DaemonSets.
func BenchmarkPerfSchedulingJoin(b *testing.B) {
	benchmark.RunBenchmarkPerfScheduling(b, "join.yaml", "join", plugins.Registry(), benchmark.WithPrepareFn(runDaemonSets))
}

// BenchmarkPerfSchedulingHopeless schedules ordinary pods among others that fit nowhere and
// cannot make room.
func BenchmarkPerfSchedulingHopeless(b *testing.B) {
	benchmark.RunBenchmarkPerfScheduling(b, "hopeless.yaml", "hopeless", plugins.Registry())
}

// runDaemonSets runs the DaemonSet controller: the benchmark has no controllers.
func runDaemonSets(tCtx ktesting.TContext) error {
	factory := informers.NewSharedInformerFactory(tCtx.Client(), 0)
	controller, err := daemon.NewDaemonSetsController(tCtx, factory.Apps().V1().DaemonSets(), factory.Apps().V1().ControllerRevisions(),
		factory.Core().V1().Pods(), factory.Core().V1().Nodes(), tCtx.Client(), flowcontrol.NewBackOff(time.Second, time.Minute))
	if err != nil {
		return err
	}
	factory.Start(tCtx.Done())
	go controller.Run(tCtx, 2)
	return nil
}
