// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"everynode.dev/everynode/pkg/webhook/scan"
)

// person is what readPerson reads.
type person struct {
	Name    string
	Friends []string
	Age     int
}

func readPerson(s *scan.Scanner, p *person) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "name":
			scan.String(s, &p.Name)
		case "friends":
			s.Array(func() {
				var friend person
				readPerson(s, &friend)
				p.Friends = append(p.Friends, friend.Name)
			})
		case "age":
			s.Into(&p.Age)
		case "else":
			s.Skip()
		}
	})
}

func TestScanner(t *testing.T) {
	for name, tc := range map[string]struct {
		document string
		want     person
		wantErr  string // The library does not say the same thing every time.
	}{
		"what is read": {
			document: `{"name": "Ada", "age": 36, "friends": [{"name": "Mary"}, {"name": "Charles"}]}`,
			want:     person{Name: "Ada", Age: 36, Friends: []string{"Mary", "Charles"}},
		},
		"what is passed over": {
			document: `{"a": {"b": ["}", "\"", "\\", {}], "c": -1.5e3}, "d": true, "e": null, "f": "\\\"", "name": "Ada", "g": []}`,
			want:     person{Name: "Ada"},
		},
		"white space":            {document: " {\n\t\"name\" :\r\"Ada\" , \"friends\" : [ { } ] } ", want: person{Name: "Ada", Friends: []string{""}}},
		"escapes":                {document: `{"n\u0061me": "A\u0064a\n\"\\"}`, want: person{Name: "Ada\n\"\\"}},
		"other letters":          {document: `{"name": "Zoë"}`, want: person{Name: "Zoë"}},
		"null":                   {document: `null`},
		"nulls":                  {document: `{"name": null, "age": null, "friends": null}`},
		"empty":                  {document: `{"friends": [], "else": {}}`},
		"nothing":                {document: ``, wantErr: "want an object: unexpected EOF"},
		"no object":              {document: `[]`, wantErr: "want an object, got an array"},
		"no array":               {document: `{"friends": {}}`, wantErr: "friends: want an array, got an object"},
		"no string":              {document: `{"name": -1}`, wantErr: "name: want a string, got a number"},
		"a path":                 {document: `{"friends": [{"friends": [{"name": true}]}]}`, wantErr: "friends.friends.name: want a string, got a boolean"},
		"no number":              {document: `{"age": "old"}`, wantErr: "age: json: "},
		"no value":               {document: `{"age": }`, wantErr: "age: want a value, got '}'"},
		"no JSON":                {document: `hello`, wantErr: "want an object, got 'h'"},
		"a name of no string":    {document: `{1: 2}`, wantErr: "want a string, got a number"},
		"no colon":               {document: `{"name" "Ada"}`, wantErr: "want a colon, got a string"},
		"no comma":               {document: `{"friends": [{} {}]}`, wantErr: "friends: want a comma, got an object"},
		"a comma too many":       {document: `{"name": "Ada",}`, wantErr: "want a string, got '}'"},
		"a bad escape":           {document: `{"name": "\x"}`, wantErr: "name: jsontext: "},
		"more than one":          {document: `{} {}`, wantErr: "want the end, got an object"},
		"cut in a string":        {document: `{"else": "Ada\"`, wantErr: "else: want the end of a string: unexpected EOF"},
		"cut in an object":       {document: `{"else": {"name": "Ada"`, wantErr: "else: want the end of an object or array: unexpected EOF"},
		"cut in a nested string": {document: `{"else": ["Ada\`, wantErr: "else: want the end of an object or array: unexpected EOF"},
		"cut where nobody reads": {document: `{"a": [1`, wantErr: "a: want the end of an object or array: unexpected EOF"},
		"cut in an array":        {document: `{"friends": [{}`, wantErr: "friends: want a comma: unexpected EOF"},
		"cut before a value":     {document: `{"else":`, wantErr: "else: want a value: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := scan.New([]byte(tc.document))
			var got person
			readPerson(s, &got)
			err := s.End()
			if tc.wantErr != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.wantErr) {
					t.Fatalf("error is %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

// Of every document that the library takes, the parts are those that it finds.
func FuzzScanner(f *testing.F) {
	for _, document := range []string{
		`{"a": 1, "b": [1, "]", {"c": null}], "a": "\\"}`, `[{"a": "}"}, -1.5e3, "\"\\\u00e9", true, []]`, `"Zo\u00eb\n"`, ` null `, `{"":[[]]}`,
	} {
		f.Add([]byte(document))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fields := map[string]jsontext.Value{}
		compare(t, data, &fields, func(s *scan.Scanner) {
			s.Object(func(name []byte) {
				key := string(name)
				fields[key] = s.Value()
			})
		})
		elements := []jsontext.Value{}
		compare(t, data, &elements, func(s *scan.Scanner) {
			s.Array(func() { elements = append(elements, s.Value()) })
		})
		text := ""
		compare(t, data, &text, func(s *scan.Scanner) { scan.String(s, &text) })
	})
}

// compare reads a document as read does, into got, and as the library does.
func compare[T any](t *testing.T, data []byte, got *T, read func(*scan.Scanner)) {
	t.Helper()
	s := scan.New(data)
	read(s)
	err := s.End()
	var want T
	if json.Unmarshal(data, &want, jsontext.AllowDuplicateNames(true)) != nil {
		return
	}
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	if diff := cmp.Diff(want, *got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%q (-library,+scan):\n%s", data, diff)
	}
}
