// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const valuesSchema = "../../charts/everynode/values.schema.json"

// The schema of the values refuses what does not exist, at every depth but in types of
// Kubernetes, whose versions differ, and knows policies as the webhook does.
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
		"/properties/global": true, "/$defs/kubernetes": true, "/properties/scheduler/properties/pluginConfig/items/properties/args": true,
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
