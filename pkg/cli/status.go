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
		Long: `Show for each DaemonSet on how many nodes it belongs, has a bound pod, is Ready
or missing, and has a pod without belonging there; how old the oldest gap is, how
much room everynode-scheduler holds for the missing pods, and the reason that most
gaps have. A gap is a node that the DaemonSet belongs on and is not Ready on.`,
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
	engine, err := o.read(command, scope{namespace: o.space})
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

// print writes a row for each DaemonSet, and below it what is wrong.
func (o *statusOptions) print(statuses []explain.Status) {
	p := newPrinter(o.Out)
	p.palette = o.palette
	header := []string{"NAME", "DESIRED", "SCHEDULED", "READY", "MISSING", "MISSCHEDULED", "GAP", "HELD"}
	if o.output.format == formatWide {
		header = append(header, "HELD ON", "CREATED")
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
		if s := &statuses[n]; s.Ready < s.Desired {
			line = p.bad(line)
		}
		p.line(0, line)
		o.remarks(p, &statuses[n])
	}
}

func (o *statusOptions) row(s *explain.Status) []string {
	gap := "-"
	if s.GapSince != nil {
		gap = o.age(s.GapSince.Time)
	}
	row := []string{s.Name, strconv.Itoa(s.Desired), strconv.Itoa(s.Scheduled), strconv.Itoa(s.Ready), strconv.Itoa(s.Missing),
		strconv.Itoa(s.Misscheduled), gap, cmp.Or(s.HeldText(), "-")}
	if o.output.format == formatWide {
		row = append(row, plural(s.HeldNodes, "node"), strconv.Itoa(s.Created))
	}
	if o.all {
		row = slices.Insert(row, 0, s.Namespace)
	}
	return row
}

// remarks writes below a row what is wrong, and how to hear more.
func (o *statusOptions) remarks(p *printer, s *explain.Status) {
	if s.Top != nil {
		nodes := explain.NodeList(s.Top.Nodes)
		if o.output.format == formatWide {
			nodes = strings.Join(s.Top.Nodes, " ")
		}
		p.fold(2, 2, fmt.Sprintf("%s on %s: %s", s.Top.Reason.Words(), nodes, s.Top.Message))
		p.line(2, "Next: "+p.strong(o.explainCommand(s.Namespace, s.Name)))
	}
	for _, difference := range s.Controller {
		p.fold(2, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
}
