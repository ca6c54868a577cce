// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// everynode-webhook is the admission webhook for DaemonSet pods.
package main

import (
	"context"
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
	"k8s.io/component-base/version/verflag"

	"everynode.dev/everynode/pkg/webhook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Whoever asks twice does not want to wait for what is under way.
	context.AfterFunc(ctx, stop)
	command := newCommand()
	command.SetContext(ctx)
	os.Exit(cli.Run(command))
}

func newCommand() *cobra.Command {
	options := webhook.NewOptions()
	command := &cobra.Command{
		Use:   "everynode-webhook",
		Short: "Admission webhook for DaemonSets and their pods",
		Long: `everynode-webhook has DaemonSet pods that were bound to a node directly placed by
the scheduler instead, or the other way round where a DaemonSet asks for it, gives
them the tolerations that outlive trouble with their node, sizes them after it, and
does what an operator's policies ask for. It denies DaemonSets that can never work
and warns of what will hurt. It never refuses a pod.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			verflag.PrintAndExitIfRequested()
			cmd.SilenceUsage = true
			if options.CheckConfig != "" {
				return webhook.CheckConfig(cmd.OutOrStdout(), options.CheckConfig)
			}
			if err := options.Validate(); err != nil {
				return err
			}
			if err := logsapi.ValidateAndApply(options.Logs, nil); err != nil {
				return err
			}
			return webhook.Run(cmd.Context(), options)
		},
	}
	groups := options.Flags()
	verflag.AddFlags(groups.FlagSet("global"))
	for _, flags := range groups.FlagSets {
		command.Flags().AddFlagSet(flags)
	}
	columns, _, _ := term.TerminalSize(command.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(command, groups, columns)
	return command
}
