// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"everynode.dev/everynode/pkg/explain"
)

// explainOptions are the arguments and flags of explain.
type explainOptions struct {
	*environment
	selection
	output output
	node   string
	things []string
	whole  bool
}

func newExplainCommand(e *environment) *cobra.Command {
	o := &explainOptions{environment: e}
	command := &cobra.Command{
		Use:   "explain ds/NAME|pod/NAME|node/NAME...",
		Short: "Say for every node why the DaemonSet runs there or not",
		Long: `Follow the chain from the DaemonSet to a Ready pod on every node, and say where
it ends: the DaemonSet controller, the creation of the pod, admission, the
scheduler's queue and filters, preemption, the kubelet. Nodes with the same
verdict are put together, the pods in the way are named, and each verdict ends
with the command that shows more (Next, which only reads) and what mends it (Fix).
Commands under Fix have the flag --dry-run=server, with which they change nothing.

Of a pod of a DaemonSet, the chain on its node is shown. Of any other pod that waits, it
is said what is in the way on which nodes, and for which DaemonSets it is held back. Of a
node, all that is wrong with the DaemonSets there.

The filters and the preemption of the schedulers are their own code, run on what
the cluster has at this moment. What was not looked at is listed at the end.`,
		Example: `  # Why does filebeat not run on every node?
  kubectl everynode explain ds/filebeat

  # Why does this pod not run?
  kubectl everynode explain pod/filebeat-x7k2p

  # What is wrong on this node?
  kubectl everynode explain node/node-7

  # The whole chain for one node
  kubectl everynode explain ds/filebeat --node node-7

  # All that is to be said, with the names of all nodes
  kubectl everynode explain ds/filebeat --all -o wide

  # For a ticket
  kubectl everynode explain -n logging -l app=filebeat -o markdown`,
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide, formatName, formatMarkdown)
	e.addPatienceFlag(command)
	e.addFromFlag(command)
	o.addFlag(command)
	command.Flags().BoolVar(&o.whole, "all", false, "Tell the details of every group of nodes.")
	command.Flags().StringVar(&o.node, "node", "", "Explain this node alone, step by step.")
	_ = command.RegisterFlagCompletionFunc("node", e.completeNodes)
	return command
}

func (o *explainOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	if len(args) == 0 && o.selector == "" && !o.all {
		return errors.New("name what to explain: ds/NAME, pod/NAME or node/NAME, or DaemonSets by --selector")
	}
	o.things = splitResource(args)
	for _, arg := range o.things {
		if _, _, err := parseName(arg, "ds", "pod", "node"); err != nil {
			return err
		}
	}
	if len(args) > 0 && o.selector != "" {
		return errors.New("names and --selector exclude each other: leave one out")
	}
	return o.selection.complete(o.environment, nil)
}

func (o *explainOptions) run(command *cobra.Command) error {
	s := scope{namespace: o.space, podEvents: true}
	if slices.ContainsFunc(o.things, func(arg string) bool { kind, _, _ := parseName(arg, "ds", "pod", "node"); return kind == "node" }) {
		s.namespace = ""
	}
	engine, err := o.read(command, s)
	if err != nil {
		return err
	}
	if len(engine.Nodes()) == 0 {
		return errors.New("the cluster has no nodes")
	}
	if len(o.things) == 0 {
		daemonSets, err := o.choose(engine)
		if err != nil {
			return err
		}
		if len(daemonSets) == 0 {
			fmt.Fprintln(o.ErrOut, o.nothing())
		}
		for n, ds := range daemonSets {
			o.separate(n, &o.output)
			if err := o.explain(command, engine, ds, o.node); err != nil {
				return err
			}
		}
		return nil
	}
	for n, arg := range o.things {
		o.separate(n, &o.output)
		if err := o.explainThing(command, engine, arg); err != nil {
			return err
		}
	}
	return nil
}

