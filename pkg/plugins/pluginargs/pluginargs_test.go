// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package pluginargs_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"

	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

type args struct {
	Mode  string   `json:"mode"`
	Names []string `json:"names"`
}

func (a *args) Validate(path *field.Path) error {
	if a.Mode == "wrong" {
		return field.Invalid(path.Child("mode"), a.Mode, "is wrong")
	}
	return nil
}

func TestLoad(t *testing.T) {
	raw := func(contentType, content string) runtime.Object {
		return &runtime.Unknown{ContentType: contentType, Raw: []byte(content)}
	}
	tests := map[string]struct {
		object  runtime.Object
		want    args
		wantErr string
	}{
		"no args keep the defaults":        {nil, args{Mode: "default"}, ""},
		"empty args keep the defaults":     {&runtime.Unknown{}, args{Mode: "default"}, ""},
		"JSON":                             {raw("", `{"names": ["a"]}`), args{"default", []string{"a"}}, ""},
		"YAML":                             {raw(runtime.ContentTypeYAML, "mode: fast"), args{Mode: "fast"}, ""},
		"a misspelt field is named":        {raw("", `{"moed": "fast"}`), args{}, `unknown field "moed"`},
		"a field in the wrong case":        {raw("", `{"Mode": "fast"}`), args{}, `unknown field "Mode"`},
		"a repeated field is named":        {raw("", `{"mode": "a", "mode": "b"}`), args{}, `duplicate field "mode"`},
		"a repeated field in YAML":         {raw(runtime.ContentTypeYAML, "mode: a\nmode: b"), args{}, `key "mode" already set in map`},
		"a value that is not valid":        {raw("", `{"mode": "wrong"}`), args{}, `args of Plugin: args.mode: Invalid value: "wrong"`},
		"a value of the wrong type":        {raw("", `{"mode": 1}`), args{}, "cannot unmarshal number"},
		"the args of another plugin":       {&config.NodeAffinityArgs{}, args{}, "args are of type *config.NodeAffinityArgs"},
		"something that is not JSON":       {raw("", "{"), args{}, "unexpected end of JSON input"},
		"a list where fields are expected": {raw("", "[]"), args{}, "cannot unmarshal array"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := args{Mode: "default"}
			err := pluginargs.Load("Plugin", tc.object, &got)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error is %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("args (-want,+got):\n%s", diff)
			}
		})
	}
}
