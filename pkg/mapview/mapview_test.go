// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package mapview_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/js"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/mapview"
	"everynode.dev/everynode/pkg/snapshot/snapshottest"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, have, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(have), "\n")); diff != "" {
		t.Errorf("%s (-want,+got), -update writes it anew:\n%s", path, diff)
	}
}

func largeMap(tb testing.TB, nodes, daemonSets, pods int) *explain.Map {
	tb.Helper()
	engine, err := explain.New(tb.Context(), snapshottest.Cluster(nodes, daemonSets, pods), explain.Options{Now: snapshottest.Now.Time})
	if err != nil {
		tb.Fatal(err)
	}
	m, err := engine.Map(tb.Context(), engine.DaemonSets(), "topology.kubernetes.io/zone")
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// A large map fits a terminal: nodes with the same states are a line, and DaemonSets
// that don't fit beside one another are below one another.
func TestLargeMapIsFolded(t *testing.T) {
	t.Parallel()
	m := largeMap(t, 500, 50, 10_000)
	for _, width := range []int{80, 200} {
		var out bytes.Buffer
		if err := mapview.Text(&out, m, mapview.TextOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if columns := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); columns > width {
				t.Errorf("this line has %d columns of %d: %s", columns, width, line)
			}
		}
		golden(t, fmt.Sprintf("large-%d.txt", width), out.Bytes())
	}
}

// Where no two nodes are alike, only those with the most trouble have a line.
func TestDifferentNodesAreLeftOut(t *testing.T) {
	t.Parallel()
	m := differentNodes(60)
	for name, want := range map[bool]string{
		false: "and 40 more nodes in 40 other lines",
		true:  "node-59",
	} {
		var out bytes.Buffer
		if err := mapview.Text(&out, m, mapview.TextOptions{Width: 80, Whole: name}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("whole: %t: this lacks %q:\n%s", name, want, &out)
		}
	}
	var picture bytes.Buffer
	if err := mapview.SVG(&picture, m, snapshottest.Now.Time); err != nil {
		t.Fatal(err)
	}
	if want := "and 40 more nodes in 40 other lines"; !strings.Contains(picture.String(), want) {
		t.Errorf("the picture lacks %q", want)
	}
}

// differentNodes returns a map whose nodes are all different.
func differentNodes(nodes int) *explain.Map {
	m := &explain.Map{Verdicts: []explain.MapVerdict{{State: explain.StateReady}, {State: explain.StateStuck}}}
	for d := range 6 {
		m.DaemonSets = append(m.DaemonSets, explain.MapColumn{Namespace: "default", Name: fmt.Sprintf("daemons-%d", d), Desired: nodes})
	}
	for n := range nodes {
		row := explain.MapRow{Name: fmt.Sprintf("node-%d", n)}
		for d := range 6 {
			row.Cells = append(row.Cells, n>>d&1)
		}
		m.Nodes = append(m.Nodes, row)
	}
	return m
}

// A picture is XML, whatever names are in it.
func TestPictureIsXML(t *testing.T) {
	t.Parallel()
	const evil = "</text><script>&'\"\x1b\x00\xff]]>"
	m := &explain.Map{
		GroupBy:    evil,
		DaemonSets: []explain.MapColumn{{Namespace: evil, Name: evil, Desired: 1}},
		Verdicts:   []explain.MapVerdict{{State: explain.StateStray}},
		Nodes:      []explain.MapRow{{Name: evil, Group: evil, Cells: []int{0}}, {Name: "node", Cells: []int{0}}},
	}
	var out bytes.Buffer
	if err := mapview.SVG(&out, m, snapshottest.Now.Time); err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(&out)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if element, ok := token.(xml.StartElement); ok && element.Name.Local == "script" {
			t.Error("a name has become an element")
		}
	}
}

// A terminal may be of any width.
func TestNarrowTerminal(t *testing.T) {
	t.Parallel()
	m := differentNodes(3)
	for width := range 60 {
		if err := mapview.Text(io.Discard, m, mapview.TextOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
	}
}

// The shapes of states differ, so that nobody needs the colours.
func TestSymbolsDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]explain.State)
	for _, state := range explain.States() {
		symbol := mapview.Symbol(state)
		if other, taken := seen[symbol]; taken {
			t.Errorf("%s and %s are both %s", state, other, symbol)
		}
		seen[symbol] = state
	}
}

// A browser is not everywhere where the tests run, so the script's syntax is checked without one.
func TestScriptIsJavaScript(t *testing.T) {
	content, err := os.ReadFile("page/map.js")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Parse(parse.NewInputBytes(content), js.Options{}); err != nil {
		t.Errorf("page/map.js: %v", err)
	}
}