// explainThing explains what arg names.
func (o *explainOptions) explainThing(command *cobra.Command, engine *explain.Engine, arg string) error {
	kind, name, err := parseName(arg, "ds", "pod", "node")
	if err != nil {
		return err
	}
	switch kind {
	case "node":
		return o.explainNode(command, engine, name)
	case "pod":
		pod := engine.Pod(o.space, name)
		if pod == nil {
			return fmt.Errorf("there is no pod %s in namespace %s: name another namespace with -n", name, o.space)
		}
		if ds, node := engine.OfPod(pod); ds != nil {
			return o.explain(command, engine, ds, node)
		}
		return o.explainPod(command, engine, pod)
	default:
		ds, err := find(engine, o.space, name)
		if err != nil {
			return err
		}
		return o.explain(command, engine, ds, o.node)
	}
}

func (o *explainOptions) explain(command *cobra.Command, engine *explain.Engine, ds *appsv1.DaemonSet, name string) error {
	if o.output.format == formatName {
		fmt.Fprintln(o.Out, resourceName+ds.Name)
		return nil
	}
	nodes := engine.Nodes()
	if name != "" {
		node, err := findNode(engine, name)
		if err != nil {
			return err
		}
		nodes = []*corev1.Node{node}
	}
	explanation, err := engine.Explain(command.Context(), ds, nodes)
	if err != nil {
		return err
	}
	if o.output.isObject() {
		return o.output.printObject(o.Out, "DaemonSetExplanation", explanation)
	}
	if p := o.printer(); name != "" {
		p.chain(explanation)
	} else {
		p.overview(explanation)
	}
	return nil
}

func findNode(engine *explain.Engine, name string) (*corev1.Node, error) {
	node := engine.Node(name)
	if node == nil {
		return nil, fmt.Errorf("there is no node %s: see kubectl get nodes", name)
	}
	return node, nil
}

func (o *explainOptions) printer() *explanationPrinter {
	p := &explanationPrinter{printer: o.newPrinter(o.Out), environment: o.environment, wide: o.output.format == formatWide, all: o.whole}
	p.markdown = o.output.format == formatMarkdown
	return p
}

// explainNode says what is wrong with all DaemonSets on a node.
func (o *explainOptions) explainNode(command *cobra.Command, engine *explain.Engine, name string) error {
	node, err := findNode(engine, name)
	if err != nil {
		return err
	}
	x, err := engine.ExplainNode(command.Context(), node)
	switch {
	case err != nil:
		return err
	case o.output.isObject():
		return o.output.printObject(o.Out, "NodeExplanation", x)
	case o.output.format == formatName:
		fmt.Fprintln(o.Out, "node/"+name)
		return nil
	}
	p := o.printer()
	p.heading(2, fmt.Sprintf("Node %s: %d of %s that belong there are Ready.", name, x.Diagnosis.Ready, explain.Count(x.Diagnosis.Desired, "DaemonSet")))
	for _, fact := range x.Facts {
		p.fold(2, 2, fact)
	}
	rows := [][]string{{"DAEMONSET", "STATE", "REASON", "FOR"}}
	for n := range x.DaemonSets {
		on := &x.DaemonSets[n]
		since := "-"
		if on.Since != nil {
			since = p.age(on.Since.Time)
		}
		rows = append(rows, []string{on.DaemonSet, on.State.Words(), on.Reason.Words(), since})
	}
	if len(rows) > 1 {
		p.line(0, "")
		p.table(2, rows)
	}
	for n := range x.Diagnosis.Problems {
		p.line(0, "")
		p.problem("", &x.Diagnosis.Problems[n])
	}
	p.notChecked(x.Diagnosis.NotChecked)
	return nil
}

// explainPod says why a pod that is of no DaemonSet does not run.
func (o *explainOptions) explainPod(command *cobra.Command, engine *explain.Engine, pod *corev1.Pod) error {
	x, err := engine.ExplainPod(command.Context(), pod)
	switch {
	case err != nil:
		return err
	case o.output.isObject():
		return o.output.printObject(o.Out, "PodExplanation", x)
	case o.output.format == formatName:
		fmt.Fprintln(o.Out, "pod/"+pod.Name)
		return nil
	}
	p := o.printer()
	p.heading(2, fmt.Sprintf("Pod %s (%s ago, priority %d): %s", &x.Pod, p.age(x.Created.Time), x.Priority, x.Message))
	if v := x.Verdict; v != nil {
		p.fold(2, 2, p.word(v.Reason, v.Outcome)+": "+v.Message)
		for _, fact := range v.Facts {
			p.fold(2, 2, fact)
		}
		p.mending(v.Next, v.Fix)
	}
	if x.Said != "" && x.Verdict == nil {
		p.fold(2, 2, "Its scheduler says: "+x.Said)
	}
	if x.Held != nil {
		p.held(x.Held)
	}
	if x.Held == nil && x.Verdict == nil {
		p.command(2, "Next: ", o.kubectlCommand("describe", "pod/"+pod.Name, "-n", pod.Namespace))
	}
	for n := range x.Refusals {
		refusal := &x.Refusals[n]
		p.line(0, "")
		p.fold(0, 2, p.warn("REFUSED")+" by "+p.nodes(refusal.Nodes)+": "+refusal.Why)
	}
	p.notChecked(x.NotChecked)
	return nil
}

