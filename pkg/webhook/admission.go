// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// admission decides about objects by what is known of the cluster.
type admission struct {
	cluster  clusterState
	policies func() *policy.Policies
}

// clusterState is what admission reads of the cluster; *cluster implements it.
type clusterState interface {
	owner(ctx context.Context, namespace string, reference *metav1.OwnerReference) (*appsv1.DaemonSet, error)
	namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error)
	allocatable(ctx context.Context, node string) corev1.ResourceList
	priorityClass(namespace, name string) priorityClass
	limitsOf(namespace string) []corev1.LimitRangeItem
}

// cacheTimeout is how long a request waits for its namespace, DaemonSet and node to
// reach the cache, together. Pods are created milliseconds after each of them. It is
// short beside the timeout of the webhook configuration (2 s).
const cacheTimeout = 500 * time.Millisecond

// mutatePods handles new pods.
func (a *admission) mutatePods() *handler[pod] {
	return &handler[pod]{
		name:       "pods",
		resource:   metav1.GroupVersionResource(corev1.SchemeGroupVersion.WithResource("pods")),
		operations: []admissionv1.Operation{admissionv1.Create},
		decide:     a.decidePod,
	}
}

// mutateDaemonSets handles DaemonSets that are created or updated.
func (a *admission) mutateDaemonSets() *handler[appsv1.DaemonSet] {
	return &handler[appsv1.DaemonSet]{
		name:       "daemonsets",
		resource:   metav1.GroupVersionResource(appsv1.SchemeGroupVersion.WithResource("daemonsets")),
		operations: []admissionv1.Operation{admissionv1.Create, admissionv1.Update},
		decide:     a.decideDaemonSet,
	}
}

// validateDaemonSets handles DaemonSets that are created or updated, after all mutating
// admission.
func (a *admission) validateDaemonSets() *handler[appsv1.DaemonSet] {
	h := a.mutateDaemonSets()
	h.name, h.decide = "validation", a.validateDaemonSet
	return h
}

func (a *admission) decidePod(ctx context.Context, request *request[pod]) (decision, error) {
	pod := (*corev1.Pod)(request.Object)
	reference := daemonset.OwnerOf(pod)
	if reference == nil {
		// The pod of helm test is sent to see that the webhook answers.
		return decision{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	owner, namespace, chosen, err := a.ownerOf(ctx, request.Namespace, reference)
	if err != nil {
		return decision{}, err
	}
	f := facts{
		annotations:   chosen.Effective(owner.Annotations),
		settings:      &chosen.Pod,
		templateClass: owner.Spec.Template.Spec.PriorityClassName,
		tolerations:   parseWhitelist(namespace.Annotations),
		classes:       a.classesIn(request.Namespace),
		limits:        a.cluster.limitsOf(request.Namespace),
	}
	if _, sized := f.annotations[daemonset.ResourcesAnnotation]; sized {
		if node, ok := daemonset.TargetNode(pod); ok {
			f.allocatable = a.cluster.allocatable(ctx, node)
		}
	}
	return decided(mutatePod(pod, f), chosen), nil
}

// ownerOf returns the DaemonSet that an owner reference in a namespace names, the namespace, and the policy that
// applies to it. It waits for both until ctx ends.
func (a *admission) ownerOf(ctx context.Context, in string, reference *metav1.OwnerReference) (
	*appsv1.DaemonSet, *metav1.PartialObjectMetadata, *policy.Policy, error,
) {
	owner, err := a.cluster.owner(ctx, in, reference)
	if err != nil {
		return nil, nil, nil, &decisionError{reasonOwner, err}
	}
	namespace, err := a.cluster.namespace(ctx, in)
	if err != nil {
		return nil, nil, nil, &decisionError{reasonNamespace, err}
	}
	return owner, namespace, a.policies().For(in, namespace.Labels, owner.Labels), nil
}

// schedulesAuto says whether a pod is one of a DaemonSet that asks for [daemonset.SchedulingAuto].
func (a *admission) schedulesAuto(ctx context.Context, pod *corev1.Pod) bool {
	reference := daemonset.OwnerOf(pod)
	if reference == nil {
		return false
	}
	// What is not known now is asked for again.
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	owner, _, chosen, err := a.ownerOf(ctx, pod.Namespace, reference)
	return err == nil && chosen.Effective(owner.Annotations)[daemonset.SchedulingAnnotation] == daemonset.SchedulingAuto
}

func (a *admission) decideDaemonSet(ctx context.Context, request *request[appsv1.DaemonSet]) (decision, error) {
	ds := request.Object
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	namespace, err := a.cluster.namespace(ctx, request.Namespace)
	if err != nil {
		return decision{}, &decisionError{reasonNamespace, err}
	}
	chosen := a.policies().For(request.Namespace, namespace.Labels, ds.Labels)
	return decided(mutateDaemonSet(ds, chosen, parseWhitelist(namespace.Annotations), a.classesIn(request.Namespace)), chosen), nil
}

func (a *admission) classesIn(namespace string) priorityClasses {
	return func(name string) priorityClass { return a.cluster.priorityClass(namespace, name) }
}

// decided names the policy where something was done.
func decided(m mutation, chosen *policy.Policy) decision {
	if len(m.Patch) > 0 && chosen.Name != "" {
		m.audit("policy", chosen.Name)
	}
	return decision{mutation: m}
}

// validateDaemonSet denies what can never work and warns of what will hurt, as far as
// the configuration does not say otherwise. Findings that a DaemonSet had before an update
// are left out, so that it can be changed.
func (a *admission) validateDaemonSet(_ context.Context, request *request[appsv1.DaemonSet]) (decision, error) {
	ds := request.Object
	if ds.DeletionTimestamp != nil {
		return decision{}, nil
	}
	validation := a.policies().Validation()
	if validation.Mode == policy.ValidationOff {
		return decision{}, nil
	}
	var before map[string]int
	if request.Operation == admissionv1.Update {
		before = countFindings(request.OldObject)
	}
	var d decision
	var denied []string
	for _, finding := range lint.Check(ds) {
		key := findingKey(&finding, ds)
		if before[key] > 0 {
			before[key]--
			continue
		}
		if slices.Contains(validation.Ignore, finding.Rule) {
			continue
		}
		if finding.Severity == lint.Error && validation.Mode != policy.ValidationWarn {
			denied = append(denied, finding.String()+". "+finding.Fix)
		} else {
			d.Warnings = append(d.Warnings, finding.String())
		}
	}
	d.Denied = strings.Join(denied, "\n")
	return d, nil
}

// countFindings returns how often a DaemonSet has each finding.
func countFindings(ds *appsv1.DaemonSet) map[string]int {
	counts := make(map[string]int)
	for _, finding := range lint.Check(ds) {
		counts[findingKey(&finding, ds)]++
	}
	return counts
}

// findingKey identifies a finding, whatever its place in the lists of the template:
// containers by their names, other elements by nothing, as a list may be reordered.
func findingKey(f *lint.Finding, ds *appsv1.DaemonSet) string {
	spec := &ds.Spec.Template.Spec
	return listIndex.ReplaceAllStringFunc(f.Rule+" "+f.Field+" "+f.Message, func(element string) string {
		match := listIndex.FindStringSubmatch(element)
		list := map[string][]corev1.Container{"containers": spec.Containers, "initContainers": spec.InitContainers}[match[1]]
		if i, err := strconv.Atoi(match[2]); err == nil && i < len(list) {
			return match[1] + "[" + list[i].Name + "]"
		}
		return match[1] + "[]"
	})
}

var listIndex = regexp.MustCompile(`(\w+)\[(\d+)\]`)
