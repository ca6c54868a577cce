// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	// printedCommand is a line of a golden file that is a command, and shownCommand one of a page: other commands in
	// pages are for readers to run.
	printedCommand = regexp.MustCompile("^ *(?:- )?(?:[Nn]ext: )?`?(kubectl .*?)`?$")
	shownCommand   = regexp.MustCompile("^(?: *Next: |\\*Check:\\* `| {4}(kubectl .* --dry-run=server)$)(kubectl .*?)?`?$")
)

// The commands that are printed as Next and Fix, in whatever format and on whatever page, only look, or change nothing for
// their flag --dry-run=server. All of them are in commands.list, which an end-to-end test runs.
func TestPrintedCommands(t *testing.T) {
	t.Parallel()
	var commands []string
	for _, pattern := range []string{"../explain/testdata/*.txt", "testdata/*.*", "../../README.md", "../../docs/*.md", "../../docs/*/*.md", "../../docs/*/*/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			if filepath.Base(file) != "commands.list" {
				commands = append(commands, commandsOf(t, file)...)
			}
		}
	}
	slices.Sort(commands)
	commands = slices.Compact(commands)
	fixes := 0
	for _, command := range commands {
		switch words := verbOf(command); {
		case strings.HasSuffix(command, " --dry-run=server"):
			fixes++
		case slices.Contains([]string{"get", "describe", "logs"}, words[0]), words[0] == "rollout" && words[1] == "status", words[0] == "everynode" && words[1] == "explain":
		default:
			t.Errorf("%s may change something", command)
		}
	}
	if fixes < 15 || len(commands) < 80 {
		t.Errorf("only %d commands are found, %d of them under Fix", len(commands), fixes)
	}
	golden(t, "commands.list", strings.Join(commands, "\n")+"\n")
}

// verbOf returns the words of a command of kubectl behind its flags.
func verbOf(command string) []string {
	words := strings.Fields(command)[1:]
	return words[slices.IndexFunc(words, func(word string) bool { return !strings.HasPrefix(word, "-") }):]
}

// commandsOf returns the commands that a file shows as printed.
func commandsOf(t *testing.T, file string) (commands []string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pattern := printedCommand
	switch filepath.Ext(file) {
	case ".json", ".yaml":
		object, _, _ := strings.Cut(string(content), "\n---")
		var decoded any
		if err := yaml.Unmarshal([]byte(object), &decoded); err != nil {
			t.Fatal(file, err)
		}
		return commandsIn(decoded)
	case ".html":
		// The script of the page puts its only command together.
		if all := regexp.MustCompile(`kubectl [a-z]+ [a-z]+`).FindAllString(string(content), -1); !slices.Equal(all, []string{"kubectl everynode explain"}) {
			t.Errorf("%s has the commands %q", file, all)
		}
		return nil
	}
	if strings.Contains(file, "docs/") || strings.Contains(file, "README") {
		pattern = shownCommand
	}
	for line := range strings.Lines(colours.ReplaceAllString(string(content), "")) {
		if found := pattern.FindStringSubmatch(strings.TrimSuffix(line, "\n")); found != nil {
			commands = append(commands, strings.Join(found[1:], ""))
		}
	}
	return commands
}

// commandsIn returns the commands in an object that a verb has printed.
func commandsIn(value any) (commands []string) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			commands = append(commands, commandsIn(item)...)
		}
	case map[string]any:
		for key, item := range value {
			if command, ok := item.(string); ok && (key == "next" || key == "command") {
				commands = append(commands, command)
			}
			commands = append(commands, commandsIn(item)...)
		}
	}
	return commands
}
