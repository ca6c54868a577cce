// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// Source reads a file and follows its changes.
type Source struct {
	path string
	// reloaded is told of every new content, with the reason if it was not taken.
	reloaded func(err error)
	// content is what was read last, valid or not, and problem why it could not be.
	content []byte
	problem string
	current atomic.Pointer[Policies]
}

// NewSource reads the file, which has to be valid. With an empty path there are no
// policies. reloaded is called whenever the file has changed; the error says why the
// policies before are kept.
func NewSource(path string, reloaded func(err error)) (*Source, error) {
	s := &Source{path: path, reloaded: reloaded}
	s.current.Store(&Policies{})
	if path == "" {
		return s, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	policies, err := Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.content = content
	s.current.Store(policies)
	return s, nil
}

// Policies returns the policies as they are now.
func (s *Source) Policies() *Policies {
	return s.current.Load()
}

// pollPeriod is how soon a change is seen. A ConfigMap takes up to a minute to reach
// the file; to compare it costs nothing, and works on every file system.
const pollPeriod = 2 * time.Second

// Run follows the file until ctx ends.
func (s *Source) Run(ctx context.Context) {
	if s.path != "" {
		wait.UntilWithContext(ctx, s.reload, pollPeriod)
	}
}

// reload takes over the file if it has changed and is valid.
func (s *Source) reload(ctx context.Context) {
	content, err := os.ReadFile(s.path)
	var problem string
	if err != nil {
		problem = err.Error()
	}
	// What is wrong is said once, not every other second.
	if bytes.Equal(content, s.content) && problem == s.problem {
		return
	}
	s.content, s.problem = content, problem
	var policies *Policies
	if err == nil {
		policies, err = Parse(content)
	}
	s.reloaded(err)
	logger := klog.FromContext(ctx).WithValues("file", s.path)
	if err != nil {
		logger.Error(err, "Keeping the policies that were read before")
		return
	}
	s.current.Store(policies)
	logger.Info("Read the policies again", "policies", policies.Len())
}
