// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
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
	wait     string
	timeout  time.Duration
	palette  palette
}

// conditions are what --wait can wait for.
var conditions = map[string]func(*explain.Status) bool{
	"scheduled": func(s *explain.Status) bool { return s.Scheduled == s.Desired },
	"updated":   func(s *explain.Status) bool { return s.Updated == s.Desired },
	"available": func(s *explain.Status) bool { return s.Available == s.Desired },
	"ready":     func(s *explain.Status) bool { return s.Ready == s.Desired && s.Updated == s.Desired },
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
are where they don't belong, and the room that everynode-scheduler holds.

With --wait, it waits until the DaemonSets are on all nodes that they belong on:
ready (and of the current template, the default), available, updated or scheduled.
The exit code is 1 if they are not before the --timeout.`,
		Example: `  # The DaemonSets of the current namespace
  kubectl everynode status

  # All of them, as they change
  kubectl everynode status -A --watch

  # In a pipeline, after kubectl apply
  kubectl everynode status ds/filebeat --wait --timeout=10m

  # Those that lack most, first
  kubectl everynode status -A --sort-by=.missing`,
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			o.palette = o.newPalette(o.Out)
			if o.watch || o.wait != "" {
				return o.follow(command)
			}
			engine, err := o.read(command, o.scope())
			if err != nil {
				return err
			}
			_, err = o.look(command, engine)
			return err
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide, formatName, formatMarkdown)
	o.output.addTableFlags(command)
	e.addPatienceFlag(command)
	e.addFromFlag(command)
	o.addFlag(command)
	flags := command.Flags()
	flags.BoolVarP(&o.watch, "watch", "w", false, "Show them as they change, until Ctrl-C.")
	flags.DurationVar(&o.interval, "interval", 5*time.Second, "How long to wait between two looks with --watch, at least 1s.")
	flags.StringVar(&o.wait, "wait", "", "Wait until all are ready, available, updated or scheduled.")
	flags.Lookup("wait").NoOptDefVal = "ready"
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "How long to wait with --wait.")
	return command
}

func (o *statusOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	switch {
	case o.interval < time.Second:
		return fmt.Errorf("--interval is %s, must be at least 1s", o.interval)
	case o.wait != "" && conditions[o.wait] == nil:
		return fmt.Errorf("--wait is %q, must be ready, available, updated or scheduled", o.wait)
	case o.timeout <= 0:
		return fmt.Errorf("--timeout is %s, must be more than 0", o.timeout)
	case o.watch && o.wait != "":
		return errors.New("--watch and --wait exclude each other: choose one")
	case len(o.from) > 0 && (o.watch || o.wait != ""):
		return errors.New("files don't change: leave out --watch and --wait with --from")
	}
	return o.selection.complete(o.environment, args)
}

func (o *statusOptions) scope() scope {
	return scope{namespace: o.space, podEvents: true}
}

// look prints how the DaemonSets fare.
func (o *statusOptions) look(command *cobra.Command, engine *explain.Engine) ([]explain.Status, error) {
	daemonSets, err := o.choose(engine)
	if err != nil {
		return nil, err
	}
	statuses, err := engine.Statuses(command.Context(), daemonSets)
	if err != nil {
		return nil, err
	}
	if err := sorted(&o.output, statuses); err != nil {
		return nil, err
	}
	switch {
	case o.output.isObject():
		return statuses, o.output.printObject(o.Out, "DaemonSetStatusList", struct {
			Items []explain.Status `json:"items"`
		}{statuses})
	case len(statuses) == 0:
		fmt.Fprintln(o.ErrOut, o.nothing())
	case o.output.format == formatName:
		for n := range statuses {
			fmt.Fprintln(o.Out, resourceName+statuses[n].Name)
		}
	default:
		o.print(statuses)
		o.notChecked(engine)
	}
	return statuses, nil
}

// conclude writes the last page of what is waited for, and says whether it is there in time.
func (o *statusOptions) conclude(out io.Writer, page *bytes.Buffer, there bool) error {
	if _, err := page.WriteTo(out); err != nil || there {
		return err
	}
	fmt.Fprintf(o.ErrOut, "Not %s within %s.\n", o.wait, o.timeout)
	return ErrFindings
}

// follow looks until the command is interrupted, which is no failure, or until what is
// waited for is there. What goes wrong after the first look ends nothing.
func (o *statusOptions) follow(command *cobra.Command) error {
	ctx, cancel := context.WithCancel(command.Context())
	defer cancel()
	r, err := o.followed(ctx)
	if err != nil {
		return err
	}
	interval := o.interval
	if o.wait != "" {
		interval = time.Second
	}
	ticker := o.clock.NewTicker(interval)
	defer ticker.Stop()
	out, deadline := o.Out, o.clock.Now().Add(o.timeout)
	for first := true; ; first = false {
		var page bytes.Buffer
		o.Out = &page
		there, err := o.lookAt(command, r)
		late := o.wait != "" && !o.clock.Now().Before(deadline)
		switch {
		case command.Context().Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			r.complain(err)
			page.Reset()
		case o.wait == "":
			o.show(out, page.Bytes(), first)
		}
		if there || late {
			return o.conclude(out, &page, there)
		}
		select {
		case <-ticker.C():
		case <-command.Context().Done():
			return nil
		}
	}
}

// followed returns a reader that has read the cluster, and follows it until ctx ends.
func (o *statusOptions) followed(ctx context.Context) (*reader, error) {
	r, err := o.newReader()
	if err != nil {
		return nil, err
	}
	r.follow, r.complain = true, func(err error) { fmt.Fprintln(o.ErrOut, "error:", err) }
	_, err = r.read(ctx, o.scope())
	return r, err
}

// lookAt looks at what a reader knows, and says whether what is waited for is there.
func (o *statusOptions) lookAt(command *cobra.Command, r *reader) (there bool, err error) {
	cluster, err := r.cluster()
	if err != nil {
		return false, err
	}
	engine, err := o.engine(command, cluster)
	if err != nil {
		return false, err
	}
	statuses, err := o.look(command, engine)
	if err != nil || o.wait == "" {
		return false, err
	}
	lacks := func(s explain.Status) bool { return len(s.Controller) > 0 || !conditions[o.wait](&s) }
	return !slices.ContainsFunc(statuses, lacks), nil
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
	p := o.newPrinter(o.Out)
	p.palette, p.markdown = o.palette, o.output.format == formatMarkdown
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
	if p.markdown {
		p.table(0, rows)
	} else {
		o.lines(p, aligned(rows), statuses)
	}
	for n := range statuses {
		o.remarks(p, &statuses[n])
	}
}

// lines writes the lines of a table in the colours of the states.
func (o *statusOptions) lines(p *printer, lines []string, statuses []explain.Status) {
	if !o.output.noHeaders {
		p.line(0, lines[0])
	}
	for n := range statuses {
		line := lines[n+1]
		switch statuses[n].State {
		case explain.StateStuck:
			line = p.bad(line)
		case explain.StateWaiting:
			line = p.warn(line)
		default:
		}
		p.line(0, line)
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

// remarks writes what is wrong with a DaemonSet, and how to hear more. Without headers,
// rows are all that is wanted.
func (o *statusOptions) remarks(p *printer, s *explain.Status) {
	if s.Top == nil && s.Stalled == "" && s.Misscheduled == 0 && len(s.Controller) == 0 || o.output.noHeaders {
		return
	}
	p.line(0, "")
	p.heading(0, s.Namespace+"/"+s.Name)
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
		p.fold(2, 2, "pods on "+explain.Count(s.Misscheduled, "node")+" where it does not belong")
	}
	for _, difference := range s.Controller {
		p.fold(2, 2, "The DaemonSet controller has not caught up: "+difference+".")
	}
	p.command(2, "Next: ", o.explainCommand(s.Namespace, s.Name))
}
