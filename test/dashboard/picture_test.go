// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const (
	// A dashboard is 24 columns wide.
	columnWidth = 50
	rowHeight   = 26
	// axisWidth is what the numbers at the left of lines take.
	axisWidth = 50
	// step is the time between two values of a line.
	step = 2 * time.Second
)

// colours can be told apart by those who are colour-blind, and in this order also in
// black and white (https://jfly.uni-koeln.de/color/).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"}

// svg is a picture that comes into being.
type svg struct {
	*testing.T
	content strings.Builder
}

func (s *svg) text(x, y, size int, colour, text string) {
	var escaped strings.Builder
	if err := xml.EscapeText(&escaped, []byte(text)); err != nil {
		s.Fatal(err)
	}
	fmt.Fprintf(&s.content, "<text x=\"%d\" y=\"%d\" font-size=\"%d\" fill=\"%s\">%s</text>\n", x, y, size, colour, &escaped)
}

func (s *svg) line(colour, points string) {
	fmt.Fprintf(&s.content, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", points, colour)
}

// draw writes a picture of what the dashboard shows since began. Grafana draws nicer
// ones; the queries, titles, units and places are those of the dashboard.
func draw(t *testing.T, api prometheus.API, began time.Time) {
	t.Helper()
	s := &svg{T: t}
	all := panels(t, "20s")
	last := all[len(all)-1].GridPos
	width, height := 24*columnWidth, (last.Y+last.H)*rowHeight
	fmt.Fprintf(&s.content, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, height)
	for i := range all {
		panel := &all[i]
		// Some space is left between panels.
		x, y := panel.GridPos.X*columnWidth+12, panel.GridPos.Y*rowHeight
		width, height := panel.GridPos.W*columnWidth-24, panel.GridPos.H*rowHeight-12
		if panel.Type == "row" {
			s.text(x, y+18, 16, "#000", panel.Title)
			continue
		}
		fmt.Fprintf(&s.content, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#fafafa\" stroke=\"#ddd\"/>\n", x-6, y, width+12, height+6)
		s.text(x, y+16, 12, "#000", panel.Title)
		if panel.Type == "stat" {
			s.values(api, panel, x, y+50)
		} else {
			s.lines(api, panel, began, x, y+24, width, height-24)
		}
	}
	s.content.WriteString("</svg>\n")
	if err := os.WriteFile(*picture, []byte(s.content.String()), 0o644); err != nil { //nolint:gosec // everybody may see it
		t.Fatal(err)
	}
}

// values draws what a panel's query says now.
func (s *svg) values(api prometheus.API, panel *panel, x, y int) {
	s.Helper()
	value, _, err := api.Query(s.Context(), panel.Targets[0].Expr, time.Now())
	if err != nil {
		s.Fatal(err)
	}
	var shown []string
	for _, sample := range value.(model.Vector) {
		shown = append(shown, strings.TrimSpace(format(panel.FieldConfig.Defaults.Unit, float64(sample.Value))+" "+legend(panel.Targets[0].LegendFormat, sample.Metric)))
	}
	slices.Sort(shown)
	for i, text := range shown {
		s.text(x, y+30*i, 22, "#000", text)
	}
}

// lines draws a panel's queries over time into a rectangle, with a legend below.
func (s *svg) lines(api prometheus.API, panel *panel, began time.Time, x, y, width, height int) {
	s.Helper()
	var names []string
	var streams []*model.SampleStream
	top := 0.0
	for _, target := range panel.Targets {
		value, _, err := api.QueryRange(s.Context(), target.Expr, prometheus.Range{Start: began, End: began.Add(pictured), Step: step})
		if err != nil {
			s.Fatal(err)
		}
		for _, stream := range value.(model.Matrix) {
			names, streams = append(names, legend(target.LegendFormat, stream.Metric)), append(streams, stream)
			stream.Values = slices.DeleteFunc(stream.Values, func(sample model.SamplePair) bool { return math.IsNaN(float64(sample.Value)) })
			for _, sample := range stream.Values {
				top = max(top, float64(sample.Value))
			}
		}
	}
	legendHeight := 14 * len(names)
	bottom := y + height - legendHeight - 16
	left, width := x+axisWidth, width-axisWidth
	for _, part := range []float64{0, 0.5, 1} {
		level := bottom - int(part*float64(bottom-y-14))
		s.text(x, level+3, 9, "#666", format(panel.FieldConfig.Defaults.Unit, part*top))
		s.line("#ddd", fmt.Sprintf("%d,%d %d,%d", left, level, left+width, level))
	}
	s.text(left, bottom+11, 9, "#666", "0 s")
	s.text(left+width-26, bottom+11, 9, "#666", pictured.String())
	for i, stream := range streams {
		colour := colours[i%len(colours)]
		var points []string
		for _, sample := range stream.Values {
			right := float64(width) * float64(sample.Timestamp.Time().Sub(began)) / float64(pictured)
			up := 0.0
			if top > 0 {
				up = float64(bottom-y-14) * float64(sample.Value) / top
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", float64(left)+right, float64(bottom)-up))
		}
		s.line(colour, strings.Join(points, " "))
		s.text(x, bottom+26+14*i, 10, colour, "■ "+names[i])
	}
}

// legend fills in a legend as Grafana does: {{label}} is the label's value.
func legend(format string, metric model.Metric) string {
	for name, value := range metric {
		format = strings.ReplaceAll(format, "{{"+string(name)+"}}", string(value))
	}
	return format
}

// format writes a value in one of Grafana's units.
func format(unit string, value float64) string {
	switch unit {
	case "bytes":
		return fmt.Sprintf("%.3g GiB", value/(1<<30))
	case "percentunit":
		return fmt.Sprintf("%.3g %%", 100*value)
	case "s":
		if value > 3600 {
			return fmt.Sprintf("%.1f days", value/86400)
		}
		return fmt.Sprintf("%.3g ms", 1000*value)
	case "ops", "reqps":
		return fmt.Sprintf("%.3g/s", value)
	default:
		return fmt.Sprintf("%.3g", value)
	}
}
