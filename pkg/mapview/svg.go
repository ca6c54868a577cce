// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"time"
	"unicode/utf8"

	"everynode.dev/everynode/pkg/explain"
)

// The page and the picture, which share the shapes of the states. The rules of escaping
// are those of HTML, which are right for what is filled into the picture: text and
// numbers.
var (
	//go:embed page/map.html page/map.svg page/shapes.svg
	files     embed.FS
	templates = template.Must(template.ParseFS(files, "page/*"))
)

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

// svg is what the template takes.
type svg struct {
	Width, Height float64
	Summary       string
	Legend        []svgMark
	LegendY       float64
	Columns       []svgText
	Titles        []svgText
	Names         []svgText
	Cells         []svgCell
}

type svgText struct {
	X, Y float64
	Text string
}

type svgMark struct {
	State explain.State
	X     float64
	Words string
}

type svgCell struct {
	X, Y  float64
	State explain.State
	Title string
}

// SVG writes a map as a picture of a cluster that was read at that time. What Text folds is folded here too.
func SVG(out io.Writer, m *explain.Map, at time.Time) error {
	return templates.ExecuteTemplate(out, "map.svg", newSVG(m, at))
}

func newSVG(m *explain.Map, at time.Time) *svg {
	p := &svg{Summary: summary(m) + ", " + moment(at)}
	all := groups(m, 0, len(m.DaemonSets), false)
	titled := len(all) > 1 || len(all) == 1 && all[0].name != ""
	left := margin + nameWidth(all)
	p.Titles = append(p.Titles, svgText{margin, margin + lineSize - 4, p.Summary})
	y := margin + lineSize + p.columns(m, left)
	for n := range all {
		g := &all[n]
		if titled {
			y += lineSize
			p.Titles = append(p.Titles, svgText{margin, y - 4, clean(g.title(m, len(all)))})
		}
		for n := range g.lines {
			p.line(m, &g.lines[n], left, y)
			y += lineSize
		}
		if g.more > 0 {
			y += lineSize
			p.Names = append(p.Names, svgText{left - gap, y - 4, g.rest()})
		}
		y += gap
	}
	p.LegendY = y + lineSize
	x := float64(margin)
	for _, state := range explain.States() {
		p.Legend = append(p.Legend, svgMark{state, x, state.Words()})
		x += cellSize + textWidth(state.Words()) + 2*gap
	}
	for _, title := range p.Titles {
		x = max(x, margin+boldWidth*textWidth(title.Text)+margin)
	}
	p.Width = max(p.Width, x)
	p.Height = p.LegendY + lineSize + margin
	return p
}

// columns places the names above the columns and returns how high they are.
func (p *svg) columns(m *explain.Map, left float64) float64 {
	height := 0.0
	for d, name := range names(m) {
		name = fmt.Sprintf("%s %d/%d", cut(name, longest), m.DaemonSets[d].Ready, m.DaemonSets[d].Desired)
		x := left + (float64(d)+0.6)*cellSize
		p.Columns = append(p.Columns, svgText{X: x, Text: name})
		height = max(height, textWidth(name)*slope+cellSize)
		p.Width = max(p.Width, x+textWidth(name)*slope+margin)
	}
	for n := range p.Columns {
		p.Columns[n].Y = margin + lineSize + height - gap
	}
	return height
}

func (p *svg) line(m *explain.Map, l *line, left, y float64) {
	p.Names = append(p.Names, svgText{left - gap, y + 12, lineName(l)})
	for d, state := range l.states {
		p.Cells = append(p.Cells, svgCell{left + float64(d)*cellSize + (cellSize-lineSize)/2, y, state, clean(m.DaemonSets[d].Name + " on " + explain.NodeList(l.nodes) + ": " + state.Words())})
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
