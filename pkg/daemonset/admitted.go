// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// admittedSpec returns the part of an admitted pod's spec that the next pods of its
// DaemonSet will have as well: what the pod requests, its priority, and its own node
// selector, node affinity and tolerations. What belongs to the pod's node alone is
// left out: the pin and, for containers that sizes name, the requests.
//
// An admitted pod has passed LimitRanges, RuntimeClasses and the webhooks of the
// cluster, so it tells what the template does not.
func admittedSpec(pod *corev1.Pod, sizes Sizes) *corev1.PodSpec {
	spec := relevant(&pod.Spec)
	spec.Affinity = withoutPin(pod)
	// Two pods of one DaemonSet have to be equal, whatever their nodes are.
	sizes.Apply(spec, corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1"),
		corev1.ResourceMemory:           resource.MustParse("1Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Gi"),
	})
	return spec
}

// expectedSpec returns what the API server will make of ds's template, as far as
// LimitRanges and RuntimeClasses tell: the order is that of defaulting and admission
// (k8s.io/kubernetes/plugin/pkg/admission/limitranger and .../runtimeclass).
func expectedSpec(ds *appsv1.DaemonSet, options *Options) *corev1.PodSpec {
	spec := relevant(&ds.Spec.Template.Spec)
	// The controller replaces the node affinity of the template by the pin.
	spec.Affinity = nil
	priority := options.Priority(spec.PriorityClassName)
	spec.Priority = &priority
	defaultRequests(spec)
	options.Admit(ds.Namespace, spec)
	spec.Tolerations = append(spec.Tolerations, DefaultTolerations(spec.HostNetwork)...)
	return spec
}

// Priorities returns the values of PriorityClasses by name, and that of pods that name none by "", if one of them is the
// default. Of several defaults the lowest one counts (k8s.io/kubernetes/plugin/pkg/admission/priority).
func Priorities(classes []*schedulingv1.PriorityClass) map[string]int32 {
	values := make(map[string]int32, len(classes)+1)
	for _, class := range classes {
		values[class.Name] = class.Value
		if lowest, has := values[""]; class.GlobalDefault && (!has || class.Value < lowest) {
			values[""] = class.Value
		}
	}
	return values
}

// Admit gives the spec of a pod in namespace what LimitRanges and its RuntimeClass would.
func (o *Options) Admit(namespace string, spec *corev1.PodSpec) {
	if o.LimitRanges != nil {
		for _, limitRange := range o.LimitRanges(namespace) {
			applyLimitRange(spec, limitRange)
		}
	}
	if spec.RuntimeClassName == nil || o.RuntimeClass == nil {
		return
	}
	class := o.RuntimeClass(*spec.RuntimeClassName)
	if class == nil {
		return
	}
	if class.Overhead != nil {
		spec.Overhead = class.Overhead.PodFixed
	}
	if class.Scheduling != nil {
		spec.NodeSelector = withEntries(class.Scheduling.NodeSelector, spec.NodeSelector)
		spec.Tolerations = append(spec.Tolerations, class.Scheduling.Tolerations...)
	}
}

// relevant returns a copy of what placement depends on in spec, without its affinity.
func relevant(spec *corev1.PodSpec) *corev1.PodSpec {
	containers := func(all []corev1.Container) []corev1.Container {
		var kept []corev1.Container
		for i := range all {
			container := &all[i]
			kept = append(kept, corev1.Container{
				Name:          container.Name,
				Resources:     *container.Resources.DeepCopy(),
				Ports:         container.Ports,
				RestartPolicy: container.RestartPolicy,
			})
		}
		return kept
	}
	return &corev1.PodSpec{
		InitContainers:    containers(spec.InitContainers),
		Containers:        containers(spec.Containers),
		Resources:         spec.Resources.DeepCopy(),
		Overhead:          spec.Overhead,
		HostNetwork:       spec.HostNetwork,
		NodeSelector:      spec.NodeSelector,
		Tolerations:       slices.Clip(spec.Tolerations),
		Priority:          spec.Priority,
		PriorityClassName: spec.PriorityClassName,
		RuntimeClassName:  spec.RuntimeClassName,
	}
}

// withoutPin returns pod's required node affinity without its node's name, or nil if
// nothing else is required. Admission may have added match expressions to the pin.
func withoutPin(pod *corev1.Pod) *corev1.Affinity {
	var terms []corev1.NodeSelectorTerm
	for _, term := range requiredTerms(pod) {
		term.MatchFields = slices.DeleteFunc(slices.Clone(term.MatchFields), func(field corev1.NodeSelectorRequirement) bool {
			return field.Key == metav1.ObjectNameField
		})
		if len(term.MatchFields) == 0 && len(term.MatchExpressions) == 0 {
			// Terms are ORed: this one asks for nothing but the node.
			return nil
		}
		terms = append(terms, term)
	}
	if len(terms) == 0 {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}
}

// applyLimitRange gives containers the default requests and limits that they lack, as
// LimitRanger does (PodMutateLimitFunc).
func applyLimitRange(spec *corev1.PodSpec, limitRange *corev1.LimitRange) {
	for i := range limitRange.Spec.Limits {
		item := &limitRange.Spec.Limits[i]
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for j := range containers {
				resources := &containers[j].Resources
				resources.Requests = withEntries(item.DefaultRequest, resources.Requests)
				resources.Limits = withEntries(item.Default, resources.Limits)
			}
		}
	}
}

// withEntries returns own with the entries of defaults that it lacks.
func withEntries[M ~map[K]V, K comparable, V any](defaults, own M) M {
	if len(defaults) == 0 {
		return own
	}
	merged := maps.Clone(defaults)
	maps.Copy(merged, own)
	return merged
}
