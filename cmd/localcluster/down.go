// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newDownCommand() *cobra.Command {
	s := &state{}
	command := &cobra.Command{
		Use:   "down",
		Short: "End a cluster that runs in another terminal or in the background",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			if err := s.stop(ctx); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %q has ended\n", s.name)
			return nil
		},
	}
	s.addFlags(command.Flags())
	return command
}
