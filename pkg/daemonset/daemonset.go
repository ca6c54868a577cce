// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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

	// source is what the rest was compiled from, and spec what its pods are expected
	// to be once they are admitted.
	source *appsv1.DaemonSet
	spec   *corev1.PodSpec
	// revision is the label controller-revision-hash of current pods, or "".
	revision string
	// needs is what one of its pods takes where sizes do not say otherwise.
	needs Needs
	sizes Sizes

	nodeName    string
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
	// podAffinity and podTolerations are those of admitted pods.
	podAffinity         nodeaffinity.RequiredNodeAffinity
	podTolerations      []corev1.Toleration
	comparisonOperators bool
}

// Options are facts about the cluster that a DaemonSet does not tell by itself.
// Each function but Priority may be nil.
type Options struct {
	// Priority returns the priority of pods that name a PriorityClass; the name
	// is empty for pods that name none.
	Priority func(className string) int32
	// TolerationComparisonOperators says whether the tolerations operators Lt and
	// Gt work (feature gate TaintTolerationComparisonOperators).
	TolerationComparisonOperators bool
	// Revision returns the name of the current ControllerRevision as pods carry it in
	// the label controller-revision-hash, or "" if it is not known.
	Revision func(ds *appsv1.DaemonSet) string
	// Newest returns the newest admitted pod of the current revision, or nil. The next
	// pods will be like it.
	Newest func(ds *appsv1.DaemonSet, revision string) *corev1.Pod
	// LimitRanges returns those of a namespace. They count where there is no newest pod.
	LimitRanges func(namespace string) []*corev1.LimitRange
	// RuntimeClass returns the one of that name, or nil. It counts where there is no newest pod.
	RuntimeClass func(name string) *nodev1.RuntimeClass
}

// New compiles ds, which must not change afterwards.
func New(ds *appsv1.DaemonSet, options Options) *DaemonSet {
	template := &ds.Spec.Template.Spec
	// What cannot be parsed sizes nothing; the webhook refuses it.
	sizes, _ := ParseSizes(ds.Annotations[ResourcesAnnotation])
	d := &DaemonSet{
		Namespace: ds.Namespace,
		Name:      ds.Name,
		UID:       ds.UID,
		Holds:     ds.Annotations[HoldAnnotation] != "false" && ds.DeletionTimestamp == nil,
		Gates:     ds.Annotations[GateAnnotation] == "true" && ds.DeletionTimestamp == nil,
		Preempts:  ds.Annotations[PreemptAnnotation] != "false",
		Surges:    surges(&ds.Spec.UpdateStrategy),

		source: ds,
		sizes:  sizes,

		nodeName:            template.NodeName,
		affinity:            nodeaffinity.NewRequiredNodeAffinity(template.NodeSelector, template.Affinity),
		tolerations:         append(slices.Clip(template.Tolerations), DefaultTolerations(template.HostNetwork)...),
		comparisonOperators: options.TolerationComparisonOperators,
	}
	if options.Revision != nil {
		d.revision = options.Revision(ds)
	}
	if options.Newest != nil {
		if pod := options.Newest(ds, d.revision); pod != nil {
			d.spec = admittedSpec(pod, sizes)
		}
	}
	if d.spec == nil {
		d.spec = expectedSpec(ds, &options)
	}
	if d.spec.Priority != nil {
		d.Priority = *d.spec.Priority
	}
	d.needs = newNeeds(d.spec)
	d.podAffinity = nodeaffinity.NewRequiredNodeAffinity(d.spec.NodeSelector, d.spec.Affinity)
	d.podTolerations = d.spec.Tolerations
	return d
}

// Foresees says whether pod, one of d's, was admitted as d expects its pods to be.
func (d *DaemonSet) Foresees(pod *corev1.Pod) bool {
	return equality.Semantic.DeepEqual(d.spec, admittedSpec(pod, d.sizes))
}

// NeedsOn returns what one of its pods takes on node.
func (d *DaemonSet) NeedsOn(node *corev1.Node) Needs {
	return d.needsOf(node.Status.Allocatable)
}

func (d *DaemonSet) needsOf(allocatable corev1.ResourceList) Needs {
	if d.sizes == nil {
		return d.needs
	}
	spec := d.spec.DeepCopy()
	d.sizes.Apply(spec, allocatable)
	return newNeeds(spec)
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

// CompileAlike says whether two states of a DaemonSet compile to equal results.
// Updates of the status, by far the most frequent ones, change nothing.
func CompileAlike(a, b *appsv1.DaemonSet) bool {
	return a == b || a.UID == b.UID && a.Generation == b.Generation &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		a.Annotations[appsv1.DeprecatedTemplateGeneration] == b.Annotations[appsv1.DeprecatedTemplateGeneration] &&
		!slices.ContainsFunc(compiledAnnotations, func(key string) bool { return a.Annotations[key] != b.Annotations[key] })
}

// equal says whether d and other were compiled to equal results.
func (d *DaemonSet) equal(other *DaemonSet) bool {
	return CompileAlike(d.source, other.source) && d.revision == other.revision && d.Priority == other.Priority &&
		equality.Semantic.DeepEqual(d.spec, other.spec)
}

// IsCurrent says whether the DaemonSet controller takes pod, one of ds's, for one of the
// current template (IsPodUpdated in k8s.io/kubernetes/pkg/controller/daemon/util): by
// the generation of the template or by the revision, which a rollback or an adoption
// leaves as it was. revision is "" if it is not known.
func IsCurrent(ds *appsv1.DaemonSet, revision string, pod *corev1.Pod) bool {
	generation, labelled := pod.Labels[TemplateGenerationLabel]
	return labelled && generation == ds.Annotations[appsv1.DeprecatedTemplateGeneration] ||
		revision != "" && pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == revision
}

// Outdated says whether a rolling update will replace pod, one of d's.
func (d *DaemonSet) Outdated(pod *corev1.Pod) bool {
	return d.source.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType && !IsCurrent(d.source, d.revision, pod)
}

// TemplateGenerationLabel is the label of every pod that the DaemonSet controller creates
// (DaemonSetTemplateGenerationKey of extensions/v1beta1).
const TemplateGenerationLabel = "pod-template-generation"

// String returns namespace/name.
func (d *DaemonSet) String() string {
	return d.Namespace + "/" + d.Name
}
