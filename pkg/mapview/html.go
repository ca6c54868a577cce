// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"strings"
	"time"

	"everynode.dev/everynode/pkg/explain"
)

// What the page is dressed in, and what it does.
var (
	//go:embed page/map.css
	style string
	//go:embed page/map.js
	script string
)

// PageOptions are what a page has to know besides the map.
type PageOptions struct {
	// At is when the cluster was read.
	At time.Time
	// Flags are those that lead kubectl to the cluster.
	Flags []string
	// NoCommands leaves out commands: they would lead to another cluster.
	NoCommands bool
}

// pageData is what the template takes.
type pageData struct {
	Summary, At string
	// Policy lets the page run its own script and style, and load nothing.
	Policy string
	Style  template.CSS
	Script template.JS
	States []pageState
	// Data is what the script takes.
	Data scriptData
}

type pageState struct {
	State explain.State `json:"state"`
	Words string        `json:"words"`
}

type scriptData struct {
	*explain.Map
	// Names are those of the DaemonSets.
	Names  []string    `json:"names"`
	States []pageState `json:"states"`
	// Reasons are the words of the reasons that occur.
	Reasons map[explain.Reason]string `json:"reasons"`
	Flags   string                    `json:"flags"`
	// Commands says whether the page names commands.
	Commands bool `json:"commands"`
}

// HTML writes a map as a page that can be searched and filtered and tells the verdict
// behind each cell. It is one file and loads nothing. Its script keeps only the rows
// in the document that are in view.
func HTML(out io.Writer, m *explain.Map, options PageOptions) error {
	data := pageData{
		Summary: summary(m),
		At:      moment(options.At),
		Policy:  "default-src 'none'; style-src " + sourceOf(style) + "; script-src " + sourceOf(script),
		Style:   template.CSS(style), //nolint:gosec // the page's own
		Script:  template.JS(script), //nolint:gosec // the page's own
		Data:    scriptData{Map: m, Names: names(m), Reasons: make(map[explain.Reason]string), Commands: !options.NoCommands},
	}
	for _, state := range explain.States() {
		data.States = append(data.States, pageState{state, state.Words()})
	}
	for n := range m.Verdicts {
		reason := m.Verdicts[n].Reason
		data.Data.Reasons[reason] = reason.Words()
	}
	data.Data.States = data.States
	for _, flag := range options.Flags {
		data.Data.Flags += " " + flag
	}
	return templates.ExecuteTemplate(out, "map.html", &data)
}

// sourceOf names a script or style for a Content-Security-Policy. Browsers take every
// line to end in a line feed.
func sourceOf(text string) string {
	sum := sha256.Sum256([]byte(strings.ReplaceAll(text, "\r\n", "\n")))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
