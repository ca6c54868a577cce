// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Args are the arguments of a cause, by the names that the message of its reason has
// in braces. Arguments that the message does not name only tell causes apart.
type Args map[string]string

// Cause is a reason with what it is about.
type Cause struct {
	Reason Reason `json:"reason"`
	Args   Args   `json:"args,omitempty"`
}

// placeholder is an argument in the text of a reason: {want}, or {have*} for a value that
// is each node's own.
var placeholder = regexp.MustCompile(`\{([a-z]+)(\*?)\}`)

// String returns the message: a sentence, or a few.
func (c *Cause) String() string {
	return fillIn(c.Reason.row().Message, c.Args)
}

// fillIn puts arguments into the text of a reason.
func fillIn(text string, args Args) string {
	if !strings.Contains(text, "{") {
		return text
	}
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		return args[strings.Trim(found, "{*}")]
	})
}

// key is the same for causes that differ in the nodes' own values at most.
func (c *Cause) key() string {
	key := []string{string(c.Reason)}
	for _, name := range slices.Sorted(maps.Keys(c.Args)) {
		if !strings.Contains(c.Reason.row().Message, "{"+name+"*}") {
			key = append(key, name+"="+c.Args[name])
		}
	}
	return strings.Join(key, "\n")
}

// keyOf is the key of several causes together.
func keyOf(causes []Cause) string {
	keys := make([]string, len(causes))
	for n := range causes {
		keys[n] = causes[n].key()
	}
	return strings.Join(keys, "\n\n")
}

// message writes several causes, of which the first is the main one.
func message(causes []Cause) string {
	texts := make([]string, len(causes))
	for n := range causes {
		texts[n] = causes[n].String()
	}
	return strings.Join(texts, " Besides: ")
}

// merge returns the causes of many nodes in one: what is each node's own is a summary.
// All have the same key.
func merge(all [][]Cause) []Cause {
	merged := slices.Clone(all[0])
	for n := range merged {
		args := maps.Clone(merged[n].Args)
		for name := range args {
			values := make([]string, len(all))
			for m := range all {
				values[m] = all[m][n].Args[name]
			}
			args[name] = summarize(values)
		}
		merged[n].Args = args
	}
	return merged
}

// fewValues is how many different values are written out.
const fewValues = 3

// summarize writes values of many nodes: a range of numbers, a few values, or the first
// ones and how many more there are.
func summarize(values []string) string {
	distinct := slices.Clone(values)
	slices.SortFunc(distinct, CompareNames)
	distinct = slices.Compact(distinct)
	_, err := strconv.Atoi(distinct[0])
	last := distinct[len(distinct)-1]
	_, errLast := strconv.Atoi(last)
	switch {
	case len(distinct) == 1:
		return last
	case err == nil && errLast == nil:
		return distinct[0] + " to " + last
	case len(distinct) <= fewValues:
		return strings.Join(distinct[:len(distinct)-1], ", ") + " or " + last
	default:
		return fmt.Sprintf("%s or %d others", strings.Join(distinct[:fewValues-1], ", "), len(distinct)-fewValues+1)
	}
}
