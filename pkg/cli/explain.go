// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"everynode.dev/everynode/pkg/explain"
)

// explainOptions are the arguments and flags of explain.
type explainOptions struct {
	*environment
	output output
	node   string
	name   string
	space  string
}

func newExplainCommand(e *environment) *cobra.Command {
	o := &explainOptions{environment: e}
	command := &cobra.Command{
		Use:   "explain ds/NAME",
		Short: "Say for every node why the DaemonSet runs there or not",
		Long: `Follow the chain from the DaemonSet to a Ready pod on every node, and say where
it ends: the DaemonSet controller, the creation of the pod, admission, the
scheduler's queue and filters, preemption, the kubelet. Nodes with the same
verdict are put together, the pods in the way are named, and each verdict ends
with the command to run next.

The filters and the preemption of the schedulers are their own code, run on what
the cluster has at this moment. What was not looked at is listed at the end.`,
		Example: `  # Why does filebeat not run on every node?
  kubectl everynode explain ds/filebeat

  # The whole chain for one node
  kubectl everynode explain ds/filebeat --node node-7

  # The names of all nodes, not only of the first and the last
  kubectl everynode explain ds/filebeat -o wide`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide, formatJSON, formatYAML)
	command.Flags().StringVar(&o.node, "node", "", "Explain this node alone, step by step.")
	_ = command.RegisterFlagCompletionFunc("node", e.completeNodes)
	return command
}

func (o *explainOptions) complete(args []string) (err error) {
	if err := o.output.validate(); err != nil {
		return err
	}
	if o.name, err = parseDaemonSet(args[0]); err != nil {
		return err
	}
	o.space, err = o.config.namespace()
	return err
}

func (o *explainOptions) run(command *cobra.Command) error {
	engine, err := o.read(command, scope{namespace: o.space, podEvents: true})
	if err != nil {
		return err
	}
	ds, err := find(engine, o.space, o.name)
	if err != nil {
		return err
	}
	nodes := engine.Nodes()
	if len(nodes) == 0 {
		return errors.New("the cluster has no nodes")
	}
	if o.node != "" {
		node := engine.Node(o.node)
		if node == nil {
			return fmt.Errorf("there is no node %s: see kubectl get nodes", o.node)
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
	p := &explanationPrinter{printer: newPrinter(o.Out), environment: o.environment, wide: o.output.format == formatWide}
	if o.node != "" {
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
}

// overview writes the groups of nodes.
func (p *explanationPrinter) overview(x *explain.Explanation) {
	p.fold(0, 2, fmt.Sprintf("DaemonSet %s/%s: %s", x.Namespace, x.Name, overall(x.Status)))
	if x.Rollout != nil {
		p.line(0, "")
		p.fold(0, 2, p.rolloutWord(x.Rollout)+": "+x.Rollout.Message)
	}
	for n := range x.Groups {
		p.line(0, "")
		p.group(&x.Groups[n])
	}
	p.notChecked(x.NotChecked)
	for _, difference := range x.Status.Controller {
		p.fold(0, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
}

func overall(s *explain.Status) string {
	switch {
	case s.Desired == 0:
		return "it belongs on no node."
	case s.Ready == s.Desired:
		return fmt.Sprintf("Ready on all nodes that it belongs on (%d).", s.Desired)
	default:
		return fmt.Sprintf("Ready on %d of %s that it belongs on.", s.Ready, plural(s.Desired, "node"))
	}
}

func (p *explanationPrinter) rolloutWord(r *explain.Rollout) string {
	if r.Stalled {
		return p.bad("UPDATE STALLED")
	}
	return p.warn("UPDATE")
}

// headline colours a reason by how bad it is.
func (p *explanationPrinter) headline(reason explain.Reason, wanted, ready bool) string {
	text := strings.ToUpper(reason.Words())
	switch {
	case reason == explain.ReasonReady, reason == explain.ReasonWouldRun:
		return p.good(text)
	case !wanted, ready:
		return p.warn(text)
	default:
		return p.bad(text)
	}
}

// group writes the nodes with the same verdict.
func (p *explanationPrinter) group(g *explain.Group) {
	nodes := explain.NodeList(g.Nodes)
	if p.wide {
		nodes = strings.Join(g.Nodes, " ")
	}
	since := ""
	if g.Since != nil {
		since = ", for " + p.age(g.Since.Time)
	}
	p.fold(0, 4, p.headline(g.Reason, g.Wanted, g.Ready)+" on "+nodes+since)
	if g.Reason == explain.ReasonReady || g.Reason == explain.ReasonWouldRun {
		return
	}
	p.details(g)
}

// age returns how long ago a moment was, in words.
func (e *environment) age(at time.Time) string {
	return duration.HumanDuration(e.clock.Since(at))
}

// details writes what is to be said of a group.
func (p *explanationPrinter) details(g *explain.Group) {
	p.fold(2, 0, g.Message)
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
	switch {
	case g.Next == "":
	case g.Wanted:
		p.line(2, "Next: "+p.strong(g.Next))
	default:
		p.line(2, "Next, if it should run there: "+p.strong(g.Next))
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
		rows = append(rows, []string{b.Text(), plural(b.Pods, "pod"), b.Takes, fmt.Sprintf("priority %d", b.Priority), b.Spared})
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
	p.fold(0, 2, fmt.Sprintf("DaemonSet %s/%s on node %s: %s", x.Namespace, x.Name, v.Node, p.headline(v.Reason, v.Wanted, v.Ready)))
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
