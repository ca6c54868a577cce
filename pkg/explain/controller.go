// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// unwanted says why the controller wants no pod on the node, and what becomes of
// those that are there.
func (i *inquiry) unwanted(ctx context.Context, pods []*corev1.Pod, goOn bool) {
	i.whyUnwanted(ctx)
	if len(pods) == 0 {
		return
	}
	i.about(pods[0])
	switch i.v.Since = nil; {
	case goOn:
		i.fact("The pod that is there stays: the taint only keeps new ones out.")
	case pods[0].DeletionTimestamp != nil:
		i.v.Since = deletedAt(pods[0])
		i.fact("The pod that is there is ending" + i.span(" for ", *i.v.Since, "") + ", and counts as unavailable in an update.")
	default:
		i.fact("The controller deletes the pod that is there.")
	}
}

// whyUnwanted says all that keeps the DaemonSet off the node. The order is the
// controller's (nodeShouldRunDaemonPod in k8s.io/kubernetes/pkg/controller/daemon).
func (i *inquiry) whyUnwanted(ctx context.Context) {
	spec := i.template()
	if spec.NodeName != "" && spec.NodeName != i.node.Name {
		i.keepsOff(ReasonNodeName, Args{"want": spec.NodeName})
	}
	if mismatches := selectorMismatches(spec.NodeSelector, i.node); len(mismatches) > 0 {
		i.labels = mismatches
		i.keepsOff(ReasonNodeSelector, mismatchArgs(mismatches))
	}
	if args := affinityMismatch(spec.Affinity, i.node); args != nil {
		i.keepsOff(ReasonNodeAffinity, args)
	}
	if taints := untolerated(i.tolerations, i.node.Spec.Taints); len(taints) > 0 {
		i.keepsOff(ReasonTaint, i.taintArgs(ctx, taints, "the DaemonSet"))
	}
}

// keepsOff adds something that keeps the DaemonSet off the node. The first is the reason.
func (i *inquiry) keepsOff(reason Reason, args Args) {
	if i.v.Reason == "" {
		i.end(reason, args)
		return
	}
	i.v.Causes = append(i.v.Causes, Cause{reason, args})
}

// mismatch is a label that a selector asks for and a node does not have.
type mismatch struct {
	key, want, have string
	has             bool
}

func selectorMismatches(selector map[string]string, node *corev1.Node) []mismatch {
	var mismatches []mismatch
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		if have, has := node.Labels[key]; !has || have != selector[key] {
			mismatches = append(mismatches, mismatch{key: key, want: selector[key], have: have, has: has})
		}
	}
	return mismatches
}

// mismatchArgs are what is wanted, and what the node has instead.
func mismatchArgs(mismatches []mismatch) Args {
	var want, have []string
	for _, m := range mismatches {
		want, have = append(want, m.label()), append(have, haveLabel(m.key, m.have, m.has))
	}
	return Args{"want": strings.Join(want, " and "), "have": strings.Join(have, " and ")}
}

func (m mismatch) label() string {
	return m.key + "=" + m.want
}

func haveLabel(key, value string, has bool) string {
	switch {
	case !has:
		return "no label " + key
	case value == "":
		return key + " without a value"
	default:
		return key + "=" + value
	}
}

// requiredTerms returns the terms of the required node affinity, and whether there is one.
func requiredTerms(affinity *corev1.Affinity) ([]corev1.NodeSelectorTerm, bool) {
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil, false
	}
	return affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, true
}

// affinityMismatch says why the required node affinity does not match, or nil if
// it does. Terms are ORed, the requirements of a term are ANDed.
func affinityMismatch(affinity *corev1.Affinity, node *corev1.Node) Args {
	terms, required := requiredTerms(affinity)
	if !required {
		return nil
	}
	if len(terms) == 0 {
		return Args{"want": "nothing, and so matches no node", "have": "no way to match"}
	}
	var wants, haves []string
	for n := range terms {
		want, have := termMismatch(&terms[n], node)
		if len(want) == 0 {
			return nil
		}
		wants = append(wants, strings.Join(want, " and "))
		for _, label := range have {
			if !slices.Contains(haves, label) {
				haves = append(haves, label)
			}
		}
	}
	return Args{"want": strings.Join(wants, ", or "), "have": strings.Join(haves, " and ")}
}

// termMismatch returns the requirements of a term that the node does not meet, and what
// it has instead.
func termMismatch(term *corev1.NodeSelectorTerm, node *corev1.Node) (want, have []string) {
	if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
		return []string{"nothing (which matches no node)"}, []string{"no way to match"}
	}
	for _, requirement := range term.MatchExpressions {
		if !matches(&corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{requirement}}, node) {
			value, has := node.Labels[requirement.Key]
			want, have = append(want, describeRequirement(&requirement)), append(have, haveLabel(requirement.Key, value, has))
		}
	}
	for _, requirement := range term.MatchFields {
		if !matches(&corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{requirement}}, node) {
			want, have = append(want, "the field "+describeRequirement(&requirement)), append(have, requirement.Key+"="+node.Name)
		}
	}
	return want, have
}

// matches says whether a term matches; one that cannot be parsed doesn't, as in the
// controller and the scheduler.
func matches(term *corev1.NodeSelectorTerm, node *corev1.Node) bool {
	selector := nodeaffinity.NewLazyErrorNodeSelector(&corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{*term}})
	matched, err := selector.Match(node)
	return matched && err == nil
}

func describeRequirement(requirement *corev1.NodeSelectorRequirement) string {
	switch requirement.Operator {
	case corev1.NodeSelectorOpExists:
		return "the label " + requirement.Key
	case corev1.NodeSelectorOpDoesNotExist:
		return "no label " + requirement.Key
	case corev1.NodeSelectorOpIn:
		if len(requirement.Values) == 1 {
			return requirement.Key + "=" + requirement.Values[0]
		}
		return fmt.Sprintf("%s in (%s)", requirement.Key, strings.Join(requirement.Values, ", "))
	case corev1.NodeSelectorOpNotIn:
		return fmt.Sprintf("%s not in (%s)", requirement.Key, strings.Join(requirement.Values, ", "))
	case corev1.NodeSelectorOpGt:
		return requirement.Key + " > " + strings.Join(requirement.Values, ", ")
	case corev1.NodeSelectorOpLt:
		return requirement.Key + " < " + strings.Join(requirement.Values, ", ")
	default:
		return fmt.Sprintf("%s %s %v, an operator that does not exist", requirement.Key, requirement.Operator, requirement.Values)
	}
}

// untolerated returns the taints that keep pods with those tolerations out.
func untolerated(tolerations []corev1.Toleration, taints []corev1.Taint) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(taints), func(taint corev1.Taint) bool {
		return taint.Effect != corev1.TaintEffectNoSchedule && taint.Effect != corev1.TaintEffectNoExecute ||
			corev1helper.TolerationsTolerateTaint(klog.Logger{}, tolerations, &taint, false)
	})
}
