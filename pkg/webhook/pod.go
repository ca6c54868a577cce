// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// facts are what a new pod is changed by.
type facts struct {
	// annotations are those of its DaemonSet, and those of the policy that it lacks.
	annotations map[string]string
	// settings are the policy's.
	settings *policy.Settings
	// allocatable is what its node has; nil if that is not known.
	allocatable corev1.ResourceList
	// tolerations are those that its namespace allows.
	tolerations whitelist
	classes     priorityClasses
	// templateClass is the priority class that the template of its DaemonSet names.
	templateClass string
	// limits are the LimitRanges of its namespace, as far as they are about containers.
	limits []corev1.LimitRangeItem
}

// mutatePod decides what to change in a new pod of a DaemonSet. To apply the result
// and decide again changes nothing more.
//
// Whatever it does, the DaemonSet controller goes on to see the pod on the same
// node (GetTargetNodeName in k8s.io/kubernetes/pkg/controller/daemon/util). If it
// did not, it would take the node for empty and create another pod at every sync.
func mutatePod(pod *corev1.Pod, f facts) mutation {
	var m mutation
	switch mode := f.annotations[daemonset.SchedulingAnnotation]; mode {
	case daemonset.SchedulingDirect:
		m.bind(pod)
	case daemonset.SchedulingScheduler, daemonset.SchedulingAuto, "":
		// With auto, the binder binds the pod if the scheduler is not at work.
		m.pin(pod)
	default:
		m.problem(reasonAnnotation, "annotation %s of the DaemonSet is %q, must be %q, %q or %q; %[3]q is assumed",
			daemonset.SchedulingAnnotation, mode, daemonset.SchedulingScheduler, daemonset.SchedulingDirect, daemonset.SchedulingAuto)
		m.pin(pod)
	}
	// Like the controller it lets no time limit stand: the DefaultTolerationSeconds
	// admission has set one by now on pods that had none.
	m.tolerate(daemonset.DefaultTolerations(pod.Spec.HostNetwork), f.settings.Tolerations, &pod.Spec, "/spec", f.tolerations)
	m.schedule(f.settings, &pod.Spec, "/spec")
	if wanted, has := f.settings.PriorityClassName, pod.Spec.PriorityClassName; wanted != "" && wanted != has && f.templateClass == "" {
		// The API server has given the default class to a pod without one.
		if has == "" || f.classes(has).isDefault {
			m.prioritize(wanted, &pod.Spec, "/spec", f.classes)
		}
	}
	m.size(pod, f)
	return m
}

// bind gives a pinned pod to its node's kubelet without asking a scheduler.
func (m *mutation) bind(pod *corev1.Pod) {
	if pod.Spec.NodeName != "" {
		return
	}
	node, pinned := daemonset.PinnedNode(pod)
	if target, ok := daemonset.TargetNode(pod); !pinned || !ok || target != node {
		m.problem(reasonNotPinned, "annotation %s of the DaemonSet is %q, but the pod is not limited to one node: it is left to the scheduler",
			daemonset.SchedulingAnnotation, daemonset.SchedulingDirect)
		return
	}
	if len(pod.Spec.SchedulingGates) > 0 {
		// The API server would refuse the pod.
		m.problem(reasonGated, "annotation %s of the DaemonSet is %q, but a pod with scheduling gates cannot be bound: it is left to the scheduler",
			daemonset.SchedulingAnnotation, daemonset.SchedulingDirect)
		return
	}
	if claim := daemonset.ClaimThatWaits(pod); claim != "" {
		m.problem(reasonClaims, "annotation %s of the DaemonSet is %q, but %s may wait for a scheduler: the pod is left to it",
			daemonset.SchedulingAnnotation, daemonset.SchedulingDirect, claim)
		return
	}
	m.add("/spec/nodeName", node)
	m.audit("bound", node)
}

// pin has a scheduler place a pod that its creator has bound to a node: the
// binding becomes a node affinity that only that node meets.
func (m *mutation) pin(pod *corev1.Pod) {
	node := pod.Spec.NodeName
	if node == "" || daemonset.IsMirror(pod) {
		// The API server refuses mirrors of static pods that are not bound.
		return
	}
	patch, err := pinPatch(pod, node)
	if err != nil {
		m.problem(reasonNotPinned, "the pod stays bound to node %s: %v", node, err)
		return
	}
	m.Patch = append(m.Patch, patch...)
	m.remove("/spec/nodeName")
	m.audit("pinned", node)
}

