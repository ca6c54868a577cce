// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// options compiles DaemonSets for a cluster without PriorityClasses.
var options = daemonset.Options{Priority: func(string) int32 { return 0 }}

// FuzzShouldRun compares our rule with the DaemonSet controller's. They must
// never differ: a difference is room held for nobody, or not held at all.
func FuzzShouldRun(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		ds := &appsv1.DaemonSet{}
		ds.Spec.Template.Spec = choose.Placement()
		node := choose.Node()

		wantRun, wantGoOn := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds)
		compiled := daemonset.New(ds, options)
		run, goOn := compiled.ShouldRun(node)
		if run != wantRun || goOn != wantGoOn {
			t.Errorf("ShouldRun is %v, %v; the controller says %v, %v\ntemplate: %+v\nnode: %+v",
				run, goOn, wantRun, wantGoOn, ds.Spec.Template.Spec, node)
		}
		if willRun := compiled.WillRun(node, nil); willRun != wantRun {
			t.Errorf("WillRun without start-up taints is %v; the controller says %v", willRun, wantRun)
		}
		if wantRun && !compiled.WillRun(node, daemonset.DefaultStartupTaints()) {
			t.Error("WillRun is false where the DaemonSet runs already")
		}
	})
}

func TestWillRunLooksPastStartupTaints(t *testing.T) {
	startup := daemonset.StartupTaints{"example.com/starting", "readiness.example.com/", "*/agent-not-ready"}
	taint := func(key string, effect corev1.TaintEffect) []corev1.Taint {
		return []corev1.Taint{{Key: key, Effect: effect}}
	}
	tests := map[string]struct {
		taints []corev1.Taint
		want   bool
	}{
		"no taint":                          {nil, true},
		"a start-up taint":                  {taint("example.com/starting", corev1.TaintEffectNoSchedule), true},
		"a start-up taint that evicts":      {taint("example.com/starting", corev1.TaintEffectNoExecute), true},
		"a start-up taint by prefix":        {taint("readiness.example.com/network", corev1.TaintEffectNoSchedule), true},
		"a key that only starts like one":   {taint("example.com/starting-later", corev1.TaintEffectNoSchedule), false},
		"the prefix without its slash":      {taint("readiness.example.com", corev1.TaintEffectNoSchedule), false},
		"a start-up taint by its name":      {taint("s3.csi.aws.com/agent-not-ready", corev1.TaintEffectNoExecute), true},
		"a name that only ends like one":    {taint("example.com/my-agent-not-ready", corev1.TaintEffectNoSchedule), false},
		"a name without a domain":           {taint("agent-not-ready", corev1.TaintEffectNoSchedule), false},
		"another taint":                     {taint("example.com/gpu", corev1.TaintEffectNoSchedule), false},
		"another taint that only dissuades": {taint("example.com/gpu", corev1.TaintEffectPreferNoSchedule), true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			node := st.MakeNode().Name("node").Taints(tc.taints).Obj()
			if got := daemonset.New(&appsv1.DaemonSet{}, options).WillRun(node, startup); got != tc.want {
				t.Errorf("WillRun is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestDefaultTolerationsAreTheControllers(t *testing.T) {
	for _, hostNetwork := range []bool{false, true} {
		spec := corev1.PodSpec{HostNetwork: hostNetwork}
		daemonutil.AddOrUpdateDaemonPodTolerations(&spec)
		if diff := cmp.Diff(spec.Tolerations, daemonset.DefaultTolerations(hostNetwork)); diff != "" {
			t.Errorf("hostNetwork %v (-controller,+ours):\n%s", hostNetwork, diff)
		}
	}
}
