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
	"strings"
	"time"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/pkg/explain"
)

// statusOptions are the arguments and flags of status.
type statusOptions struct {
	query
	watch    bool
	interval time.Duration
	wait     string
	timeout  time.Duration
	// width is that of the terminal, 0 if the output is none.
	width int
}

// conditions are what --wait can wait for.
var conditions = map[string]func(*explain.Status) bool{
	"scheduled": func(s *explain.Status) bool { return s.Scheduled == s.Desired },
	"updated":   func(s *explain.Status) bool { return s.Updated == s.Desired },
	"available": func(s *explain.Status) bool { return s.Available == s.Desired },
	"ready":     func(s *explain.Status) bool { return s.Ready == s.Desired && s.Updated == s.Desired },
}

func newStatusCommand(e *environment) *cobra.Command {
	o := &statusOptions{query: query{environment: e}}
	command := newVerb("status", o.complete, o.run)
	o.addFlags(command, formatWide, formatName, formatMarkdown)
	o.output.addTableFlags(command)
	flags := command.Flags()
	flags.BoolVarP(&o.watch, "watch", "w", false, "Show them as they change, until Ctrl-C.")
	flags.DurationVar(&o.interval, "interval", 5*time.Second, "How long to wait between two looks with --watch, at least 1s.")
	flags.StringVar(&o.wait, "wait", "", "Wait until all are ready, available, updated or scheduled.")
	flags.Lookup("wait").NoOptDefVal = "ready"
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "How long to wait with --wait.")
	return command
}

func (o *statusOptions) complete(args []string) error {
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
	return o.query.complete(args)
}

func (o *statusOptions) run(command *cobra.Command) error {
	if o.watch || o.wait != "" {
		return o.follow(command)
	}
	engine, err := o.read(command, o.space)
	if err != nil {
		return err
	}
	o.width = terminalWidth(o.Out)
	_, err = o.show(command, engine)
	return err
}

// show prints how the DaemonSets fare.
func (o *statusOptions) show(command *cobra.Command, engine *explain.Engine) ([]explain.Status, error) {
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
		return statuses, o.output.printObject(o.Out, "DaemonSetStatusList", list[explain.Status]{statuses})
	case len(statuses) == 0:
		fmt.Fprintln(o.ErrOut, o.nothing())
	case o.output.format == formatName:
		for n := range statuses {
			fmt.Fprintln(o.Out, resourceName+statuses[n].Name)
		}
	default:
		o.print(statuses)
		o.newPrinter(o.ErrOut).notChecked(engine.NotChecked())
	}
	return statuses, nil
}

// follow shows the status again and again, until the command is interrupted, which is no failure, or
// the condition of --wait holds. Errors after the first time are printed and do not end it.
func (o *statusOptions) follow(command *cobra.Command) error {
	ctx, cancel := context.WithCancel(command.Context())
	defer cancel()
	r, err := o.newReader()
	if err != nil {
		return err
	}
	r.follow, r.complain = true, func(err error) { fmt.Fprintln(o.ErrOut, "error:", err) }
	if _, err := r.read(ctx, scope{namespace: o.space, podEvents: true}); err != nil {
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
		if done, err := o.followOnce(command, r, out, first, deadline); done || err != nil {
			return err
		}
		select {
		case <-ticker.C():
		case <-command.Context().Done():
			return nil
		}
	}
}

// followOnce shows the status once, and says whether nothing more is waited for.
func (o *statusOptions) followOnce(command *cobra.Command, r *reader, out io.Writer, first bool, deadline time.Time) (done bool, err error) {
	var page bytes.Buffer
	o.Out, o.width = &page, terminalWidth(out)
	there, err := o.lookAt(command, r)
	if command.Context().Err() != nil {
		return true, nil //nolint:nilerr // an interruption is no failure
	}
	switch {
	case err != nil && first:
		return true, err
	case err != nil:
		r.complain(err)
		page.Reset()
	}
	late := o.wait != "" && !o.clock.Now().Before(deadline)
	if o.wait == "" || there || late {
		if err := o.showPage(out, &page, first || err != nil); err != nil {
			return true, err
		}
	}
	if !there && late {
		fmt.Fprintf(o.ErrOut, "Not %s within %s.\n", o.wait, o.timeout)
		return true, ErrFindings
	}
	return there, nil
}

// showPage writes a page of --watch, in a terminal in place of the one before. joined: no line
// is left empty before it.
func (o *statusOptions) showPage(out io.Writer, page *bytes.Buffer, joined bool) error {
	switch {
	case o.wait != "" || page.Len() == 0:
	case isTerminal(out):
		fmt.Fprint(out, clearScreen)
	case !joined:
		fmt.Fprintln(out)
	}
	_, err := page.WriteTo(out)
	return err
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
	statuses, err := o.show(command, engine)
	switch {
	case err != nil || o.wait == "":
		return false, err
	case len(statuses) == 0:
		return false, errors.New("there is nothing to wait for")
	}
	lacks := func(s explain.Status) bool { return len(s.Controller) > 0 || !conditions[o.wait](&s) }
	return !slices.ContainsFunc(statuses, lacks), nil
}

