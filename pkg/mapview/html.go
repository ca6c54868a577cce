// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"everynode.dev/everynode/pkg/explain"
)

// The page, what it is dressed in, and what it does. {{name}} is filled in. Packages that fill in
// templates would call methods by name: then the linker keeps all methods of all types, and the
// program is half as large again.
var (
	//go:embed page/map.html
	page string
	//go:embed page/map.css
	style string
	//go:embed page/map.js
	script string
	//go:embed page/shapes.svg
	shapes string
)

// escape writes text so that HTML and SVG take it for text.
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "+", "&#43;", "\x00", "\ufffd").Replace

// fill fills in values, which come after their names and are written as they are.
func fill(out io.Writer, text string, values ...string) error {
	for n := 0; n < len(values); n += 2 {
		values[n] = "{{" + values[n] + "}}"
	}
	_, err := strings.NewReplacer(values...).WriteString(out, text)
	return err
}

// PageOptions are what a page has to know besides the map.
type PageOptions struct {
	// At is when the cluster was read.
	At time.Time
	// Flags are those that lead kubectl to the cluster.
	Flags []string
	// NoCommands leaves out commands: they would lead to another cluster.
	NoCommands bool
}

// pageState is a state for the script.
type pageState struct {
	State explain.State `json:"state"`
	Words string        `json:"words"`
}

// pageData is what the script takes.
type pageData struct {
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
	data := pageData{Map: m, Names: names(m), Reasons: make(map[explain.Reason]string), Commands: !options.NoCommands}
	var buttons, rows strings.Builder
	for _, state := range explain.States() {
		data.States = append(data.States, pageState{state, state.Words()})
		fmt.Fprintf(&buttons, `
<button type="button" aria-pressed="false" data-state="%[1]s"><svg class="%[1]s" aria-hidden="true"><use href="#%[1]s"/></svg>%[2]s</button>`, state, state.Words())
	}
	for n := range m.Verdicts {
		reason := m.Verdicts[n].Reason
		data.Reasons[reason] = reason.Words()
	}
	for _, flag := range options.Flags {
		data.Flags += " " + flag
	}
	for _, c := range m.DaemonSets {
		why := ""
		if c.Top != nil {
			why = c.Top.Message
		}
		fmt.Fprintf(&rows, "\n<tr><td>%s</td><td>%s</td><td>%d</td><td>%d</td><td>%s</td></tr>", escape(c.Namespace), escape(c.Name), c.Desired, c.Ready, escape(why))
	}
	// JSON has no < > and &, so it does not end the script.
	content, err := json.Marshal(&data)
	if err != nil {
		return err
	}
	// The page may run its own script and style, and load nothing.
	policy := "default-src 'none'; style-src " + sourceOf(style) + "; script-src " + sourceOf(script)
	return fill(out, page, "policy", escape(policy), "summary", escape(summary(m)), "at", moment(options.At), "style", style, "shapes", shapes,
		"states", buttons.String(), "rows", rows.String(), "data", string(content), "script", script)
}

// sourceOf names a script or style for a Content-Security-Policy. Browsers take every
// line to end in a line feed.
func sourceOf(text string) string {
	sum := sha256.Sum256([]byte(strings.ReplaceAll(text, "\r\n", "\n")))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
