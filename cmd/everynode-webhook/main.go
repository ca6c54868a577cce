// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// everynode-webhook is the admission webhook for DaemonSet pods.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API client
	"k8s.io/component-base/term"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"

	"everynode.dev/everynode/pkg/webhook"
)

func main() {
	serving := false
	command := newCommand(&serving)
	command.SetContext(untilSignal())
	switch err := cli.RunNoErrOutput(command); {
	case err == nil:
		return
	case serving:
		klog.ErrorS(err, "Command failed")
	default:
		// Whoever has started it by hand, or checks a file, is no reader of logs.
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	os.Exit(1)
}

// untilSignal returns a context that ends when the program is asked to end. Whoever asks
// twice does not want to wait for what is under way.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(1)
	}()
	return ctx
}

// newCommand returns the command. serving is set once what it says goes to its log.
func newCommand(serving *bool) *cobra.Command {
	options := webhook.NewOptions()
	command := &cobra.Command{
		Use:   "everynode-webhook",
		Short: "Admission webhook for DaemonSets and their pods",
		Long: `everynode-webhook has DaemonSet pods that were bound to a node directly placed by
the scheduler instead, or the other way round where a DaemonSet asks for it, gives
them the tolerations that outlive trouble with their node, sizes them after it, and
does what an operator's policies ask for. It denies DaemonSets that can never work
and warns of what will hurt. It never refuses a pod. While the scheduler is away, it
binds pods of DaemonSets that ask for it.`,
		Version:      version.Get().GitVersion,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("check-config") {
				return webhook.CheckConfig(cmd.OutOrStdout(), options.CheckConfig)
			}
			if err := options.Validate(); err != nil {
				return err
			}
			if err := logsapi.ValidateAndApply(options.Logs, nil); err != nil {
				return err
			}
			*serving = true
			return webhook.Run(cmd.Context(), options)
		},
	}
	groups := options.Flags()
	groups.FlagSet("Other").Bool("version", false, "Print the version and quit.")
	for _, flags := range groups.FlagSets {
		command.Flags().AddFlagSet(flags)
	}
	columns, _, _ := term.TerminalSize(command.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(command, groups, columns)
	return command
}
