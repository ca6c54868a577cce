// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// columnsOfText is the width to which text is folded.
const columnsOfText = 80

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// terminalWidth returns how many columns a terminal has, 0 if out is none or does not tell.
func terminalWidth(out io.Writer) int {
	file, ok := out.(*os.File)
	if !ok {
		return 0
	}
	// With an error it is 0.
	columns, _, _ := term.GetSize(int(file.Fd()))
	return columns
}

// printer writes text with indentation, or the same as markdown. What is coloured is also
// said in words.
type printer struct {
	*environment
	out      io.Writer
	markdown bool
	// wide: all names are written. all: nothing is cut short.
	wide, all bool
}

func (e *environment) newPrinter(out io.Writer) *printer {
	return &printer{environment: e, out: out}
}

func (p *printer) paint(code, text string) string {
	if !p.colored || text == "" {
		return text
	}
	return "\033[" + code + "m" + text + "\033[0m"
}

func (p *printer) bad(text string) string    { return p.paint("1;31", text) }
func (p *printer) warn(text string) string   { return p.paint("33", text) }
func (p *printer) good(text string) string   { return p.paint("32", text) }
func (p *printer) strong(text string) string { return p.paint("1", text) }

// line writes a line without control characters, except colours: messages come from containers
// and registries.
func (p *printer) line(indent int, text string) {
	if p.markdown {
		indent = 0
	}
	text = commands.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasSuffix(found, "m") {
			return found
		}
		return string(utf8.RuneError)
	})
	fmt.Fprintln(p.out, strings.TrimRight(strings.Repeat(" ", indent)+text, " "))
}

// commands are colours and other control characters.
var commands = regexp.MustCompile(`\x1b\[[0-9;]*m|[[:cntrl:]]|[\x{80}-\x{9f}]`)

// escape makes text of what markdown would interpret.
var escape = strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`, "`", "\\`", "|", `\|`, "[", `\[`)

// heading writes what the lines below belong to.
func (p *printer) heading(hang int, text string) {
	if p.markdown {
		p.line(0, "### "+escape.Replace(text))
		p.line(0, "")
		return
	}
	p.fold(0, hang, text)
}

// command writes a command for people to copy.
func (p *printer) command(indent int, label, text string) {
	switch {
	case text == "":
	case p.markdown:
		p.line(0, "- "+label+"`"+text+"`")
	default:
		p.line(indent, label+p.strong(text))
	}
}

// fold writes text in lines of at most columnsOfText. Further lines are indented by hang more.
func (p *printer) fold(indent, hang int, text string) {
	if p.markdown {
		if text = escape.Replace(text); indent > 0 {
			text = "- " + text
		}
		p.line(0, text)
		return
	}
	for _, line := range fold(text, columnsOfText-indent, columnsOfText-indent-hang) {
		p.line(indent, line)
		indent, hang = indent+hang, 0
	}
}

// items writes sentences that belong to a heading, without the empty ones.
func (p *printer) items(sentences ...string) {
	for _, sentence := range sentences {
		if sentence != "" {
			p.fold(2, 2, sentence)
		}
	}
}

// notChecked tells what could not be looked at.
func (p *printer) notChecked(what []string) {
	for _, sentence := range what {
		p.fold(0, 2, "Not checked: "+sentence)
	}
}

// section writes a line that is apart from those before it.
func (p *printer) section(text string) {
	p.line(0, "")
	p.fold(0, 2, text)
}

// fold breaks text between words. A word that is too long has a line of its own.
func fold(text string, first, rest int) []string {
	var lines []string
	var line strings.Builder
	limit := first
	for word := range strings.FieldsSeq(text) {
		if line.Len() > 0 && columns(line.String())+1+columns(word) > limit {
			lines = append(lines, line.String())
			line.Reset()
			limit = rest
		}
		if line.Len() > 0 {
			line.WriteByte(' ')
		}
		line.WriteString(word)
	}
	return append(lines, line.String())
}

// columns returns how many columns of a terminal text takes.
func columns(text string) int {
	n := 0
	for _, r := range colours.ReplaceAllString(text, "") {
		n++
		if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
			n++
		}
	}
	return n
}

// colours are what paint writes.
var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// titled writes rows as table does. The names of the columns, separated by commas, are for
// markdown only.
func (p *printer) titled(indent int, names string, rows [][]string) {
	if p.markdown {
		rows = slices.Insert(rows, 0, strings.Split(names, ","))
	}
	p.table(indent, rows)
}

// table writes rows with aligned columns. In markdown the first has the names of the columns.
func (p *printer) table(indent int, rows [][]string) {
	if !p.markdown {
		for _, line := range aligned(rows) {
			p.line(indent, line)
		}
		return
	}
	p.line(0, "")
	for n, row := range rows {
		cells := make([]string, len(row))
		for m := range row {
			cells[m] = escape.Replace(row[m])
		}
		p.line(0, "| "+strings.Join(cells, " | ")+" |")
		if n == 0 {
			p.line(0, strings.Repeat("|---", len(row))+"|")
		}
	}
	p.line(0, "")
}

// aligned returns a line for each row, with two spaces between columns.
func aligned(rows [][]string) []string {
	var text bytes.Buffer
	writer := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		// Writing to memory does not fail.
		_, _ = fmt.Fprintln(writer, strings.Join(row, "\t"))
	}
	_ = writer.Flush()
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}
