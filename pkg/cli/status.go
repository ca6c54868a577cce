// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/pkg/explain"
)

// statusOptions are the arguments and flags of status.
type statusOptions struct {
	*environment
	selection
	output   output
	watch    bool
	interval time.Duration
	palette  palette
}

func newStatusCommand(e *environment) *cobra.Command {
	o := &statusOptions{environment: e}
	command := &cobra.Command{
		Use:   "status [ds/NAME...]",
		Short: "Show how DaemonSets fare, and what is wrong with them",
		Long: `Show for each DaemonSet on how many nodes it belongs, is Ready, up to date,
available or missing; how often its containers were restarted, and how old the
oldest gap is. A gap is a node that the DaemonSet belongs on and is not Ready on.
Below the table is what is wrong: the cause that most gaps have, and an update
that goes no further. -o wide adds how many pods are bound and created, how many
are where they don't belong, and the room that everynode-scheduler holds.`,
		Example: `  # The DaemonSets of the current namespace
  kubectl everynode status

  # All of them, again and again
  kubectl everynode status -A --watch`,
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			o.palette = newPalette(o.Out)
			if o.watch {
				return o.runAgainAndAgain(command)
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide, formatJSON, formatYAML)
	e.addPatienceFlag(command)
	o.addFlag(command)
	flags := command.Flags()
	flags.BoolVarP(&o.watch, "watch", "w", false, "Show them again and again, until Ctrl-C.")
	flags.DurationVar(&o.interval, "interval", 5*time.Second, "How long to wait between two looks with --watch, at least 1s.")
	return command
}

func (o *statusOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	if o.interval < time.Second {
		return fmt.Errorf("--interval is %s, must be at least 1s", o.interval)
	}
	return o.selection.complete(o.environment, args)
}

func (o *statusOptions) run(command *cobra.Command) error {
	engine, err := o.read(command, scope{namespace: o.space, podEvents: true})
	if err != nil {
		return err
	}
	daemonSets, err := o.choose(engine)
	if err != nil {
		return err
	}
	statuses, err := engine.Statuses(command.Context(), daemonSets)
	if err != nil {
		return err
	}
	if o.output.format == formatJSON || o.output.format == formatYAML {
		return printObject(o.Out, o.output.format, "DaemonSetStatusList", struct {
			Items []explain.Status `json:"items"`
		}{statuses})
	}
	if len(statuses) == 0 {
		fmt.Fprintln(o.ErrOut, o.nothing())
		return nil
	}
	o.print(statuses)
	return nil
}

// runAgainAndAgain looks until the command is interrupted, which is no failure. Neither
// is a look that fails, if an earlier one did not.
func (o *statusOptions) runAgainAndAgain(command *cobra.Command) error {
	ticker := o.clock.NewTicker(o.interval)
	defer ticker.Stop()
	out := o.Out
	for first := true; ; first = false {
		var page bytes.Buffer
		o.Out = &page
		err := o.run(command)
		switch {
		case command.Context().Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			fmt.Fprintln(o.ErrOut, "error:", err)
		default:
			o.show(out, page.Bytes(), first)
		}
		select {
		case <-ticker.C():
		case <-command.Context().Done():
			return nil
		}
	}
}

// show writes a page in place of the one before on a terminal, or else below it.
func (o *statusOptions) show(out io.Writer, page []byte, first bool) {
	switch {
	case isTerminal(out):
		fmt.Fprint(out, clearScreen)
	case !first:
		fmt.Fprintln(out)
	}
	// What cannot be written cannot be reported there either.
	_, _ = out.Write(page)
}

// clearScreen empties a terminal.
const clearScreen = "\033[H\033[2J"

// print writes a table, and below it what is wrong.
func (o *statusOptions) print(statuses []explain.Status) {
	p := newPrinter(o.Out)
	p.palette = o.palette
	header := []string{"NAME", "DESIRED", "READY", "UP-TO-DATE", "AVAILABLE", "MISSING", "RESTARTS", "GAP", "AGE"}
	if o.output.format == formatWide {
		header = append(header, "SCHEDULED", "CREATED", "MISSCHEDULED", "HELD", "HELD ON")
	}
	if o.all {
		header = slices.Insert(header, 0, "NAMESPACE")
	}
	rows := [][]string{header}
	for n := range statuses {
		rows = append(rows, o.row(&statuses[n]))
	}
	widths := columnWidths(rows)
	p.line(0, tableLine(rows[0], widths))
	for n := range statuses {
		line := tableLine(rows[n+1], widths)
		switch statuses[n].State {
		case explain.StateStuck:
			line = p.bad(line)
		case explain.StateWaiting:
			line = p.warn(line)
		default:
		}
		p.line(0, line)
	}
	for n := range statuses {
		o.remarks(p, &statuses[n])
	}
}

func (o *statusOptions) row(s *explain.Status) []string {
	gap := "-"
	if s.GapSince != nil {
		gap = o.age(s.GapSince.Time)
	}
	row := []string{s.Name, strconv.Itoa(s.Desired), strconv.Itoa(s.Ready), strconv.Itoa(s.Updated), strconv.Itoa(s.Available),
		strconv.Itoa(s.Missing), strconv.Itoa(s.Restarts), gap, o.age(s.CreationTimestamp.Time)}
	if o.output.format == formatWide {
		row = append(row, strconv.Itoa(s.Scheduled), strconv.Itoa(s.Created), strconv.Itoa(s.Misscheduled),
			cmp.Or(s.HeldText(), "-"), explain.Count(s.HeldNodes, "node"))
	}
	if o.all {
		row = slices.Insert(row, 0, s.Namespace)
	}
	return row
}

// remarks writes what is wrong with a DaemonSet, and how to hear more.
func (o *statusOptions) remarks(p *printer, s *explain.Status) {
	if s.Top == nil && s.Stalled == "" && s.Misscheduled == 0 && len(s.Controller) == 0 {
		return
	}
	p.line(0, "")
	p.line(0, s.Namespace+"/"+s.Name)
	if s.Top != nil {
		nodes := explain.NodeList(s.Top.Nodes)
		if o.output.format == formatWide {
			nodes = strings.Join(s.Top.Nodes, " ")
		}
		state := ""
		if s.Top.State == explain.StateWaiting {
			state = ", " + s.Top.State.Words()
		}
		p.fold(2, 2, fmt.Sprintf("%s on %s%s: %s", s.Top.Reason.Words(), nodes, state, s.Top.Message))
	}
	if s.Stalled != "" {
		p.fold(2, 2, "update stalled: "+s.Stalled)
	}
	if s.LapsedNodes > 0 {
		p.fold(2, 2, "everynode-scheduler holds no room for it any more on "+explain.Count(s.LapsedNodes, "node")+": no pod appeared there")
	}
	if s.Misscheduled > 0 {
		p.line(2, "pods on "+explain.Count(s.Misscheduled, "node")+" where it does not belong")
	}
	for _, difference := range s.Controller {
		p.fold(2, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
	p.next(o.explainCommand(s.Namespace, s.Name))
}
