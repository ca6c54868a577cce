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
)

// Explanation is all that is to be said of one DaemonSet.
type Explanation struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Status is nil if not all nodes were looked at.
	Status *Status `json:"status,omitempty"`
	// Rollout is nil if no update is under way.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Groups are the nodes with the same verdict, trouble first.
	Groups []Group `json:"groups"`
	// Verdicts are those of each node.
	Verdicts []Verdict `json:"verdicts"`
	// NotChecked says what was left out, a sentence each.
	NotChecked []string `json:"notChecked,omitempty"`
}

// Group is the nodes with the same verdict.
type Group struct {
	Step    Step     `json:"step"`
	Reason  Reason   `json:"reason"`
	Message string   `json:"message"`
	Wanted  bool     `json:"wanted"`
	Ready   bool     `json:"ready"`
	Nodes   []string `json:"nodes"`
	// Since is when the oldest gap among them opened, if the objects tell.
	Since *metav1.Time `json:"since,omitempty"`
	// Shortages span those of all its nodes.
	Shortages []ShortageRange `json:"shortages,omitempty"`
	// Blockers are those of all its nodes by their owner.
	Blockers []BlockerGroup `json:"blockers,omitempty"`
	// Preemption are sentences about what schedulers do to make room.
	Preemption []string `json:"preemption,omitempty"`
	// Facts are those of the first node, and FactsDiffer says whether the others have other ones.
	Facts       []string `json:"facts,omitempty"`
	FactsDiffer bool     `json:"factsDiffer,omitempty"`
	// Admission is how the pods differ from their template.
	Admission []string `json:"admission,omitempty"`
	// Next is the command to run next, for the first node.
	Next string `json:"next,omitempty"`
}

// ShortageRange is a shortage on several nodes.
type ShortageRange struct {
	Resource       string `json:"resource"`
	Needs          int64  `json:"needs"`
	LeastFree      int64  `json:"leastFree"`
	MostFree       int64  `json:"mostFree"`
	MinAllocatable int64  `json:"minAllocatable"`
	MaxAllocatable int64  `json:"maxAllocatable"`
}

// BlockerGroup is the blockers of one owner.
type BlockerGroup struct {
	Namespace string `json:"namespace"`
	// Owner is what controls the pods, as Kind name; or Pod name of one without owner.
	Owner    string `json:"owner"`
	Pods     int    `json:"pods"`
	Takes    string `json:"takes"`
	Priority int32  `json:"priority"`
	// Spared is why they are not evicted.
	Spared string `json:"spared,omitempty"`

	amounts map[string]int64
}

// Text writes the owner with its namespace.
func (b *BlockerGroup) Text() string {
	return ownerText(b.Namespace, b.Owner)
}

// Explain says why ds has or has not a Ready pod on each of nodes.
func (e *Engine) Explain(ctx context.Context, ds *appsv1.DaemonSet, nodes []*corev1.Node) (*Explanation, error) {
	x := &Explanation{Namespace: ds.Namespace, Name: ds.Name, Verdicts: make([]Verdict, 0, len(nodes)), NotChecked: e.notChecked(ds)}
	for _, node := range nodes {
		verdict, err := e.Verdict(ctx, ds, node)
		if err != nil {
			return nil, err
		}
		x.Verdicts = append(x.Verdicts, verdict)
	}
	x.Groups = groups(x.Verdicts)
	if len(nodes) == len(e.nodes) {
		status := e.status(ds, x.Verdicts)
		x.Status = &status
		x.Rollout = e.rollout(ds, x.Verdicts)
	}
	return x, nil
}

// notChecked says what can keep a pod of ds from running and was not looked at.
func (e *Engine) notChecked(ds *appsv1.DaemonSet) []string {
	unchecked := slices.Clone(e.cluster.Unread)
	if len(ds.Spec.Template.Spec.ResourceClaims) > 0 {
		unchecked = append(unchecked, "devices that the pods claim (Dynamic Resource Allocation).")
	}
	return append(unchecked, "scheduler extenders and scheduler plugins of other people.")
}

// groups puts nodes with the same verdict together.
func groups(verdicts []Verdict) []Group {
	type key struct {
		step                           Step
		reason                         Reason
		message, preemption, admission string
		ready                          bool
	}
	index := make(map[key]int)
	var groups []Group
	for n := range verdicts {
		v := &verdicts[n]
		k := key{v.Step, v.Reason, v.Message, v.Preemption.kind(), strings.Join(v.Admission, "\n"), v.Ready}
		g, ok := index[k]
		if !ok {
			g = len(groups)
			index[k] = g
			groups = append(groups, Group{
				Step: v.Step, Reason: v.Reason, Message: v.Message, Wanted: v.Wanted, Ready: v.Ready,
				Facts: v.Facts, Admission: v.Admission, Next: v.Next,
			})
		}
		groups[g].add(v)
	}
	for n := range groups {
		groups[n].sum(verdicts)
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(len(b.Nodes), len(a.Nodes)))
	})
	return groups
}

// rank puts trouble first, and nodes where all is well last.
func (g *Group) rank() int {
	switch {
	case g.Reason == ReasonReady:
		return 4
	case !g.Wanted:
		return 3
	case g.Step == StepReady:
		return 2
	case g.Ready:
		return 1
	default:
		return 0
	}
}

