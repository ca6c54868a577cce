// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// contradiction says why no node can meet term together with the node selector and the
// node name of spec. It is empty if a node can.
func contradiction(term *corev1.NodeSelectorTerm, spec *corev1.PodSpec) string {
	if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
		return "an empty term matches nothing"
	}
	labels, fields := withSelector(term, spec)
	for _, requirement := range term.MatchExpressions {
		if impossible(labels, requirement.Key, true) {
			return "no value of label " + requirement.Key + " meets all that is required of it"
		}
	}
	// A name is a label that every node has.
	if impossible(fields, metav1.ObjectNameField, false) {
		return "no node name meets all that is required of it"
	}
	return ""
}

// withSelector returns the requirements of term, and with them the node selector and the node name of spec.
func withSelector(term *corev1.NodeSelectorTerm, spec *corev1.PodSpec) (labels, fields []corev1.NodeSelectorRequirement) {
	equals := func(key, value string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
	}
	labels, fields = slices.Clone(term.MatchExpressions), slices.Clone(term.MatchFields)
	for key, value := range spec.NodeSelector {
		labels = append(labels, equals(key, value))
	}
	if spec.NodeName != "" {
		fields = append(fields, equals(metav1.ObjectNameField, spec.NodeName))
	}
	return labels, fields
}

// shareNodes says whether a node can meet what both pods require of it.
func shareNodes(a, b *corev1.PodSpec) bool {
	terms := func(spec *corev1.PodSpec) []corev1.NodeSelectorTerm {
		if terms := (&manifest{pod: spec}).nodeTerms(); len(terms) > 0 {
			return terms
		}
		return []corev1.NodeSelectorTerm{{}}
	}
	for _, x := range terms(a) {
		for _, y := range terms(b) {
			labels, fields := withSelector(&y, b)
			both := corev1.NodeSelectorTerm{MatchExpressions: append(labels, x.MatchExpressions...), MatchFields: append(fields, x.MatchFields...)}
			if len(both.MatchExpressions)+len(both.MatchFields) == 0 || contradiction(&both, a) == "" {
				return true
			}
		}
	}
	return false
}

// impossible says whether no label of that key meets requirements. It asks the scheduler's
// code about all labels that requirements can tell apart: no label if that is optional, the
// values that they name, numbers next to those, and a value that they do not name.
func impossible(requirements []corev1.NodeSelectorRequirement, key string, optional bool) bool {
	requirements = slices.DeleteFunc(slices.Clone(requirements), func(r corev1.NodeSelectorRequirement) bool { return r.Key != key })
	if len(requirements) == 0 {
		return false
	}
	selector, err := nodeaffinity.NewNodeSelector(&corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: requirements}}})
	if err != nil {
		// A term that cannot be parsed matches nothing.
		return true
	}
	var named []string
	longest := 0
	for _, requirement := range requirements {
		for _, value := range requirement.Values {
			named, longest = append(named, value), max(longest, len(value))
		}
	}
	values := append(slices.Clone(named), strings.Repeat("x", longest+1))
	for _, value := range named {
		if number, err := strconv.ParseInt(value, 10, 64); err == nil {
			// Leading zeros make another value of the same number.
			values = append(values, fmt.Sprintf("%0*d", longest+1, number-1), fmt.Sprintf("%0*d", longest+1, number+1))
		}
	}
	matches := func(labels map[string]string) bool {
		return selector.Match(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}})
	}
	return (!optional || !matches(nil)) && !slices.ContainsFunc(values, func(value string) bool { return matches(map[string]string{key: value}) })
}
