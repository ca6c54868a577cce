// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"slices"
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
	cluster  knowledge
	policies func() *policy.Policies
}

// knowledge is what is known of the cluster. *cluster is the one that is used.
type knowledge interface {
	owner(ctx context.Context, namespace string, pod *corev1.Pod) (*metav1.PartialObjectMetadata, error)
	namespace(name string) *metav1.PartialObjectMetadata
	allocatable(ctx context.Context, node string) corev1.ResourceList
	priorityClass(name string) (exists, isDefault bool)
}

// patience is how long a pod waits for its DaemonSet, and for its node, to be known. The
// controller creates pods milliseconds after either of them, when we may not have
// heard of it. It is short beside the timeout of the webhook configuration (2 s).
const patience = 500 * time.Millisecond

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

// validateDaemonSets handles DaemonSets that are created or updated, after everybody
// has changed them.
func (a *admission) validateDaemonSets() *handler[appsv1.DaemonSet] {
	h := a.mutateDaemonSets()
	h.name, h.decide = "validation", a.validateDaemonSet
	return h
}

func (a *admission) decidePod(ctx context.Context, request *request[pod]) (decision, error) {
	pod := (*corev1.Pod)(request.Object)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	owner, err := a.cluster.owner(ctx, request.Namespace, pod)
	if err != nil {
		return decision{}, &decisionError{reasonOwner, err}
	}
	namespace := a.cluster.namespace(request.Namespace)
	chosen := a.policies().For(request.Namespace, namespace.Labels, owner.Labels)
	f := facts{
		annotations: chosen.Effective(owner.Annotations),
		settings:    &chosen.Pod,
		tolerations: parseWhitelist(namespace.Annotations),
		classes:     a.cluster.priorityClass,
	}
	if _, sized := f.annotations[daemonset.ResourcesAnnotation]; sized {
		if node, ok := daemonset.TargetNode(pod); ok {
			f.allocatable = a.cluster.allocatable(ctx, node)
		}
	}
	return decided(mutatePod(pod, f), chosen), nil
}

func (a *admission) decideDaemonSet(_ context.Context, request *request[appsv1.DaemonSet]) (decision, error) {
	ds := request.Object
	namespace := a.cluster.namespace(request.Namespace)
	chosen := a.policies().For(request.Namespace, namespace.Labels, ds.Labels)
	return decided(mutateDaemonSet(ds, chosen, parseWhitelist(namespace.Annotations), a.cluster.priorityClass), chosen), nil
}

// decided names the policy where something was done.
func decided(m mutation, chosen *policy.Policy) decision {
	if len(m.Patch) > 0 && chosen.Name != "" {
		m.audit("policy", chosen.Name)
	}
	return decision{mutation: m}
}

// validateDaemonSet denies what can never work and warns of what will hurt. Of an
// update it looks at what it brings: a DaemonSet that was wrong before can be changed,
// and nobody is warned again and again.
func (a *admission) validateDaemonSet(_ context.Context, request *request[appsv1.DaemonSet]) (decision, error) {
	ds := request.Object
	if ds.DeletionTimestamp != nil {
		return decision{}, nil
	}
	findings := lint.Check(ds)
	if request.Operation == admissionv1.Update {
		known := lint.Check(request.OldObject)
		findings = slices.DeleteFunc(findings, func(f lint.Finding) bool { return slices.Contains(known, f) })
	}
	var d decision
	var denied []string
	for _, finding := range findings {
		if finding.Severity == lint.Error {
			denied = append(denied, finding.String()+". "+finding.Fix)
		} else {
			d.Warnings = append(d.Warnings, finding.String())
		}
	}
	d.Denied = strings.Join(denied, "\n")
	return d, nil
}
