// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
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
func (i *inquiry) unwanted(pods []*corev1.Pod, goOn bool) {
	i.whyUnwanted()
	if len(pods) == 0 {
		return
	}
	i.about(pods[0])
	i.v.Since = nil
	if goOn {
		i.v.Message += " The pod that is there stays: the taint only keeps new ones out."
	} else {
		i.v.Message += " The controller deletes the pod that is there."
	}
}

// whyUnwanted says all that keeps the DaemonSet off the node. The order is the
// controller's (nodeShouldRunDaemonPod in k8s.io/kubernetes/pkg/controller/daemon).
func (i *inquiry) whyUnwanted() {
	spec := i.template()
	if spec.NodeName != "" && spec.NodeName != i.node.Name {
		i.keepsOff(ReasonNodeName, fmt.Sprintf("The template's nodeName is %s.", spec.NodeName))
	}
	if mismatches := selectorMismatches(spec.NodeSelector, i.node); len(mismatches) > 0 {
		i.cause.labels = mismatches
		i.keepsOff(ReasonNodeSelector, "nodeSelector: "+describeMismatches(mismatches)+".")
	}
	if message := affinityMismatch(spec.Affinity, i.node); message != "" {
		i.keepsOff(ReasonNodeAffinity, "Node affinity: "+message+".")
	}
	if taints := untolerated(i.tolerations, i.node.Spec.Taints); len(taints) > 0 {
		i.cause.taints = taints
		i.keepsOff(ReasonTaint, describeTaints(taints, "the DaemonSet")+taintHint(taints))
	}
}

// keepsOff adds something that keeps the DaemonSet off the node. The first is the reason.
func (i *inquiry) keepsOff(reason Reason, message string) {
	if i.v.Reason == "" {
		i.end(StepController, reason, message)
		return
	}
	i.v.Message += " Besides: " + message
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

func describeMismatches(mismatches []mismatch) string {
	sentences := make([]string, len(mismatches))
	for n, m := range mismatches {
		sentences[n] = fmt.Sprintf("wants %s, the node has %s", m.label(), haveLabel(m.key, m.have, m.has))
	}
	return strings.Join(sentences, "; ")
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

// affinityMismatch says why the required node affinity does not match, or nothing if
// it does. Terms are ORed, the requirements of a term are ANDed.
func affinityMismatch(affinity *corev1.Affinity, node *corev1.Node) string {
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) == 0 {
		return "it has no term, and so matches no node"
	}
	reasons := make([]string, len(terms))
	for n := range terms {
		reasons[n] = termMismatch(&terms[n], node)
		if reasons[n] == "" {
			return ""
		}
	}
	if len(reasons) == 1 {
		return reasons[0]
	}
	for n := range reasons {
		reasons[n] = fmt.Sprintf("term %d %s", n+1, reasons[n])
	}
	return "none of its terms matches: " + strings.Join(reasons, "; ")
}

func termMismatch(term *corev1.NodeSelectorTerm, node *corev1.Node) string {
	if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
		return "asks for nothing, and so matches no node"
	}
	var failed []string
	for _, requirement := range term.MatchExpressions {
		if !matches(&corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{requirement}}, node) {
			have, has := node.Labels[requirement.Key]
			failed = append(failed, fmt.Sprintf("wants %s, the node has %s", describeRequirement(&requirement), haveLabel(requirement.Key, have, has)))
		}
	}
	for _, requirement := range term.MatchFields {
		if !matches(&corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{requirement}}, node) {
			failed = append(failed, "wants the field "+describeRequirement(&requirement))
		}
	}
	return strings.Join(failed, " and ")
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
	var keepOut []corev1.Taint
	for i := range taints {
		taint := &taints[i]
		if (taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute) &&
			!corev1helper.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, false) {
			keepOut = append(keepOut, *taint)
		}
	}
	return keepOut
}

func describeTaints(taints []corev1.Taint, who string) string {
	texts := make([]string, len(taints))
	for n := range taints {
		texts[n] = taints[n].ToString()
	}
	plural := ""
	if len(taints) > 1 {
		plural = "s"
	}
	return fmt.Sprintf("The node has the taint%s %s, which %s does not tolerate.", plural, strings.Join(texts, " and "), who)
}

// taintHint says what a well-known taint means.
func taintHint(taints []corev1.Taint) string {
	for n := range taints {
		switch taints[n].Key {
		case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeNetworkUnavailable:
			return " It goes when the node is Ready."
		}
	}
	return ""
}
