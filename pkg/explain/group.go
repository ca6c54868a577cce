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
	Step   Step   `json:"step"`
	Reason Reason `json:"reason"`
	State  State  `json:"state"`
	// Causes are those of all its nodes: what is each node's own is a summary. Message
	// writes them.
	Causes  []Cause  `json:"causes,omitempty"`
	Message string   `json:"message"`
	Wanted  bool     `json:"wanted"`
	Ready   bool     `json:"ready"`
	Nodes   []string `json:"nodes"`
	// Startup says whether a start-up taint keeps pods off them that its agent should have
	// taken off.
	Startup bool `json:"startup,omitempty"`
	// Contrast is a sentence about what all its nodes have, and no node where the DaemonSet is Ready.
	Contrast string `json:"contrast,omitempty"`
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
	// Next is the command that shows more, for the first node.
	Next string `json:"next,omitempty"`
	// Fix is what mends it, for the first node, or for all if they are few.
	Fix *Fix `json:"fix,omitempty"`
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
	verdicts, err := e.verdicts(ctx, ds, nodes, true)
	if err != nil {
		return nil, err
	}
	x := &Explanation{Namespace: ds.Namespace, Name: ds.Name, Verdicts: verdicts, Groups: groups(verdicts), NotChecked: append(e.notChecked(&ds.Spec.Template.Spec), rulesElsewhere)}
	e.contrast(x.Groups)
	if len(nodes) == len(e.nodes) {
		x.Rollout = e.rollout(ds, verdicts)
		x.Status = new(e.status(ds, verdicts))
	}
	return x, nil
}

// natures are the properties by which nodes are compared.
var natures = []struct {
	name string
	of   func(*corev1.Node) string
}{
	{"the architecture", func(n *corev1.Node) string { return n.Labels[corev1.LabelArchStable] }},
	{"the operating system", func(n *corev1.Node) string { return n.Status.NodeInfo.OSImage }},
	{"the kernel", func(n *corev1.Node) string { return n.Status.NodeInfo.KernelVersion }},
	{"the container runtime", func(n *corev1.Node) string { return n.Status.NodeInfo.ContainerRuntimeVersion }},
	{"the kubelet", func(n *corev1.Node) string { return n.Status.NodeInfo.KubeletVersion }},
	{"the instance type", func(n *corev1.Node) string { return n.Labels[corev1.LabelInstanceTypeStable] }},
	{"the zone", func(n *corev1.Node) string { return n.Labels[corev1.LabelTopologyZone] }},
}

// enoughNodes is how many nodes have to agree: fewer may do so by chance.
const enoughNodes = 3

// contrast says for each group of trouble what all its nodes have in common, and none has
// where the DaemonSet is Ready.
func (e *Engine) contrast(groups []Group) {
	var sound []string
	for n := range groups {
		if groups[n].Wanted && groups[n].State == StateReady {
			sound = append(sound, groups[n].Nodes...)
		}
	}
	for n := range groups {
		g := &groups[n]
		if g.State != StateStuck || len(g.Nodes) < enoughNodes || len(sound) < enoughNodes {
			continue
		}
		var common []string
		for _, nature := range natures {
			value := nature.of(e.nodes[g.Nodes[0]])
			differs := func(name string) bool { return nature.of(e.nodes[name]) != value }
			same := func(name string) bool { return !differs(name) }
			if value != "" && !slices.ContainsFunc(g.Nodes, differs) && !slices.ContainsFunc(sound, same) {
				common = append(common, nature.name+" "+value)
			}
		}
		if len(common) > 0 {
			g.Contrast = "All of these nodes, and none where it is Ready, have " + strings.Join(common, ", ") + "."
		}
	}
}

// notChecked says what was not looked at that may keep pods from running.
func (e *Engine) notChecked(spec *corev1.PodSpec) []string {
	unchecked := slices.Clone(e.cluster.Unread)
	if allocated := joinAnd(e.schedulers.Devices.Allocated(spec, nil)); allocated != "" {
		unchecked = append(unchecked, "what is free of "+allocated+" (Dynamic Resource Allocation).")
	}
	return unchecked
}

// rulesElsewhere are never looked at.
const rulesElsewhere = "scheduler extenders and scheduler plugins of other people."

