// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"everynode.dev/everynode/pkg/explain"
)

// TextOptions say how a map is written.
type TextOptions struct {
	// Width is how many columns there are.
	Width int
	// Whole has every node named, on a line of its own.
	Whole bool
	// ASCII has it written without characters that fonts may lack, or draw two columns wide.
	ASCII bool
	// Paint makes text stand out as an ANSI code says, if it is not nil.
	Paint func(code, text string) string
}

// leastText is how many columns are kept for names beside the cells.
const leastText = 40

// symbols stand for the states, in the order of [explain.States], where there is nothing
// but text; then come the lines of the columns.
const (
	symbols      = "■◌✗▲·│┌─…"
	asciiSymbols = "#oX^.|+-~"
)

// codes are the ANSI codes of the states, in the same order, and strong is that of titles.
var codes = []string{"32", "33", "1;31", "35", "2"}

const strong = "1"

// Symbol is what stands for a state where there is nothing but text.
func Symbol(state explain.State) string {
	return string([]rune(symbols)[slices.Index(explain.States(), state)])
}

// Text writes a map with a line for each node, or for all nodes with the same states. If
// there are more DaemonSets than columns, it has several parts.
func Text(out io.Writer, m *explain.Map, options TextOptions) error {
	t := &text{Map: m, TextOptions: options, names: names(m)}
	if t.Paint == nil {
		t.Paint = func(_, text string) string { return text }
	}
	var legend []string
	for _, state := range explain.States() {
		legend = append(legend, t.symbol(state)+" "+state.Words())
	}
	t.line(strings.Join(legend, "  "))
	// A symbol and its gap.
	const wide = 2
	room := max(options.Width-leastText, 1)
	parts := max((len(m.DaemonSets)+room-1)/room, 1)
	size := (len(m.DaemonSets) + parts - 1) / parts
	t.cell = 1
	if size*wide <= room {
		t.cell = wide
	}
	for first := 0; first < len(m.DaemonSets); first += size {
		t.part(first, min(first+size, len(m.DaemonSets)))
	}
	drawing := t.out.String()
	if options.ASCII {
		drawing = strings.Map(func(r rune) rune {
			if n := slices.Index([]rune(symbols), r); n >= 0 {
				return rune(asciiSymbols[n])
			}
			return r
		}, drawing)
	}
	_, err := io.WriteString(out, drawing)
	return err
}

type text struct {
	*explain.Map
	TextOptions
	names []string
	// cell is how many columns a cell takes.
	cell int
	out  strings.Builder
}

func (t *text) line(parts ...string) {
	t.out.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
	t.out.WriteByte('\n')
}

func (t *text) symbol(state explain.State) string {
	return t.Paint(codes[slices.Index(explain.States(), state)], Symbol(state))
}

// part writes the DaemonSets from first to before last.
func (t *text) part(first, last int) {
	t.line()
	t.columns(first, last)
	all := groups(t.Map, first, last, t.Whole)
	for n := range all {
		g := &all[n]
		if title := g.title(t.Map, len(all)); title != "" {
			t.line(t.Paint(strong, cut(title, t.Width)))
		}
		for n := range g.lines {
			t.cells(&g.lines[n], last-first)
		}
		if g.more > 0 {
			t.line(strings.Repeat(" ", (last-first)*t.cell+1), g.rest())
		}
	}
}

// columns writes above each column what it is about.
func (t *text) columns(first, last int) {
	room := t.Width - (last-first)*t.cell - 1
	counts := make([]string, last)
	longestName, longestCount := 0, 0
	for d := first; d < last; d++ {
		counts[d] = fmt.Sprintf("%d/%d", t.DaemonSets[d].Ready, t.DaemonSets[d].Desired)
		longestName = max(longestName, utf8.RuneCountInString(t.names[d]))
		longestCount = max(longestCount, len(counts[d]))
	}
	longestName = min(longestName, room-longestCount-1)
	for d := first; d < last; d++ {
		line := strings.Repeat("│"+strings.Repeat(" ", t.cell-1), d-first) + "┌" + strings.Repeat("─", (last-d)*t.cell-1)
		about := fmt.Sprintf("%-*s %*s", longestName, cut(t.names[d], longestName), longestCount, counts[d])
		about += reason(t.DaemonSets[d].Top, room-utf8.RuneCountInString(about))
		if lapsed := t.DaemonSets[d].Lapsed; lapsed > 0 {
			about += "; no room held on " + explain.Count(lapsed, "node")
		}
		t.line(line, " ", cut(about, room))
	}
}

// reason says why there are gaps, and where, if there is room for that.
func reason(top *explain.TopReason, room int) string {
	if top == nil {
		return ""
	}
	text := "  " + top.Reason.Words() + " on "
	if nodes := explain.NodeList(top.Nodes); utf8.RuneCountInString(text+nodes) <= room {
		return text + nodes
	}
	return text + explain.Count(len(top.Nodes), "node")
}

// cells writes the states of a line, and the nodes that have them.
func (t *text) cells(l *line, columns int) {
	for _, state := range l.states {
		t.out.WriteString(t.symbol(state))
		t.out.WriteString(strings.Repeat(" ", t.cell-1))
	}
	t.line(" ", cut(explain.NodeList(l.nodes), t.Width-columns*t.cell-1))
}

// cut shortens text to a number of characters, of which the last then is an ellipsis. It
// cleans it, too.
func cut(text string, most int) string {
	text = clean(text)
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:max(most-1, 0)]) + "…"
}

// Worst returns the DaemonSet with the most gaps, or nil if there are none.
func Worst(m *explain.Map) *explain.MapColumn {
	var worst *explain.MapColumn
	for n := range m.DaemonSets {
		if c := &m.DaemonSets[n]; c.Ready < c.Desired && (worst == nil || cmp.Less(worst.Desired-worst.Ready, c.Desired-c.Ready)) {
			worst = c
		}
	}
	return worst
}
