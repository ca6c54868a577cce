// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"everynode.dev/everynode/pkg/explain"
)

//go:embed page/map.svg
var picture string

// The measures of a picture, in pixels. A character is as wide as those of the usual
// monospaced fonts, or wider.
const (
	cellSize  = 20
	lineSize  = 16
	charWidth = 7.3
	margin    = 16
	gap       = 6
	boldWidth = 1.05
	slope     = 0.7072 // of the names above the columns
	longest   = 40     // characters of a name
)

// svg is a picture while it is drawn: the elements by what they are.
type svg struct {
	*explain.Map
	columns, titles, names, cells, legend strings.Builder
	// left is where the cells begin, and width how wide the picture is.
	left, width float64
}

// SVG writes a map as a picture of a cluster that was read at that time. What Text folds is folded here too.
func SVG(out io.Writer, m *explain.Map, at time.Time) error {
	all := groups(m, 0, len(m.DaemonSets), false)
	p := &svg{Map: m, left: margin + nameWidth(all)}
	about := summary(m) + ", " + moment(at)
	p.title(margin+lineSize, about)
	y := margin + lineSize + p.head()
	for n := range all {
		g := &all[n]
		if title := g.title(m, len(all)); title != "" {
			y += lineSize
			p.title(y, clean(title))
		}
		for n := range g.lines {
			p.line(&g.lines[n], y)
			y += lineSize
		}
		if g.more > 0 {
			y += lineSize
			p.name(y-4, g.rest())
		}
		y += gap
	}
	y += lineSize
	x := float64(margin)
	for _, state := range explain.States() {
		fmt.Fprintf(&p.legend, `
<use href="#%[1]s" class="%[1]s" x="%[2]v" y="%[3]v" width="16" height="16"/><text x="%[2]v" y="%[3]v" dx="20" dy="12">%[4]s</text>`, state, x, y, state.Words())
		x += cellSize + textWidth(state.Words()) + 2*gap
	}
	return fill(out, picture, "width", fmt.Sprint(max(p.width, x)), "height", fmt.Sprint(y+lineSize+margin), "summary", escape(about), "shapes", shapes,
		"elements", p.columns.String()+p.titles.String()+p.names.String()+p.cells.String()+p.legend.String())
}

// title writes a line across the picture that ends above y.
func (p *svg) title(y float64, text string) {
	fmt.Fprintf(&p.titles, "\n<text class=\"title\" x=\"%v\" y=\"%v\">%s</text>", margin, y-4, escape(text))
	p.width = max(p.width, margin+boldWidth*textWidth(text)+margin)
}

// name writes what is left of the cells.
func (p *svg) name(y float64, text string) {
	fmt.Fprintf(&p.names, "\n<text x=\"%v\" y=\"%v\" text-anchor=\"end\">%s</text>", p.left-gap, y, escape(text))
}

// head writes the names above the columns and returns how high they are.
func (p *svg) head() float64 {
	height := 0.0
	texts := names(p.Map)
	for d := range texts {
		texts[d] = fmt.Sprintf("%s %d/%d", cut(texts[d], longest), p.DaemonSets[d].Ready, p.DaemonSets[d].Desired)
		height = max(height, textWidth(texts[d])*slope+cellSize)
	}
	for d, text := range texts {
		x := p.left + (float64(d)+0.6)*cellSize
		fmt.Fprintf(&p.columns, "\n<text transform=\"translate(%v %v) rotate(-45)\">%s</text>", x, margin+lineSize+height-gap, escape(text))
		p.width = max(p.width, x+textWidth(text)*slope+margin)
	}
	return height
}

func (p *svg) line(l *line, y float64) {
	p.name(y+12, lineName(l))
	for d, state := range l.states {
		title := clean(p.DaemonSets[d].Name + " on " + explain.NodeList(l.nodes) + ": " + state.Words())
		fmt.Fprintf(&p.cells, `
<use href="#%[1]s" class="%[1]s" x="%[2]v" y="%[3]v" width="16" height="16"><title>%[4]s</title></use>`, state, p.left+float64(d)*cellSize+(cellSize-lineSize)/2, y, escape(title))
	}
}

// nameWidth returns how wide the names of the lines are.
func nameWidth(all []group) float64 {
	widest := 0.0
	for n := range all {
		for l := range all[n].lines {
			widest = max(widest, textWidth(lineName(&all[n].lines[l])))
		}
		if all[n].more > 0 {
			widest = max(widest, textWidth(all[n].rest()))
		}
	}
	return widest + gap
}

func lineName(l *line) string {
	return cut(explain.NodeList(l.nodes), longest)
}

func textWidth(text string) float64 {
	return charWidth * float64(utf8.RuneCountInString(text))
}
