// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rule is one of a group, of alerts or of recordings.
type rule struct {
	Alert  string `json:"alert,omitempty"`
	Record string `json:"record,omitempty"`
	Expr   string `json:"expr"`
}

type ruleGroup struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type ruleFile struct {
	Groups []ruleGroup `json:"groups"`
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAlertsFire(t *testing.T) {
	alerts, dir := read(t, chartDir+"files/alerts.yaml"), t.TempDir()
	tests := read(t, "testdata/alerts.yaml")
	write(t, filepath.Join(dir, "rules.yaml"), alerts)
	write(t, filepath.Join(dir, "tests.yaml"), tests)
	run(t, "promtool", "check", "rules", "--lint-fatal", filepath.Join(dir, "rules.yaml"))
	run(t, "promtool", "test", "rules", filepath.Join(dir, "tests.yaml"))

	var rules ruleFile
	if err := yaml.Unmarshal(alerts, &rules); err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules.Groups[0].Rules {
		fires := regexp.MustCompile(`alertname: ` + rule.Alert + `\n +eval_time: \S+\n +exp_alerts:`)
		if !fires.Match(tests) {
			t.Errorf("no test sees %s fire", rule.Alert)
		}
		allDocumented(t, rule.Alert, rule.Expr)
	}
}

func TestDashboardIsValid(t *testing.T) {
	var rules []rule
	for title, queries := range dashboard(t) {
		for _, query := range queries {
			rules = append(rules, rule{Record: "a:b", Expr: query})
			allDocumented(t, title, query)
		}
	}
	content, err := yaml.Marshal(ruleFile{Groups: []ruleGroup{{Name: "dashboard", Rules: rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, content)
	// Duplicates are queries of several panels that are alike.
	run(t, "promtool", "check", "rules", "--lint=none", path)
}

// dashboard returns the queries by the titles of their panels, as Grafana asks them when
// everything is chosen.
func dashboard(t *testing.T) map[string][]string {
	t.Helper()
	var content struct {
		Panels []struct {
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, chartDir+"files/dashboard.json"), &content); err != nil {
		t.Fatal(err)
	}
	queries := make(map[string][]string)
	variables := strings.NewReplacer("$namespace", ".*", "$__rate_interval", "5m")
	for _, panel := range content.Panels {
		if panel.Type == "row" {
			continue
		}
		if len(panel.Targets) == 0 || queries[panel.Title] != nil {
			t.Errorf("panel %q has no queries, or is there twice", panel.Title)
		}
		if panel.GridPos.X+panel.GridPos.W > 24 {
			t.Errorf("panel %q is wider than the page", panel.Title)
		}
		for _, target := range panel.Targets {
			queries[panel.Title] = append(queries[panel.Title], variables.Replace(target.Expr))
		}
	}
	return queries
}

// allDocumented checks that the metrics of ours in a query are those in the docs.
func allDocumented(t *testing.T, where, query string) {
	t.Helper()
	docs := string(read(t, "../../docs/metrics.md")) + string(read(t, "../../docs/certificates.md"))
	for _, name := range regexp.MustCompile(`everynode_\w+`).FindAllString(query, -1) {
		name = regexp.MustCompile(`(_seconds)_(bucket|count|sum)$`).ReplaceAllString(name, "$1")
		if !strings.Contains(docs, "`"+name+"`") {
			t.Errorf("%s: %s is not a metric of ours", where, name)
		}
	}
}
