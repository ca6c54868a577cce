// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rights says by the audit log of an API server which rights a user has used.
package rights

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Right is a verb on a resource.
type Right struct{ Verb, Group, Resource string }

func (r Right) String() string {
	return r.Verb + " " + strings.TrimPrefix(r.Group+"/"+r.Resource, "/")
}

// Set is a set of rights.
type Set map[Right]bool

// Sorted returns them in the order of their texts.
func (s Set) Sorted() []Right {
	return slices.SortedFunc(maps.Keys(s), func(a, b Right) int { return strings.Compare(a.String(), b.String()) })
}

// policy has an API server log what ServiceAccounts do, and nothing else.
const policy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts"]
  - level: None
`

// Log is an audit log.
type Log struct{ dir string }

// NewLog returns a log in a folder that exists.
func NewLog(dir string) (*Log, error) {
	l := &Log{dir: dir}
	return l, os.WriteFile(l.path("audit-policy.yaml"), []byte(policy), 0o600)
}

// Flags are those of the API server that writes it.
func (l *Log) Flags() []string {
	return []string{"--audit-policy-file=" + l.path("audit-policy.yaml"), "--audit-log-path=" + l.path("audit.log")}
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

// Of returns what a ServiceAccount (namespace:name) has done, and what it was not allowed
// to.
func (l *Log) Of(account string) (done, denied Set, err error) {
	file, err := os.Open(l.path("audit.log"))
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	done, denied = make(Set), make(Set)
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// What comes without an end is still being written, or its writer was killed.
			return done, denied, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, nil, err
		}
		if event.User.Username != "system:serviceaccount:"+account || event.ObjectRef == nil {
			continue
		}
		right := Right{event.Verb, event.ObjectRef.APIGroup, event.ObjectRef.Resource}
		if event.ObjectRef.Subresource != "" {
			right.Resource += "/" + event.ObjectRef.Subresource
		}
		if event.ResponseStatus != nil && event.ResponseStatus.Code == http.StatusForbidden {
			denied[right] = true
		} else {
			done[right] = true
		}
	}
}