// grouped puts items with the same key together, in the order of the first ones. Items with
// the key "" are left out.
func grouped[T any](items []T, key func(*T) string) [][]*T {
	var groups [][]*T
	index := make(map[string]int)
	for n := range items {
		k := key(&items[n])
		if k == "" {
			continue
		}
		at, known := index[k]
		if !known {
			at = len(groups)
			index[k], groups = at, append(groups, nil)
		}
		groups[at] = append(groups[at], &items[n])
	}
	return groups
}

// groups puts nodes with the same verdict together.
func groups(verdicts []Verdict) []Group {
	var all []Group
	for _, same := range grouped(verdicts, func(v *Verdict) string {
		return fmt.Sprintln(v.Step, v.Outcome, v.Ready, keyOf(v.Causes), v.Preemption.kind(), fieldsOf(v.Admission))
	}) {
		all = append(all, newGroup(same))
	}
	slices.SortStableFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(len(b.Nodes), len(a.Nodes)))
	})
	return all
}

func newGroup(verdicts []*Verdict) Group {
	v := verdicts[0]
	g := Group{
		Step: v.Step, Reason: v.Reason, State: v.Outcome, Wanted: v.Wanted, Ready: v.Ready, Causes: merge(verdicts),
		Facts: v.Facts, Admission: v.Admission, Next: v.Next, Fix: v.Fix, Startup: v.forgotten(),
	}
	g.Message = message(g.Causes)
	var shortages []Shortage
	var blockers []Blocker
	for _, v := range verdicts {
		g.Nodes, g.Since = append(g.Nodes, v.Node), earliest(g.Since, v.Since)
		g.FactsDiffer = g.FactsDiffer || !slices.Equal(g.Facts, v.Facts)
		shortages, blockers = append(shortages, v.Shortages...), append(blockers, v.Blockers...)
	}
	for _, same := range grouped(shortages, func(s *Shortage) string { return s.Resource }) {
		s := same[0]
		r := ShortageRange{s.Resource, s.Needs, s.Free, s.Free, s.Allocatable, s.Allocatable}
		for _, s := range same {
			r.Needs, r.LeastFree, r.MostFree = max(r.Needs, s.Needs), min(r.LeastFree, s.Free), max(r.MostFree, s.Free)
			r.MinAllocatable, r.MaxAllocatable = min(r.MinAllocatable, s.Allocatable), max(r.MaxAllocatable, s.Allocatable)
		}
		g.Shortages = append(g.Shortages, r)
	}
	g.addBlockers(blockers)
	g.Preemption = v.Preemption.sentences(v.Node, len(g.Nodes))
	if v.Fix != nil && v.Fix.forNodes != nil {
		g.Fix = v.Fix.forNodes(verdicts)
	}
	return g
}

// addBlockers puts blockers together by their owner, the largest first.
func (g *Group) addBlockers(blockers []Blocker) {
	for _, same := range grouped(blockers, func(b *Blocker) string { return fmt.Sprintln(b.OwnerText(), b.Priority, b.Spared) }) {
		b := same[0]
		owner := BlockerGroup{
			Namespace: b.Namespace, Owner: cmp.Or(b.Owner, "Pod "+b.Name), Pods: len(same), Takes: b.Takes, Priority: b.Priority, Spared: b.Spared,
			amounts: make(map[string]int64),
		}
		for _, b := range same {
			for resource, amount := range b.amounts {
				owner.amounts[resource] += amount
			}
		}
		if len(owner.amounts) > 0 {
			owner.Takes = ""
			for _, shortage := range g.Shortages {
				owner.Takes = withAmount(owner.Takes, shortage.Resource, owner.amounts[shortage.Resource])
			}
		}
		g.Blockers = append(g.Blockers, owner)
	}
	if len(g.Shortages) > 0 {
		first := g.Shortages[0].Resource
		slices.SortStableFunc(g.Blockers, func(a, b BlockerGroup) int { return cmp.Compare(b.amounts[first], a.amounts[first]) })
	}
}

// fieldsOf returns what has been changed, without the values, which may be each node's own.
func fieldsOf(changes []string) string {
	fields := make([]string, len(changes))
	for n, change := range changes {
		fields[n], _, _ = strings.Cut(change, ":")
	}
	return strings.Join(fields, "\n")
}

// rank puts trouble first, and nodes where all is well last.
func (g *Group) rank() int {
	switch {
	case g.Reason == ReasonReady:
		return 5
	case g.State == StateNone:
		return 4
	case g.State == StateStray:
		return 3
	case g.State == StateStuck:
		return 0
	case g.Step == StepReady:
		return 2
	default:
		return 1
	}
}

// kind is the same for preemptions that are described by the same sentences.
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