func (g *Group) add(v *Verdict) {
	g.Nodes = append(g.Nodes, v.Node)
	g.FactsDiffer = g.FactsDiffer || !slices.Equal(g.Facts, v.Facts)
	if v.Since != nil && (g.Since == nil || v.Since.Before(g.Since)) {
		g.Since = v.Since
	}
	for _, shortage := range v.Shortages {
		g.addShortage(shortage)
	}
	for n := range v.Blockers {
		g.addBlocker(&v.Blockers[n])
	}
}

func (g *Group) addShortage(s Shortage) {
	n := slices.IndexFunc(g.Shortages, func(r ShortageRange) bool { return r.Resource == s.Resource })
	if n < 0 {
		g.Shortages = append(g.Shortages, ShortageRange{
			Resource: s.Resource, Needs: s.Needs,
			LeastFree: s.Free, MostFree: s.Free, MinAllocatable: s.Allocatable, MaxAllocatable: s.Allocatable,
		})
		return
	}
	r := &g.Shortages[n]
	r.Needs = max(r.Needs, s.Needs)
	r.LeastFree, r.MostFree = min(r.LeastFree, s.Free), max(r.MostFree, s.Free)
	r.MinAllocatable, r.MaxAllocatable = min(r.MinAllocatable, s.Allocatable), max(r.MaxAllocatable, s.Allocatable)
}

func (g *Group) addBlocker(b *Blocker) {
	owner := cmp.Or(b.Owner, "Pod "+b.Name)
	n := slices.IndexFunc(g.Blockers, func(other BlockerGroup) bool {
		return other.Owner == owner && other.Namespace == b.Namespace && other.Priority == b.Priority && other.Spared == b.Spared
	})
	if n < 0 {
		g.Blockers = append(g.Blockers, BlockerGroup{
			Namespace: b.Namespace, Owner: owner, Priority: b.Priority, Spared: b.Spared, Takes: b.Takes, amounts: make(map[string]int64),
		})
		n = len(g.Blockers) - 1
	}
	g.Blockers[n].Pods++
	for resource, amount := range b.amounts {
		g.Blockers[n].amounts[resource] += amount
	}
}

// sum finishes a group when all its nodes are in it.
func (g *Group) sum(verdicts []Verdict) {
	for n := range g.Blockers {
		b := &g.Blockers[n]
		if len(b.amounts) == 0 {
			continue
		}
		var takes []string
		for _, shortage := range g.Shortages {
			if amount := b.amounts[shortage.Resource]; amount > 0 {
				takes = append(takes, FormatAmount(shortage.Resource, amount))
			}
		}
		b.Takes = strings.Join(takes, ", ")
	}
	if len(g.Shortages) > 0 {
		first := g.Shortages[0].Resource
		slices.SortStableFunc(g.Blockers, func(a, b BlockerGroup) int { return cmp.Compare(b.amounts[first], a.amounts[first]) })
	}
	for n := range verdicts {
		v := &verdicts[n]
		if v.Node != g.Nodes[0] {
			continue
		}
		g.Preemption = v.Preemption.sentences(v.Node, len(g.Nodes))
		if v.nextFor != nil && len(g.Nodes) <= fewNodes {
			g.Next = v.nextFor(g.Nodes)
		}
	}
}

// kind is the same for preemptions that the same sentences say.
func (p *Preemption) kind() string {
	if p == nil {
		return ""
	}
	return fmt.Sprint(len(p.Stock.Victims) > 0, p.Stock.WhyNot, len(p.Everynode.Victims) > 0, p.Everynode.WhyNot, p.InForce)
}

// sentences says what the schedulers do to make room on node, which is one of several.
func (p *Preemption) sentences(node string, nodes int) []string {
	if p == nil {
		return nil
	}
	where := ""
	if nodes > 1 {
		where = " on " + node
	}
	if len(p.Stock.Victims) > 0 {
		return []string{"The scheduler evicts " + describeVictims(&p.Stock) + where + " to make room."}
	}
	switch {
	case p.InForce == Everynode && len(p.Everynode.Victims) > 0:
		return []string{"everynode-scheduler evicts " + describeVictims(&p.Everynode) + where + " to make room."}
	case p.InForce == Everynode:
		return []string{"Nobody is evicted: " + p.Everynode.WhyNot + "."}
	case len(p.Everynode.Victims) > 0:
		return []string{
			"kube-scheduler evicts nobody: " + p.Stock.WhyNot + ".",
			"everynode-scheduler would evict " + describeVictims(&p.Everynode) + where + ".",
		}
	default:
		return []string{"Nobody is evicted: " + p.Stock.WhyNot + "."}
	}
}

func describeVictims(eviction *Eviction) string {
	first := &eviction.Victims[0]
	text := fmt.Sprintf("pod %s (%s, priority %d)", first, cmp.Or(first.Owner, "no owner"), first.Priority)
	switch more := len(eviction.Victims) - 1; more {
	case 0:
	case 1:
		text += " and one more"
	default:
		text += fmt.Sprintf(" and %d more", more)
	}
	if eviction.OverBudget > 0 {
		text += ", beyond a PodDisruptionBudget,"
	}
	return text
}
