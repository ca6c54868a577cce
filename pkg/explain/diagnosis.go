// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Diagnosis is all that is wrong with DaemonSets, by cause.
type Diagnosis struct {
	// DaemonSets and Nodes count what was looked at. Desired counts the pods that there should be,
	// and Ready those of them that are Ready.
	DaemonSets int `json:"daemonSets"`
	Nodes      int `json:"nodes"`
	Ready      int `json:"ready"`
	Desired    int `json:"desired"`
	// Problems are sorted: trouble first, then by the number of pods that depend on them.
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
}

// Stuck says whether p stays until a person or a program mends it.
func (p *Problem) Stuck() bool {
	return p.State == StateStuck
}

// Diagnose says what is wrong with daemonSets on nodes.
func (e *Engine) Diagnose(ctx context.Context, daemonSets []*appsv1.DaemonSet, nodes []*corev1.Node) (*Diagnosis, error) {
	d := &Diagnosis{DaemonSets: len(daemonSets), Nodes: len(nodes), Problems: []Problem{}, NotChecked: e.cluster.Unread}
	var troubles []Verdict
	for _, ds := range daemonSets {
		verdicts, err := e.verdicts(ctx, ds, nodes, false)
		if err != nil {
			return nil, err
		}
		known := len(troubles)
		for n := range verdicts {
			v := &verdicts[n]
			if d.count(v) {
				troubles = append(troubles, *v)
			}
		}
		if len(troubles) > known || len(nodes) < len(e.nodes) {
			continue
		}
		// The update may go no further for another reason.
		if rollout := e.rollout(ds, verdicts); rollout != nil && rollout.Stalled {
			name := ds.Namespace + "/" + ds.Name
			d.Problems = append(d.Problems, Problem{
				Title: "update stalled", State: StateStuck, Message: rollout.Message, DaemonSet: name, DaemonSets: []string{name}, Nodes: rollout.Unavailable,
				Next: Command(e.kubectl, "rollout", "status", "daemonset/"+ds.Name, "-n", ds.Namespace, "--watch=false"),
			})
		}
	}
	for _, same := range grouped(troubles, (*Verdict).problemKey) {
		p, err := e.problem(ctx, same)
		if err != nil {
			return nil, err
		}
		d.Problems = append(d.Problems, p)
	}
	slices.SortStableFunc(d.Problems, func(a, b Problem) int {
		return cmp.Or(compareBool(!a.Stuck(), !b.Stuck()), cmp.Compare(b.Gaps, a.Gaps))
	})
	return d, nil
}

// count counts v, and says whether it is trouble.
func (d *Diagnosis) count(v *Verdict) bool {
	if v.Wanted {
		d.Desired++
		if v.Ready {
			d.Ready++
		}
	}
	return v.forgotten() || v.Outcome == StateStuck || v.Outcome == StateWaiting
}

// cause is the inquiry that a verdict comes down to: its own, or that into what the node waits for.
func (v *Verdict) cause() *inquiry {
	return cmp.Or(v.of.root, v.of)
}

// problemKey is the same for verdicts with the same root cause.
func (v *Verdict) problemKey() string {
	root := v.cause()
	key := string(root.v.Outcome) + keyOf(root.v.Causes)
	switch {
	case !root.v.Reason.row().Shared:
		key += string(root.ds.UID)
	case root.v.Step == StepCreation:
		key += root.ds.Namespace
	}
	return key
}

// problem is what verdicts with the same root cause amount to. What takes long is asked for its first node only.
func (e *Engine) problem(ctx context.Context, verdicts []*Verdict) (Problem, error) {
	root := verdicts[0].cause()
	p := Problem{Title: root.v.Reason.Words(), Reason: root.v.Reason, State: root.v.Outcome}
	if root.v.Outcome == StateNone && root.v.forgotten() {
		p.State, p.Title = StateStuck, "start-up taint not taken off"
	}
	if !root.v.Reason.row().Shared {
		p.DaemonSet = root.compiled.String()
	}
	var roots []*Verdict
	seen := sets.New[string]()
	for _, v := range verdicts {
		roots = append(roots, &v.cause().v)
		p.Since = earliest(p.Since, v.cause().v.Since)
		if name := v.of.compiled.String(); !seen.Has(name) {
			seen.Insert(name)
			p.DaemonSets = append(p.DaemonSets, name)
		}
		if !seen.Has(v.Node) {
			seen.Insert(v.Node)
			p.Nodes = append(p.Nodes, v.Node)
		}
		if !v.Ready {
			p.Gaps++
		}
	}
	p.Message = message(merge(roots))
	detailed, err := e.verdict(ctx, root.ds, root.node, true)
	first := newGroup([]*Verdict{&detailed})
	p.Facts, p.Blockers, p.Next, p.Fix = slices.Concat(first.Preemption, first.Facts), first.Blockers, first.Next, first.Fix
	return p, err
}
