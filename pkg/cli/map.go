// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/mapview"
)

// mapOptions are the arguments and flags of map.
type mapOptions struct {
	query
	groupBy, html, svg string
	ascii              bool
}

func newMapCommand(e *environment) *cobra.Command {
	o := &mapOptions{query: query{environment: e}}
	command := newVerb("map", o.complete, o.run)
	o.addFlags(command, formatWide)
	flags := command.Flags()
	flags.StringVar(&o.groupBy, "group-by", corev1.LabelTopologyZone, "Label of nodes whose values make the groups, empty for no groups.")
	flags.BoolVar(&o.ascii, "ascii", !narrowSymbols(), "Draw with ASCII characters alone. It is on where the locale is not UTF-8 or East Asian.")
	flags.Lookup("ascii").DefValue = ""
	flags.StringVar(&o.html, "html", "", "Write a page for browsers into this file, - for the standard output.")
	flags.StringVar(&o.svg, "svg", "", "Write a picture into this file, - for the standard output.")
	return command
}

func (o *mapOptions) complete(args []string) error {
	switch {
	case o.output.format != formatTable && (o.html != "" || o.svg != ""):
		return errors.New("--output, --html and --svg exclude one another: choose one")
	case o.html != "" && o.svg != "":
		return errors.New("--html and --svg exclude one another: choose one")
	}
	return o.query.complete(args)
}

func (o *mapOptions) run(command *cobra.Command) error {
	engine, daemonSets, err := o.look(command)
	if err != nil {
		return err
	}
	if len(engine.Nodes()) == 0 {
		return errors.New("the cluster has no nodes")
	}
	m, err := engine.Map(command.Context(), daemonSets, o.groupBy)
	if err != nil {
		return err
	}
	switch {
	case o.output.isObject():
		return o.output.printObject(o.Out, "DaemonSetMap", m)
	case len(daemonSets) == 0:
		fmt.Fprintln(o.ErrOut, o.nothing())
		return nil
	case o.html != "":
		// A command needs all flags: without one of them the page has no commands.
		flags, ok := o.clusterFlags()
		return o.write(o.html, m, func(out io.Writer) error {
			return mapview.HTML(out, m, mapview.PageOptions{At: o.now(), Flags: flags, NoCommands: !ok})
		})
	case o.svg != "":
		return o.write(o.svg, m, func(out io.Writer) error { return mapview.SVG(out, m, o.now()) })
	default:
		err := o.print(m)
		o.newPrinter(o.ErrOut).notChecked(engine.NotChecked())
		return err
	}
}

// write writes a drawing into a file, which it replaces.
func (o *mapOptions) write(path string, m *explain.Map, draw func(io.Writer) error) error {
	var drawing bytes.Buffer
	if err := draw(&drawing); err != nil {
		return err
	}
	if path == "-" {
		_, err := drawing.WriteTo(o.Out)
		return err
	}
	size := drawing.Len()
	if err := os.WriteFile(path, drawing.Bytes(), 0o644); err != nil { //nolint:gosec // as the shell would have made it
		return err
	}
	fmt.Fprintf(o.ErrOut, "%s: %s, %s, %d kB\n", path, explain.Count(len(m.Nodes), "node"), explain.Count(len(m.DaemonSets), "DaemonSet"), (size+999)/1000)
	return nil
}

// print writes the map for a terminal.
func (o *mapOptions) print(m *explain.Map) error {
	p := o.newPrinter(o.Out)
	err := mapview.Text(o.Out, m, mapview.TextOptions{
		Width: cmp.Or(terminalWidth(o.Out), columnsOfText), Whole: o.output.format == formatWide, Paint: p.paint, ASCII: o.ascii,
	})
	if worst := mapview.Worst(m); worst != nil && err == nil {
		p.line(0, "")
		p.command(2, "Next: ", o.explainCommand(worst.Namespace, worst.Name))
	}
	return err
}

// narrowSymbols says whether the terminal's locale has the symbols of the map, one column wide.
func narrowSymbols() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"), "c.utf-8"))
	language, _, _ := strings.Cut(locale, "_")
	return strings.Contains(strings.ReplaceAll(locale, "-", ""), "utf8") && !slices.Contains([]string{"ja", "zh", "ko"}, language)
}
