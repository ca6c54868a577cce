// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

var errNotLinux = errors.New("machines are made of namespaces, which only Linux has")

// Rack is a set of machines on one network, on Linux.
type Rack struct{}

// NewRack returns an error.
func NewRack(string) (*Rack, error) { return nil, errNotLinux }

// Boot returns an error.
func (*Rack) Boot(Options, func(*exec.Cmd) (int, error)) (*Machine, error) { return nil, errNotLinux }

// Close returns an error.
func (*Rack) Close() error { return errNotLinux }

// Machine is a running machine, on Linux.
type Machine struct{ Overlay bool }

// Command returns a command that cannot be started.
func (*Machine) Command(program string, args ...string) *exec.Cmd {
	return exec.Command(program, args...) //nolint:noctx // it is never started
}

// Start returns an error.
func (*Machine) Start(*exec.Cmd) error { return errNotLinux }

// Off returns an error.
func (*Machine) Off(context.Context) error { return errNotLinux }

// Main returns the exit code of a failure.
func Main(context.Context, []string) int {
	fmt.Fprintln(os.Stderr, errNotLinux)
	return 1
}
