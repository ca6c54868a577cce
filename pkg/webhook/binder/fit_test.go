// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
)

func TestMisfit(t *testing.T) {
	node := st.MakeNode().Name("node-1").Label("disk", "ssd").Capacity(map[corev1.ResourceName]string{"cpu": "2", "memory": "4Gi", "pods": "3"})
	pod := func() *st.PodWrapper {
		return st.MakePod().Name("agent").Req(map[corev1.ResourceName]string{"cpu": "500m"})
	}
	other := func(cpu string) *corev1.Pod {
		return st.MakePod().Name("other").Req(map[corev1.ResourceName]string{"cpu": cpu}).Obj()
	}
	tainted := func(effect corev1.TaintEffect) *corev1.Node {
		tainted := node.Obj().DeepCopy()
		tainted.Spec.Taints = []corev1.Taint{{Key: "team", Value: "a", Effect: effect}}
		return tainted
	}
	port := []corev1.ContainerPort{{HostPort: 9100, Protocol: corev1.ProtocolTCP}}
	tests := map[string]struct {
		pod    *corev1.Pod
		node   *corev1.Node
		others []*corev1.Pod
		want   string
	}{
		"an empty node":              {pod: pod().Obj()},
		"the last bit of room":       {pod: pod().Obj(), others: []*corev1.Pod{other("1500m")}},
		"a bit too little":           {pod: pod().Obj(), others: []*corev1.Pod{other("1501m")}, want: "the node has too little cpu free"},
		"no slot":                    {pod: pod().Obj(), others: []*corev1.Pod{other("0"), other("0"), other("0")}, want: "the node has too little pods free"},
		"overdrawn, but not by it":   {pod: st.MakePod().Name("agent").Obj(), others: []*corev1.Pod{other("3")}},
		"a device that is not there": {pod: st.MakePod().Name("agent").Req(map[corev1.ResourceName]string{"example.com/gpu": "1"}).Obj(), want: "the node has too little example.com/gpu free"},
		"a taint":                    {pod: pod().Obj(), node: tainted(corev1.TaintEffectNoSchedule), want: "the node has the taint team=a:NoSchedule, which it does not tolerate"},
		"a taint that evicts":        {pod: pod().Obj(), node: tainted(corev1.TaintEffectNoExecute), want: "the node has the taint team=a:NoExecute, which it does not tolerate"},
		"a taint that only warns":    {pod: pod().Obj(), node: tainted(corev1.TaintEffectPreferNoSchedule)},
		"a taint that it tolerates":  {pod: pod().Toleration("team").Obj(), node: tainted(corev1.TaintEffectNoSchedule)},
		"a label that matches":       {pod: pod().NodeSelector(map[string]string{"disk": "ssd"}).Obj()},
		"a label that does not":      {pod: pod().NodeSelector(map[string]string{"disk": "hdd"}).Obj(), want: "the node does not match its node selector or affinity"},
		"a port that is taken": {
			pod: pod().ContainerPort(port).Obj(), others: []*corev1.Pod{st.MakePod().Name("other").ContainerPort(port).Obj()}, want: "a pod on the node has its host port",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.node == nil {
				tc.node = node.Obj()
			}
			if got := misfit(tc.pod, tc.node, slices.Values(tc.others)); got != tc.want {
				t.Errorf("misfit is %q, want %q", got, tc.want)
			}
		})
	}
}

func TestNeedsScheduler(t *testing.T) {
	term := corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{}}
	for want, spec := range map[string]corev1.PodSpec{
		"": {
			Affinity:                  &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{PodAffinityTerm: term}}}},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{WhenUnsatisfiable: corev1.ScheduleAnyway}},
			Volumes:                   []corev1.Volume{{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(1, resource.DecimalSI)}}}},
		},
		"its scheduling gates need a scheduler":             {SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/gate"}}},
		"its pod group needs a scheduler":                   {SchedulingGroup: &corev1.PodSchedulingGroup{}},
		"its topology spread constraints need a scheduler":  {TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{WhenUnsatisfiable: corev1.DoNotSchedule}}},
		"the ephemeral volume a may wait for a scheduler":   {Volumes: []corev1.Volume{{Name: "a", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}},
		"the ResourceClaim device may wait for a scheduler": {ResourceClaims: []corev1.PodResourceClaim{{Name: "device"}}},
		"the PersistentVolumeClaim of volume a may wait for a scheduler": {Volumes: []corev1.Volume{{Name: "a", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{},
		}}}},
		"its required affinity to pods needs a scheduler": {
			Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}},
		},
	} {
		if got := needsScheduler(&corev1.Pod{Spec: spec}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
