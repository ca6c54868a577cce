// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package tracker_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/tracker"
)

// The metrics of a small cluster, and that docs/metrics.md lists each of them.
func TestMetrics(t *testing.T) {
	capacity := map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "10"}
	agent := daemonsettest.Make("agent").Requests(map[corev1.ResourceName]string{"cpu": "500m", "memory": "1Gi"}).Obj()
	present := daemonsettest.BoundPod(agent, "b")
	ended := daemonsettest.BoundPod(agent, "c")
	ended.Status.Phase = corev1.PodFailed
	a := st.MakeNode().Name("a").Capacity(capacity).Obj()
	scheduler := plugintest.NewScheduler(t, agent, present, ended, a,
		st.MakeNode().Name("b").Capacity(capacity).Obj(), st.MakeNode().Name("c").Capacity(capacity).Obj())
	daemonSets, err := tracker.NewPool().Get(t.Context(), scheduler.Handle)
	if err != nil {
		t.Fatal(err)
	}
	views := daemonSets.Views(nil)
	scheduler.Start(t)
	info := framework.NewNodeInfo()
	info.SetNode(a)
	// Hits are sampled: this is one of the generations that count for sixteen.
	info.Generation = 16
	for range 3 {
		views.Of(daemonSets.Set(), st.MakePod().Obj(), info)
	}
	var attempt metrics.Attempt
	attempt.HeldBack("DaemonSetHeadroom", "cpu")
	attempt.HeldBack("DaemonSetHeadroom", "cpu")
	metrics.EqualPriorityEvictions.WithLabelValues("default", "agent").Inc()

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
		"missing_pods agent default":                     2,
		"unready_pods agent default":                     3,
		"held_room agent default cpu":                    1,
		"held_room agent default memory":                 2 << 30,
		"held_room agent default pods":                   2,
		"view_lookups_total hit":                         32,
		"view_lookups_total miss":                        1,
		"held_back_attempts_total cpu DaemonSetHeadroom": 1,
		"equal_priority_evictions_total agent default":   1,
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
