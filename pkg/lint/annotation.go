// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"errors"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

// IgnoreAnnotation on a DaemonSet names rules, separated by commas, that are not
// checked for it. Errors cannot be silenced.
const IgnoreAnnotation = daemonset.AnnotationPrefix + "lint-ignore"

// requiresAnnotation belongs on pods; the scheduler's DaemonSetReadiness reads it.
const requiresAnnotation = daemonset.AnnotationPrefix + "requires"

// belongsOnDaemonSet says whether DaemonSets have an annotation of that name.
func belongsOnDaemonSet(key string) bool {
	return key == IgnoreAnnotation || !errors.Is(daemonset.ValidateAnnotation(key, ""), daemonset.ErrUnknownAnnotation)
}

// annotationNames are the names that a misspelt one is compared with.
var annotationNames = []string{
	daemonset.SchedulingAnnotation, daemonset.HoldAnnotation, daemonset.GateAnnotation, daemonset.PreemptAnnotation,
	daemonset.ResourcesAnnotation, IgnoreAnnotation, requiresAnnotation,
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
	for n, annotations := range []map[string]string{ds.Annotations, ds.Spec.Template.Annotations} {
		for _, key := range slices.Sorted(maps.Keys(annotations)) {
			if strings.HasPrefix(key, daemonset.AnnotationPrefix) {
				ours = append(ours, annotation{key, annotations[key], n == 1})
			}
		}
	}
	return ours
}

func checkAnnotationValue(m *manifest) {
	for _, a := range m.annotations {
		switch {
		case a.onPod && a.key == requiresAnnotation:
			m.checkRequires(a)
		case !a.onPod && a.key != IgnoreAnnotation:
			err := daemonset.ValidateAnnotation(a.key, a.value)
			if err != nil && !errors.Is(err, daemonset.ErrUnknownAnnotation) {
				// JSON may have several lines, a finding has one.
				m.report(a.path(), "it has no effect: %s", strings.Join(strings.Fields(err.Error()), " "))
			}
		}
	}
}

// checkRequires reads a.value as ParseRequires of pkg/plugins/readiness does.
func (m *manifest) checkRequires(a annotation) {
	for part := range strings.SplitSeq(a.value, ",") {
		namespace, name, ok := strings.Cut(strings.TrimSpace(part), "/")
		switch {
		case !ok || namespace == "" || name == "" || strings.Contains(name, "/"):
			m.report(a.path(), "no pod starts: %q is not the namespace/name of a DaemonSet", part)
			return
		case namespace == m.ds.Namespace && name == m.ds.Name:
			m.report(a.path(), "no pod starts: they wait for their own DaemonSet to be Ready")
			return
		}
	}
}

func checkAnnotationUnknown(m *manifest) {
	for _, a := range m.annotations {
		if !belongsOnDaemonSet(a.key) && a.key != requiresAnnotation {
			m.report(a.path(), "nobody reads it%s", meant(a.key, annotationNames))
		}
	}
}

func checkAnnotationMisplaced(m *manifest) {
	for _, a := range m.annotations {
		switch {
		case a.onPod && belongsOnDaemonSet(a.key):
			m.report(a.path(), "nobody reads it on pods: it belongs in the DaemonSet's own metadata.annotations")
		case !a.onPod && a.key == requiresAnnotation:
			m.report(a.path(), "nobody reads it on a DaemonSet: it belongs in spec.template.metadata.annotations")
		}
	}
}

func checkSizeWithoutEffect(m *manifest) {
	if len(m.sizes) == 0 {
		return
	}
	at := annotation{key: daemonset.ResourcesAnnotation}.path()
	if m.pod.Resources != nil {
		m.report(at, "no container is sized, because the pod as a whole has resources")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.sizes)) {
		if !slices.ContainsFunc(m.containers(), func(c container) bool { return c.Name == name }) {
			m.report(at, "it sizes container %q, which there is none of", name)
		}
	}
}

func checkIgnoredUnknown(m *manifest) {
	var ids []string
	for _, rule := range m.rules {
		ids = append(ids, rule.ID)
	}
	for _, id := range m.ignored {
		at := annotation{key: IgnoreAnnotation}.path()
		if n := slices.Index(ids, id); n < 0 {
			m.report(at, "there is no rule %q%s", id, meant(id, ids))
		} else if m.rules[n].Severity == Error {
			m.report(at, "rule %s is about what can never work, so it cannot be ignored", id)
		}
	}
}

// meant names the nearest of names to a misspelt one. It is empty if none is near.
func meant(misspelt string, names []string) string {
	// Up to a third of the letters may be wrong, and always two.
	best := nearest(misspelt, names, max(2, len(strings.TrimPrefix(misspelt, daemonset.AnnotationPrefix))/3))
	if best == "" {
		return ""
	}
	return "; the nearest name is " + best
}

// nearest returns the first of those names that are the nearest to name, "" if none is within most letters of it.
func nearest(name string, names []string, most int) string {
	best, distance := "", most+1
	for _, other := range names {
		if d := editDistance(name, other); d < distance {
			best, distance = other, d
		}
	}
	return best
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
