// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

// Severity says how bad a finding is.
type Severity string

const (
	// Error is for what can never work and for values that mean nothing.
	Error Severity = "error"
	// Warning is for what works, and hurts one day.
	Warning Severity = "warning"
	// Info is for what every pod should have, and what many do without.
	Info Severity = "info"
)

// Severities returns all severities, the worst first.
func Severities() []Severity {
	return []Severity{Error, Warning, Info}
}

// AtLeast says whether s is as bad as other, or worse.
func (s Severity) AtLeast(other Severity) bool {
	return slices.Index(Severities(), s) <= slices.Index(Severities(), other)
}

// Finding is one thing that is wrong. Findings can be compared with ==.
type Finding struct {
	// Rule is the ID of the [Rule].
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	// Field is the full path of the field that is wrong or missing, as the API
	// server writes it: spec.template.spec.containers[0].image.
	Field string `json:"field"`
	// Message says what is wrong and why it hurts. It is one clause, without a
	// capital letter and without a full stop, as in the API server's warnings.
	Message string `json:"message"`
	// Fix says what to write instead, in sentences.
	Fix string `json:"fix"`
	// Line is where the field is in its file, from 1, or what is there of it; 0 if that is
	// not known.
	Line int `json:"line,omitempty"`
}

// String returns the finding without its fix, on one line.
func (f Finding) String() string {
	return f.Field + ": " + f.Message + " (" + f.Rule + ")"
}

// Check returns what is wrong with ds: errors first, then warnings, each in the
// order of [Rules] and, within a rule, of the manifest. The result is never nil.
// Claims among objects, which come with ds, say whether many nodes can have their volume.
func Check(ds *appsv1.DaemonSet, objects ...runtime.Object) []Finding {
	m := newManifest(ds)
	m.objects = objects
	for i := range m.rules {
		m.rule = &m.rules[i]
		if m.rule.check != nil && (m.rule.Severity == Error || !slices.Contains(m.ignored, m.rule.ID)) {
			m.rule.check(m)
		}
	}
	return m.findings
}

func newManifest(ds *appsv1.DaemonSet) *manifest {
	m := &manifest{
		ds: ds, pod: &ds.Spec.Template.Spec, annotations: ourAnnotations(ds),
		rules: rules(), ignored: ignoredRules(ds), findings: []Finding{},
	}
	// What cannot be parsed is a finding of its own.
	m.sizes, _ = daemonset.ParseSizes(ds.Annotations[daemonset.ResourcesAnnotation])
	for i := range m.pod.InitContainers {
		container := container{&m.pod.InitContainers[i], "initContainers", i}
		if isSet(container.RestartPolicy, corev1.ContainerRestartPolicyAlways) {
			m.running = append(m.running, container)
		} else {
			m.starting = append(m.starting, container)
		}
	}
	for i := range m.pod.Containers {
		m.running = append(m.running, container{&m.pod.Containers[i], "containers", i})
	}
	return m
}

// manifest is a DaemonSet while it is being checked.
type manifest struct {
	ds  *appsv1.DaemonSet
	pod *corev1.PodSpec
	// objects come with the DaemonSet.
	objects []runtime.Object
	// running are the containers and sidecars, which run for as long as the pod;
	// starting are the init containers that end before them.
	running, starting []container
	annotations       []annotation
	// sizes are those of containers that are sized after their nodes.
	sizes daemonset.Sizes
	// ignored are the rules that the DaemonSet asks to be silent.
	ignored []string

	rules []Rule
	// rule is the one that is being checked.
	rule     *Rule
	findings []Finding
}

// containers are all of them, in the order in which they start.
func (m *manifest) containers() []container {
	return slices.Concat(m.starting, m.running)
}

// isSet says whether an optional field has that value.
func isSet[T comparable](field *T, value T) bool {
	return field != nil && *field == value
}

// report adds a finding of the current rule.
func (m *manifest) report(at *field.Path, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	m.findings = append(m.findings, Finding{
		Rule: m.rule.ID, Severity: m.rule.Severity, Field: at.String(), Message: message, Fix: m.rule.Fix,
	})
}

// container is a container and its place in the manifest.
type container struct {
	*corev1.Container
	list  string
	index int
}

func (c container) path() *field.Path {
	return podPath().Child(c.list).Index(c.index)
}

func podPath() *field.Path {
	return field.NewPath("spec", "template", "spec")
}

// ignoredRules returns what [IgnoreAnnotation] names.
func ignoredRules(ds *appsv1.DaemonSet) []string {
	return strings.FieldsFunc(ds.Annotations[IgnoreAnnotation], func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}
