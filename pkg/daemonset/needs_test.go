// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	v1core "k8s.io/kubernetes/pkg/apis/core/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// FuzzNeeds compares what we expect a DaemonSet's pod to take with what the
// scheduler counts for the pod that the controller creates and the API server
// defaults.
func FuzzNeeds(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		ds := &appsv1.DaemonSet{}
		ds.Spec.Template.Spec = choose.Containers()
		needs := daemonset.New(ds, options).NeedsOn(&corev1.Node{})

		template := daemonutil.CreatePodTemplate(ds.Spec.Template, nil, "")
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		admit(t, pod)
		info, err := framework.NewPodInfo(pod)
		if err != nil {
			t.Fatal(err)
		}
		counted := info.CalculateResource().Resource
		want := daemonset.Resources{
			MilliCPU:         counted.GetMilliCPU(),
			Memory:           counted.GetMemory(),
			EphemeralStorage: counted.GetEphemeralStorage(),
			Pods:             1,
			Scalar:           counted.GetScalarResources(),
		}
		if diff := cmp.Diff(want, needs.Resources, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("resources (-scheduler,+ours):\n%s\ntemplate: %+v", diff, ds.Spec.Template.Spec)
		}
		if diff := cmp.Diff(want, daemonset.PodResources(pod), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("resources of the pod (-scheduler,+ours):\n%s", diff)
		}

		used := make(map[daemonset.HostPort]bool)
		for _, port := range schedutil.GetHostPorts(pod) {
			ip := port.HostIP
			if ip == "" {
				ip = "0.0.0.0"
			}
			used[daemonset.HostPort{IP: ip, Protocol: port.Protocol, Port: port.HostPort}] = true
		}
		held := make(map[daemonset.HostPort]bool)
		for _, port := range needs.HostPorts {
			held[port] = true
		}
		if diff := cmp.Diff(used, held); diff != "" {
			t.Errorf("host ports (-scheduler,+ours):\n%s\ntemplate: %+v", diff, ds.Spec.Template.Spec)
		}
	})
}

// admit defaults pod as the API server does when it is created.
func admit(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	v1core.SetObjectDefaults_Pod(pod)
	var internal core.Pod
	if err := v1core.Convert_v1_Pod_To_core_Pod(pod, &internal, nil); err != nil {
		t.Fatal(err)
	}
	podutil.DefaultPodLevelResources(&internal)
	if err := v1core.Convert_core_Pod_To_v1_Pod(&internal, pod, nil); err != nil {
		t.Fatal(err)
	}
}

// FuzzConflicts compares our notion of conflicting host ports with the scheduler's.
func FuzzConflicts(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		a, b := choose.HostPort(), choose.HostPort()
		used := framework.NewNodeInfo().GetUsedPorts()
		used.Add(a.IP, string(a.Protocol), a.Port)
		want := used.CheckConflict(b.IP, string(b.Protocol), b.Port)
		if got := a.Conflicts(b); got != want {
			t.Errorf("%v and %v: conflict %v, the scheduler says %v", a, b, got, want)
		}
		if a.Conflicts(b) != b.Conflicts(a) {
			t.Errorf("%v and %v: conflict depends on the order", a, b)
		}
	})
}
