// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"everynode.dev/everynode/pkg/daemonset"
)

// trim drops the fields that no verb reads and that can be large.
func trim[P metav1.Object](object P) {
	object.SetManagedFields(nil)
	if annotations := object.GetAnnotations(); annotations != nil {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
	}
}

// trimDaemonSet keeps when its spec was changed.
func trimDaemonSet(ds *appsv1.DaemonSet) {
	managers := slices.DeleteFunc(ds.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool { return entry.Subresource != "" })
	trim(ds)
	for n := range managers {
		managers[n].FieldsV1 = nil
	}
	ds.ManagedFields = managers
}

func trimNode(node *corev1.Node) {
	trim(node)
	node.Annotations = nil
	node.Status.Images = nil
	node.Status.VolumesAttached, node.Status.VolumesInUse = nil, nil
}

func trimRevision(revision *appsv1.ControllerRevision) {
	trim(revision)
	revision.Data = runtime.RawExtension{}
}

// keptAnnotations are those of pods that decide about anything.
var keptAnnotations = []string{corev1.MirrorPodAnnotationKey, "cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt", "everynode.dev/requires"}

// trimPod keeps what schedulers look at, and what tells the state of containers. A
// hundred thousand pods are hundreds of megabytes otherwise.
func trimPod(pod *corev1.Pod) {
	trim(pod)
	for key := range pod.Annotations {
		if !slices.Contains(keptAnnotations, key) {
			delete(pod.Annotations, key)
		}
	}
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool {
		source := &volume.VolumeSource
		return source.Projected != nil || source.ConfigMap != nil || source.Secret != nil || source.EmptyDir != nil || source.HostPath != nil || source.DownwardAPI != nil
	})
	pod.Spec.SecurityContext, pod.Spec.ImagePullSecrets, pod.Spec.HostAliases, pod.Spec.DNSConfig = nil, nil, nil, nil
	pod.Spec.EnableServiceLinks, pod.Spec.TerminationGracePeriodSeconds, pod.Status.PodIPs, pod.Status.HostIPs = nil, nil, nil, nil
	pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "", ""
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

// trimReady leaves out what is of interest in pods that are not Ready.
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
	pod.Status.Conditions = slices.Clip(slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type != corev1.PodReady }))
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

// sharer lets the pods of one controller share what is the same in all of them. Pods
// that were read are never changed.
type sharer struct {
	first map[types.UID]*corev1.Pod
	texts map[string]string
}

// shrink makes a pod as small as it can be without a difference for what is said.
func (s *sharer) shrink(pod *corev1.Pod) {
	trimPod(pod)
	for _, text := range []*string{&pod.Namespace, &pod.Spec.NodeName, &pod.Spec.SchedulerName, &pod.Spec.PriorityClassName} {
		*text = s.text(*text)
	}
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return
	}
	if s.first == nil {
		s.first = make(map[types.UID]*corev1.Pod)
	}
	first := s.first[owner.UID]
	if first == nil {
		s.first[owner.UID] = pod
		return
	}
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
}

func (s *sharer) text(text string) string {
	if s.texts == nil {
		s.texts = make(map[string]string)
	}
	known, ok := s.texts[text]
	if !ok {
		s.texts[text], known = text, text
	}
	return known
}

func share[T any](mine *T, first T) {
	if equality.Semantic.DeepEqual(*mine, first) {
		*mine = first
	}
}
