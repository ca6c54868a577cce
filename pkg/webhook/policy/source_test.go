// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The file is followed; what is not valid changes nothing, and is told once.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func(policies string) {
		t.Helper()
		content := "apiVersion: " + APIVersion + "\nkind: " + Kind + "\npolicies: " + policies
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewSource(path, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without the file: %v", err)
	}
	write("[{}]")
	if _, err := NewSource(path, nil); err == nil || !strings.Contains(err.Error(), path+": policies[0].name: Required value") {
		t.Errorf("with a file that is not valid: %v", err)
	}

	write("[{name: a}]")
	reloads := make(chan error, 10)
	source, err := NewSource(path, func(err error) { reloads <- err })
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		go source.Run(t.Context())
		steps := []struct {
			what    string
			do      func()
			want    int    // policies
			wantErr string // "-" if nothing is told
		}{
			{"nothing changes", func() {}, 1, "-"},
			{"a policy is added", func() { write("[{name: a}, {name: b}]") }, 2, ""},
			{"the file is not valid", func() { write("[{name: a}, {name: a}, {name: c}]") }, 2, "policies[1].name: Duplicate value"},
			{"it is valid again", func() { write("[{name: c}]") }, 1, ""},
			{"the file is gone", func() { _ = os.Remove(path) }, 1, "no such file"},
			{"it is back", func() { write("[{name: c}, {name: d}, {name: e}]") }, 3, ""},
		}
		for _, step := range steps {
			step.do()
			// Long enough to be read more than once.
			time.Sleep(3 * pollPeriod) //nolint:forbidigo // time stands still here
			synctest.Wait()
			var told []error
			for len(reloads) > 0 {
				told = append(told, <-reloads)
			}
			if got := source.Policies().Len(); got != step.want {
				t.Errorf("%s: %d policies, want %d", step.what, got, step.want)
			}
			switch {
			case step.wantErr == "-" && len(told) == 0:
			case step.wantErr == "-" || len(told) != 1:
				t.Errorf("%s: told %v", step.what, told)
			case step.wantErr == "" && told[0] != nil, step.wantErr != "" && (told[0] == nil || !strings.Contains(told[0].Error(), step.wantErr)):
				t.Errorf("%s: told %v, want %q", step.what, told[0], step.wantErr)
			}
		}
	})
	if none, err := NewSource("", nil); err != nil || none.Policies().Len() != 0 {
		t.Errorf("without a path: %v, %v", none, err)
	}
}
