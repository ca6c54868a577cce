// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
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

// objectFormats print any object.
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

// separate comes before what is printed of the nth of several objects.
func (o *output) separate(out io.Writer, n int) {
	switch {
	case n == 0 || o.format == formatName || o.format == formatJSON:
	case o.format == formatYAML:
		fmt.Fprintln(out, "---")
	default:
		fmt.Fprintln(out)
	}
}

// isObject says whether the format is for programs.
func (o *output) isObject() bool {
	return slices.Contains(objectFormats, o.format)
}

// apiVersion is the version of what verbs print for programs.
const apiVersion = "everynode.dev/v1alpha1"

// list is an object for several.
type list[T any] struct {
	Items []T `json:"items"`
}

// printObject writes an object of a kind in a format for programs. Its version and its kind come first.
func (o *output) printObject(out io.Writer, kind string, object any) error {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	// Commands may have ampersands.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		return err
	}
	text := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,%s`, apiVersion, kind, content.Bytes()[1:])
	var decoded map[string]any
	err := json.Unmarshal(text, &decoded)
	switch {
	case err != nil:
	case o.format == formatYAML:
		text, err = yaml.JSONToYAML(text)
	case o.format == formatJSON:
		content.Reset()
		err = json.Indent(&content, text, "", "  ")
		text = content.Bytes()
	case o.format == formatColumns:
		return o.columns(out, decoded)
	default:
		var found string
		found, err = evaluate(o.template, decoded)
		text = []byte(found)
	}
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// columns writes a row for each item of a list, or one for an object that is none.
func (o *output) columns(out io.Writer, object map[string]any) error {
	items, ok := object["items"].([]any)
	if !ok {
		items = []any{object}
	}
	rows := make([][]string, len(items)+1)
	for column := range strings.SplitSeq(o.template, ",") {
		header, path, _ := strings.Cut(column, ":")
		rows[0] = append(rows[0], header)
		for n, item := range items {
			found, err := evaluate(path, item)
			if err != nil {
				return err
			}
			rows[n+1] = append(rows[n+1], cmp.Or(found, "<none>"))
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
	type keyed struct {
		key  string
		item T
	}
	rows := make([]keyed, len(items))
	for n, item := range items {
		decoded, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&item)
		if err != nil {
			return err
		}
		key, err := evaluate(o.sortBy, decoded)
		if err != nil {
			return fmt.Errorf("--sort-by: %w", err)
		}
		rows[n] = keyed{key, item}
	}
	slices.SortStableFunc(rows, func(a, b keyed) int {
		x, errX := strconv.ParseFloat(a.key, 64)
		y, errY := strconv.ParseFloat(b.key, 64)
		if errX != nil || errY != nil {
			return explain.CompareNames(a.key, b.key)
		}
		return cmp.Compare(x, y)
	})
	for n := range rows {
		items[n] = rows[n].item
	}
	return nil
}
