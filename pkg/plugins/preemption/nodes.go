// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"hash/fnv"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"

	"everynode.dev/everynode/pkg/daemonset"
)

// leavingTaints are the taints of nodes that are being drained or deleted:
// k8s.io/api/core/v1/well_known_taints.go, cluster-autoscaler/utils/taints in
// kubernetes/autoscaler, and pkg/apis/v1 in kubernetes-sigs/karpenter (disruption was
// the key before v1).
var leavingTaints = []string{
	corev1.TaintNodeUnschedulable,
	corev1.TaintNodeOutOfService,
	"ToBeDeletedByClusterAutoscaler",
	"DeletionCandidateOfClusterAutoscaler",
	"karpenter.sh/disrupted",
	"karpenter.sh/disruption",
}

// isLeaving says whether node is being drained or deleted.
func isLeaving(node *corev1.Node) bool {
	return node.DeletionTimestamp != nil || node.Spec.Unschedulable ||
		slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return slices.Contains(leavingTaints, taint.Key) })
}

// constraints are what pins a pod to nodes, whatever is free there.
type constraints struct {
	pod      *corev1.Pod
	affinity nodeaffinity.RequiredNodeAffinity
	volumes  []*corev1.PersistentVolume
	// unknownVolume is set if a volume cannot be looked up. It may be local to its node.
	unknownVolume       bool
	comparisonOperators bool
}

func (pl *Preemption) constraintsOf(pod *corev1.Pod) *constraints {
	c := &constraints{
		pod:                 pod,
		affinity:            nodeaffinity.GetRequiredNodeAffinity(pod),
		comparisonOperators: utilfeature.DefaultFeatureGate.Enabled(features.TaintTolerationComparisonOperators),
	}
	for i := range pod.Spec.Volumes {
		// An ephemeral claim ends with the pod, and its successor gets another one.
		source := pod.Spec.Volumes[i].PersistentVolumeClaim
		if source == nil {
			continue
		}
		claim, err := pl.claims.PersistentVolumeClaims(pod.Namespace).Get(source.ClaimName)
		if err != nil {
			c.unknownVolume = true
			continue
		}
		if claim.Spec.VolumeName == "" {
			continue
		}
		bound, err := pl.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			c.unknownVolume = true
			continue
		}
		c.volumes = append(c.volumes, bound)
	}
	return c
}

// nameNodes says whether the pod asks for particular nodes at all.
func (c *constraints) nameNodes() bool {
	spec := &c.pod.Spec
	return c.unknownVolume || len(spec.NodeSelector) > 0 ||
		spec.Affinity != nil && spec.Affinity.NodeAffinity != nil && spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil ||
		slices.ContainsFunc(c.volumes, func(bound *corev1.PersistentVolume) bool { return bound.Spec.NodeAffinity != nil })
}

// allow says whether a successor of the pod could run on node.
func (c *constraints) allow(node *corev1.Node) bool {
	if c.unknownVolume || node.DeletionTimestamp != nil || node.Spec.Unschedulable && !c.tolerates(&unschedulable) {
		return false
	}
	// Of thousands of nodes, this leaves few.
	if matches, err := c.affinity.Match(node); err != nil || !matches || daemonset.IsVirtual(node) {
		return false
	}
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		keepsOut := taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
		if keepsOut && !c.tolerates(taint) {
			return false
		}
	}
	return !slices.ContainsFunc(c.volumes, func(bound *corev1.PersistentVolume) bool {
		return volume.CheckNodeAffinity(bound, node.Labels) != nil
	})
}

// unschedulable is the taint that spec.unschedulable stands for.
var unschedulable = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}

func (c *constraints) tolerates(taint *corev1.Taint) bool {
	return corev1helper.TolerationsTolerateTaint(klog.Logger{}, c.pod.Spec.Tolerations, taint, c.comparisonOperators)
}

// otherNodes yields the nodes, other than its own, on which the constraints of pod
// hold. They begin somewhere else for each controller: otherwise the first nodes
// would be tried for all pods, and these are full together.
func (pl *Preemption) otherNodes(pod *corev1.Pod) iter.Seq[fwk.NodeInfo] {
	return func(yield func(fwk.NodeInfo) bool) {
		nodes, err := pl.handle.SnapshotSharedLister().NodeInfos().List()
		if err != nil || len(nodes) == 0 {
			return
		}
		c := pl.constraintsOf(pod)
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(keyOf(pod).group))
		offset := int(hash.Sum32() % uint32(len(nodes)))
		for i := range nodes {
			other := nodes[(offset+i)%len(nodes)]
			if other.Node().Name != pod.Spec.NodeName && c.allow(other.Node()) && !yield(other) {
				return
			}
		}
	}
}

// alike identifies pods that can run on the same nodes.
type alike struct{ group, node string }

// keyOf puts the pods of one controller on a node together, but not those that have
// volumes of their own.
func keyOf(pod *corev1.Pod) alike {
	owner := metav1.GetControllerOfNoCopy(pod)
	hasClaim := slices.ContainsFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.PersistentVolumeClaim != nil })
	if owner == nil || hasClaim {
		return alike{string(pod.UID), pod.Spec.NodeName}
	}
	return alike{string(owner.UID), pod.Spec.NodeName}
}

// isBoundToItsNode says whether a successor of pod could run on the same node only.
//
// If the cluster has one node only, there is no other one to look at: then a pod is
// bound if it asks for particular nodes.
func (pl *Preemption) isBoundToItsNode(pod *corev1.Pod) bool {
	if _, named := daemonset.NamedNode(pod); named || pl.cluster.Set().OwnerOf(pod) != nil {
		return true
	}
	return pl.attempt.memoize(keyOf(pod), func() bool {
		if nodes, err := pl.handle.SnapshotSharedLister().NodeInfos().List(); err == nil && len(nodes) < 2 {
			return pl.constraintsOf(pod).nameNodes()
		}
		for range pl.otherNodes(pod) {
			return false
		}
		return true
	})
}
