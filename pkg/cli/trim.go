// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"maps"
	"slices"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/snapshot"
)

// trimmer drops the fields that no verb reads and that can be large. A hundred thousand pods
// are hundreds of megabytes otherwise. Objects are changed once, when they are read.
type trimmer struct {
	// first is the first pod of each group: the others share what is the same in them.
	first map[group]*corev1.Pod
	// managers has the label managers of nodes, unless that is not wanted.
	managers   snapshot.Cluster
	noManagers bool
}

// group is the pods of a controller in a zone. Pods have the zone of their node among their labels
// (the admission plugin PodTopologyLabels, https://kep.k8s.io/4742).
type group struct {
	controller types.UID
	zone       string
}

func (t *trimmer) trim(object runtime.Object) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return
	}
	managers := accessor.GetManagedFields()
	if node, ok := object.(*corev1.Node); ok && !t.noManagers {
		t.managers.NoteManagers(node)
	}
	accessor.SetManagedFields(nil)
	delete(accessor.GetAnnotations(), corev1.LastAppliedConfigAnnotation)
	switch object := object.(type) {
	case *appsv1.DaemonSet:
		// The managers tell when the spec was changed.
		object.ManagedFields = slices.DeleteFunc(managers, func(entry metav1.ManagedFieldsEntry) bool { return entry.Subresource != "" })
		for n := range object.ManagedFields {
			object.ManagedFields[n].FieldsV1 = nil
		}
	case *appsv1.ControllerRevision:
		object.Data = runtime.RawExtension{}
	case *corev1.Node:
		object.Annotations = nil
		object.Status.Images, object.Status.VolumesAttached, object.Status.VolumesInUse = nil, nil, nil
	case *corev1.Pod:
		trimPod(object)
		t.share(object)
	}
}

// keptAnnotations are the annotations of pods that some rule looks at.
var keptAnnotations = []string{corev1.MirrorPodAnnotationKey, daemonset.SafeToEvictAnnotation, daemonset.DoNotDisruptAnnotation, "everynode.dev/requires"}

// trimPod keeps what schedulers look at, and what tells the state of containers.
func trimPod(pod *corev1.Pod) {
	maps.DeleteFunc(pod.Annotations, func(key, _ string) bool { return !slices.Contains(keptAnnotations, key) })
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool {
		source := &volume.VolumeSource
		return source.Projected != nil || source.ConfigMap != nil || source.Secret != nil || source.EmptyDir != nil || source.HostPath != nil || source.DownwardAPI != nil
	})
	pod.Spec.SecurityContext, pod.Spec.ImagePullSecrets, pod.Spec.HostAliases, pod.Spec.DNSConfig = nil, nil, nil, nil
	pod.Spec.EnableServiceLinks, pod.Spec.TerminationGracePeriodSeconds, pod.Status.PodIPs, pod.Status.HostIPs = nil, nil, nil, nil
	pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount, pod.Status.PodIP, pod.Status.HostIP = "", "", "", ""
	// The pin of a daemon pod tells nothing once it has its node. What admission has added to it does.
	if pin := daemonutil.ReplaceDaemonSetPodNodeNameNodeAffinity(nil, pod.Spec.NodeName); daemonset.OwnerOf(pod) != nil && equality.Semantic.DeepEqual(pod.Spec.Affinity, pin) {
		pod.Spec.Affinity = nil
	}
	trimContainers(pod.Spec.InitContainers)
	trimContainers(pod.Spec.Containers)
	if daemonset.IsReady(pod) {
		trimReady(pod)
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for n := range statuses {
			statuses[n].VolumeMounts, statuses[n].User, statuses[n].ImageID, statuses[n].ContainerID = nil, nil, "", ""
		}
	}
}

// trimReady leaves out what matters only for pods that are not Ready.
func trimReady(pod *corev1.Pod) {
	pod.Status.InitContainerStatuses = nil
	if daemonset.OwnerOf(pod) == nil && !slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.RestartCount > 0 }) {
		pod.Status.ContainerStatuses = nil
	}
	for n := range pod.Status.ContainerStatuses {
		if status := &pod.Status.ContainerStatuses[n]; status.RestartCount == 0 {
			*status = corev1.ContainerStatus{Name: status.Name, Ready: status.Ready, State: status.State}
		}
	}
	// A slice of one condition would keep the memory of all.
	pod.Status.Conditions = slices.Clone(slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type != corev1.PodReady }))
}

func trimContainers(containers []corev1.Container) {
	for n := range containers {
		c := &containers[n]
		containers[n] = corev1.Container{
			Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy,
			ReadinessProbe: c.ReadinessProbe, StartupProbe: c.StartupProbe,
		}
	}
}

// share lets the pods of a group share what is the same in all of them.
func (t *trimmer) share(pod *corev1.Pod) {
	for _, text := range []*string{&pod.Namespace, &pod.Spec.NodeName, &pod.Spec.SchedulerName, &pod.Spec.PriorityClassName} {
		*text = unique.Make(*text).Value()
	}
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return
	}
	if t.first == nil {
		t.first = make(map[group]*corev1.Pod)
	}
	of := group{owner.UID, pod.Labels[corev1.LabelTopologyZone]}
	first := t.first[of]
	if first == nil {
		t.first[of] = pod
		return
	}
	share(&pod.GenerateName, first.GenerateName)
	share(&pod.Labels, first.Labels)
	share(&pod.Annotations, first.Annotations)
	share(&pod.OwnerReferences, first.OwnerReferences)
	share(&pod.Spec.Containers, first.Spec.Containers)
	share(&pod.Spec.InitContainers, first.Spec.InitContainers)
	share(&pod.Spec.Tolerations, first.Spec.Tolerations)
	share(&pod.Spec.Volumes, first.Spec.Volumes)
	share(&pod.Spec.NodeSelector, first.Spec.NodeSelector)
	share(&pod.Spec.Affinity, first.Spec.Affinity)
	share(&pod.Spec.TopologySpreadConstraints, first.Spec.TopologySpreadConstraints)
	share(&pod.Spec.Priority, first.Spec.Priority)
	share(&pod.Spec.PreemptionPolicy, first.Spec.PreemptionPolicy)
	share(&pod.Spec.RestartPolicy, first.Spec.RestartPolicy)
	share(&pod.Spec.DNSPolicy, first.Spec.DNSPolicy)
	share(&pod.Status.QOSClass, first.Status.QOSClass)
}

func share[T any](mine *T, first T) {
	if equality.Semantic.DeepEqual(*mine, first) {
		*mine = first
	}
}
