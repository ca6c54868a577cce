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
)

// options compiles DaemonSets for a cluster without PriorityClasses.
var options = daemonset.Options{Priority: func(string) int32 { return 0 }}

// FuzzShouldRun compares our rule with the DaemonSet controller's. They must
// never differ: a difference is room held for nobody, or not held at all.
func FuzzShouldRun(f *testing.F) {
	for seed := range byte(64) {
		f.Add([]byte{seed, seed * 3, seed * 5, seed * 7, seed * 11, seed * 13, seed * 17, seed * 19, seed * 23, seed * 29, seed * 31})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := chooser{data}
		ds := &appsv1.DaemonSet{}
		ds.Spec.Template.Spec = choose.placement()
		node := choose.node()

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
	startup := daemonset.StartupTaints{"example.com/starting", "readiness.example.com/"}
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

// chooser turns fuzzed bytes into choices; out of bytes, it chooses the first.
type chooser struct{ data []byte }

func (c *chooser) intn(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *chooser) bool() bool { return c.intn(2) == 1 }

func pick[T any](c *chooser, values ...T) T { return values[c.intn(len(values))] }

func (c *chooser) key() string {
	return pick(c, "disktype", "zone", corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeNetworkUnavailable,
		corev1.TaintNodeUnschedulable, "node-role.kubernetes.io/control-plane", "")
}

func (c *chooser) value() string { return pick(c, "", "ssd", "hdd", "1", "-5", "not a label value!") }

func (c *chooser) effect() corev1.TaintEffect {
	return pick(c, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule, "", "Unheard")
}

func (c *chooser) nodeName() string { return pick(c, "node-a", "node-b") }

func (c *chooser) node() *corev1.Node {
	node := st.MakeNode().Name(c.nodeName())
	for range c.intn(4) {
		node.Label(c.key(), c.value())
	}
	var taints []corev1.Taint
	for range c.intn(4) {
		taints = append(taints, corev1.Taint{Key: c.key(), Value: c.value(), Effect: c.effect()})
	}
	return node.Taints(taints).Unschedulable(c.bool()).Obj()
}

// placement returns a pod spec with what decides where it may run.
func (c *chooser) placement() corev1.PodSpec {
	spec := corev1.PodSpec{HostNetwork: c.bool()}
	if c.intn(8) == 7 {
		spec.NodeName = c.nodeName()
	}
	for range c.intn(3) {
		if spec.NodeSelector == nil {
			spec.NodeSelector = map[string]string{}
		}
		spec.NodeSelector[c.key()] = c.value()
	}
	if c.bool() {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: c.terms()},
		}}
	}
	for range c.intn(4) {
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
			Key:      c.key(),
			Operator: pick(c, corev1.TolerationOpEqual, corev1.TolerationOpExists, "", corev1.TolerationOpLt, "Unheard"),
			Value:    c.value(),
			Effect:   c.effect(),
		})
	}
	return spec
}

func (c *chooser) terms() []corev1.NodeSelectorTerm {
	var terms []corev1.NodeSelectorTerm
	for range c.intn(3) {
		var term corev1.NodeSelectorTerm
		for range c.intn(3) {
			requirement := corev1.NodeSelectorRequirement{
				Key: c.key(),
				Operator: pick(c, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
					corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, "Unheard"),
			}
			for range c.intn(3) {
				requirement.Values = append(requirement.Values, c.value())
			}
			term.MatchExpressions = append(term.MatchExpressions, requirement)
		}
		for range c.intn(3) {
			term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{
				Key:      "metadata.name",
				Operator: pick(c, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn),
				Values:   []string{c.nodeName()},
			})
		}
		terms = append(terms, term)
	}
	return terms
}
