// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/pkg/explain"
)

// doctorOptions are the arguments and flags of doctor.
type doctorOptions struct {
	*environment
	selection
	output output
}

func newDoctorCommand(e *environment) *cobra.Command {
	o := &doctorOptions{environment: e}
	command := &cobra.Command{
		Use:   "doctor [ds/NAME...]",
		Short: "Say all that is wrong with the cluster's DaemonSets, by cause",
		Long: `Say all that is wrong with DaemonSets, of all namespaces unless --namespace or names
are given. What has the same cause is one problem: a network plugin that crashes on
a node, and all that waits for it there. What most depends on comes first.

The exit code is 0 if nothing is wrong, 1 if there are problems, and 2 if nothing could
be said. What is on its way for less than --patience is no problem yet.`,
		Example: `  # Is all well?
  kubectl everynode doctor

  # For a ticket
  kubectl everynode doctor -o markdown

  # A cluster that somebody else has dumped
  kubectl cluster-info dump --all-namespaces --output-directory dump
  kubectl everynode doctor --from dump`,
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
	return command
}

func (o *doctorOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	o.all = o.all || len(args) == 0 && !o.flags.Changed("namespace")
	return o.selection.complete(o.environment, args)
}

func (o *doctorOptions) run(command *cobra.Command) error {
	engine, err := o.read(command, scope{namespace: o.space, podEvents: true})
	if err != nil {
		return err
	}
	daemonSets, err := o.choose(engine)
	if err != nil {
		return err
	}
	d, err := engine.Diagnose(command.Context(), daemonSets, engine.Nodes())
	if err != nil {
		return err
	}
	switch {
	case o.output.isObject():
		err = o.output.printObject(o.Out, "DaemonSetDiagnosis", d)
	case o.output.format == formatName:
		o.names(d)
	default:
		p := &explanationPrinter{printer: o.newPrinter(o.Out), environment: o.environment, wide: o.output.format == formatWide}
		p.markdown = o.output.format == formatMarkdown
		p.diagnosis(d)
	}
	if err == nil && slices.ContainsFunc(d.Problems, func(p explain.Problem) bool { return p.Stuck() }) {
		return ErrFindings
	}
	return err
}

// names writes the DaemonSets that something is wrong with.
func (o *doctorOptions) names(d *explain.Diagnosis) {
	var names []string
	for n := range d.Problems {
		if d.Problems[n].Stuck() {
			names = append(names, d.Problems[n].DaemonSets...)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		_, name, _ = strings.Cut(name, "/")
		fmt.Fprintln(o.Out, resourceName+name)
	}
}

// diagnosis writes problems for people.
func (p *explanationPrinter) diagnosis(d *explain.Diagnosis) {
	p.fold(0, 2, fmt.Sprintf("%d of %s of %s are Ready, on %s.", d.Ready, explain.Count(d.Desired, "pod"),
		explain.Count(d.DaemonSets, "DaemonSet"), explain.Count(d.Nodes, "node")))
	stuck := 0
	for n := range d.Problems {
		p.line(0, "")
		if problem := &d.Problems[n]; problem.Stuck() {
			stuck++
			p.problem(strconv.Itoa(n+1)+". ", problem)
		} else {
			p.fold(0, 2, p.warn(strings.ToUpper(problem.Title))+", "+problem.State.Words()+", on "+explain.NodeList(problem.Nodes)+": "+strings.Join(problem.DaemonSets, " "))
		}
	}
	p.notChecked(d.NotChecked)
	p.line(0, "")
	p.line(0, explain.Count(stuck, "problem")+".")
}

// problem writes a cause, and what depends on it.
func (p *explanationPrinter) problem(number string, problem *explain.Problem) {
	text := number + p.bad(strings.ToUpper(problem.Title))
	if problem.DaemonSet != "" {
		text += " of " + problem.DaemonSet
	}
	text += " on " + p.nodes(problem.Nodes)
	if problem.Since != nil {
		text += ", for " + p.age(problem.Since.Time)
	}
	p.heading(4, text)
	p.fold(2, 0, problem.Message)
	p.blockers(problem.Blockers)
	for _, fact := range problem.Facts {
		p.fold(2, 2, fact)
	}
	if len(problem.DaemonSets) > 1 || problem.DaemonSet == "" {
		p.fold(2, 2, fmt.Sprintf("It keeps %s of %s from being Ready: %s.", explain.Count(problem.Gaps, "pod"),
			explain.Count(len(problem.DaemonSets), "DaemonSet"), strings.Join(problem.DaemonSets, ", ")))
	}
	p.mending(problem.Next, problem.Fix)
}
