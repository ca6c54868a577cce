// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	v1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
)

// FuzzNeeds compares what we expect a DaemonSet's pod to take with what the
// scheduler counts for the pod that the controller creates and the API server
// defaults.
func FuzzNeeds(f *testing.F) {
	for seed := range byte(64) {
		f.Add([]byte{seed, seed * 3, seed * 5, seed * 7, seed * 11, seed * 13, seed * 17, seed * 19, seed * 23, seed * 29, seed * 31, seed * 37})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := chooser{data}
		ds := &appsv1.DaemonSet{}
		ds.Spec.Template.Spec = choose.containers()
		needs := daemonset.New(ds, options).Needs

		template := daemonutil.CreatePodTemplate(ds.Spec.Template, nil, "")
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		v1defaults.SetObjectDefaults_Pod(pod)
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

// FuzzConflicts compares our notion of conflicting host ports with the scheduler's.
func FuzzConflicts(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := chooser{data}
		a, b := choose.hostPort(), choose.hostPort()
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

func (c *chooser) hostPort() daemonset.HostPort {
	return daemonset.HostPort{
		IP:       pick(c, "0.0.0.0", "10.0.0.1", "10.0.0.2", "::"),
		Protocol: pick(c, corev1.ProtocolTCP, corev1.ProtocolUDP),
		Port:     pick[int32](c, 9100, 9101),
	}
}

// containers returns a pod spec with everything that decides what a pod takes.
func (c *chooser) containers() corev1.PodSpec {
	spec := corev1.PodSpec{HostNetwork: c.bool()}
	for range 1 + c.intn(3) {
		spec.Containers = append(spec.Containers, c.container())
	}
	for range c.intn(3) {
		container := c.container()
		if c.bool() {
			always := corev1.ContainerRestartPolicyAlways
			container.RestartPolicy = &always
		}
		spec.InitContainers = append(spec.InitContainers, container)
	}
	if c.bool() {
		spec.Overhead = c.resources()
	}
	if c.intn(4) == 3 {
		spec.Resources = &corev1.ResourceRequirements{Requests: c.podLevelResources(), Limits: c.podLevelResources()}
	}
	return spec
}

func (c *chooser) container() corev1.Container {
	container := corev1.Container{Resources: corev1.ResourceRequirements{Requests: c.resources(), Limits: c.resources()}}
	for range c.intn(3) {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			ContainerPort: pick[int32](c, 9100, 9101),
			HostPort:      pick[int32](c, 0, 9100, 9102),
			HostIP:        pick(c, "", "10.0.0.1"),
			Protocol:      pick(c, corev1.ProtocolTCP, corev1.ProtocolUDP),
		})
	}
	return container
}

func (c *chooser) resources() corev1.ResourceList {
	list := corev1.ResourceList{}
	for range c.intn(4) {
		name := pick[corev1.ResourceName](c, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/gpu")
		list[name] = resource.MustParse(pick(c, "0", "1", "3", "1500m"))
	}
	return list
}

func (c *chooser) podLevelResources() corev1.ResourceList {
	list := corev1.ResourceList{}
	for range c.intn(3) {
		list[pick(c, corev1.ResourceCPU, corev1.ResourceMemory)] = resource.MustParse(pick(c, "0", "2", "7"))
	}
	return list
}