// pinPatch limits the pod's required node affinity to node. Terms are ORed, so
// each of them gets the limit; none is removed, reordered or widened.
func pinPatch(pod *corev1.Pod, node string) ([]operation, error) {
	pin := corev1.NodeSelectorRequirement{
		Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
	}
	required := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
		{MatchFields: []corev1.NodeSelectorRequirement{pin}},
	}}
	add := func(path string, value any) []operation {
		return []operation{{Op: "add", Path: path, Value: value}}
	}
	affinity := pod.Spec.Affinity
	switch {
	case affinity == nil:
		return add("/spec/affinity", corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}), nil
	case affinity.NodeAffinity == nil:
		return add("/spec/affinity/nodeAffinity", corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}), nil
	case affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil:
		return add("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution", required), nil
	}

	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	const path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms"
	var patch []operation
	matchable := false
	for i := range terms {
		term := &terms[i]
		if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
			// It matches no node. With the pin in it, it would match one.
			continue
		}
		matchable = true
		named, err := namesOnly(term, node)
		switch {
		case err != nil:
			return nil, err
		case named:
			// The pin is there already.
		case len(term.MatchFields) == 0:
			patch = append(patch, add(fmt.Sprintf("%s/%d/matchFields", path, i), []corev1.NodeSelectorRequirement{pin})...)
		default:
			// At the front: the controller believes the first name it finds.
			patch = append(patch, add(fmt.Sprintf("%s/%d/matchFields/0", path, i), pin)...)
		}
	}
	if !matchable {
		return nil, errors.New("its required node affinity matches no node")
	}
	return patch, nil
}

// namesOnly says whether term is limited to node already. It is an error if it is
// limited to another node.
func namesOnly(term *corev1.NodeSelectorTerm, node string) (bool, error) {
	named := false
	for i := range term.MatchFields {
		field := &term.MatchFields[i]
		if field.Key != metav1.ObjectNameField || field.Operator != corev1.NodeSelectorOpIn {
			continue
		}
		if len(field.Values) != 1 || field.Values[0] != node {
			return false, fmt.Errorf("its required node affinity names %s", strings.Join(field.Values, ", "))
		}
		named = true
	}
	return named, nil
}

// size sets what the pod's containers ask for after the size of its node.
func (m *mutation) size(pod *corev1.Pod, f facts) {
	value, ok := f.annotations[daemonset.ResourcesAnnotation]
	if !ok {
		return
	}
	sizes, err := parseSizes(value)
	switch {
	case err != nil:
		m.problem(reasonAnnotation, "annotation %s: %v; the pod keeps the requests of its template", daemonset.ResourcesAnnotation, err)
		return
	case pod.Spec.Resources != nil:
		m.problem(reasonPodResources, "annotation %s: the pod has resources of its own (spec.resources), its containers keep the requests of the template",
			daemonset.ResourcesAnnotation)
		return
	case f.allocatable == nil:
		m.problem(reasonNode, "annotation %s: the size of the pod's node is not known yet, the pod keeps the requests of its template",
			daemonset.ResourcesAnnotation)
		return
	}
	sized := applySizes(sizes, &pod.Spec, f.allocatable)
	if len(f.limits) > 0 {
		sized = m.limitSizes(sizes, &pod.Spec, sized, f)
	}
	var changed []string
	for _, group := range []struct {
		path          string
		before, after []corev1.Container
	}{
		{"/spec/initContainers", pod.Spec.InitContainers, sized.InitContainers},
		{"/spec/containers", pod.Spec.Containers, sized.Containers},
	} {
		for i := range group.after {
			name := group.after[i].Name
			if _, sized := sizes[name]; !sized {
				continue
			}
			changed = append(changed, m.resize(fmt.Sprintf("%s/%d/resources", group.path, i), name, &group.before[i].Resources, &group.after[i].Resources)...)
		}
	}
	if len(changed) > 0 {
		m.audit("resources", strings.Join(changed, ","))
	}
}

// applySizes returns a copy of spec with the sizes.
func applySizes(sizes daemonset.Sizes, spec *corev1.PodSpec, allocatable corev1.ResourceList) *corev1.PodSpec {
	// Apply replaces what it changes.
	sized := *spec
	sized.InitContainers, sized.Containers = slices.Clone(sized.InitContainers), slices.Clone(sized.Containers)
	sizes.Apply(&sized, allocatable)
	return &sized
}

// limitSizes keeps sizes within the LimitRanges of the namespace: the API server would
// refuse the pod otherwise. unlimited is spec with the sizes as they are.
func (m *mutation) limitSizes(sizes daemonset.Sizes, spec, unlimited *corev1.PodSpec, f facts) *corev1.PodSpec {
	within := make(daemonset.Sizes, len(sizes))
	for name, size := range sizes {
		size.Min, size.Max = maps.Clone(size.Min), maps.Clone(size.Max)
		for i := range f.limits {
			size.Min = bounded(size.Min, f.limits[i].Min, 1)
			size.Max = bounded(size.Max, f.limits[i].Max, -1)
		}
		within[name] = size
	}
	limited := applySizes(within, spec, f.allocatable)
	for i := range limited.InitContainers {
		m.limitContainer(&limited.InitContainers[i], &unlimited.InitContainers[i], sizes, f.limits)
	}
	for i := range limited.Containers {
		m.limitContainer(&limited.Containers[i], &unlimited.Containers[i], sizes, f.limits)
	}
	return limited
}