// explanationPrinter writes explanations for people.
type explanationPrinter struct {
	*printer
	*environment
	wide bool
	// all: nothing is cut short.
	all bool
}

// held writes where a pod is held back, and for whom.
func (p *explanationPrinter) held(held *explain.HeldBack) {
	p.line(0, "")
	p.heading(2, p.warn("HELD BACK")+" on "+p.nodes(held.Nodes))
	p.fold(2, 2, held.Room)
	p.fold(2, 0, "For these DaemonSets:")
	rows := [][]string{}
	if p.markdown {
		rows = append(rows, []string{"DaemonSet", "on", "which", "there"})
	}
	for n := range held.For {
		by := &held.For[n]
		what := "holds room"
		if by.Gates {
			what = "gates"
		}
		rows = append(rows, []string{by.String(), explain.Count(by.Nodes, "node"), what, by.Why})
	}
	p.table(4, rows)
	p.fold(2, 2, held.Ends)
	p.command(2, "Next: ", p.explainCommand(held.For[0].Namespace, held.For[0].Name))
	p.fold(2, 2, "Fix: "+held.Fix())
}

// kubectlCommand returns a command that leads to the cluster, "" if none can be written.
func (e *environment) kubectlCommand(words ...string) string {
	kubectl := e.kubectl()
	if kubectl == "" {
		return ""
	}
	quoted := []string{kubectl}
	for _, word := range words {
		quoted = append(quoted, explain.Quote(word))
	}
	return strings.Join(quoted, " ")
}

