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
type doctorOptions struct{ query }

func newDoctorCommand(e *environment) *cobra.Command {
	o := &doctorOptions{query{environment: e}}
	command := newVerb("doctor", o.complete, o.run)
	o.addFlags(command, formatWide, formatName, formatMarkdown)
	return command
}

func (o *doctorOptions) complete(args []string) error {
	o.all = o.all || len(args) == 0 && !o.flags.Changed("namespace")
	return o.query.complete(args)
}

func (o *doctorOptions) run(command *cobra.Command) error {
	engine, daemonSets, err := o.look(command)
	if err != nil {
		return err
	}
	d, err := engine.Diagnose(command.Context(), daemonSets, engine.Nodes())
	if err != nil {
		return err
	}
	stuck := slices.DeleteFunc(slices.Clone(d.Problems), func(p explain.Problem) bool { return !p.Stuck() })
	switch {
	case o.output.isObject():
		err = o.output.printObject(o.Out, "DaemonSetDiagnosis", d)
	case o.output.format == formatName:
		var names []string
		for _, problem := range stuck {
			names = append(names, problem.DaemonSets...)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			_, name, _ = strings.Cut(name, "/")
			fmt.Fprintln(o.Out, resourceName+name)
		}
	default:
		o.printer().diagnosis(d)
	}
	if err == nil && len(stuck) > 0 {
		return ErrFindings
	}
	return err
}

// diagnosis writes problems for people.
func (p *printer) diagnosis(d *explain.Diagnosis) {
	p.fold(0, 2, fmt.Sprintf("%d of %s of %s are Ready, on %s.", d.Ready, explain.Count(d.Desired, "pod"),
		explain.Count(d.DaemonSets, "DaemonSet"), explain.Count(d.Nodes, "node")))
	stuck := 0
	for n := range d.Problems {
		if problem := &d.Problems[n]; problem.Stuck() {
			stuck++
			p.problem(strconv.Itoa(n+1)+". ", problem)
		} else {
			p.section(p.warn(strings.ToUpper(problem.Title)) + ", " + problem.State.Words() + ", on " + explain.NodeList(problem.Nodes) + ": " + strings.Join(problem.DaemonSets, " "))
		}
	}
	p.unchecked(d.NotChecked)
	p.line(0, "")
	p.line(0, explain.Count(stuck, "problem")+".")
}

// problem writes a cause, and what depends on it.
func (p *printer) problem(number string, problem *explain.Problem) {
	text := number + p.bad(strings.ToUpper(problem.Title))
	if problem.DaemonSet != "" {
		text += " of " + problem.DaemonSet
	}
	text += " on " + p.nodes(problem.Nodes)
	if problem.Since != nil {
		text += ", for " + p.age(problem.Since.Time)
	}
	p.line(0, "")
	p.heading(4, text)
	p.fold(2, 0, problem.Message)
	p.blockers(problem.Blockers)
	p.items(problem.Facts...)
	if len(problem.DaemonSets) > 1 || problem.DaemonSet == "" {
		p.items(fmt.Sprintf("It keeps %s of %s from being Ready: %s.", explain.Count(problem.Gaps, "pod"),
			explain.Count(len(problem.DaemonSets), "DaemonSet"), strings.Join(problem.DaemonSets, ", ")))
	}
	p.mending(problem.Next, problem.Fix)
}
