// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What actionlint does not look for.
func TestWorkflowsTrustNobody(t *testing.T) {
	paths, err := filepath.Glob("../.github/workflows/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	uses := regexp.MustCompile(`uses: (.*)`)
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	minor := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	versions := make(map[string]string)
	for _, path := range paths {
		content := read(t, path)
		for _, match := range uses.FindAllStringSubmatch(content, -1) {
			if !pinned.MatchString(match[1]) {
				t.Errorf("%s: %s is not a commit with its version in a comment", path, match[1])
			}
			action, _, _ := strings.Cut(match[1], "@")
			if other, seen := versions[action]; seen && other != match[1] {
				t.Errorf("%s: %s here, %s elsewhere", path, match[1], other)
			}
			versions[action] = match[1]
		}
		var workflow struct {
			Permissions map[string]string `json:"permissions"`
			Env         map[string]string `json:"env"`
			Jobs        map[string]struct {
				Permissions map[string]string `json:"permissions"`
			} `json:"jobs"`
		}
		if err := yaml.Unmarshal([]byte(content), &workflow); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if workflow.Permissions == nil || len(workflow.Permissions) > 0 {
			t.Errorf("%s: permissions are %v, want none for the whole workflow", path, workflow.Permissions)
		}
		// It would give the changes of strangers the rights of the repository.
		if strings.Contains(content, "pull_request_target") {
			t.Errorf("%s runs on pull_request_target", path)
		}
		if want := minor + ".x"; workflow.Env["GO_VERSION"] != want {
			t.Errorf("%s: GO_VERSION is %q, go.mod wants %q", path, workflow.Env["GO_VERSION"], want)
		}
		for name, job := range workflow.Jobs {
			if len(job.Permissions) == 0 {
				t.Errorf("%s: job %s does not say what it may do", path, name)
			}
		}
	}
}
