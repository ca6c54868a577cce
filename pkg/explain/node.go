// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
)

// NodeExplanation is how all DaemonSets fare on a node.
type NodeExplanation struct {
	Node string `json:"node"`
	// Facts are sentences about the node.
	Facts []string `json:"facts,omitempty"`
	// DaemonSets are those that belong on the node, or have a pod there.
	DaemonSets []OnNode `json:"daemonSets"`
	// Diagnosis is what is wrong with them there.
	Diagnosis *Diagnosis `json:"diagnosis"`
}

// OnNode is how a DaemonSet fares on a node.
type OnNode struct {
	DaemonSet string       `json:"daemonSet"`
	State     State        `json:"state"`
	Reason    Reason       `json:"reason"`
	Message   string       `json:"message"`
	Since     *metav1.Time `json:"since,omitempty"`
}

// ExplainNode says how all DaemonSets fare on node.
func (e *Engine) ExplainNode(ctx context.Context, node *corev1.Node) (*NodeExplanation, error) {
	x := &NodeExplanation{Node: node.Name, Facts: e.nodeFacts(node), DaemonSets: []OnNode{}}
	for _, ds := range e.DaemonSets() {
		v, err := e.verdict(ctx, ds, node, false)
		if err != nil {
			return nil, err
		}
		if v.Wanted || v.Pod != nil {
			x.DaemonSets = append(x.DaemonSets, OnNode{ds.Namespace + "/" + ds.Name, v.Outcome, v.Reason, v.Message, v.Since})
		}
	}
	var err error
	x.Diagnosis, err = e.Diagnose(ctx, e.DaemonSets(), []*corev1.Node{node})
	return x, err
}

func (e *Engine) nodeFacts(node *corev1.Node) []string {
	var facts []string
	for _, condition := range node.Status.Conditions {
		if (condition.Type == corev1.NodeReady) == (condition.Status == corev1.ConditionTrue) {
			continue
		}
		if condition.Type == corev1.NodeReady || condition.Status == corev1.ConditionTrue {
			facts = append(facts, fmt.Sprintf("%s is %s%s: %s.", condition.Type, condition.Status, e.span(" for ", condition.LastTransitionTime, ""), strings.TrimSuffix(condition.Message, ".")))
		}
	}
	for _, taint := range node.Spec.Taints {
		fact := "Taint " + taint.ToString() + "."
		if kind := taintKindOf(taint.Key); kind != nil && kind.note != "" {
			fact += " " + kind.note
		}
		facts = append(facts, fact)
	}
	taken := daemonset.Resources{}
	for _, takes := range e.present(node.Name) {
		taken = taken.Plus(takes)
	}
	allocatable := daemonset.NewResources(node.Status.Allocatable)
	facts = append(facts, "Of "+cmp.Or(describeResources(allocatable), "nothing")+" is free: "+cmp.Or(describeResources(allocatable.Minus(taken)), "nothing")+".")
	if held := e.view(node, e.set.Expected(node, daemonset.DefaultStartupTaints())).Held; e.everynode && len(held) > 0 {
		facts = append(facts, fmt.Sprintf("everynode-scheduler holds %s of it for %s.", describeResources(held[len(held)-1].Total), Count(len(held), "DaemonSet")))
	}
	return facts
}
