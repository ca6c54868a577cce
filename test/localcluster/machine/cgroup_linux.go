// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"k8s.io/apimachinery/pkg/util/wait"
)

// leaf is the group of a machine's own processes in version 2, where a group with
// children that have limits cannot have processes.
const leaf = "init"

// newGroup returns the control groups of that name: one for each controller in
// version 1, one for all in version 2. It does not make them.
func newGroup(name string) (cgroups.Manager, error) {
	return manager.New(&cgroups.Cgroup{Path: "/" + name, Resources: &cgroups.Resources{}})
}

// join moves the calling process into the groups of that name.
func join(name string) error {
	group, err := newGroup(name)
	if err != nil {
		return err
	}
	for _, path := range group.GetPaths() {
		if cgroups.IsCgroup2UnifiedMode() {
			path = filepath.Join(path, leaf)
		}
		// Zero is the process that writes it, whatever its number is in which namespace.
		if err := cgroups.WriteCgroupProc(path, 0); err != nil {
			return err
		}
	}
	return nil
}

// destroyGroup removes groups with all below them as soon as they are empty.
func destroyGroup(ctx context.Context, group cgroups.Manager) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) {
		last = group.Destroy()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("removing control groups: %w", last)
	}
	return nil
}

// sweep waits until nobody can write to alive any more, and removes the groups
// whose name begins with that of a rack.
func sweep(ctx context.Context, alive io.Reader, rack string) error {
	if _, err := io.Copy(io.Discard, alive); err != nil {
		return err
	}
	// All processes in the groups have been killed, but may take a while to end.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	left := "none"
	err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) {
		groups, err := groupsOf(rack)
		if err != nil {
			return false, err
		}
		for _, path := range groups {
			if err := cgroups.RemovePath(path); err != nil {
				left = err.Error()
			}
		}
		return len(groups) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, left)
	}
	return nil
}

// groupsOf returns the folders of the groups of a rack.
func groupsOf(rack string) ([]string, error) {
	pattern := "/sys/fs/cgroup/*/" + rack + "-*"
	if cgroups.IsCgroup2UnifiedMode() {
		pattern = "/sys/fs/cgroup/" + rack + "-*"
	}
	return filepath.Glob(pattern)
}
