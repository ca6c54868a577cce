// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// localcluster runs a real Kubernetes control plane on one machine, with
// everynode in it, to try and to test it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/test/localcluster"
)

func main() {
	// The control plane's components are this program under other names.
	if code, ok := localcluster.RunComponent(context.Background(), os.Args); ok {
		os.Exit(code)
	}
	command := &cobra.Command{
		Use:           "localcluster",
		Short:         "Run a Kubernetes control plane with everynode on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.AddCommand(newUpCommand(), newDownCommand(), newNodeCommand(), newNeedsCommand())
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "localcluster:", err)
		os.Exit(1)
	}
}
