// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mapview draws a map of nodes and DaemonSets: as text for a terminal, as an
// SVG picture, and as an HTML page that needs nothing but a browser.
//
// A state has a shape and a colour, and the shape alone tells it. Names and messages
// come from outside and are never taken for markup.
package mapview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"everynode.dev/everynode/pkg/explain"
)

const (
	// foldFrom is from how many nodes on those with equal cells are one line.
	foldFrom = 41
	// mostLines is how many lines a group then has at most.
	mostLines = 20
)

// group is the nodes with the same value of the label that nodes are grouped by.
type group struct {
	name  string
	nodes int
	lines []line
	// more are the nodes that have no line, and moreLines how many lines they would have.
	more, moreLines int
}

// line is nodes with the same states.
type line struct {
	nodes  []string
	states []explain.State
}

// groups returns the lines of the DaemonSets from first to before last. Large maps are
// folded, unless they shall be whole.
func groups(m *explain.Map, first, last int, whole bool) []group {
	fold := !whole && len(m.Nodes) >= foldFrom
	var all []group
	var lines map[string]int
	for n := range m.Nodes {
		row := &m.Nodes[n]
		if n == 0 || row.Group != m.Nodes[n-1].Group {
			all = append(all, group{name: row.Group})
			lines = make(map[string]int)
		}
		g := &all[len(all)-1]
		g.nodes++
		states := make([]explain.State, 0, last-first)
		for d := first; d < last; d++ {
			states = append(states, m.State(row, d))
		}
		key := fmt.Sprint(states)
		at, known := lines[key]
		if !fold || !known {
			at = len(g.lines)
			lines[key] = at
			g.lines = append(g.lines, line{states: states})
		}
		g.lines[at].nodes = append(g.lines[at].nodes, row.Name)
	}
	for n := range all {
		if fold {
			all[n].fold()
		}
	}
	return all
}

// fold puts trouble first, and leaves out what is too much to look at.
func (g *group) fold() {
	slices.SortStableFunc(g.lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(b.troubles(), a.troubles()), cmp.Compare(len(b.nodes), len(a.nodes)))
	})
	if len(g.lines) <= mostLines {
		return
	}
	g.moreLines = len(g.lines) - mostLines
	for _, l := range g.lines[mostLines:] {
		g.more += len(l.nodes)
	}
	g.lines = g.lines[:mostLines]
}

// troubles returns how many DaemonSets are stuck.
func (l *line) troubles() int {
	return len(l.states) - len(slices.DeleteFunc(slices.Clone(l.states), func(state explain.State) bool { return state == explain.StateStuck }))
}

// title names a group. It is empty if there is nothing to tell groups apart by.
func (g *group) title(m *explain.Map, groups int) string {
	if g.name == "" && groups == 1 {
		return ""
	}
	return cmp.Or(g.name, "without the label "+m.GroupBy) + ", " + explain.Count(g.nodes, "node")
}

// rest says what has no line.
func (g *group) rest() string {
	return fmt.Sprintf("and %s in %s", explain.Count(g.more, "more node"), explain.Count(g.moreLines, "other line"))
}

// names returns the names of the DaemonSets, without the namespace if they are all of
// the same.
func names(m *explain.Map) []string {
	several := slices.ContainsFunc(m.DaemonSets, func(c explain.MapColumn) bool { return c.Namespace != m.DaemonSets[0].Namespace })
	all := make([]string, len(m.DaemonSets))
	for n, c := range m.DaemonSets {
		if all[n] = c.Name; several {
			all[n] = c.Namespace + "/" + c.Name
		}
	}
	return all
}

// summary says what a map is about.
func summary(m *explain.Map) string {
	ready, desired := 0, 0
	for _, c := range m.DaemonSets {
		ready, desired = ready+c.Ready, desired+c.Desired
	}
	return fmt.Sprintf("%s on %s: %d of %d pods are ready", explain.Count(len(m.DaemonSets), "DaemonSet"), explain.Count(len(m.Nodes), "node"), ready, desired)
}

// moment writes a time.
func moment(at time.Time) string {
	return at.UTC().Format("2006-01-02 15:04 UTC")
}

// clean replaces what a terminal would obey and what XML has no way to write.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == 0xfffe || r == 0xffff {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
}
