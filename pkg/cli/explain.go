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
	output output
	node   string
	names  []string
	space  string
	all    bool
}

// podWords are the ways in which kubectl lets pods be written.
var podWords = []string{"po", "pod", "pods"}

func newExplainCommand(e *environment) *cobra.Command {
	o := &explainOptions{environment: e}
	command := &cobra.Command{
		Use:   "explain ds/NAME|pod/NAME...",
		Short: "Say for every node why the DaemonSet runs there or not",
		Long: `Follow the chain from the DaemonSet to a Ready pod on every node, and say where
it ends: the DaemonSet controller, the creation of the pod, admission, the
scheduler's queue and filters, preemption, the kubelet. Nodes with the same
verdict are put together, the pods in the way are named, and each verdict ends
with the command that shows more (Next, which only reads) and what mends it (Fix).
Commands under Fix have the flag --dry-run=server, with which they change nothing.

The filters and the preemption of the schedulers are their own code, run on what
the cluster has at this moment. What was not looked at is listed at the end.`,
		Example: `  # Why does filebeat not run on every node?
  kubectl everynode explain ds/filebeat

  # Why does this pod of a DaemonSet not run?
  kubectl everynode explain pod/filebeat-x7k2p

  # The whole chain for one node
  kubectl everynode explain ds/filebeat --node node-7

  # All that is to be said, with the names of all nodes
  kubectl everynode explain ds/filebeat --all -o wide`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide, formatJSON, formatYAML)
	e.addPatienceFlag(command)
	command.Flags().BoolVar(&o.all, "all", false, "Tell the details of every group of nodes.")
	command.Flags().StringVar(&o.node, "node", "", "Explain this node alone, step by step.")
	_ = command.RegisterFlagCompletionFunc("node", e.completeNodes)
	return command
}

func (o *explainOptions) complete(args []string) (err error) {
	if err := o.output.validate(); err != nil {
		return err
	}
	o.names = splitResource(args)
	for _, arg := range o.names {
		if _, isPod := podName(arg); isPod {
			continue
		}
		if _, err := parseDaemonSet(arg); err != nil {
			return err
		}
	}
	o.space, err = o.config.namespace()
	return err
}

// podName returns the name in pod/NAME.
func podName(arg string) (string, bool) {
	resource, name, _ := strings.Cut(arg, "/")
	return name, name != "" && slices.Contains(podWords, strings.ToLower(resource))
}

func (o *explainOptions) run(command *cobra.Command) error {
	engine, err := o.read(command, scope{namespace: o.space, podEvents: true})
	if err != nil {
		return err
	}
	for n, arg := range o.names {
		if n > 0 && o.output.format != formatJSON {
			o.separate(o.output.format)
		}
		if err := o.explain(command, engine, arg); err != nil {
			return err
		}
	}
	return nil
}

// find returns the DaemonSet that arg names, or whose pod it names, and the node to look
// at, "" for all.
func (o *explainOptions) find(engine *explain.Engine, arg string) (ds *appsv1.DaemonSet, node string, err error) {
	name, isPod := podName(arg)
	if !isPod {
		name, err := parseDaemonSet(arg)
		if err != nil {
			return nil, "", err
		}
		ds, err = find(engine, o.space, name)
		return ds, o.node, err
	}
	ds, node, found := engine.OfPod(o.space, name)
	switch {
	case !found:
		return nil, "", fmt.Errorf("there is no pod %s in namespace %s: name another namespace with -n", name, o.space)
	case ds == nil:
		return nil, "", fmt.Errorf("pod %s is of no DaemonSet: explain says why DaemonSets have pods on nodes or not", name)
	default:
		return ds, node, nil
	}
}

func (o *explainOptions) explain(command *cobra.Command, engine *explain.Engine, arg string) error {
	ds, name, err := o.find(engine, arg)
	if err != nil {
		return err
	}
	nodes := engine.Nodes()
	if len(nodes) == 0 {
		return errors.New("the cluster has no nodes")
	}
	if name != "" {
		node := engine.Node(name)
		if node == nil {
			return fmt.Errorf("there is no node %s: see kubectl get nodes", name)
		}
		nodes = []*corev1.Node{node}
	}
	explanation, err := engine.Explain(command.Context(), ds, nodes)
	if err != nil {
		return err
	}
	if o.output.format == formatJSON || o.output.format == formatYAML {
		return printObject(o.Out, o.output.format, "DaemonSetExplanation", explanation)
	}
	p := &explanationPrinter{printer: newPrinter(o.Out), environment: o.environment, wide: o.output.format == formatWide, all: o.all}
	if name != "" {
		p.chain(explanation)
	} else {
		p.overview(explanation)
	}
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

// Two screens of 40 lines have room for this many lines of groups with details, and
// after them for this many groups.
const (
	detailedLines = 45
	mostGroups    = 8
)

// overview writes the groups of nodes.
func (p *explanationPrinter) overview(x *explain.Explanation) {
	p.fold(0, 2, fmt.Sprintf("DaemonSet %s/%s: %s", x.Namespace, x.Name, overall(x.Status)))
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
		to.printer = &printer{palette: p.palette, out: &text}
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
	p.fold(0, 4, p.where(g))
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
	text := p.word(g.Reason, g.State) + " on " + explain.NodeList(g.Nodes)
	if p.wide {
		text = p.word(g.Reason, g.State) + " on " + strings.Join(g.Nodes, " ")
	}
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
	return duration.HumanDuration(e.clock.Since(at))
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
	p.blockers(g)
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
		p.line(2, "Admission changed the pod:")
		for _, change := range g.Admission {
			p.fold(4, 2, change)
		}
	}
	if g.Next != "" {
		p.line(2, "Next: "+p.strong(g.Next))
	}
	if g.Fix != nil {
		p.fold(2, 2, "Fix: "+g.Fix.Text)
		if g.Fix.Command != "" {
			p.line(4, p.strong(g.Fix.Command))
		}
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

func (p *explanationPrinter) blockers(g *explain.Group) {
	if len(g.Blockers) == 0 {
		return
	}
	p.line(2, "In the way:")
	rows := make([][]string, 0, len(g.Blockers))
	for n := range g.Blockers {
		b := &g.Blockers[n]
		rows = append(rows, []string{b.Text(), explain.Count(b.Pods, "pod"), b.Takes, fmt.Sprintf("priority %d", b.Priority), b.Spared})
	}
	shown := rows
	if !p.wide && len(rows) > mostBlockers {
		shown = rows[:mostBlockers]
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
	p.fold(0, 2, fmt.Sprintf("DaemonSet %s/%s on node %s: %s", x.Namespace, x.Name, v.Node, p.word(v.Reason, v.Outcome)))
	p.line(0, "")
	rows := make([][]string, 0, len(explain.Steps()))
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
