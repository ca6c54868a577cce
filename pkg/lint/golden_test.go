// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/lint"
)

var update = flag.Bool("update", false, "write what the tests get into the files that they compare it with, docs/lint.md among them")

func readFile(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(content)
}

// compare compares got with the content of a file.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil { //nolint:gosec // a file of the repository
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(readFile(t, path), got); diff != "" {
		t.Errorf("%s (-want,+got); `go test ./pkg/lint -update` writes it:\n%s", path, diff)
	}
}

// realDaemonSets returns, by file and in its order, the project's examples and some
// like those that many clusters run.
func realDaemonSets(tb testing.TB) iter.Seq2[string, *appsv1.DaemonSet] {
	tb.Helper()
	var paths []string
	for _, pattern := range []string{"../../examples/*.yaml", "testdata/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			tb.Fatalf("%s: %v: %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	return func(yield func(string, *appsv1.DaemonSet) bool) {
		for _, path := range paths {
			for document := range strings.SplitSeq(readFile(tb, path), "\n---\n") {
				var kind struct{ Kind string }
				if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
					tb.Fatal(err)
				}
				if kind.Kind == "DaemonSet" && !yield(path, decode(tb, document)) {
					return
				}
			}
		}
	}
}

// TestRealDaemonSets pins what is found in them. It all has to be true.
func TestRealDaemonSets(t *testing.T) {
	var got strings.Builder
	for path, ds := range realDaemonSets(t) {
		fmt.Fprintf(&got, "%s\n", strings.TrimPrefix(path, "../../"))
		for _, finding := range lint.Check(ds) {
			fmt.Fprintf(&got, "  %s %s\n", finding.Severity, finding)
		}
	}
	compare(t, "testdata/findings.txt", got.String())
}

// TestDocumentation compares docs/lint.md with what the rules say of themselves.
func TestDocumentation(t *testing.T) {
	var page strings.Builder
	page.WriteString(introduction)
	for _, rule := range lint.Rules() {
		fmt.Fprintf(&page, "| [`%s`](#%s) | %s | %s |\n", rule.ID, rule.ID, rule.Severity, rule.Title)
	}
	for _, rule := range lint.Rules() {
		if rule.Doc() != "docs/lint.md#"+rule.ID {
			t.Errorf("%s is explained in %s", rule.ID, rule.Doc())
		}
		text := fmt.Sprintf("%s\n%s", wrap("**"+rule.Title+".** "+rule.Reason), wrap("*Instead:* "+rule.Fix))
		fmt.Fprintf(&page, "\n## %s\n\n%s", rule.ID, strings.ReplaceAll(text, "docs/configuration.md", "the [configuration](configuration.md#annotations)"))
		if rule.Example != "" {
			fmt.Fprintf(&page, "\n```yaml\n%s\n```\n", rule.Example)
		}
	}
	compare(t, "../../docs/lint.md", page.String())
}

// wrap breaks a paragraph into lines of at most 120 characters.
func wrap(paragraph string) string {
	var lines strings.Builder
	width := 0
	for word := range strings.FieldsSeq(paragraph) {
		switch {
		case width == 0:
		case width+1+len(word) > 120:
			lines.WriteByte('\n')
			width = 0
		default:
			lines.WriteByte(' ')
			width++
		}
		lines.WriteString(word)
		width += len(word)
	}
	return lines.String() + "\n"
}

const introduction = `# What is wrong with a DaemonSet

` + "`kubectl everynode lint -f FILE`" + ` checks manifests. everynode-webhook checks every DaemonSet that is created or changed,
by the same rules. There are three levels:

- An **error** can never work, or is a value that means nothing. The webhook refuses it.
- A **warning** works, and will cause trouble one day. The webhook admits it, and ` + "`kubectl apply`" + ` shows the warning.
- An **info** is something that every pod should have, DaemonSet or not. ` + "`lint --level=info`" + ` shows them.

` + "`lint`" + ` also makes the API server's own checks, and shows them first. The webhook does not repeat them. What only the
cluster knows, such as whether a volume can be shared, is not checked.

Warnings can be silenced for one DaemonSet, errors cannot:

` + "```yaml" + `
metadata:
  annotations:
    everynode.dev/lint-ignore: no-priority-class,no-memory-limit
` + "```" + `

This page is made from ` + "`pkg/lint/rules.yaml`" + `.

| Rule | | Finds |
|---|---|---|
`

// TestExamplesFit: what the rules advise is YAML that fits somewhere into a DaemonSet.
func TestExamplesFit(t *testing.T) {
	for _, rule := range lint.Rules() {
		places := []any{&appsv1.DaemonSet{}, &appsv1.DaemonSetSpec{}, &corev1.PodSpec{}, &corev1.Affinity{}, &corev1.Container{}}
		if !slices.ContainsFunc(places, func(place any) bool { return yaml.UnmarshalStrict([]byte(rule.Example), place) == nil }) {
			t.Errorf("%s: this fits nowhere:\n%s", rule.ID, rule.Example)
		}
	}
}
