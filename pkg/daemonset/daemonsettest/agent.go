// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonsettest

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Agent returns a DaemonSet such as those of network agents: its pod is about 15 kB of JSON.
func Agent(name string) *appsv1.DaemonSet {
	ds := Make(name).Obj()
	ds.Spec.Template.Labels = map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "cluster"}
	spec := &ds.Spec.Template.Spec
	spec.HostNetwork, spec.ServiceAccountName = true, name
	hostPath := corev1.HostPathDirectoryOrCreate
	for i := range 10 {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: fmt.Sprintf("host-%d", i), VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: fmt.Sprintf("/var/lib/%s/part-%d", name, i), Type: &hostPath},
		}})
	}
	spec.InitContainers = []corev1.Container{agentContainer("install"), agentContainer("mount")}
	for i := range spec.InitContainers {
		// Only what goes on running can be probed.
		spec.InitContainers[i].LivenessProbe, spec.InitContainers[i].ReadinessProbe = nil, nil
	}
	spec.Containers = []corev1.Container{agentContainer("agent"), agentContainer("metrics")}
	return ds
}

func agentContainer(name string) corev1.Container {
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(9100), Scheme: corev1.URISchemeHTTPS}},
			PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3, InitialDelaySeconds: 5,
		}
	}
	container := corev1.Container{
		Name: name, Image: "example.com/agents/" + name + ":v1.2.3", ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{"/usr/bin/" + name, "--config=/etc/" + name + "/config.yaml", "--node=$(NODE_NAME)"},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
		},
		LivenessProbe: probe("/healthz"), ReadinessProbe: probe("/readyz"),
		SecurityContext:          &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}}},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	for i := range 20 {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", i), ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: fmt.Sprintf("key-%d", i)},
		}})
	}
	for i := range 10 {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: fmt.Sprintf("host-%d", i), MountPath: fmt.Sprintf("/host/part-%d", i), ReadOnly: true})
	}
	return container
}
