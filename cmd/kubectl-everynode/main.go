// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// kubectl-everynode is a kubectl plugin that says why DaemonSet pods are not where
// they should be.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	// Credentials of clusters that are reached through a plugin of their provider.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/cli"
)

func main() {
	// The memory at most is a quarter more than what is kept, in place of twice that.
	debug.SetGCPercent(25)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	err := cli.NewCommand(streams, clock.RealClock{}).ExecuteContext(ctx)
	if err == nil {
		return
	}
	if !errors.Is(err, cli.ErrFindings) {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(cli.ExitCode(err)) //nolint:gocritic // the signal handler needs no clearing up at the end
}
