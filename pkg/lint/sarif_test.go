// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"everynode.dev/everynode/pkg/lint"
)

// results are the findings of two DaemonSets of one file, and of a third that has none.
func results(t *testing.T) []lint.Result {
	t.Helper()
	bad, worse := decode(t, good), decode(t, good)
	image("agent")(bad)
	all(rolling("0", "1"), hostPort(80), annotated("everynode.dev/hold", "no"))(worse)
	worse.Namespace = ""
	return []lint.Result{
		{File: "deploy/my agents.yaml", Line: 1, Namespace: "logging", Name: "agent", Findings: lint.Check(bad)},
		{File: "deploy/my agents.yaml", Line: 40, Name: "agent", Findings: lint.Check(worse)},
		{File: "/abs/good.yaml", Namespace: "logging", Name: "agent", Findings: lint.Check(decode(t, good))},
	}
}

func TestResultsAsJSON(t *testing.T) {
	encoded, err := json.MarshalIndent(results(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/results.json", string(encoded)+"\n")
}

func TestWriteSARIF(t *testing.T) {
	var got strings.Builder
	if err := lint.WriteSARIF(&got, "v0.1.0", results(t)); err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/results.sarif", got.String())
}

// TestSARIFKeepsToItsSchema checks what the schema of SARIF 2.1.0 asks of the parts
// that we write: which properties there must be, and of what form.
func TestSARIFKeepsToItsSchema(t *testing.T) {
	for name, results := range map[string][]lint.Result{"findings": results(t), "nothing to check": nil} {
		t.Run(name, func(t *testing.T) {
			var encoded strings.Builder
			if err := lint.WriteSARIF(&encoded, "", results); err != nil {
				t.Fatal(err)
			}
			var log object
			if err := json.Unmarshal([]byte(encoded.String()), &log); err != nil {
				t.Fatal(err)
			}
			checkLog(t, log)
		})
	}
}

type object = map[string]any

func checkLog(t *testing.T, log object) {
	t.Helper()
	if log["version"] != "2.1.0" {
		t.Errorf("version is %v", log["version"])
	}
	for _, run := range objects(t, log, "runs") {
		driver := run["tool"].(object)["driver"].(object)
		text(t, driver, "name")
		var ids []string
		for _, rule := range objects(t, driver, "rules") {
			ids = append(ids, text(t, rule, "id"))
			for _, description := range []string{"shortDescription", "fullDescription", "help"} {
				text(t, rule[description].(object), "text")
			}
			checkLevel(t, rule["defaultConfiguration"].(object))
		}
		if compacted := slices.Compact(slices.Sorted(slices.Values(ids))); len(compacted) != len(ids) {
			t.Errorf("rules are not unique: %v", ids)
		}
		for _, result := range objects(t, run, "results") {
			checkLevel(t, result)
			text(t, result["message"].(object), "text")
			if id, i := text(t, result, "ruleId"), int(result["ruleIndex"].(float64)); i < 0 || i >= len(ids) || ids[i] != id {
				t.Errorf("rule %d is not %s", i, id)
			}
			for _, location := range objects(t, result, "locations") {
				checkLocation(t, location)
			}
		}
	}
}

func checkLevel(t *testing.T, parent object) {
	t.Helper()
	if level := parent["level"]; !slices.Contains([]any{"none", "note", "warning", "error"}, level) {
		t.Errorf("level is %v", level)
	}
}

func checkLocation(t *testing.T, location object) {
	t.Helper()
	physical := location["physicalLocation"].(object)
	uri := text(t, physical["artifactLocation"].(object), "uri")
	if _, err := url.Parse(uri); err != nil || strings.Contains(uri, " ") {
		t.Errorf("%q is not the URI of a file: %v", uri, err)
	}
	if region, ok := physical["region"].(object); ok && region["startLine"].(float64) < 1 {
		t.Errorf("lines count from 1: %v", region)
	}
	for _, logical := range objects(t, location, "logicalLocations") {
		text(t, logical, "name")
		text(t, logical, "fullyQualifiedName")
	}
}

// objects returns the list of objects that parent must have under key.
func objects(t *testing.T, parent object, key string) []object {
	t.Helper()
	list, ok := parent[key].([]any)
	if !ok {
		t.Fatalf("%s is not a list: %v", key, parent[key])
	}
	var found []object
	for _, item := range list {
		found = append(found, item.(object))
	}
	return found
}

// text returns the string that parent must have under key.
func text(t *testing.T, parent object, key string) string {
	t.Helper()
	value, ok := parent[key].(string)
	if !ok || value == "" {
		t.Errorf("%s is missing: %v", key, parent)
	}
	return value
}

func TestFingerprintsDiffer(t *testing.T) {
	var encoded strings.Builder
	if err := lint.WriteSARIF(&encoded, "", results(t)); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Runs []struct {
			Results []struct {
				RuleID              string
				PartialFingerprints map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(encoded.String()), &log); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, result := range log.Runs[0].Results {
		fingerprint := result.RuleID + result.PartialFingerprints["field/v1"]
		if seen[fingerprint] {
			t.Errorf("two findings look like one: %s", fingerprint)
		}
		seen[fingerprint] = true
	}
	if diff := cmp.Diff(3, len(seen)); diff != "" {
		t.Errorf("findings (-want,+got):\n%s", diff)
	}
}