// nodes writes names of nodes, all of them if details are wanted.
func (p *explanationPrinter) nodes(names []string) string {
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
func (p *explanationPrinter) overview(x *explain.Explanation) {
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s: %s", x.Namespace, x.Name, overall(x.Status)))
	if x.Rollout != nil {
		p.line(0, "")
		p.fold(0, 2, p.rolloutWord(x.Rollout)+": "+x.Rollout.Message)
	}
	p.groups(x.Groups)
	p.notChecked(x.NotChecked)
	for _, difference := range x.Status.Controller {
		p.fold(0, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
}

// groups writes groups until there is too much to read. Where the DaemonSet does not
// belong takes a line or two, unless it belongs nowhere.
func (p *explanationPrinter) groups(groups []explain.Group) {
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
		to.printer = &printer{palette: p.palette, markdown: p.markdown, out: &text}
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

func (p *explanationPrinter) rolloutWord(r *explain.Rollout) string {
	if r.Stalled {
		return p.bad("UPDATE STALLED")
	}
	return p.warn("UPDATE")
}

// word colours a reason by how bad it is.
func (p *explanationPrinter) word(reason explain.Reason, state explain.State) string {
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
func (p *explanationPrinter) group(g *explain.Group) {
	p.heading(4, p.where(g))
	if g.Reason != explain.ReasonReady && g.Reason != explain.ReasonWouldRun {
		p.details(g)
	}
}

// headline writes the nodes with the same verdict and the verdict, no more.
func (p *explanationPrinter) headline(g *explain.Group) {
	if g.Reason == explain.ReasonReady {
		p.group(g)
		return
	}
	p.fold(0, 2, p.where(g)+": "+g.Message)
}

func (p *explanationPrinter) where(g *explain.Group) string {
	text := p.word(g.Reason, g.State) + " on " + p.nodes(g.Nodes)
	if g.Since != nil {
		text += ", for " + p.age(g.Since.Time)
	}
	if g.State == explain.StateWaiting {
		text += ", " + g.State.Words()
	}
	return text
}

// age returns how long ago a moment was, in words.
func (e *environment) age(at time.Time) string {
	return duration.HumanDuration(e.now().Sub(at))
}

// details writes what is to be said of a group.
func (p *explanationPrinter) details(g *explain.Group) {
	p.fold(2, 0, g.Message)
	if g.Contrast != "" {
		p.fold(2, 2, g.Contrast)
	}
	// Other messages say it all, or are about something else.
	if g.Reason == explain.ReasonNoRoom {
		for _, shortage := range g.Shortages {
			p.fold(2, 2, describeShortage(&shortage))
		}
	}
	p.blockers(g.Blockers)
	for _, sentence := range g.Preemption {
		p.fold(2, 2, sentence)
	}
	for _, fact := range g.Facts {
		if g.FactsDiffer {
			fact = g.Nodes[0] + ": " + fact
		}
		p.fold(2, 2, fact)
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
func (p *explanationPrinter) mending(next string, fix *explain.Fix) {
	p.command(2, "Next: ", next)
	if fix != nil {
		p.fold(2, 2, "Fix: "+fix.Text)
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

func (p *explanationPrinter) blockers(blockers []explain.BlockerGroup) {
	if len(blockers) == 0 {
		return
	}
	p.fold(2, 0, "In the way:")
	rows := make([][]string, 0, len(blockers))
	for n := range blockers {
		b := &blockers[n]
		rows = append(rows, []string{b.Text(), explain.Count(b.Pods, "pod"), b.Takes, fmt.Sprintf("priority %d", b.Priority), b.Spared})
	}
	shown := rows
	if !p.wide && len(rows) > mostBlockers {
		shown = rows[:mostBlockers]
	}
	if p.markdown {
		shown = slices.Concat([][]string{{"Owner", "Pods", "Takes", "Priority", "Stays because"}}, shown)
	}
	p.table(4, shown)
	if more := len(rows) - len(shown); more > 0 {
		p.line(4, fmt.Sprintf("and %d more owners (-o wide lists them)", more))
	}
}

func (p *explanationPrinter) notChecked(what []string) {
	if len(what) == 0 {
		return
	}
	p.line(0, "")
	for _, sentence := range what {
		p.fold(0, 2, "Not checked: "+sentence)
	}
}

// chain writes the steps of one node.
func (p *explanationPrinter) chain(x *explain.Explanation) {
	v, g := &x.Verdicts[0], &x.Groups[0]
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s on node %s: %s", x.Namespace, x.Name, v.Node, p.word(v.Reason, v.Outcome)))
	p.line(0, "")
	var rows [][]string
	if p.markdown {
		rows = append(rows, []string{"Step", "Passed", ""})
	}
	reached := true
	for _, step := range explain.Steps() {
		row := []string{string(step), "-", ""}
		switch {
		case step == explain.StepPreemption && v.Preemption != nil:
			row[1], row[2] = "no", "see below"
		case !reached:
		case step == v.Step && v.Reason == explain.ReasonReady:
			row[1] = "ok"
		case step == v.Step:
			reached = false
			row[1], row[2] = "no", v.Reason.Words()
		default:
			row[1], row[2] = "ok", p.passed(step, v)
		}
		rows = append(rows, row)
	}
	p.table(2, rows)
	p.line(0, "")
	p.details(g)
	p.notChecked(x.NotChecked)
}

// passed says in a few words what came of a step that is behind.
func (p *explanationPrinter) passed(step explain.Step, v *explain.Verdict) string {
	switch step {
	case explain.StepController:
		return "wants a pod here"
	case explain.StepCreation:
		if v.Pod != nil {
			return fmt.Sprintf("pod %s, %s ago", v.Pod, p.age(v.Pod.Created.Time))
		}
	case explain.StepAdmission:
		if len(v.Admission) > 0 {
			return "changed the pod, see below"
		}
		return "left the pod as it was"
	case explain.StepQueue:
		if v.Pod != nil {
			return "taken up by " + v.Pod.Scheduler
		}
	case explain.StepFilters:
		return "let the pod in"
	case explain.StepPreemption:
		return "not needed"
	case explain.StepKubelet:
		return "has started the pod"
	default:
	}
	return ""
}
