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
	*environment
	selection
	output  output
	groupBy string
	html    string
	svg     string
	ascii   bool
}

func newMapCommand(e *environment) *cobra.Command {
	o := &mapOptions{environment: e}
	command := &cobra.Command{
		Use:   "map [ds/NAME...]",
		Short: "Show which DaemonSet runs on which node, at a glance",
		Long: `Show a table of nodes and DaemonSets, with a symbol for how each DaemonSet fares
on each node. In large clusters, nodes on which all of them fare alike are one line,
those with trouble first.

As an HTML page it can be searched and filtered, and tells the verdict behind each
cell. The page is a single file that loads nothing.`,
		Example: `  # All DaemonSets, nodes by their zone
  kubectl everynode map -A

  # A page for a large cluster
  kubectl everynode map -A --html=map.html

  # A picture for a ticket, nodes by another label
  kubectl everynode map -A --group-by=node.kubernetes.io/instance-type --svg=map.svg`,
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatWide)
	e.addPatienceFlag(command)
	e.addFromFlag(command)
	o.addFlag(command)
	flags := command.Flags()
	flags.StringVar(&o.groupBy, "group-by", corev1.LabelTopologyZone, "Label of nodes whose values make the groups, empty for no groups.")
	flags.BoolVar(&o.ascii, "ascii", !narrowSymbols(), "Draw with ASCII characters alone. It is on where the locale is not UTF-8 or East Asian.")
	flags.Lookup("ascii").DefValue = ""
	flags.StringVar(&o.html, "html", "", "Write a page for browsers into this file, - for the standard output.")
	flags.StringVar(&o.svg, "svg", "", "Write a picture into this file, - for the standard output.")
	return command
}

func (o *mapOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	switch {
	case o.output.format != formatTable && (o.html != "" || o.svg != ""):
		return errors.New("--output, --html and --svg exclude one another: choose one")
	case o.html != "" && o.svg != "":
		return errors.New("--html and --svg exclude one another: choose one")
	}
	return o.selection.complete(o.environment, args)
}

func (o *mapOptions) run(command *cobra.Command) error {
	engine, err := o.read(command, scope{namespace: o.space, podEvents: true})
	if err != nil {
		return err
	}
	daemonSets, err := o.choose(engine)
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
		// Without all flags the page names no commands.
		flags, ok := o.clusterFlags()
		return o.write(o.html, m, func(out io.Writer) error {
			return mapview.HTML(out, m, mapview.PageOptions{At: o.now(), Flags: flags, NoCommands: !ok})
		})
	case o.svg != "":
		return o.write(o.svg, m, func(out io.Writer) error { return mapview.SVG(out, m, o.now()) })
	default:
		o.notChecked(engine)
		return o.print(m)
	}
}

// write writes a drawing into a file that is not there or replaces it.
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
	paint := func(state explain.State, text string) string {
		switch state {
		case explain.StateReady:
			return p.good(text)
		case explain.StateWaiting:
			return p.warn(text)
		case explain.StateStuck:
			return p.bad(text)
		case explain.StateStray:
			return p.odd(text)
		default:
			return p.faint(text)
		}
	}
	err := mapview.Text(o.Out, m, mapview.TextOptions{
		Width: terminalWidth(o.Out), Whole: o.output.format == formatWide, Paint: paint, Strong: p.strong, ASCII: o.ascii,
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
