// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkSurgeHostPort(m *manifest) {
	for _, c := range m.running {
		for i := range c.Ports {
			if port := hostPort(m.pod, &c.Ports[i]); port != 0 && m.surges() {
				m.report(field.NewPath("spec", "updateStrategy", "rollingUpdate", "maxSurge"), "an update starts the new pod beside the old one, and both want host port %d for container %s: it never ends", port, c.Name)
				return
			}
		}
	}
}

// hostPort returns the port that a pod of spec opens on its node for port, or 0. The
// API server fills in what is missing on the host network, but in pods only
// (SetDefaults_Pod in k8s.io/kubernetes/pkg/apis/core/v1).
func hostPort(spec *corev1.PodSpec, port *corev1.ContainerPort) int32 {
	if port.HostPort == 0 && spec.HostNetwork {
		return port.ContainerPort
	}
	return port.HostPort
}

// rollingUpdate returns the parameters of rolling updates, or nil. An update is a
// rolling one if the manifest does not say.
func (m *manifest) rollingUpdate() *appsv1.RollingUpdateDaemonSet {
	strategy := &m.ds.Spec.UpdateStrategy
	if strategy.Type != "" && strategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return nil
	}
	return strategy.RollingUpdate
}

// surges says whether an update starts new pods beside old ones (AllowsSurge of
// k8s.io/kubernetes/pkg/controller/daemon/util).
func (m *manifest) surges() bool {
	update := m.rollingUpdate()
	if update == nil || update.MaxSurge == nil {
		return false
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(update.MaxSurge, 1, true)
	return err == nil && surge > 0
}

func checkSurgeAntiAffinity(m *manifest) {
	if !m.surges() || !m.scheduled() {
		return
	}
	for i := range m.antiAffinity() {
		if term := &m.antiAffinity()[i]; m.keepsOwnPodsApart(term) && !withinRevision(term) {
			m.report(antiAffinityPath().Index(i), "an update starts the new pod beside the old one, but this keeps two pods of the DaemonSet off one node: it never ends")
		}
	}
}

// antiAffinity returns the required pod anti-affinity.
func (m *manifest) antiAffinity() []corev1.PodAffinityTerm {
	if m.pod.Affinity == nil || m.pod.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return m.pod.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func antiAffinityPath() *field.Path {
	return podPath().Child("affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
}

// revisionLabels are the labels that the controller sets on every pod itself, over
// those of the template (CreatePodTemplate in
// k8s.io/kubernetes/pkg/controller/daemon/util).
var revisionLabels = []string{appsv1.ControllerRevisionHashLabelKey, "pod-template-generation"}

// keepsOwnPodsApart says whether term is sure to forbid two pods of the DaemonSet
// on one node.
func (m *manifest) keepsOwnPodsApart(term *corev1.PodAffinityTerm) bool {
	if term.TopologyKey != corev1.LabelHostname || len(term.MismatchLabelKeys) > 0 || !m.includesOwnNamespace(term) {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
	return err == nil && selector.Matches(labels.Set(m.ds.Spec.Template.Labels))
}

func (m *manifest) includesOwnNamespace(term *corev1.PodAffinityTerm) bool {
	switch {
	case selectsEverything(term.NamespaceSelector):
		return true
	case len(term.Namespaces) == 0:
		return term.NamespaceSelector == nil
	default:
		// A file need not say which namespace it is for.
		return m.ds.Namespace != "" && slices.Contains(term.Namespaces, m.ds.Namespace)
	}
}

func selectsEverything(selector *metav1.LabelSelector) bool {
	return selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) == 0
}

// withinRevision says whether term tells pods of one revision from those of another.
func withinRevision(term *corev1.PodAffinityTerm) bool {
	return slices.ContainsFunc(revisionLabels, func(label string) bool {
		return slices.Contains(term.MatchLabelKeys, label) ||
			slices.ContainsFunc(term.LabelSelector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == label })
	})
}

func checkSelectorOnRevision(m *manifest) {
	selector := m.ds.Spec.Selector
	if selector == nil {
		return
	}
	report := func(at *field.Path, label string) {
		m.report(at, "the controller sets label %s on pods itself: they don't match, and it creates more of them without end", label)
	}
	for _, label := range revisionLabels {
		if _, ok := selector.MatchLabels[label]; ok {
			report(field.NewPath("spec", "selector", "matchLabels").Key(label), label)
		}
	}
	for i := range selector.MatchExpressions {
		expression := &selector.MatchExpressions[i]
		asks := expression.Operator == metav1.LabelSelectorOpIn || expression.Operator == metav1.LabelSelectorOpDoesNotExist
		if asks && slices.Contains(revisionLabels, expression.Key) {
			report(field.NewPath("spec", "selector", "matchExpressions").Index(i), expression.Key)
		}
	}
}

func checkLooseSelector(m *manifest) {
	selector := m.ds.Spec.Selector
	if selector == nil || len(selector.MatchLabels) > 0 || len(selector.MatchExpressions) == 0 {
		return
	}
	if slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		return r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpExists
	}) {
		return
	}
	m.report(field.NewPath("spec", "selector"), "it only excludes: the controller adopts, and may delete, every other pod of the namespace that has no controller")
}

func checkOnDelete(m *manifest) {
	if m.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		m.report(field.NewPath("spec", "updateStrategy", "type"), "OnDelete rolls nothing out: a change reaches a node only when somebody deletes the pod there")
	}
}

func checkAllUnavailable(m *manifest) {
	update := m.rollingUpdate()
	// How many nodes a number stands for, the manifest does not tell.
	if update == nil || update.MaxUnavailable == nil || update.MaxUnavailable.Type != intstr.String || m.servesPods() {
		return
	}
	if percent, err := intstr.GetScaledValueFromIntOrPercent(update.MaxUnavailable, 100, true); err == nil && percent >= 100 {
		m.report(field.NewPath("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"), "an update ends the pods of all nodes at once, and a broken one leaves no node with its agent")
	}
}

func checkNoGracePeriod(m *manifest) {
	if isSet(m.pod.TerminationGracePeriodSeconds, 0) && !m.runsTheNode() {
		m.report(podPath().Child("terminationGracePeriodSeconds"), "pods are killed and forgotten at once: the next one may start while the process of the old one still runs")
	}
}
