// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// pages returns the text of every page by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	var paths []string
	for _, pattern := range []string{"../*.md", "../pkg/plugins/*/*.md", "../charts/*/*.md", "../deploy/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "node_modules" || path == ".vitepress":
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		pages[path] = read(t, path)
	}
	if len(pages) < 30 {
		t.Fatalf("these pages were found: %v", paths)
	}
	return pages
}

// line is a line of a page. code says that it is in a fence, printed that the fence has what
// a program prints.
type line struct {
	text          string
	code, printed bool
}

var fence = regexp.MustCompile("^ *```(.*)$")

// lines returns the lines of a page without its fences, and an error if one is not closed
// or its language is none that readers and the site know.
func lines(page string) (all []line, err error) {
	opened, language := 0, ""
	for i, text := range strings.Split(page, "\n") {
		match := fence.FindStringSubmatch(text)
		switch {
		case match == nil:
			all = append(all, line{text, opened > 0, opened > 0 && (language == "" || language == "text")})
		case opened > 0 && match[1] == "":
			opened = 0
		case opened > 0:
			return nil, fmt.Errorf("line %d: a fence in the fence of line %d", i+1, opened)
		case !slices.Contains([]string{"", "sh", "yaml", "json", "text", "go", "promql"}, match[1]):
			return nil, fmt.Errorf("line %d: a fence of the language %q", i+1, match[1])
		default:
			opened, language = i+1, match[1]
		}
	}
	if opened > 0 {
		return nil, fmt.Errorf("line %d: the fence is not closed", opened)
	}
	return all, nil
}

// anchors returns the names of a page's headings, as code hosts and the site make them.
func anchors(t *testing.T, path, page string) map[string]bool {
	t.Helper()
	all, err := lines(page)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	heading := regexp.MustCompile(`^#+ +(.*?) *$`)
	link := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	names := make(map[string]bool)
	for _, line := range all {
		if match := heading.FindStringSubmatch(line.text); match != nil && !line.code {
			names[slug(link.ReplaceAllString(match[1], "$1"))] = true
		}
	}
	return names
}

// slug is the rule of github-slugger, and of docs/.vitepress/config.mjs.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	for path, page := range all {
		text, err := lines(page)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, line := range text {
			if line.code {
				continue
			}
			for _, match := range link.FindAllStringSubmatch(line.text, -1) {
				if strings.Contains(match[1], "://") {
					continue
				}
				target := path
				if match[1] != "" {
					target = filepath.Join(filepath.Dir(path), match[1])
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", path, err)
				} else if match[2] != "" && !anchors(t, target, read(t, target))[match[2]] {
					t.Errorf("%s: %s has no heading #%s", path, target, match[2])
				}
			}
		}
	}
}

func TestLinesFit(t *testing.T) {
	const limit = 120
	for path, page := range pages(t) {
		if strings.HasPrefix(path, "../pkg") || strings.HasPrefix(path, "../charts") || strings.HasPrefix(path, "../deploy") {
			continue
		}
		all, err := lines(page)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, line := range all {
			// Rows of tables, addresses and what a program prints cannot be broken.
			if line.printed || strings.HasPrefix(line.text, "|") || strings.Contains(line.text, "](https://") {
				continue
			}
			if width := utf8.RuneCountInString(line.text); width > limit {
				t.Errorf("%s has a line of %d characters, the limit is %d: %s", path, width, limit, line.text)
			}
		}
	}
}

// Code that is only indented has no language, and makes a page of the site wider than a phone.
func TestCodeIsInFences(t *testing.T) {
	for path, page := range pages(t) {
		all, err := lines(page)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for i, line := range all {
			if i > 0 && all[i-1].text == "" && !line.code && strings.HasPrefix(line.text, "    ") {
				t.Errorf("%s: put this into a fence: %s", path, line.text)
			}
		}
	}
}

// The tests in test/docs run the blocks of these pages that begin a line and are sh. There are
// no others, so no command is left out.
func TestEveryCommandIsRun(t *testing.T) {
	for path, page := range pages(t) {
		name := strings.TrimPrefix(path, "zh/")
		if name != "start.md" && !strings.HasPrefix(name, "tutorial/") {
			continue
		}
		opened := false
		for text := range strings.SplitSeq(page, "\n") {
			if !fence.MatchString(text) {
				continue
			}
			if opened = !opened; opened && !slices.Contains([]string{"```sh", "```text", "```yaml"}, text) {
				t.Errorf("%s: make it ```sh, ```text or ```yaml, not indented: %s", path, text)
			}
		}
	}
}

// What the pages teach is the same in both languages: the same pages, commands and output.
func TestChineseHasTheSameBlocks(t *testing.T) {
	block := regexp.MustCompile("(?m)^```(?:sh|text|yaml)\n(?:.*\n)*?```$")
	all := pages(t)
	for path, page := range all {
		name, chinese := strings.CutPrefix(path, "zh/")
		if !chinese {
			if _, exists := all["zh/"+path]; strings.HasPrefix(path, "tutorial/") && !exists {
				t.Errorf("%s does not exist in Chinese", path)
			}
			continue
		}
		english, exists := all[name]
		if !exists {
			t.Errorf("%s does not exist in English", path)
			continue
		}
		if !slices.Equal(block.FindAllString(page, -1), block.FindAllString(english, -1)) {
			t.Errorf("%s and %s have different blocks", path, name)
		}
	}
}

// A piece of YAML in the tutorial is a piece of a manifest in examples/, which tests apply.
func TestTutorialShowsTheExamples(t *testing.T) {
	var examples []any
	paths, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range paths {
		for document := range strings.SplitSeq(read(t, path), "\n---\n") {
			examples = append(examples, decode(t, path, document))
		}
	}
	snippet := regexp.MustCompile("(?m)^```yaml\n((?:.*\n)*?)```$")
	for path, page := range pages(t) {
		if !strings.HasPrefix(path, "tutorial/") {
			continue
		}
		for _, match := range snippet.FindAllStringSubmatch(page, -1) {
			want := decode(t, path, match[1])
			// The one piece that is not in an example: the name of another scheduler.
			if strings.Contains(match[1], "schedulerName: everynode-scheduler") {
				continue
			}
			if !slices.ContainsFunc(examples, func(example any) bool { return contains(example, want) }) {
				t.Errorf("%s: no example contains\n%s", path, match[1])
			}
		}
	}
}

func decode(t *testing.T, path, document string) any {
	t.Helper()
	var object any
	if err := yaml.Unmarshal([]byte(document), &object); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, document)
	}
	return object
}

// contains says whether whole has all that part has. An element of a list is contained in
// the element at the same place.
func contains(whole, part any) bool {
	switch part := part.(type) {
	case map[string]any:
		object, ok := whole.(map[string]any)
		for key, value := range part {
			ok = ok && contains(object[key], value)
		}
		return ok
	case []any:
		list, ok := whole.([]any)
		if !ok || len(list) < len(part) {
			return false
		}
		for i, value := range part {
			ok = ok && contains(list[i], value)
		}
		return ok
	default:
		return whole == part
	}
}
