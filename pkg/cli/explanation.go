// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"everynode.dev/everynode/pkg/explain"
)

// nodeExplanation writes what is wrong with all DaemonSets on a node.
func (p *printer) nodeExplanation(x *explain.NodeExplanation) {
	p.heading(2, fmt.Sprintf("Node %s: %d of %s that belong there are Ready.", x.Node, x.Diagnosis.Ready, explain.Count(x.Diagnosis.Desired, "DaemonSet")))
	p.items(x.Facts...)
	rows := [][]string{{"DAEMONSET", "STATE", "REASON", "FOR"}}
	for _, on := range x.DaemonSets {
		rows = append(rows, []string{on.DaemonSet, on.State.Words(), on.Reason.Words(), p.ageOr(on.Since, "-")})
	}
	if len(rows) > 1 {
		p.line(0, "")
		p.table(2, rows)
	}
	for n := range x.Diagnosis.Problems {
		p.problem("", &x.Diagnosis.Problems[n])
	}
	p.unchecked(x.Diagnosis.NotChecked)
}

// podExplanation writes why a pod that is of no DaemonSet does not run.
func (p *printer) podExplanation(x *explain.PodExplanation) {
	p.heading(2, fmt.Sprintf("Pod %s (%spriority %d): %s", &x.Pod, p.ago("", &x.Created, ", "), x.Priority, x.Message))
	switch v := x.Verdict; {
	case v != nil:
		p.items(p.word(v.Reason, v.Outcome) + ": " + v.Message)
		p.items(v.Facts...)
		p.mending(v.Next, v.Fix)
	case x.Said != "":
		p.items("Its scheduler says: " + x.Said)
	}
	if x.Held != nil {
		p.held(x.Held)
	} else if x.Verdict == nil {
		p.command(2, "Next: ", explain.Command(p.kubectl(), "describe", "pod/"+x.Name, "-n", x.Namespace))
	}
	for _, refusal := range x.Refusals {
		p.section(p.warn("REFUSED") + " by " + p.nodes(refusal.Nodes) + ": " + refusal.Why)
	}
	p.unchecked(x.NotChecked)
}

// held writes where a pod is held back, and for whom.
func (p *printer) held(held *explain.HeldBack) {
	p.line(0, "")
	p.heading(2, p.warn("HELD BACK")+" on "+p.nodes(held.Nodes))
	p.items(held.Room)
	p.fold(2, 0, "For these DaemonSets:")
	var rows [][]string
	for _, by := range held.For {
		what := "holds room"
		if by.Gates {
			what = "gates"
		}
		rows = append(rows, []string{by.String(), explain.Count(by.Nodes, "node"), what, by.Why})
	}
	p.titled(4, "DaemonSet,on,which,there", rows)
	p.items(held.Ends)
	p.command(2, "Next: ", p.explainCommand(held.For[0].Namespace, held.For[0].Name))
	p.items("Fix: " + held.Fix())
}

// nodes writes names of nodes, all of them if details are wanted.
func (p *printer) nodes(names []string) string {
	if p.wide {
		return strings.Join(names, " ")
	}
	return explain.NodeList(names)
}

// Two screens of 40 lines have room for this many lines of groups with details, and
// after them for this many groups.
const (
	detailedLines = 45
	mostGroups    = 8
)

