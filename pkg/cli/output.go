// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/explain"
)

// The formats that verbs print in.
const (
	formatTable    = ""
	formatWide     = "wide"
	formatJSON     = "json"
	formatYAML     = "yaml"
	formatName     = "name"
	formatMarkdown = "markdown"
	formatJSONPath = "jsonpath"
	formatColumns  = "custom-columns"
)

// objectFormats are those for which there has to be an object only.
var objectFormats = []string{formatJSON, formatYAML, formatJSONPath, formatColumns}

// output is the flag --output, and those that have to do with it.
type output struct {
	format  string
	formats []string
	// template is what follows jsonpath= or custom-columns=.
	template  string
	noHeaders bool
	sortBy    string
}

func (o *output) addFlag(command *cobra.Command, formats ...string) {
	o.formats = slices.Concat(formats, objectFormats)
	command.Flags().StringVarP(&o.format, "output", "o", "", "Output format: "+o.list()+".")
	// The flag exists.
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp))
}

// addTableFlags are for verbs whose output is a table.
func (o *output) addTableFlags(command *cobra.Command) {
	command.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave out the names of the columns.")
	command.Flags().StringVar(&o.sortBy, "sort-by", "", "Sort by what this JSONPath finds in an item of -o json: .missing, .restarts, .gapSince.")
}

func (o *output) list() string {
	list := strings.Join(o.formats, ", ")
	return strings.NewReplacer(formatJSONPath, formatJSONPath+"=TEMPLATE", formatColumns, formatColumns+"=HEADER:PATH,...").Replace(list)
}

func (o *output) validate() error {
	format, template, found := strings.Cut(o.format, "=")
	templated := format == formatJSONPath || format == formatColumns
	if found != templated || o.format != formatTable && !slices.Contains(o.formats, format) {
		return fmt.Errorf("--output is %q, must be one of %s", o.format, o.list())
	}
	if o.format, o.template = format, template; format != formatColumns {
		return nil
	}
	for column := range strings.SplitSeq(template, ",") {
		if header, path, _ := strings.Cut(column, ":"); header == "" || path == "" {
			return fmt.Errorf("--output: %q is no HEADER:PATH, as in NAME:.name", column)
		}
	}
	return nil
}

// isObject says whether the format is for programs.
func (o *output) isObject() bool {
	return slices.Contains(objectFormats, o.format)
}

// apiVersion is the version of what verbs print for programs.
const apiVersion = "everynode.dev/v1alpha1"

// printObject writes an object of a kind in a format for programs.
func (o *output) printObject(out io.Writer, kind string, object any) error {
	content, err := encode(kind, object)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	switch o.format {
	case formatYAML:
		content, err = yaml.JSONToYAML(content)
		text.Write(content)
	case formatJSON:
		err = json.Indent(&text, content, "", "  ")
	default:
		var decoded map[string]any
		if err := json.Unmarshal(content, &decoded); err != nil {
			return err
		}
		if o.format == formatColumns {
			return o.columns(out, decoded)
		}
		var found string
		if found, err = evaluate(o.template, decoded); err == nil {
			text.WriteString(found)
		}
	}
	if err != nil {
		return err
	}
	_, err = text.WriteTo(out)
	return err
}

// encode returns an object as JSON. Its version and its kind come first.
func encode(kind string, object any) ([]byte, error) {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	// Commands have ampersands.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,%s`, apiVersion, kind, content.Bytes()[1:]), nil
}

// columns writes a row for each item of a list, or one for an object that is none.
func (o *output) columns(out io.Writer, object map[string]any) error {
	items, ok := object["items"].([]any)
	if !ok {
		items = []any{object}
	}
	rows := make([][]string, 1, len(items)+1)
	for column := range strings.SplitSeq(o.template, ",") {
		header, path, _ := strings.Cut(column, ":")
		rows[0] = append(rows[0], header)
		for n, item := range items {
			if len(rows) == n+1 {
				rows = append(rows, nil)
			}
			found, err := evaluate(path, item)
			if err != nil {
				return err
			}
			if found == "" {
				found = "<none>"
			}
			rows[n+1] = append(rows[n+1], found)
		}
	}
	if o.noHeaders {
		rows = rows[1:]
	}
	(&printer{out: out}).table(0, rows)
	return nil
}

// evaluate returns what a JSONPath finds in a value. Braces and the first dot may be left
// out, as in kubectl.
func evaluate(path string, value any) (string, error) {
	if !strings.Contains(path, "{") {
		path = "{." + strings.TrimPrefix(path, ".") + "}"
	}
	parsed := jsonpath.New("output").AllowMissingKeys(true)
	if err := parsed.Parse(path); err != nil {
		return "", fmt.Errorf("%q is no JSONPath: %w", path, err)
	}
	var found bytes.Buffer
	err := parsed.Execute(&found, value)
	return found.String(), err
}

// sorted sorts items as --sort-by wants it: numbers as numbers.
func sorted[T any](o *output, items []T) error {
	if o.sortBy == "" {
		return nil
	}
	keys := make(map[*T]string, len(items))
	pointers := make([]*T, len(items))
	for n := range items {
		item := items[n]
		content, err := json.Marshal(item)
		if err != nil {
			return err
		}
		var decoded any
		if err := json.Unmarshal(content, &decoded); err != nil {
			return err
		}
		pointers[n] = &item
		if keys[&item], err = evaluate(o.sortBy, decoded); err != nil {
			return fmt.Errorf("--sort-by: %w", err)
		}
	}
	slices.SortStableFunc(pointers, func(a, b *T) int {
		x, errX := strconv.ParseFloat(keys[a], 64)
		y, errY := strconv.ParseFloat(keys[b], 64)
		switch {
		case errX != nil || errY != nil:
			return explain.CompareNames(keys[a], keys[b])
		case x < y:
			return -1
		case x > y:
			return 1
		default:
			return 0
		}
	})
	for n, pointer := range pointers {
		items[n] = *pointer
	}
	return nil
}
