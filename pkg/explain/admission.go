// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"

	"everynode.dev/everynode/pkg/daemonset"
)

// nodeSelectorAnnotations on a namespace are node selectors that its pods get: that of
// the admission plugin PodNodeSelector, and OpenShift's.
var nodeSelectorAnnotations = []string{"scheduler.alpha.kubernetes.io/node-selector", "openshift.io/node-selector"}

// changes says how pod differs from the template it was made from: something changed it when
// it was created.
func (i *inquiry) changes(pod *corev1.Pod) []string {
	var changes []string
	change := func(what, template, have string) {
		if template != have {
			changes = append(changes, fmt.Sprintf("%s: %s, the template has %s", what, cmp.Or(have, "none"), cmp.Or(template, "none")))
		}
	}
	template, spec := i.template(), &pod.Spec
	change("nodeSelector", labels.Set(template.NodeSelector).String(), labels.Set(spec.NodeSelector).String())
	changes = append(changes, affinityChanges(spec)...)
	changes = append(changes, i.tolerationChanges(spec)...)
	change("priorityClassName", template.PriorityClassName, spec.PriorityClassName)
	change("schedulerName", cmp.Or(template.SchedulerName, corev1.DefaultSchedulerName), spec.SchedulerName)
	change("schedulingGates", describeGates(template.SchedulingGates), describeGates(spec.SchedulingGates))
	change("containers", describeContainers(template.Containers), describeContainers(spec.Containers))
	change("requests", describeRequests(i.compiled.NeedsOn(i.node).Resources), describeRequests(daemonset.NewResources(
		resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))))
	return changes
}

// affinityChanges says what the pod's node affinity asks for besides its node.
func affinityChanges(spec *corev1.PodSpec) []string {
	var added []string
	terms, _ := requiredTerms(spec.Affinity)
	for _, term := range terms {
		for n := range term.MatchExpressions {
			added = append(added, describeRequirement(&term.MatchExpressions[n]))
		}
	}
	if len(added) == 0 {
		return nil
	}
	// The controller replaces the template's required terms by the node's name, so
	// admission added these.
	return []string{"required node affinity: " + strings.Join(added, " and ") + ", besides the node's name"}
}

func (i *inquiry) tolerationChanges(spec *corev1.PodSpec) []string {
	var changes []string
	without := func(list, other []corev1.Toleration) []string {
		var missing []string
		for n := range list {
			if !slices.ContainsFunc(other, func(t corev1.Toleration) bool { return equality.Semantic.DeepEqual(t, list[n]) }) {
				missing = append(missing, describeToleration(&list[n]))
			}
		}
		return missing
	}
	if added := without(spec.Tolerations, i.tolerations); len(added) > 0 {
		changes = append(changes, "tolerations added: "+strings.Join(added, ", "))
	}
	// A toleration of the template gives way to the controller's own with the same key and effect.
	removed := without(i.template().Tolerations, append(slices.Clip(spec.Tolerations), replaced(i.template())...))
	if len(removed) > 0 {
		changes = append(changes, "tolerations removed: "+strings.Join(removed, ", "))
	}
	return changes
}

// replaced returns the template's tolerations that the controller replaces by its own
// (AddOrUpdateTolerationInPodSpec in k8s.io/kubernetes/pkg/apis/core/v1/helper).
func replaced(template *corev1.PodSpec) []corev1.Toleration {
	own := daemonset.DefaultTolerations(template.HostNetwork)
	return slices.DeleteFunc(slices.Clone(template.Tolerations), func(t corev1.Toleration) bool {
		return !slices.ContainsFunc(own, func(o corev1.Toleration) bool { return o.MatchToleration(&t) })
	})
}

func describeToleration(t *corev1.Toleration) string {
	text := cmp.Or(t.Key, "any key")
	if t.Operator != corev1.TolerationOpExists {
		text += "=" + t.Value
	}
	if t.Effect != "" {
		text += ":" + string(t.Effect)
	}
	if t.TolerationSeconds != nil {
		text += fmt.Sprintf(" for %ds", *t.TolerationSeconds)
	}
	return text
}

func describeGates(gates []corev1.PodSchedulingGate) string {
	return describeNames(gates, func(gate *corev1.PodSchedulingGate) string { return gate.Name })
}

func describeContainers(containers []corev1.Container) string {
	return describeNames(containers, func(container *corev1.Container) string { return container.Name })
}

func describeNames[T any](list []T, name func(*T) string) string {
	names := make([]string, len(list))
	for n := range list {
		names[n] = name(&list[n])
	}
	return strings.Join(names, ",")
}

// describeRequests leaves out the pod slot: manifests do not name it.
func describeRequests(resources daemonset.Resources) string {
	resources.Pods = 0
	return describeResources(resources)
}

// addedSelector returns the labels that the pod asks for and the template doesn't,
// and that the node lacks.
func (i *inquiry) addedSelector(pod *corev1.Pod) []mismatch {
	return slices.DeleteFunc(selectorMismatches(pod.Spec.NodeSelector, i.node), func(m mismatch) bool {
		return i.template().NodeSelector[m.key] == m.want
	})
}

// narrowed is for pods that ask for labels that admission added and that the node lacks.
func (i *inquiry) narrowed(added []mismatch) Args {
	args := mismatchArgs(added)
	args["note"] = ""
	namespace := i.namespaces[i.ds.Namespace]
	if namespace == nil {
		return args
	}
	for _, key := range nodeSelectorAnnotations {
		asked := strings.Split(strings.ReplaceAll(namespace.Annotations[key], " ", ""), ",")
		if slices.ContainsFunc(added, func(m mismatch) bool { return slices.Contains(asked, m.label()) }) {
			args["note"] = fmt.Sprintf(" It comes from the annotation %s of namespace %s.", key, i.ds.Namespace)
			break
		}
	}
	return args
}
