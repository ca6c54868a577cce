// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// ShouldRun decides by the DaemonSet controller's own rule
// (daemon.NodeShouldRunDaemonPod in k8s.io/kubernetes/pkg/controller/daemon):
// whether a pod of d should be started on node, and whether one that is already
// there should go on. Only the template counts, never what admission makes of
// its pods; resources, ports and conditions do not count either.
func (d *DaemonSet) ShouldRun(node *corev1.Node) (run, goOn bool) {
	if d.nodeName != "" && d.nodeName != node.Name {
		return false, false
	}
	// An affinity that cannot be parsed matches nothing, as in the controller.
	if matches, _ := d.affinity.Match(node); !matches {
		return false, false
	}
	if d.toleratesAll(node.Spec.Taints, nil) {
		return true, true
	}
	return false, !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Effect == corev1.TaintEffectNoExecute && !d.tolerates(&taint)
	})
}

// WillRun is ShouldRun for the moment when node's start-up taints are gone: room
// has to be held before the node opens, because ordinary pods come in at the
// same moment as the DaemonSet controller.
func (d *DaemonSet) WillRun(node *corev1.Node, startup StartupTaints) bool {
	if d.nodeName != "" && d.nodeName != node.Name {
		return false
	}
	if matches, _ := d.affinity.Match(node); !matches {
		return false
	}
	return d.toleratesAll(node.Spec.Taints, startup)
}

// toleratesAll says whether d tolerates every taint that keeps pods out and is
// not one of the ignored ones.
func (d *DaemonSet) toleratesAll(taints []corev1.Taint, ignored StartupTaints) bool {
	for i := range taints {
		taint := &taints[i]
		keepsOut := taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
		if keepsOut && !ignored.has(taint.Key) && !d.tolerates(taint) {
			return false
		}
	}
	return true
}

func (d *DaemonSet) tolerates(taint *corev1.Taint) bool {
	return corev1helper.TolerationsTolerateTaint(klog.Logger{}, d.tolerations, taint, d.comparisonOperators)
}

// StartupTaints are the keys of taints that a node wears until it is ready for
// work and then loses. A key that ends in "/" stands for all keys with that prefix.
type StartupTaints []string

// DefaultStartupTaints returns the taints that Kubernetes, cluster autoscalers
// and widespread node agents put on a node that is starting.
func DefaultStartupTaints() StartupTaints {
	return StartupTaints{
		// Kubernetes: k8s.io/api/core/v1/well_known_taints.go, k8s.io/cloud-provider/api.
		corev1.TaintNodeNotReady,
		corev1.TaintNodeUnreachable,
		corev1.TaintNodeNetworkUnavailable,
		"node.cloudprovider.kubernetes.io/uninitialized",
		// Provisioners and autoscalers: the node is known before it takes pods.
		"karpenter.sh/unregistered",
		"node.cluster.x-k8s.io/uninitialized",
		"startup-taint.cluster-autoscaler.kubernetes.io/",
		// Node readiness rules (kubernetes-sigs/node-readiness-controller).
		"readiness.k8s.io/",
		// Agents that untaint the node when they run: https://docs.cilium.io/en/stable/installation/taints/
		// and the install guides of the EBS and EFS CSI drivers.
		"node.cilium.io/agent-not-ready",
		"ebs.csi.aws.com/agent-not-ready",
		"efs.csi.aws.com/agent-not-ready",
	}
}

func (s StartupTaints) has(key string) bool {
	for _, startup := range s {
		if key == startup || strings.HasSuffix(startup, "/") && strings.HasPrefix(key, startup) {
			return true
		}
	}
	return false
}

// DefaultTolerations returns the tolerations that the DaemonSet controller gives
// every pod it creates (AddOrUpdateDaemonPodTolerations in
// k8s.io/kubernetes/pkg/controller/daemon/util), so that a daemon pod outlives
// trouble with its node.
func DefaultTolerations(hostNetwork bool) []corev1.Toleration {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	tolerations := []corev1.Toleration{
		exists(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if hostNetwork {
		tolerations = append(tolerations, exists(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return tolerations
}
