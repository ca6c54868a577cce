// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"slices"
	"strings"

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

// Kinds are owners, other than apps/v1 DaemonSets, whose pods are daemon pods
// too: an operator that places one pod per node. Each is written as Kind.group.
type Kinds []string

// DefaultKinds returns the widespread ones: OpenKruise's Advanced DaemonSet and
// Datadog's ExtendedDaemonSet, which owns its pods through replica sets of its own.
func DefaultKinds() Kinds {
	return Kinds{"DaemonSet.apps.kruise.io", "ExtendedDaemonSetReplicaSet.datadoghq.com"}
}

// Own says whether one of k controls pod and has pinned it to a node. Nobody can
// look up the UIDs of owners whose types are unknown, so the pin is asked for too: a
// pod that claims such an owner in vain gains nothing by it but to run on one node.
func (k Kinds) Own(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || !slices.ContainsFunc(k, func(kind string) bool { return isKind(kind, owner) }) {
		return false
	}
	_, pinned := NamedNode(pod)
	return pinned
}

func isKind(kind string, owner *metav1.OwnerReference) bool {
	group, ok := strings.CutPrefix(kind, owner.Kind+".")
	return ok && strings.HasPrefix(owner.APIVersion, group+"/")
}

// IsReady says whether pod's Ready condition is True.
func IsReady(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if condition := &pod.Status.Conditions[i]; condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// IsPinnedDaemon says whether pod says of itself that it belongs to a DaemonSet and to a node. Such a pod has
// one node to be tried on, so it delays other pods only for a moment.
//
// Owner references are believed here: what a pod says of itself never changes, so neither does its place in a queue,
// and the garbage collector soon removes a pod whose owner does not exist.
func IsPinnedDaemon(pod *corev1.Pod) bool {
	if OwnerOf(pod) == nil {
		return false
	}
	_, pinned := PinnedNode(pod)
	return pinned
}

// PinnedNode returns the only node that pod can run on: the one it is bound to,
// or its [NamedNode].
func PinnedNode(pod *corev1.Pod) (node string, ok bool) {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName, true
	}
	return NamedNode(pod)
}

// NamedNode returns the node that every term of pod's required node affinity names
// by metadata.name: a successor of pod could run nowhere else. ok is false if
// pod may run on several nodes, or on none.
func NamedNode(pod *corev1.Pod) (node string, ok bool) {
	terms := requiredTerms(pod)
	for i := range terms {
		name, impossible := nodeNamedBy(&terms[i])
		switch {
		case impossible:
			// Terms are ORed: one that matches no node changes nothing.
		case name == "" || node != "" && name != node:
			return "", false
		default:
			node = name
		}
	}
	return node, node != ""
}

// TargetNode returns the node that the DaemonSet controller counts pod on
// (GetTargetNodeName in k8s.io/kubernetes/pkg/controller/daemon/util): the one it
// is bound to, or the first one that its required node affinity names. ok is false
// if there is none; the controller then does not see the pod at all and makes
// another one.
func TargetNode(pod *corev1.Pod) (node string, ok bool) {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName, true
	}
	for _, term := range requiredTerms(pod) {
		for i := range term.MatchFields {
			if field := &term.MatchFields[i]; field.Key == metav1.ObjectNameField && field.Operator == corev1.NodeSelectorOpIn {
				if len(field.Values) != 1 {
					return "", false
				}
				return field.Values[0], true
			}
		}
	}
	return "", false
}

// requiredTerms returns the terms of pod's required node affinity.
func requiredTerms(pod *corev1.Pod) []corev1.NodeSelectorTerm {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil ||
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// nodeNamedBy returns the node that term is limited to by metadata.name, or "" if
// it is not. A term is impossible if it matches no node: requirements are ANDed,
// so two names are too many, and a term without requirements matches nothing.
func nodeNamedBy(term *corev1.NodeSelectorTerm) (node string, impossible bool) {
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
	return node, len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0
}

// ClaimThatWaits names a claim of the pod that a scheduler may have to decide about; empty
// if there is none. A PersistentVolumeClaim of a WaitForFirstConsumer class gets its volume, and
// a ResourceClaim its device, only for a pod that a scheduler places. Which claims are
// bound already would take a watch of all of them.
func ClaimThatWaits(pod *corev1.Pod) string {
	for i := range pod.Spec.Volumes {
		switch volume := &pod.Spec.Volumes[i]; {
		case volume.Ephemeral != nil:
			return "the ephemeral volume " + volume.Name
		case volume.PersistentVolumeClaim != nil:
			return "the PersistentVolumeClaim of volume " + volume.Name
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "the ResourceClaim " + pod.Spec.ResourceClaims[0].Name
	}
	return ""
}

// IsMirror says whether pod mirrors a static pod: the kubelet runs it from a
// file, nobody can evict it.
func IsMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// Annotations by which a pod asks autoscalers not to evict it: "false" and "true". Room
// for a DaemonSet pod of the same priority is no better reason.
const (
	SafeToEvictAnnotation  = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	DoNotDisruptAnnotation = "karpenter.sh/do-not-disrupt"
)

// IsProtected says whether the annotations of pod forbid to evict it.
func IsProtected(pod *corev1.Pod) bool {
	return pod.Annotations[SafeToEvictAnnotation] == "false" || pod.Annotations[DoNotDisruptAnnotation] == "true"
}
