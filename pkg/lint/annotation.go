// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

// IgnoreAnnotation on a DaemonSet names rules, separated by commas, that are not
// checked for it. Errors cannot be silenced.
const IgnoreAnnotation = annotationPrefix + "lint-ignore"

const (
	// annotationPrefix is what all of our annotations start with.
	annotationPrefix = "everynode.dev/"
	// requiresAnnotation belongs on pods; the scheduler's DaemonSetReadiness reads it.
	requiresAnnotation = annotationPrefix + "requires"
	// resourcesAnnotation sizes pods by their nodes.
	resourcesAnnotation = annotationPrefix + "resources"
)

// onDaemonSet are the annotations that belong on DaemonSets, with what says whether
// a value is right; nil takes any.
var onDaemonSet = map[string]func(value string) error{
	daemonset.HoldAnnotation:       oneOf("true", "false"),
	daemonset.GateAnnotation:       oneOf("true", "false"),
	daemonset.PreemptAnnotation:    oneOf("true", "false"),
	daemonset.SchedulingAnnotation: oneOf(daemonset.SchedulingScheduler, daemonset.SchedulingDirect),
	// SEAM: daemonset.ParseSizes goes here, and a warning for containers that don't exist.
	resourcesAnnotation: nil,
	// The rule ignored-unknown looks at the value.
	IgnoreAnnotation: nil,
}

// onPod are the annotations that belong on pods.
var onPod = map[string]func(value string) error{
	requiresAnnotation: requires,
}

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(values, value) {
			return nil
		}
		return errors.New(`must be "` + strings.Join(values, `" or "`) + `"`)
	}
}

// requires repeats ParseRequires of pkg/plugins/readiness.
func requires(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		namespace, name, ok := strings.Cut(strings.TrimSpace(part), "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			return errors.New("must be the namespace/name of DaemonSets, separated by commas")
		}
	}
	return nil
}

// annotation is one of our annotations and its place in the manifest.
type annotation struct {
	key, value string
	// onPod says whether it is on the pod template, not on the DaemonSet.
	onPod bool
}

func (a annotation) path() *field.Path {
	if a.onPod {
		return field.NewPath("spec", "template", "metadata", "annotations").Key(a.key)
	}
	return field.NewPath("metadata", "annotations").Key(a.key)
}

// ourAnnotations returns those of the DaemonSet, then those of the template, each by
// key.
func ourAnnotations(ds *appsv1.DaemonSet) []annotation {
	var ours []annotation
	for _, onPod := range []bool{false, true} {
		annotations := ds.Annotations
		if onPod {
			annotations = ds.Spec.Template.Annotations
		}
		first := len(ours)
		for key, value := range annotations {
			if strings.HasPrefix(key, annotationPrefix) {
				ours = append(ours, annotation{key, value, onPod})
			}
		}
		slices.SortFunc(ours[first:], func(a, b annotation) int { return strings.Compare(a.key, b.key) })
	}
	return ours
}

var annotationValue = Rule{
	ID:       "annotation-value",
	Severity: Error,
	Title:    "Annotation with a value that means nothing",
	Reason: "everynode's annotations take few values. Where one is misspelt, the DaemonSet is treated as if the annotation were not there, which is the opposite of what was asked for. " +
		"A DaemonSet whose pods wait for the DaemonSet itself never starts.",
	Fix: "Write one of the values that the message names; in YAML, with quotes.",
	Example: `metadata:
  annotations:
    everynode.dev/gate: "true"
    everynode.dev/scheduling: direct`,
	check: checkAnnotationValue,
}

func checkAnnotationValue(m *manifest) {
	for _, a := range m.annotations {
		validate := onDaemonSet[a.key]
		if a.onPod {
			validate = onPod[a.key]
		}
		if validate == nil {
			continue
		}
		if err := validate(a.value); err != nil {
			m.report(a.path(), fmt.Sprintf("%q means nothing: %v", a.value, err))
		} else if a.key == requiresAnnotation && m.names(a.value) {
			m.report(a.path(), "pods wait for their own DaemonSet to be Ready, so none starts")
		}
	}
}

