// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// page is made of the table of reasons.
const page = "../../../docs/reasons.md"

var ages = map[aging]string{
	waits:      "It may pass by itself. It is trouble when it lasts longer than `--patience`.",
	atOnce:     "It is trouble at once.",
	onceJoined: "It is trouble at once, except on a node that is younger than `--patience`.",
	noGap:      "It is no trouble.",
}

func TestReasonsPage(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("# Reasons\n\nEvery verdict of `kubectl everynode` has one of these reasons. *Check* is a command that shows more, *Mend* is\n" +
		"what to do. `go test ./pkg/explain -update` writes this page.\n\n" +
		"| Reason | In words | Step | Alert |\n|---|---|---|---|\n")
	for _, row := range allRows() {
		fmt.Fprintf(&text, "| [`%s`](#%s) | %s | %s | %s |\n", row.Reason, strings.ToLower(string(row.Reason)), row.Words, row.Step, row.Alert)
	}
	text.WriteString("\nThe alerts are those of the [Kubernetes mixin](https://github.com/kubernetes-monitoring/kubernetes-mixin).\n")
	for _, row := range allRows() {
		fmt.Fprintf(&text, "\n## %s\n\n%s\n", row.Reason,
			wrap(fmt.Sprintf("**%s.** %s %s", strings.ToUpper(row.Words[:1])+row.Words[1:], row.Meaning, ages[row.Ages])))
		if row.Next != "" {
			fmt.Fprintf(&text, "\n*Check:* `kubectl %s`\n", placeholder.ReplaceAllStringFunc(row.Next, func(found string) string {
				return map[string]string{"{ds}": "ds/NAME", "{pod}": "pod/NAME", "{podspace}": "NAMESPACE"}[found] + strings.ToUpper(strings.Trim(strings.NewReplacer("{ds}", "", "{pod}", "", "{podspace}", "").Replace(found), "{}"))
			}))
		}
		if row.Mend != "" {
			fmt.Fprintf(&text, "\n%s\n", wrap("*Mend:* "+mendWithoutNumbers.Replace(row.Mend)))
		}
	}
	golden(t, page, text.String())
}

// mendWithoutNumbers writes a remedy for no DaemonSet in particular.
var mendWithoutNumbers = strings.NewReplacer(" {container}", "", "{onnode}", "pods", "{creates}", "the pods", "{rolls}", "replaces all of its pods")

// harmless are remedies that change no pod by themselves.
var harmless = []Reason{ReasonDeleting, ReasonNotCreated, ReasonUnpinned, ReasonGated, ReasonRequires, ReasonSchedulable, ReasonPreempting, ReasonPaced,
	ReasonRejected, ReasonNoNetwork, ReasonVolume, ReasonNotStarted, ReasonInit, ReasonNotReady}

// Every remedy that changes pods says how many.
func TestMendsSayHowMuch(t *testing.T) {
	t.Parallel()
	for _, row := range allRows() {
		numbered := strings.Contains(strings.ReplaceAll(row.Mend, "{container}", ""), "{")
		if row.Mend != "" && numbered == slices.Contains(harmless, row.Reason) {
			t.Errorf("%s: says how much: %t: %s", row.Reason, numbered, row.Mend)
		}
	}
}

// wrap breaks a paragraph into lines of at most 120 characters.
func wrap(paragraph string) string {
	var lines []string
	for word := range strings.FieldsSeq(paragraph) {
		last := len(lines) - 1
		if last < 0 || len(lines[last])+1+len(word) > 120 {
			lines = append(lines, word)
		} else {
			lines[last] += " " + word
		}
	}
	return strings.Join(lines, "\n")
}

// Every reason has all that the page wants to say of it.
func TestRowsAreComplete(t *testing.T) {
	t.Parallel()
	for _, row := range allRows() {
		if ages[row.Ages] == "" || row.Message == "" || row.Meaning == "" || !slices.Contains(Steps(), row.Step) {
			t.Errorf("%s is not complete: %+v", row.Reason, row)
		}
		if row.Ages != noGap && (row.Next == "" || row.Mend == "" || row.Alert == "") {
			t.Errorf("%s is trouble, and lacks a command, a remedy or an alert: %+v", row.Reason, row)
		}
	}
}

// allRows are all reasons in the order of the steps.
func allRows() []Row {
	all, _ := rows()
	return all
}
