// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// DaemonSet is an apps/v1 DaemonSet compiled for questions that are asked for
// every node of a cluster. It is immutable.
type DaemonSet struct {
	// Namespace and Name identify it to people.
	Namespace, Name string
	// UID identifies it to programs: a name can be used again.
	UID types.UID
	// Priority is the priority that its pods get.
	Priority int32
	// Holds says whether room is held for its missing pods.
	Holds bool
	// Gates says whether ordinary pods wait for its pod to be Ready.
	Gates bool
	// Preempts says whether its pods may evict pods of their own priority.
	Preempts bool
	// Surges says whether a rolling update starts the new pod on a node before
	// the old one has gone.
	Surges bool

	// source is what the rest was compiled from.
	source *appsv1.DaemonSet
	// needs is what one of its pods takes where sizes do not say otherwise.
	needs Needs
	sizes Sizes

	nodeName            string
	affinity            nodeaffinity.RequiredNodeAffinity
	tolerations         []corev1.Toleration
	comparisonOperators bool
}

// Options are facts about the cluster that a DaemonSet does not tell by itself.
type Options struct {
	// Priority returns the priority of pods that name a PriorityClass; the name
	// is empty for pods that name none.
	Priority func(className string) int32
	// TolerationComparisonOperators says whether the tolerations operators Lt and
	// Gt work (feature gate TaintTolerationComparisonOperators).
	TolerationComparisonOperators bool
}

// New compiles ds, which must not change afterwards.
func New(ds *appsv1.DaemonSet, options Options) *DaemonSet {
	spec := &ds.Spec.Template.Spec
	// What cannot be parsed sizes nothing; the webhook refuses it.
	sizes, _ := ParseSizes(ds.Annotations[ResourcesAnnotation])
	return &DaemonSet{
		Namespace: ds.Namespace,
		Name:      ds.Name,
		UID:       ds.UID,
		Priority:  options.Priority(spec.PriorityClassName),
		Holds:     ds.Annotations[HoldAnnotation] != "false" && ds.DeletionTimestamp == nil,
		Gates:     ds.Annotations[GateAnnotation] == "true" && ds.DeletionTimestamp == nil,
		Preempts:  ds.Annotations[PreemptAnnotation] != "false",
		Surges:    surges(&ds.Spec.UpdateStrategy),

		source: ds,
		needs:  NewNeeds(spec),
		sizes:  sizes,

		nodeName:            spec.NodeName,
		affinity:            nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity),
		tolerations:         append(slices.Clip(spec.Tolerations), DefaultTolerations(spec.HostNetwork)...),
		comparisonOperators: options.TolerationComparisonOperators,
	}
}

// NeedsOn returns what one of its pods takes on node.
func (d *DaemonSet) NeedsOn(node *corev1.Node) Needs {
	if d.sizes == nil {
		return d.needs
	}
	spec := d.source.Spec.Template.Spec.DeepCopy()
	d.sizes.Apply(spec, node.Status.Allocatable)
	return NewNeeds(spec)
}

// surges repeats AllowsSurge of k8s.io/kubernetes/pkg/controller/daemon/util.
func surges(strategy *appsv1.DaemonSetUpdateStrategy) bool {
	if strategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || strategy.RollingUpdate == nil ||
		strategy.RollingUpdate.MaxSurge == nil {
		return false
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(strategy.RollingUpdate.MaxSurge, 1, true)
	return err == nil && surge > 0
}

// Same says whether two states of a DaemonSet compile to equal results. Updates
// of the status, by far the most frequent ones, change nothing.
func Same(a, b *appsv1.DaemonSet) bool {
	return a == b || a.UID == b.UID && a.Generation == b.Generation &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		!slices.ContainsFunc(compiledAnnotations, func(key string) bool { return a.Annotations[key] != b.Annotations[key] })
}

// outdated says whether a rolling update will replace pod, one of d's, because
// it was made from an earlier template.
func (d *DaemonSet) outdated(pod *corev1.Pod) bool {
	return d.source.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType &&
		pod.Labels[templateGenerationLabel] != d.source.Annotations[appsv1.DeprecatedTemplateGeneration]
}

// templateGenerationLabel is on every pod that the DaemonSet controller creates
// (DaemonSetTemplateGenerationKey of extensions/v1beta1). Deprecated it may be,
// but it is a plain number: the other mark, controller-revision-hash, takes the
// list of ControllerRevisions to read.
const templateGenerationLabel = "pod-template-generation"

// String returns namespace/name.
func (d *DaemonSet) String() string {
	return d.Namespace + "/" + d.Name
}
