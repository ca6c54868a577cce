// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// width is how wide text is made where it can be folded.
const width = 80

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// terminalWidth returns how many columns a terminal has, or width if out is none.
func terminalWidth(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return width
}

// palette colours words on a terminal. What is coloured is also said in words.
type palette struct {
	on bool
}

// newPalette follows https://no-color.org.
func newPalette(out io.Writer) palette {
	return palette{on: isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p palette) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\033[" + code + "m" + text + "\033[0m"
}

func (p palette) bad(text string) string    { return p.paint("1;31", text) }
func (p palette) warn(text string) string   { return p.paint("33", text) }
func (p palette) good(text string) string   { return p.paint("32", text) }
func (p palette) strong(text string) string { return p.paint("1", text) }
func (p palette) odd(text string) string    { return p.paint("35", text) }
func (p palette) faint(text string) string  { return p.paint("2", text) }

// printer writes text with indentation, and remembers nothing.
type printer struct {
	palette
	out io.Writer
}

func newPrinter(out io.Writer) *printer {
	return &printer{palette: newPalette(out), out: out}
}

// line writes a line as it is, but for what a terminal would obey: messages come from
// containers and registries.
func (p *printer) line(indent int, text string) {
	text = commands.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasSuffix(found, "m") {
			return found
		}
		return string(utf8.RuneError)
	})
	fmt.Fprintln(p.out, strings.TrimRight(strings.Repeat(" ", indent)+text, " "))
}

// commands are colours, and single characters that are none.
var commands = regexp.MustCompile(`\x1b\[[0-9;]*m|[[:cntrl:]]|[\x{80}-\x{9f}]`)

// fold writes text in lines of at most width characters. Further lines are indented
// by hang more.
func (p *printer) fold(indent, hang int, text string) {
	for _, line := range fold(text, width-indent, width-indent-hang) {
		p.line(indent, line)
		if hang > 0 {
			indent, hang = indent+hang, 0
		}
	}
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
	return utf8.RuneCountInString(colours.ReplaceAllString(text, ""))
}

// colours are what palette makes.
var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// table writes rows with aligned columns, two spaces apart. The last column is as wide
// as it is.
func (p *printer) table(indent int, rows [][]string) {
	widths := columnWidths(rows)
	for _, row := range rows {
		p.line(indent, tableLine(row, widths))
	}
}

func columnWidths(rows [][]string) []int {
	var widths []int
	for _, row := range rows {
		for n, cell := range row {
			if n == len(widths) {
				widths = append(widths, 0)
			}
			widths[n] = max(widths[n], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func tableLine(row []string, widths []int) string {
	var line strings.Builder
	for n, cell := range row {
		line.WriteString(cell)
		if n < len(row)-1 {
			line.WriteString(strings.Repeat(" ", widths[n]-utf8.RuneCountInString(cell)+2))
		}
	}
	return line.String()
}

// apiVersion is the version of what verbs print for programs.
const apiVersion = "everynode.dev/v1alpha1"

// printObject writes object in format, formatJSON or formatYAML, under a kind.
func printObject(out io.Writer, format, kind string, object any) error {
	var content, text bytes.Buffer
	encoder := json.NewEncoder(&content)
	// Commands have ampersands.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		return err
	}
	// The two fields come first, and the others as they are.
	whole := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,%s`, apiVersion, kind, content.Bytes()[1:])
	if format == formatYAML {
		lines, err := yaml.JSONToYAML(whole)
		if err != nil {
			return err
		}
		_, err = out.Write(lines)
		return err
	}
	if err := json.Indent(&text, whole, "", "  "); err != nil {
		return err
	}
	_, err := text.WriteTo(out)
	return err
}