// clearScreen empties a terminal.
const clearScreen = "\033[H\033[2J"

// columns returns the names and the values of a row.
func (o *statusOptions) columns(s *explain.Status) (names []string, values []any) {
	column := func(name string, value any) { names, values = append(names, name), append(values, value) }
	if o.all {
		column("NAMESPACE", s.Namespace)
	}
	column("NAME", s.Name)
	column("DESIRED", s.Desired)
	column("READY", s.Ready)
	column("UP-TO-DATE", s.Updated)
	column("AVAILABLE", s.Available)
	column("MISSING", s.Missing)
	column("RESTARTS", s.Restarts)
	column("GAP", o.ageOr(s.GapSince, "-"))
	column("AGE", o.ageOr(&s.CreationTimestamp, "-"))
	if o.output.format == formatWide {
		column("SCHEDULED", s.Scheduled)
		column("CREATED", s.Created)
		column("MISSCHEDULED", s.Misscheduled)
		column("HELD", cmp.Or(s.HeldText(), "-"))
		column("HELD ON", explain.Count(s.HeldNodes, "node"))
	}
	return names, values
}

// print writes a table, and below it what is wrong.
func (o *statusOptions) print(statuses []explain.Status) {
	p := o.printer()
	header, _ := o.columns(&explain.Status{})
	rows := [][]string{header}
	for n := range statuses {
		var row []string
		_, values := o.columns(&statuses[n])
		for _, value := range values {
			row = append(row, fmt.Sprint(value))
		}
		rows = append(rows, row)
	}
	if p.markdown {
		p.table(0, rows)
	}
	lines, left := o.fit(rows)
	for n, line := range lines {
		switch {
		case n == 0 && o.output.noHeaders:
			continue
		case n > 0 && statuses[n-1].State == explain.StateStuck:
			line = p.bad(line)
		case n > 0 && statuses[n-1].State == explain.StateWaiting:
			line = p.warn(line)
		}
		p.line(0, line)
	}
	// Without headers, rows are all that is wanted.
	if o.output.noHeaders {
		return
	}
	if len(left) > 0 {
		p.section("Left out to fit the terminal: " + strings.Join(left, ", ") + " (-o wide shows all).")
	}
	for n := range statuses {
		p.remarks(&statuses[n])
	}
}

// spare are the columns that a narrow terminal can do without, the first of all first.
var spare = []string{"AVAILABLE", "AGE", "UP-TO-DATE", "RESTARTS"}

// fit returns rows as lines that fit the terminal, and the columns that are left out for that. Markdown has no lines.
func (o *statusOptions) fit(rows [][]string) (lines, left []string) {
	switch o.output.format {
	case formatMarkdown:
		return nil, nil
	case formatWide:
		return aligned(rows), nil
	}
	lines = aligned(rows)
	for _, name := range spare {
		if o.width == 0 || !slices.ContainsFunc(lines, func(line string) bool { return columns(line) > o.width }) {
			break
		}
		n := slices.Index(rows[0], name)
		for m := range rows {
			rows[m] = slices.Delete(rows[m], n, n+1)
		}
		lines, left = aligned(rows), append(left, name)
	}
	return lines, left
}

// remarks writes what is wrong with a DaemonSet, and how to hear more.
func (p *printer) remarks(s *explain.Status) {
	if s.Top == nil && s.Stalled == "" && s.Misscheduled == 0 && len(s.Controller) == 0 {
		return
	}
	p.line(0, "")
	p.heading(0, s.Namespace+"/"+s.Name)
	if s.Top != nil {
		state := ""
		if s.Top.State == explain.StateWaiting {
			state = ", " + s.Top.State.Words()
		}
		p.items(fmt.Sprintf("%s on %s%s: %s", s.Top.Reason.Words(), p.nodes(s.Top.Nodes), state, s.Top.Message))
	}
	if s.Stalled != "" {
		p.items("update stalled: " + s.Stalled)
	}
	if s.LapsedNodes > 0 {
		p.items("everynode-scheduler holds no room for it any more on " + explain.Count(s.LapsedNodes, "node") + ": no pod appeared there")
	}
	if s.Misscheduled > 0 {
		p.items("pods on " + explain.Count(s.Misscheduled, "node") + " where it does not belong")
	}
	for _, difference := range s.Controller {
		p.items("The DaemonSet controller has not caught up: " + difference + ".")
	}
	p.command(2, "Next: ", p.explainCommand(s.Namespace, s.Name))
}
