// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OwnerOf returns the owner reference by which an apps/v1 DaemonSet controls
// pod, or nil if there is none. Anybody who may create pods may write one: look
// its UID up before you grant anything ([Set.OwnerOf]).
func OwnerOf(pod *corev1.Pod) *metav1.OwnerReference {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "DaemonSet" || owner.APIVersion != appsv1.SchemeGroupVersion.String() {
		return nil
	}
	return owner
}

// PinnedNode returns the only node that pod can run on: the one it is bound to,
// or the one that every term of its required node affinity names by
// metadata.name. ok is false if pod may run on several nodes, or on none.
func PinnedNode(pod *corev1.Pod) (node string, ok bool) {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName, true
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil ||
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return "", false
	}
	terms := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		name, contradictory := nodeNamedBy(&terms[i])
		switch {
		case contradictory:
			// Terms are ORed: one that matches no node changes nothing.
		case name == "" || node != "" && name != node:
			return "", false
		default:
			node = name
		}
	}
	return node, node != ""
}

// nodeNamedBy returns the node that term is limited to by metadata.name, or "" if
// it is not. Requirements are ANDed: two names are contradictory and match no node.
func nodeNamedBy(term *corev1.NodeSelectorTerm) (node string, contradictory bool) {
	for i := range term.MatchFields {
		field := &term.MatchFields[i]
		// The API server admits exactly one value.
		if field.Key != metav1.ObjectNameField || field.Operator != corev1.NodeSelectorOpIn || len(field.Values) != 1 {
			continue
		}
		if node != "" && field.Values[0] != node {
			return "", true
		}
		node = field.Values[0]
	}
	return node, false
}

// isMirror says whether pod mirrors a static pod: the kubelet runs it from a
// file, nobody can evict it.
func isMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}
