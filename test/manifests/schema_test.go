// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

var update = flag.Bool("update", false, "write what the API's types are into the schema of the chart's values")

const valuesSchema = "../../charts/everynode/values.schema.json"

// The schema of the values refuses what does not exist, at every depth, and knows
// policies as the webhook does.
func TestSchemaIsClosed(t *testing.T) {
	var values, config map[string]any
	for path, into := range map[string]*map[string]any{
		valuesSchema: &values,
		"../../deploy/webhook-config.schema.json": &config,
	} {
		if err := json.Unmarshal(read(t, path), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	open := map[string]bool{
		// Helm's own, and what plugins of others are told.
		"/properties/global": true, "/properties/scheduler/properties/pluginConfig/items/properties/args": true,
	}
	var check func(path string, value any)
	check = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			if _, closed := value["additionalProperties"]; value["type"] == "object" && !closed && !open[path] {
				t.Errorf("%s takes anything", path)
			}
			for name, child := range value {
				check(path+"/"+name, child)
			}
		case []any:
			for i, child := range value {
				check(fmt.Sprint(path, "/", i), child)
			}
		}
	}
	check("", values)

	at := func(value any, names ...string) any {
		for _, name := range names {
			object, _ := value.(map[string]any)
			value = object[name]
		}
		return value
	}
	if diff := cmp.Diff(at(config, "properties", "policies"), at(values, "properties", "webhook", "properties", "policies")); diff != "" {
		t.Errorf("policies differ (-webhook, +values):\n%s", diff)
	}
	for name, definition := range at(config, "$defs").(map[string]any) {
		if diff := cmp.Diff(definition, at(values, "$defs", name)); diff != "" {
			t.Errorf("%s differs (-webhook, +values):\n%s", name, diff)
		}
	}
}

// The values that become a part of a pod have the fields that the API's types have.
func TestSchemaKnowsTheAPI(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(read(t, valuesSchema), &schema); err != nil {
		t.Fatal(err)
	}
	definitions, _ := schema["$defs"].(map[string]any)
	want := make(map[string]any)
	for _, kind := range []reflect.Type{
		reflect.TypeFor[corev1.Affinity](), reflect.TypeFor[corev1.PodSecurityContext](), reflect.TypeFor[corev1.ResourceRequirements](),
		reflect.TypeFor[corev1.SecurityContext](), reflect.TypeFor[corev1.Toleration](), reflect.TypeFor[corev1.TopologySpreadConstraint](),
	} {
		want[kind.Name()] = schemaOf(kind)
	}
	if *update {
		maps.Copy(definitions, want)
		content, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		write(t, valuesSchema, append(content, '\n'))
		return
	}
	for name := range want {
		if diff := cmp.Diff(want[name], definitions[name]); diff != "" {
			t.Errorf("%s differs: run go test ./test/manifests -update (-API, +values):\n%s", name, diff)
		}
	}
}

// schemaOf returns the JSON schema of a type.
func schemaOf(kind reflect.Type) map[string]any {
	switch kind.Kind() {
	case reflect.Pointer:
		return schemaOf(kind.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(kind.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(kind.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Struct:
		if kind == reflect.TypeFor[resource.Quantity]() {
			return map[string]any{"type": []any{"string", "number"}}
		}
		properties := make(map[string]any)
		for field := range kind.Fields() {
			properties[strings.Split(field.Tag.Get("json"), ",")[0]] = schemaOf(field.Type)
		}
		return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	default:
		return map[string]any{"type": "integer"}
	}
}
