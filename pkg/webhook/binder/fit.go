// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"fmt"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"everynode.dev/everynode/pkg/daemonset"
)

// needsScheduler returns what of a pod only a scheduler can decide; empty if there is nothing.
func needsScheduler(pod *corev1.Pod) string {
	if len(pod.Spec.SchedulingGates) > 0 {
		return "its scheduling gates need a scheduler"
	}
	if pod.Spec.SchedulingGroup != nil {
		return "its pod group needs a scheduler"
	}
	if affinity := pod.Spec.Affinity; affinity != nil {
		if affinity.PodAffinity != nil && len(affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 ||
			affinity.PodAntiAffinity != nil && len(affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
			return "its required affinity to pods needs a scheduler"
		}
	}
	if slices.ContainsFunc(pod.Spec.TopologySpreadConstraints, func(constraint corev1.TopologySpreadConstraint) bool {
		return constraint.WhenUnsatisfiable == corev1.DoNotSchedule
	}) {
		return "its topology spread constraints need a scheduler"
	}
	if claim := daemonset.ClaimThatWaits(pod); claim != "" {
		return claim + " may wait for a scheduler"
	}
	return ""
}

// misfit returns why pod cannot run on node beside others; empty if it can. It repeats what the kubelet looks at
// before it starts a pod (generalFilter in k8s.io/kubernetes/pkg/kubelet/lifecycle), and taints.
func misfit(pod *corev1.Pod, node *corev1.Node, others iter.Seq[*corev1.Pod]) string {
	keepsOut := func(taint *corev1.Taint) bool {
		return taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
	}
	if taint, found := corev1helper.FindMatchingUntoleratedTaint(klog.Logger{}, node.Spec.Taints, pod.Spec.Tolerations, keepsOut, true); found {
		return fmt.Sprintf("the node has the taint %s, which it does not tolerate", taint.ToString())
	}
	// The API server admits no affinity that cannot be parsed.
	if matches, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); !matches {
		return "the node does not match its node selector or affinity"
	}
	allocatable := daemonset.NewResources(node.Status.Allocatable)
	free, ports := allocatable, []daemonset.HostPort(nil)
	for other := range others {
		free = free.Minus(daemonset.PodResources(other))
		ports = append(ports, daemonset.HostPortsOf(&other.Spec)...)
	}
	needs := daemonset.PodResources(pod)
	if !needs.FitsIn(free) {
		for name := range needs.List() {
			if needs.Amount(name) > free.Amount(name) {
				return fmt.Sprintf("the node has too little %s free", name)
			}
		}
	}
	if daemonset.AnyConflict(daemonset.HostPortsOf(&pod.Spec), ports) {
		return "a pod on the node has its host port"
	}
	return ""
}
