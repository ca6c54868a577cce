// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// block is a block of commands of a page, and what the page says that they print.
type block struct {
	line     int // of the page
	commands string
	want     []string // lines; none are checked if it is empty
}

// fails says whether the page shows that the last command fails.
func (b *block) fails() bool {
	for _, line := range b.want {
		if first, _, _ := strings.Cut(line, " "); strings.EqualFold(strings.TrimSuffix(first, ":"), "error") {
			return true
		}
	}
	return false
}

var fence = regexp.MustCompile("^```([a-z]*)$")

// parse returns the blocks of a page: each ```sh, with the ```text that is the next
// block, if there is one.
func parse(page string) []block {
	var blocks []block
	language, start, previous := "", 0, ""
	var lines []string
	for i, line := range strings.Split(page, "\n") {
		match := fence.FindStringSubmatch(line)
		switch {
		case match == nil:
			lines = append(lines, line)
		case start == 0:
			language, start, lines = match[1], i+1, nil
		default:
			switch {
			case language == "sh":
				blocks = append(blocks, block{line: start, commands: strings.Join(lines, "\n")})
			case language == "text" && previous == "sh":
				blocks[len(blocks)-1].want = lines
			}
			previous, start = language, 0
		}
	}
	return blocks
}

// wordsToCheck is how many words of a line have to be as the page has them: names and
// counts come first, ages and addresses last.
const wordsToCheck = 3

// missing returns the lines of want whose first words are not those of a line of output,
// in this order. "…" stands for anything but a space, and a line "…" for any lines.
func missing(want []string, output string) []string {
	lines := strings.Split(output, "\n")
	var missed []string
	for _, line := range want {
		words := strings.Fields(line)
		if len(words) == 0 || line == "…" {
			continue
		}
		for i, word := range words[:min(len(words), wordsToCheck)] {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), "…", `\S*`)
		}
		pattern := regexp.MustCompile(`^\s*` + strings.Join(words[:min(len(words), wordsToCheck)], `\s+`) + `(\s|$)`)
		found := -1
		for i := range lines {
			if pattern.MatchString(lines[i]) {
				found = i
				break
			}
		}
		if found < 0 {
			missed = append(missed, line)
			continue
		}
		lines = lines[found+1:]
	}
	return missed
}

// mark begins the line that says which block's output follows.
const mark = "@@@@ line "

// script returns what has bash run all blocks, one after the other, as in one
// terminal.
func script(blocks []block) string {
	var s strings.Builder
	s.WriteString("exec 2>&1\n")
	for i := range blocks {
		b := &blocks[i]
		fmt.Fprintf(&s, "echo '%s%d'\n", mark, b.line)
		if b.fails() {
			fmt.Fprintf(&s, "if {\n%s\n}; then echo 'It should have failed.'; exit 1; fi\n", b.commands)
		} else {
			s.WriteString(b.commands + "\n")
		}
	}
	return s.String()
}

// outputs returns what each block has printed, by its line.
func outputs(all string) map[string]string {
	printed := make(map[string]string)
	for _, part := range strings.Split("\n"+all, "\n"+mark)[1:] {
		line, output, _ := strings.Cut(part, "\n")
		printed[line] = output
	}
	return printed
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestBlocksAreRead(t *testing.T) {
	blocks := parse("# A page\n\n```sh\nkubectl get nodes\n```\n\nprints\n\n```text\nNAME STATUS\n```\n\n" +
		"```yaml\na: b\n```\n```text\nnobody's\n```\n```sh\nfalse\n```\n```text\nerror: no\n```\n")
	if len(blocks) != 2 || blocks[0].line != 3 || blocks[0].commands != "kubectl get nodes" || blocks[0].fails() ||
		len(blocks[0].want) != 1 || !blocks[1].fails() {
		t.Errorf("the blocks are %+v", blocks)
	}
}

func TestOutputIsCompared(t *testing.T) {
	output := "NAME       DESIRED   CURRENT   READY\nfilebeat   4         4         3\npod-x7f   1/1   Running\n"
	for name, tc := range map[string]struct {
		want   []string
		missed int
	}{
		"words after the third may differ": {want: []string{"NAME DESIRED CURRENT", "filebeat 4 4 4"}},
		"a count differs":                  {want: []string{"filebeat 4 5"}, missed: 1},
		"a dot of ellipsis is any text":    {want: []string{"pod-… 1/1 Running 0 1m"}},
		"a word is a whole word":           {want: []string{"pod 1/1"}, missed: 1},
		"lines are in order":               {want: []string{"filebeat 4 4", "NAME DESIRED CURRENT"}, missed: 1},
		"an ellipsis of lines is nothing":  {want: []string{"…", "", "pod-x7f 1/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if missed := missing(tc.want, output); len(missed) != tc.missed {
				t.Errorf("missing are %q, want %d", missed, tc.missed)
			}
		})
	}
}