// names says whether the DaemonSet is one of the required ones.
func (m *manifest) names(required string) bool {
	for part := range strings.SplitSeq(required, ",") {
		if namespace, name, _ := strings.Cut(strings.TrimSpace(part), "/"); namespace == m.ds.Namespace && name == m.ds.Name {
			return true
		}
	}
	return false
}

var annotationUnknown = Rule{
	ID:       "annotation-unknown",
	Severity: Warning,
	Title:    "Annotation that does not exist",
	Reason:   "Nobody reads an annotation everynode.dev/... of another name than those in docs/configuration.md. It is probably misspelt.",
	Fix:      "Correct the name or remove the annotation.",
	check: func(m *manifest) {
		for _, a := range m.annotations {
			_, known := onDaemonSet[a.key]
			if _, knownOnPod := onPod[a.key]; !known && !knownOnPod {
				m.report(a.path(), "nobody reads it"+meant(a.key, slices.Concat(slices.Collect(maps.Keys(onDaemonSet)), slices.Collect(maps.Keys(onPod)))))
			}
		}
	},
}

var annotationMisplaced = Rule{
	ID:       "annotation-misplaced",
	Severity: Warning,
	Title:    "Annotation in the wrong place",
	Reason: "Annotations that steer a DaemonSet are read from the DaemonSet's own metadata, and everynode.dev/requires from the pod's. In the other place nobody reads them; " +
		"in the template they also roll out all pods.",
	Fix: "Move it.",
	Example: `metadata:
  annotations:
    everynode.dev/gate: "true"
spec:
  template:
    metadata:
      annotations:
        everynode.dev/requires: kube-system/cilium`,
	check: func(m *manifest) {
		for _, a := range m.annotations {
			_, belongsOnDaemonSet := onDaemonSet[a.key]
			_, belongsOnPod := onPod[a.key]
			switch {
			case a.onPod && belongsOnDaemonSet:
				m.report(a.path(), "nobody reads it on pods: it belongs in the DaemonSet's own metadata.annotations")
			case !a.onPod && belongsOnPod:
				m.report(a.path(), "nobody reads it on a DaemonSet: it belongs in spec.template.metadata.annotations")
			}
		}
	},
}

var ignoredUnknown = Rule{
	ID:       "ignored-unknown",
	Severity: Warning,
	Title:    "Ignored rule that does not exist or is an error",
	Reason:   "The annotation everynode.dev/lint-ignore names rules that are not checked, separated by commas. A name that is none silences nothing, and errors cannot be silenced.",
	Fix:      "Correct the name or remove it.",
	Example: `metadata:
  annotations:
    everynode.dev/lint-ignore: no-priority-class,privileged`,
	check: checkIgnoredUnknown,
}

func checkIgnoredUnknown(m *manifest) {
	for _, id := range m.ignored {
		at := field.NewPath("metadata", "annotations").Key(IgnoreAnnotation)
		switch i := slices.IndexFunc(m.rules, func(rule Rule) bool { return rule.ID == id }); {
		case i < 0:
			var ids []string
			for _, rule := range m.rules {
				ids = append(ids, rule.ID)
			}
			m.report(at, fmt.Sprintf("there is no rule %q", id)+meant(id, ids))
		case m.rules[i].Severity == Error:
			m.report(at, fmt.Sprintf("rule %s is about what can never work, so it cannot be ignored", id))
		}
	}
}

// meant says which of names may be meant by the misspelt one. It is empty if none is
// like it.
func meant(misspelt string, names []string) string {
	// A third of the letters may be wrong, but two always.
	best, distance := "", max(2, len(strings.TrimPrefix(misspelt, annotationPrefix))/3)+1
	slices.Sort(names)
	for _, name := range names {
		if d := editDistance(misspelt, name); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; the nearest name is " + best
}

// editDistance is the number of letters to insert, delete or replace to make b of a
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
