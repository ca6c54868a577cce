// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the chart renders into deploy/")

const (
	chartDir  = "../../charts/everynode/"
	deployDir = "../../deploy/"
)

// rendered are the files of deploy/ that the chart renders.
var rendered = map[string]struct {
	templates []string
	values    []string
}{
	"base/scheduler/deployment.yaml": {templates: []string{
		"resourcequota", "scheduler/serviceaccount", "scheduler/deployment", "scheduler/service", "scheduler/poddisruptionbudget",
	}},
	"base/scheduler/rbac.yaml": {templates: []string{"scheduler/rbac"}},
	"base/webhook/deployment.yaml": {templates: []string{
		"webhook/deployment", "webhook/service", "webhook/poddisruptionbudget", "webhook/certificates", "webhook/lease",
	}},
	"base/webhook/rbac.yaml":      {templates: []string{"webhook/serviceaccount", "webhook/rbac"}},
	"base/webhook/webhook.yaml":   {templates: []string{"webhook/webhookconfiguration"}},
	"overlays/second/lease.yaml":  {templates: []string{"scheduler/lease"}},
	"overlays/replace/lease.yaml": {templates: []string{"scheduler/lease"}, values: []string{"mode=replace"}},
	"components/adopt/policy.yaml": {
		templates: []string{"scheduler/adopt"}, values: []string{`adopt.namespaceSelector.matchLabels.everynode\.dev/adopt=enabled`},
	},
	"components/cert-manager/certificates.yaml": {
		templates: []string{"webhook/certificates"}, values: []string{"webhook.certificates.mode=certManager"},
	},
	"components/cert-manager/deployment.yaml": {
		templates: []string{"webhook/deployment"}, values: []string{"webhook.certificates.mode=certManager"},
	},
	"components/cert-manager/servicemonitor.yaml": {
		templates: []string{"monitoring/servicemonitor"},
		values:    []string{"webhook.certificates.mode=certManager", "serviceMonitor.enabled=true", "scheduler.enabled=false"},
	},
	"components/monitoring/servicemonitors.yaml": {
		templates: []string{"monitoring/servicemonitor"}, values: []string{"serviceMonitor.enabled=true"},
	},
	"components/monitoring/prometheusrule.yaml": {
		templates: []string{"monitoring/prometheusrule"}, values: []string{"prometheusRule.enabled=true"},
	},
}

// copied are the files of deploy/ that are files of the chart.
var copied = map[string]string{
	"scheduler-config/second.yaml":         "files/scheduler-config/second.yaml",
	"scheduler-config/replace.yaml":        "files/scheduler-config/replace.yaml",
	"components/monitoring/dashboard.json": "files/dashboard.json",
}

// What is installed has one source, the chart.
func TestDeployIsWhatTheChartRenders(t *testing.T) {
	want := make(map[string]string)
	for path, from := range rendered {
		want[path] = render(t, from.templates, from.values)
	}
	for path, from := range copied {
		want[path] = string(read(t, chartDir+from))
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if *update {
			write(t, deployDir+path, []byte(want[path]))
			continue
		}
		if diff := cmp.Diff(want[path], string(read(t, deployDir+path))); diff != "" {
			t.Errorf("deploy/%s differs: change charts/everynode and run make manifests (-chart, +deploy):\n%s", path, diff)
		}
	}
}

// onlyHelm is what Helm puts into objects, or has there for itself.
var onlyHelm = regexp.MustCompile(`(?m)^# Source: .*\n|^ +(helm\.sh/chart|app\.kubernetes\.io/(version|managed-by)): .*\n|^ +annotations:\n +checksum/config: .*\n`)

// render returns what templates of the chart render, as a file of deploy/.
func render(t *testing.T, templates, set []string) string {
	t.Helper()
	var all strings.Builder
	all.WriteString("# make manifests has rendered this from charts/everynode.\n")
	for i, template := range templates {
		args := []string{"template", "everynode", chartDir, "--namespace", "everynode-system", "--show-only", "templates/" + template + ".yaml"}
		for _, value := range set {
			args = append(args, "--set", value)
		}
		text := onlyHelm.ReplaceAllString(string(run(t, "helm", args...)), "")
		// Blank lines are what templates leave behind.
		text = regexp.MustCompile(`\n(\s*\n)+`).ReplaceAllString(text, "\n")
		if i == 0 {
			text = strings.TrimPrefix(text, "---\n")
		}
		all.WriteString(text)
	}
	return all.String()
}

// Tools that take a chart from a Git repository leave out symbolic links: there must be none.
// Without a file the chart says so, and does not install half of itself.
func TestChartHasNoLinks(t *testing.T) {
	err := filepath.WalkDir(chartDir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type()&os.ModeSymlink != 0 {
			err = fmt.Errorf("%s is a symbolic link", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, file := range []string{"scheduler-config/second.yaml", "alerts.yaml", "dashboard.json"} {
		dir := t.TempDir()
		if err := errors.Join(os.CopyFS(dir, os.DirFS(chartDir)), os.Remove(filepath.Join(dir, "files", file))); err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), filepath.Join(*binDir, "helm"), "template", "everynode", dir,
			"--set", "prometheusRule.enabled=true,grafanaDashboard.enabled=true")
		output, err := command.CombinedOutput()
		if err == nil || !strings.Contains(string(output), "the chart has no files/"+file) {
			t.Errorf("without %s: %v\n%s", file, err, output)
		}
	}
}
