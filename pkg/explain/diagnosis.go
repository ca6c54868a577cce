// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
)

// Diagnosis is all that is wrong with DaemonSets, by cause.
type Diagnosis struct {
	// DaemonSets and Nodes are how many were looked at, Ready is how many of the pods that
	// there should be are Ready, and Desired how many there should be.
	DaemonSets int `json:"daemonSets"`
	Nodes      int `json:"nodes"`
	Ready      int `json:"ready"`
	Desired    int `json:"desired"`
	// Problems are in the order of how much depends on them, trouble first.
	Problems []Problem `json:"problems"`
	// NotChecked says what was left out, a sentence each.
	NotChecked []string `json:"notChecked,omitempty"`
}

// Problem is a cause and all that it keeps from running.
type Problem struct {
	// Title is the cause in a few words.
	Title   string `json:"title"`
	Reason  Reason `json:"reason,omitempty"`
	State   State  `json:"state"`
	Message string `json:"message"`
	// DaemonSet is the one where the cause is, as namespace/name. Many may depend on it.
	DaemonSet string `json:"daemonSet,omitempty"`
	// DaemonSets are those that lack pods for it, and Nodes where.
	DaemonSets []string `json:"daemonSets"`
	Nodes      []string `json:"nodes"`
	// Gaps is how many pods are not Ready for it.
	Gaps int `json:"gaps"`
	// Since is when the oldest gap opened, if the objects tell.
	Since *metav1.Time `json:"since,omitempty"`
	Facts []string     `json:"facts,omitempty"`
	// Blockers are the pods in the way on the first node, by their owner.
	Blockers []BlockerGroup `json:"blockers,omitempty"`
	// Next is the command that shows more, and Fix what mends it, for the first node.
	Next string `json:"next,omitempty"`
	Fix  *Fix   `json:"fix,omitempty"`

	causes [][]Cause
	first  *inquiry
}

// Stuck says whether p stays until a person or a program mends it.
func (p *Problem) Stuck() bool {
	return p.State == StateStuck
}

// Diagnose says what is wrong with daemonSets on nodes.
func (e *Engine) Diagnose(ctx context.Context, daemonSets []*appsv1.DaemonSet, nodes []*corev1.Node) (*Diagnosis, error) {
	d := &Diagnosis{DaemonSets: len(daemonSets), Nodes: len(nodes), Problems: []Problem{}, NotChecked: e.cluster.Unread}
	byKey := make(map[string]*Problem)
	var problems []*Problem
	for _, ds := range daemonSets {
		verdicts := make([]Verdict, 0, len(nodes))
		for _, node := range nodes {
			i, err := e.inquire(ctx, e.subjects[ds.UID], node, false)
			if err != nil {
				return nil, err
			}
			verdicts = append(verdicts, i.v)
			d.count(&i.v)
			if !i.isProblem() {
				continue
			}
			key := i.problemKey()
			if byKey[key] == nil {
				byKey[key] = &Problem{first: i}
				problems = append(problems, byKey[key])
			}
			byKey[key].add(i)
		}
		if stalled := e.stalled(ds, verdicts, problems); stalled != nil && len(nodes) == len(e.nodes) {
			problems = append(problems, stalled)
		}
	}
	for _, p := range problems {
		if err := e.finish(ctx, p); err != nil {
			return nil, err
		}
		d.Problems = append(d.Problems, *p)
	}
	slices.SortStableFunc(d.Problems, func(a, b Problem) int {
		return cmp.Or(compareBool(!a.Stuck(), !b.Stuck()), cmp.Compare(b.Gaps, a.Gaps))
	})
	return d, nil
}

func (d *Diagnosis) count(v *Verdict) {
	if !v.Wanted {
		return
	}
	d.Desired++
	if v.Ready {
		d.Ready++
	}
}

func (i *inquiry) isProblem() bool {
	return i.v.startup || i.v.Outcome == StateStuck || i.v.Outcome == StateWaiting
}

// rootCause is the verdict that i comes down to: its own, or that on what it waits for.
func (i *inquiry) rootCause() *inquiry {
	for i.clues.root != nil {
		i = i.clues.root
	}
	return i
}

// problemKey is the same for verdicts with the same root cause.
func (i *inquiry) problemKey() string {
	root := i.rootCause()
	key := string(root.v.Outcome) + keyOf(root.v.Causes)
	switch {
	case !root.v.Reason.row().Shared:
		key += string(root.ds.UID)
	case root.v.Step == StepCreation:
		key += root.ds.Namespace
	}
	return key
}

func (p *Problem) add(i *inquiry) {
	name := i.compiled.String()
	if !slices.Contains(p.DaemonSets, name) {
		p.DaemonSets = append(p.DaemonSets, name)
	}
	if !slices.Contains(p.Nodes, i.node.Name) {
		p.Nodes = append(p.Nodes, i.node.Name)
	}
	if !i.v.Ready {
		p.Gaps++
	}
	root := i.rootCause()
	p.causes = append(p.causes, root.v.Causes)
	if since := root.v.Since; since != nil && (p.Since == nil || since.Before(p.Since)) {
		p.Since = since
	}
}

// stalled is an update that goes no further for another reason than those in problems.
func (e *Engine) stalled(ds *appsv1.DaemonSet, verdicts []Verdict, problems []*Problem) *Problem {
	name := e.subjects[ds.UID].compiled.String()
	known := slices.ContainsFunc(problems, func(p *Problem) bool { return slices.Contains(p.DaemonSets, name) })
	rollout := e.rollout(ds, verdicts)
	if known || rollout == nil || !rollout.Stalled {
		return nil
	}
	return &Problem{
		Title: "update stalled", State: StateStuck, Message: rollout.Message, DaemonSet: name, DaemonSets: []string{name}, Nodes: rollout.Unavailable,
		Next: e.commands.of("rollout", "status", "daemonset/"+ds.Name, "-n", ds.Namespace, "--watch=false"),
	}
}

// finish says all of a problem. What takes long is asked for its first node only.
func (e *Engine) finish(ctx context.Context, p *Problem) error {
	if p.first == nil {
		return nil
	}
	root := p.first.rootCause()
	i, err := e.inquire(ctx, root.subject, root.node, true)
	if err != nil {
		return err
	}
	p.Reason, p.Title, p.Message = root.v.Reason, root.v.Reason.Words(), message(merge(p.causes))
	p.State = root.v.Outcome
	if root.v.startup && root.v.Outcome == StateNone {
		p.State, p.Title = StateStuck, "start-up taint not taken off"
	}
	if !root.v.Reason.row().Shared {
		p.DaemonSet = root.compiled.String()
	}
	first := &groups([]Verdict{i.v})[0]
	p.Facts, p.Blockers, p.Next, p.Fix = slices.Concat(first.Preemption, first.Facts), first.Blockers, first.Next, first.Fix
	return nil
}

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
		v, err := e.Glance(ctx, ds, node)
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
	for n := range node.Status.Conditions {
		condition := &node.Status.Conditions[n]
		if (condition.Type == corev1.NodeReady) == (condition.Status == corev1.ConditionTrue) {
			continue
		}
		if condition.Type == corev1.NodeReady || condition.Status == corev1.ConditionTrue {
			facts = append(facts, fmt.Sprintf("%s is %s for %s: %s.", condition.Type, condition.Status, e.age(condition.LastTransitionTime), strings.TrimSuffix(condition.Message, ".")))
		}
	}
	for n := range node.Spec.Taints {
		taint := &node.Spec.Taints[n]
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
