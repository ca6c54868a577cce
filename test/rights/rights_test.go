// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOf(t *testing.T) {
	log, err := NewLog(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	event := func(user, verb, resource, code string) string {
		return `{"verb": "` + verb + `", "user": {"username": "system:serviceaccount:` + user + `"}, "objectRef": {"resource": "` + resource + `"}, "responseStatus": {"code": ` + code + "}}\n"
	}
	content := event("a:b", "list", "pods", "200") + event("a:b", "get", "nodes", "403") + event("a:c", "get", "secrets", "200") +
		// Its end is still to be written.
		strings.TrimSuffix(event("a:b", "watch", "pods", "200"), "}}\n")
	if err := os.WriteFile(log.path("audit.log"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	done, denied, err := log.Of("a:b")
	if err != nil {
		t.Fatal(err)
	}
	want := []Set{{{Verb: "list", Resource: "pods"}: true}, {{Verb: "get", Resource: "nodes"}: true}}
	if diff := cmp.Diff(want, []Set{done, denied}); diff != "" {
		t.Errorf("done and denied (-want, +got):\n%s", diff)
	}
}
