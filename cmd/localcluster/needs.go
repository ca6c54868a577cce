// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/test/localcluster"
)

func newNeedsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "needs",
		Short: "Say what real nodes need and this machine does not have; fail if there is anything",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if missing := localcluster.MissingForRealNodes(binDir()); len(missing) > 0 {
				return errors.New("real nodes need " + strings.Join(missing, "; "))
			}
			return nil
		},
	}
}
