// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/holds"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

// The metrics of a small cluster, and that docs/metrics.md lists each of them.
func TestMetrics(t *testing.T) {
	capacity := map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "10"}
	agent := daemonsettest.Make("agent").NodeSelector("pool", "agents").Requests(map[corev1.ResourceName]string{"cpu": "500m", "memory": "1Gi"}).Obj()
	present := daemonsettest.BoundPod(agent, "b")
	ended := daemonsettest.BoundPod(agent, "c")
	ended.Status.Phase = corev1.PodFailed
	a := st.MakeNode().Name("a").Label("pool", "agents").Capacity(capacity).Obj()
	starting := st.MakeNode().Name("starting").Label("pool", "other").Condition(corev1.NodeReady, corev1.ConditionTrue, "", "").
		Taints([]corev1.Taint{{Key: "node.cilium.io/agent-not-ready", Effect: corev1.TaintEffectNoSchedule}}).Obj()
	scheduler := plugintest.NewScheduler(t, agent, present, ended, a, starting,
		st.MakeNode().Name("b").Label("pool", "agents").Capacity(capacity).Obj(), st.MakeNode().Name("c").Label("pool", "agents").Capacity(capacity).Obj())
	daemonSets, err := cluster.NewPool().Get(t.Context(), scheduler.Handle)
	if err != nil {
		t.Fatal(err)
	}
	views, err := daemonSets.Views(daemonset.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	err = daemonSets.Hold(holds.Options{HoldFor: time.Hour, StartupFor: time.Millisecond, Startup: daemonset.DefaultStartupTaints()})
	if err != nil {
		t.Fatal(err)
	}
	scheduler.Start(t)
	info := framework.NewNodeInfo()
	info.SetNode(a)
	// It is computed once.
	for range 3 {
		views.Of(daemonSets.Set(), st.MakePod().Obj(), info)
	}
	daemonSets.SetLapsed(daemonset.Lapsed{agent.UID: sets.New("a")})
	var attempt metrics.Attempt
	attempt.HeldBack("DaemonSetHeadroom", "cpu")
	attempt.HeldBack("DaemonSetHeadroom", "cpu")
	metrics.EqualPriorityEvictions.WithLabelValues("default", "agent").Inc()

	select {
	case event := <-scheduler.Events.Events:
		if !strings.Contains(event, "StartupTaintStays") || !strings.Contains(event, "node.cilium.io/agent-not-ready") {
			t.Errorf("event %q, want one about the start-up taint", event)
		}
	case <-t.Context().Done():
		t.Fatal("the start-up taint is not reported")
	}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	var served []string
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), metrics.Subsystem) {
			continue
		}
		served = append(served, family.GetName())
		for _, metric := range family.GetMetric() {
			name := []string{strings.TrimPrefix(family.GetName(), metrics.Subsystem+"_")}
			for _, label := range metric.GetLabel() {
				name = append(name, label.GetValue())
			}
			got[strings.Join(name, " ")] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"missing_pods agent default":                            2,
		"unready_pods agent default":                            3,
		"held_room agent default cpu":                           0.5,
		"held_room agent default memory":                        1 << 30,
		"held_room agent default pods":                          1,
		"computed_views_total":                                  1,
		"lapsed_holds agent default":                            1,
		"overdue_startup_taints node.cilium.io/agent-not-ready": 1,
		"held_back_attempts_total cpu DaemonSetHeadroom":        1,
		"equal_priority_evictions_total agent default":          1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want,+got):\n%s", diff)
	}

	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, match := range regexp.MustCompile("(?m)^\\| `(everynode_scheduler_[a-z_]+)` \\|").FindAllSubmatch(page, -1) {
		listed = append(listed, string(match[1]))
	}
	slices.Sort(listed)
	if diff := cmp.Diff(served, listed); diff != "" {
		t.Errorf("docs/metrics.md (-served,+listed):\n%s", diff)
	}
}
