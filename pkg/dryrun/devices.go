// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dryrun

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	fwk "k8s.io/kube-scheduler/framework"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"
)

// Devices are the extended resources that Dynamic Resource Allocation serves, with a DeviceClass of each. On nodes that
// list none of them the scheduler leaves them to its plugin DynamicResources (shouldDelegateResourceToDRA in
// k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources), which is not run here.
type Devices map[corev1.ResourceName]*resourcev1.DeviceClass

func newDevices(classes []*resourcev1.DeviceClass) Devices {
	d := make(Devices)
	for _, class := range classes {
		d[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+class.Name)] = class
		if name := class.Spec.ExtendedResourceName; name != nil {
			d[corev1.ResourceName(*name)] = class
		}
	}
	return d
}

// GetDeviceClass implements [fwk.DeviceClassResolver].
func (d Devices) GetDeviceClass(name corev1.ResourceName) *resourcev1.DeviceClass {
	return d[name]
}

// Manager serves d to functions of the scheduler that want to know which resources are devices.
func (d Devices) Manager() fwk.SharedDRAManager {
	return deviceManager{devices: d}
}

// deviceManager is all of a [fwk.SharedDRAManager] that other plugins than DynamicResources ask for.
type deviceManager struct {
	fwk.SharedDRAManager
	devices Devices
}

// DeviceClassResolver implements [fwk.SharedDRAManager].
func (m deviceManager) DeviceClassResolver() fwk.DeviceClassResolver {
	return m.devices
}

// ExtendedResources are those that pods ask for, in the order of their names.
func ExtendedResources(spec *corev1.PodSpec) []corev1.ResourceName {
	var names []corev1.ResourceName
	for container := range podutil.ContainerIter(spec, podutil.InitContainers|podutil.Containers) {
		for _, list := range []corev1.ResourceList{container.Resources.Requests, container.Resources.Limits} {
			for name := range list {
				if schedutil.IsDRAExtendedResourceName(name) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Allocated names what Dynamic Resource Allocation is to give a pod on node, or on some node if it is nil.
func (d Devices) Allocated(spec *corev1.PodSpec, node *corev1.Node) []string {
	var names []string
	for _, name := range ExtendedResources(spec) {
		if d[name] != nil && (node == nil || node.Status.Allocatable.Name(name, "").IsZero()) {
			names = append(names, string(name))
		}
	}
	if len(spec.ResourceClaims) > 0 {
		names = append(names, "the claimed devices")
	}
	return names
}
