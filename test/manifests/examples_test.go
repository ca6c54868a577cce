// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// examples returns the files of values for kinds of clusters.
func examples(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(chartDir + "examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return paths
}

// Each example is used by the page that it names, and each page has one.
func TestExamplesHavePages(t *testing.T) {
	used := make(map[string]bool)
	for _, path := range examples(t) {
		page := regexp.MustCompile(`docs/install/[a-z0-9]+\.md`).FindString(string(read(t, path)))
		if page == "" {
			t.Errorf("%s names no page", path)
			continue
		}
		used[filepath.Base(page)] = true
		if !strings.Contains(string(read(t, "../../"+page)), "examples/"+filepath.Base(path)) {
			t.Errorf("%s does not use %s", page, path)
		}
	}
	pages, err := filepath.Glob("../../docs/install/*.md")
	if err != nil {
		t.Fatal(err)
	}
	index := string(read(t, "../../docs/install.md"))
	for _, page := range pages {
		if !used[filepath.Base(page)] {
			t.Errorf("%s has no example", page)
		}
		if !strings.Contains(index, "install/"+filepath.Base(page)) {
			t.Errorf("docs/install.md does not lead to %s", page)
		}
	}
}

// On 1.35, where there is no MutatingAdmissionPolicy, the examples work as their pages say.
func TestExamplesOnOlderServers(t *testing.T) {
	for _, path := range examples(t) {
		manifests := run(t, "helm", "template", "everynode", chartDir, "--kube-version", "1.35.4", "--values", path, "--set", "adopt.namespaceSelector=null")
		for key := range parse(t, manifests) {
			if strings.HasPrefix(key, "MutatingAdmissionPolicy") {
				t.Errorf("%s: %s", path, key)
			}
		}
	}
}

// The chart knows of which Kubernetes the scheduler is.
func TestSchedulerVersion(t *testing.T) {
	minor := regexp.MustCompile(`\tk8s\.io/kubernetes v1\.(\d+)\.`).FindStringSubmatch(string(read(t, "../../go.mod")))
	helpers := string(read(t, chartDir+"templates/_helpers.tpl"))
	if len(minor) != 2 || !strings.Contains(helpers, "if lt (int $server.Minor) "+minor[1]+" ") {
		t.Errorf("_helpers.tpl does not compare with %v: set everynode.emulatedVersion to the version of go.mod", minor)
	}
}