// overview writes the groups of nodes.
func (p *printer) overview(x *explain.Explanation) {
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s: %s", x.Namespace, x.Name, overall(x.Status)))
	if r := x.Rollout; r != nil && r.Stalled {
		p.section(p.bad("UPDATE STALLED") + ": " + r.Message)
	} else if r != nil {
		p.section(p.warn("UPDATE") + ": " + r.Message)
	}
	p.groups(x.Groups)
	p.unchecked(x.NotChecked)
	for _, difference := range x.Status.Controller {
		p.fold(0, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
}

// groups writes groups until there is too much to read. Where the DaemonSet does not
// belong takes a line or two, unless it belongs nowhere.
func (p *printer) groups(groups []explain.Group) {
	nowhere := !slices.ContainsFunc(groups, func(g explain.Group) bool { return g.Wanted })
	written := 0
	for n := range groups {
		g := &groups[n]
		if n >= mostGroups && !p.all && g.Reason != explain.ReasonReady {
			rest := groups[n:]
			nodes := 0
			for m := range rest {
				nodes += len(rest[m].Nodes)
			}
			p.line(0, "")
			p.line(0, fmt.Sprintf("And %s on %s (--all lists them).", explain.Count(len(rest), "more verdict"), explain.Count(nodes, "node")))
			return
		}
		var text bytes.Buffer
		to := *p
		to.out = &text
		if detailed := g.Wanted && written < detailedLines || nowhere && n == 0 || g.Startup; p.all || detailed {
			to.group(g)
		} else {
			to.headline(g)
		}
		written += bytes.Count(text.Bytes(), []byte("\n")) + 1
		p.line(0, "")
		// What cannot be written cannot be reported there either.
		_, _ = text.WriteTo(p.out)
	}
}

func overall(s *explain.Status) string {
	switch {
	case s.Desired == 0:
		return "it belongs on no node."
	case s.Ready == s.Desired:
		return fmt.Sprintf("Ready on all nodes that it belongs on (%d).", s.Desired)
	default:
		return fmt.Sprintf("Ready on %d of %s that it belongs on.", s.Ready, explain.Count(s.Desired, "node"))
	}
}

// word colours a reason by how bad it is.
func (p *printer) word(reason explain.Reason, state explain.State) string {
	text := strings.ToUpper(reason.Words())
	switch {
	case reason == explain.ReasonReady, reason == explain.ReasonWouldRun:
		return p.good(text)
	case state == explain.StateStuck:
		return p.bad(text)
	default:
		return p.warn(text)
	}
}

// group writes the nodes with the same verdict, and what is to be said of them.
func (p *printer) group(g *explain.Group) {
	p.heading(4, p.where(g))
	if g.Reason != explain.ReasonReady && g.Reason != explain.ReasonWouldRun {
		p.details(g)
	}
}

// headline writes the nodes with the same verdict and the verdict, no more.
func (p *printer) headline(g *explain.Group) {
	if g.Reason == explain.ReasonReady {
		p.group(g)
		return
	}
	p.fold(0, 2, p.where(g)+": "+g.Message)
}

func (p *printer) where(g *explain.Group) string {
	text := p.word(g.Reason, g.State) + " on " + p.nodes(g.Nodes)
	if g.Since != nil {
		text += ", for " + p.age(g.Since.Time)
	}
	if g.State == explain.StateWaiting {
		text += ", " + g.State.Words()
	}
	return text
}

// details writes what is to be said of a group.
func (p *printer) details(g *explain.Group) {
	p.fold(2, 0, g.Message)
	p.items(g.Contrast)
	// The messages of other reasons have the amounts, or are about something else.
	if slices.ContainsFunc(g.Causes, func(c explain.Cause) bool { return c.Reason == explain.ReasonNoRoom }) {
		for _, shortage := range g.Shortages {
			p.items(describeShortage(&shortage))
		}
	}
	p.blockers(g.Blockers)
	p.items(g.Preemption...)
	for _, fact := range g.Facts {
		if g.FactsDiffer {
			fact = g.Nodes[0] + ": " + fact
		}
		p.items(fact)
	}
	if len(g.Admission) > 0 {
		p.fold(2, 0, "Admission changed the pod:")
		for _, change := range g.Admission {
			p.fold(4, 2, change)
		}
	}
	p.mending(g.Next, g.Fix)
}

// mending writes the command that shows more, and what mends it.
func (p *printer) mending(next string, fix *explain.Fix) {
	p.command(2, "Next: ", next)
	if fix != nil {
		p.items("Fix: " + fix.Text)
		p.command(4, "", fix.Command)
	}
}

func describeShortage(s *explain.ShortageRange) string {
	amount := func(n int64) string { return explain.FormatQuantity(s.Resource, n) }
	between := func(least, most int64) string {
		if least == most {
			return amount(least)
		}
		return amount(least) + " to " + amount(most)
	}
	return fmt.Sprintf("It needs %s; free: %s of %s.", explain.FormatAmount(s.Resource, s.Needs),
		between(s.LeastFree, s.MostFree), between(s.MinAllocatable, s.MaxAllocatable))
}

// mostBlockers is how many owners of blockers are listed.
const mostBlockers = 5

func (p *printer) blockers(blockers []explain.BlockerGroup) {
	if len(blockers) == 0 {
		return
	}
	p.fold(2, 0, "In the way:")
	shown := len(blockers)
	if !p.wide {
		shown = min(shown, mostBlockers)
	}
	var rows [][]string
	for _, b := range blockers[:shown] {
		rows = append(rows, []string{b.Text(), explain.Count(b.Pods, "pod"), b.Takes, fmt.Sprintf("priority %d", b.Priority), b.Spared})
	}
	p.titled(4, "Owner,Pods,Takes,Priority,Stays because", rows)
	if more := len(blockers) - shown; more > 0 {
		p.line(4, fmt.Sprintf("and %d more owners (-o wide lists them)", more))
	}
}

// unchecked tells below an explanation what could not be looked at.
func (p *printer) unchecked(what []string) {
	if len(what) > 0 {
		p.line(0, "")
		p.notChecked(what)
	}
}

// chain writes the steps of one node.
func (p *printer) chain(x *explain.Explanation) {
	v := &x.Verdicts[0]
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s on node %s: %s", x.Namespace, x.Name, v.Node, p.word(v.Reason, v.Outcome)))
	p.line(0, "")
	var rows [][]string
	reached := true
	for _, step := range explain.Steps() {
		row := []string{string(step), "-", ""}
		switch {
		case step == explain.StepPreemption && v.Preemption != nil:
			row[1], row[2] = "no", "see below"
		case !reached:
		case step == v.Step && v.Reason == explain.ReasonReady:
			row[1] = "ok"
		case step == explain.StepFilters && v.Step == explain.StepPreemption:
			row[1], row[2] = "no", "refuse the node as it is"
		case step == v.Step:
			reached = false
			row[1], row[2] = "no", v.Reason.Words()
		default:
			row[1], row[2] = "ok", p.passed(step, v)
		}
		rows = append(rows, row)
	}
	p.titled(2, "Step,Passed,", rows)
	p.line(0, "")
	p.details(&x.Groups[0])
	p.unchecked(x.NotChecked)
}

// passed says in a few words how a step ended that the pod has passed.
func (p *printer) passed(step explain.Step, v *explain.Verdict) string {
	switch {
	case step == explain.StepCreation && v.Pod != nil:
		return "pod " + v.Pod.String() + p.ago(", ", &v.Pod.Created, "")
	case step == explain.StepAdmission && len(v.Admission) > 0:
		return "changed the pod, see below"
	case step == explain.StepQueue && v.Pod != nil:
		return "taken up by " + v.Pod.Scheduler
	}
	return map[explain.Step]string{
		explain.StepController: "wants a pod here", explain.StepAdmission: "left the pod as it was", explain.StepFilters: "let the pod in",
		explain.StepPreemption: "not needed", explain.StepKubelet: "has started the pod",
	}[step]
}
