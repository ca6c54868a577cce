// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"math"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// contradiction says why no node can meet term together with the node selector and
// the node name of spec. It is empty if a node can.
func contradiction(term *corev1.NodeSelectorTerm, spec *corev1.PodSpec) string {
	if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
		return "an empty term matches nothing"
	}
	if why := contradictoryLabel(term.MatchExpressions, spec.NodeSelector); why != "" {
		return why
	}
	name := anyValue()
	if spec.NodeName != "" {
		name.require(corev1.NodeSelectorOpIn, []string{spec.NodeName})
	}
	for i := range term.MatchFields {
		if requirement := &term.MatchFields[i]; requirement.Key == metav1.ObjectNameField {
			name.require(requirement.Operator, requirement.Values)
		}
	}
	if name.none() {
		return "no node name meets all that is required of it"
	}
	return ""
}

// contradictoryLabel returns a complaint about the first label that no node can have.
func contradictoryLabel(requirements []corev1.NodeSelectorRequirement, selector map[string]string) string {
	for i := range requirements {
		key := requirements[i].Key
		if slices.ContainsFunc(requirements[:i], func(earlier corev1.NodeSelectorRequirement) bool { return earlier.Key == key }) {
			continue
		}
		label := anyValue()
		if value, ok := selector[key]; ok {
			label.require(corev1.NodeSelectorOpIn, []string{value})
		}
		for j := range requirements[i:] {
			if requirement := &requirements[i+j]; requirement.Key == key {
				label.require(requirement.Operator, requirement.Values)
			}
		}
		if label.none() {
			return "no value of label " + key + " meets all that is required of it"
		}
	}
	return ""
}

// values is what requirements leave of the values that a label can have.
type values struct {
	// absent and present say whether a node without, and with, the label can match.
	absent, present bool
	// among are the values that are left if limited.
	among   sets.Set[string]
	limited bool
	// but are the values that are excluded.
	but sets.Set[string]
	// low and high are the limits of a number, both inclusive, if numeric.
	low, high int64
	numeric   bool
}

func anyValue() *values {
	return &values{absent: true, present: true, but: sets.Set[string]{}, low: math.MinInt64, high: math.MaxInt64}
}

// require takes away what does not meet a requirement, by the rules of
// labels.Requirement in k8s.io/apimachinery.
func (v *values) require(operator corev1.NodeSelectorOperator, list []string) {
	if operator != corev1.NodeSelectorOpNotIn && operator != corev1.NodeSelectorOpDoesNotExist {
		v.absent = false
	}
	switch operator {
	case corev1.NodeSelectorOpIn:
		if v.limited {
			v.among = v.among.Intersection(sets.New(list...))
		} else {
			v.among, v.limited = sets.New(list...), true
		}
	case corev1.NodeSelectorOpNotIn:
		v.but.Insert(list...)
	case corev1.NodeSelectorOpExists:
	case corev1.NodeSelectorOpDoesNotExist:
		v.present = false
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		v.compare(operator, list)
	}
}

func (v *values) compare(operator corev1.NodeSelectorOperator, list []string) {
	var number int64
	err := strconv.ErrSyntax
	if len(list) == 1 {
		number, err = strconv.ParseInt(list[0], 10, 64)
	}
	v.numeric = true
	switch {
	case err != nil:
		// A term that cannot be parsed matches nothing.
		v.present = false
	case operator == corev1.NodeSelectorOpGt && number < math.MaxInt64:
		v.low = max(v.low, number+1)
	case operator == corev1.NodeSelectorOpLt && number > math.MinInt64:
		v.high = min(v.high, number-1)
	default:
		v.present = false
	}
}

// none says whether nothing is left.
func (v *values) none() bool {
	switch {
	case v.absent:
		return false
	case !v.present:
		return true
	case v.limited:
		return !slices.ContainsFunc(v.among.UnsortedList(), v.has)
	default:
		// Whatever is excluded, there is another value, and another way to write a number: 7, 07, 007.
		return v.low > v.high
	}
}

func (v *values) has(value string) bool {
	if v.but.Has(value) {
		return false
	}
	if !v.numeric {
		return true
	}
	number, err := strconv.ParseInt(value, 10, 64)
	return err == nil && v.low <= number && number <= v.high
}