// bounded adds the bounds of a LimitRange to others; where both have one, the greater
// (sign 1) or the smaller one (sign -1) counts.
func bounded(bounds, others corev1.ResourceList, sign int) corev1.ResourceList {
	for _, name := range daemonset.SizedResources() {
		other, ok := others[name]
		if bound, known := bounds[name]; ok && (!known || other.Cmp(bound) == sign) {
			if bounds == nil {
				bounds = make(corev1.ResourceList)
			}
			bounds[name] = other
		}
	}
	return bounds
}

// limitContainer keeps the limits of a container within LimitRanges, and reports where
// they change its size.
func (m *mutation) limitContainer(container, unlimited *corev1.Container, sizes daemonset.Sizes, ranges []corev1.LimitRangeItem) {
	if _, sized := sizes[container.Name]; !sized {
		return
	}
	requests, limits := container.Resources.Requests, container.Resources.Limits
	for _, name := range daemonset.SizedResources() {
		request, requested := requests[name]
		limit, hasLimit := limits[name]
		for i := range ranges {
			if most, ok := ranges[i].Max[name]; ok && hasLimit && limit.Cmp(most) > 0 {
				limit = most
			}
			if ratio, ok := ranges[i].MaxLimitRequestRatio[name]; ok && hasLimit {
				if most := timesRatio(name, &request, &ratio); limit.Cmp(most) > 0 {
					limit = most
				}
			}
		}
		if hasLimit {
			limits[name] = limit
		}
		was, wasLimit := unlimited.Resources.Requests[name], unlimited.Resources.Limits[name]
		if requested && was.Cmp(request) != 0 || hasLimit && wasLimit.Cmp(limit) != 0 {
			m.problem(reasonLimitRange, "annotation %s: a LimitRange of the namespace changes %s of container %s from %s to %s",
				daemonset.ResourcesAnnotation, name, container.Name, was.String(), request.String())
		}
	}
}

// timesRatio returns the most that a limit may be for a request, rounded down.
func timesRatio(name corev1.ResourceName, request, ratio *resource.Quantity) resource.Quantity {
	if name == corev1.ResourceCPU {
		return *resource.NewMilliQuantity(int64(float64(request.MilliValue())*ratio.AsApproximateFloat64()), resource.DecimalSI)
	}
	return *resource.NewQuantity(int64(float64(request.Value())*ratio.AsApproximateFloat64()), resource.BinarySI)
}

// parseSizes parses the value of [daemonset.ResourcesAnnotation] once for all pods of a
// DaemonSet.
func parseSizes(value string) (daemonset.Sizes, error) {
	if sizes, ok := parsedSizes.Get(value); ok {
		return sizes.(daemonset.Sizes), nil
	}
	sizes, err := daemonset.ParseSizes(value)
	if err == nil {
		parsedSizes.Add(value, sizes)
	}
	return sizes, err
}

// parsedSizes are the last that were asked for.
var parsedSizes = lru.New(256)

// resize patches the resources of a container and returns what it requests now.
func (m *mutation) resize(path, container string, before, after *corev1.ResourceRequirements) (changed []string) {
	if before.Requests == nil && before.Limits == nil && before.Claims == nil {
		// Perhaps they are not there at all.
		if len(after.Requests) > 0 {
			m.add(path, corev1.ResourceRequirements{Requests: after.Requests})
		}
	} else {
		m.set(path+"/requests", before.Requests, after.Requests)
		m.set(path+"/limits", before.Limits, after.Limits)
	}
	for _, name := range daemonset.SizedResources() {
		request := after.Requests[name]
		if was, ok := before.Requests[name]; ok && was.Cmp(request) == 0 || request.IsZero() {
			continue
		}
		changed = append(changed, fmt.Sprintf("%s.%s=%s", container, name, request.String()))
	}
	return changed
}

// set patches the amounts that differ.
func (m *mutation) set(path string, before, after corev1.ResourceList) {
	if len(before) == 0 {
		if len(after) > 0 {
			m.add(path, after)
		}
		return
	}
	for _, name := range daemonset.SizedResources() {
		amount, ok := after[name]
		if was, known := before[name]; ok && (!known || was.Cmp(amount) != 0) {
			m.add(path+"/"+pathPart(string(name)), amount)
		}
	}
}
