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

// admits says whether d's pods, as they are admitted, may run on node once its
// start-up taints are gone. A RuntimeClass or another admission may have given them a
// node selector; the controller creates a pod all the same, which stays Pending.
func (d *DaemonSet) admits(node *corev1.Node, startup StartupTaints) bool {
	if matches, _ := d.podAffinity.Match(node); !matches {
		return false
	}
	return tolerateAll(d.podTolerations, node.Spec.Taints, startup, d.comparisonOperators)
}

func (d *DaemonSet) toleratesAll(taints []corev1.Taint, ignored StartupTaints) bool {
	return tolerateAll(d.tolerations, taints, ignored, d.comparisonOperators)
}

func (d *DaemonSet) tolerates(taint *corev1.Taint) bool {
	return corev1helper.TolerationsTolerateTaint(klog.Logger{}, d.tolerations, taint, d.comparisonOperators)
}

// tolerateAll says whether tolerations tolerate every taint that keeps pods out and is
// not one of the ignored ones.
func tolerateAll(tolerations []corev1.Toleration, taints []corev1.Taint, ignored StartupTaints, comparisonOperators bool) bool {
	for i := range taints {
		taint := &taints[i]
		keepsOut := taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
		if keepsOut && !ignored.Has(taint.Key) && !corev1helper.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, comparisonOperators) {
			return false
		}
	}
	return true
}

// IsVirtual says whether node stands for capacity that a program makes when a pod is
// bound to it, one pod a node on AWS Fargate: no DaemonSet pod starts there, so no room
// is held and no pod waits for an agent (https://docs.aws.amazon.com/eks/latest/userguide/fargate.html,
// https://virtual-kubelet.io/docs/architecture/).
func IsVirtual(node *corev1.Node) bool {
	return node.Labels["eks.amazonaws.com/compute-type"] == "fargate" || node.Labels["type"] == "virtual-kubelet" ||
		slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == "virtual-kubelet.io/provider" })
}

// StartupTaints are patterns for the keys of taints that a node wears until it is
// ready for work and then loses: a key, "domain/" for all keys of a domain, or
// "*/name" for a name in any domain.
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
		"ignore-taint.cluster-autoscaler.kubernetes.io/",
		// Node readiness rules (kubernetes-sigs/node-readiness-controller).
		"readiness.k8s.io/",
		// Agents that untaint the node when they run: Cilium (https://docs.cilium.io/en/stable/installation/taints/)
		// and the CSI drivers of AWS (EBS, EFS, S3, FSx) by the same name, Istio's CNI plugin by its own.
		"*/agent-not-ready",
		"cni.istio.io/not-ready",
	}
}

// Has says whether key matches one of the patterns.
func (s StartupTaints) Has(key string) bool {
	for _, pattern := range s {
		name, anyDomain := strings.CutPrefix(pattern, "*/")
		switch {
		case key == pattern,
			anyDomain && strings.HasSuffix(key, "/"+name),
			strings.HasSuffix(pattern, "/") && strings.HasPrefix(key, pattern):
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
