// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/explain"
)

// completionTimeout is how long somebody at a shell waits who has pressed Tab.
const completionTimeout = 3 * time.Second

// completeDaemonSets completes ds/NAME.
func (e *environment) completeDaemonSets(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.names(command, func(ctx context.Context) ([]string, error) {
		client, err := e.connect()
		if err != nil {
			return nil, err
		}
		namespace, err := e.config.namespace()
		if err != nil {
			return nil, err
		}
		list, err := client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		names := make([]string, 0, len(list.Items))
		for n := range list.Items {
			names = append(names, "ds/"+list.Items[n].Name)
		}
		return names, nil
	})
}

// completeNodes completes names of nodes.
func (e *environment) completeNodes(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.names(command, func(ctx context.Context) ([]string, error) {
		client, err := e.connect()
		if err != nil {
			return nil, err
		}
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		names := make([]string, 0, len(list.Items))
		for n := range list.Items {
			names = append(names, list.Items[n].Name)
		}
		return names, nil
	})
}

// names returns what list returns. Nobody wants to read an error while typing.
func (e *environment) names(command *cobra.Command, list func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), completionTimeout)
	defer cancel()
	names, err := list(ctx)
	if err != nil {
		cobra.CompDebugln(err.Error(), true)
	}
	explain.SortNames(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// read reads the cluster that the flags lead to.
func (e *environment) read(command *cobra.Command, s scope) (*explain.Engine, error) {
	client, err := e.connect()
	if err != nil {
		return nil, err
	}
	r := &reader{client: client, progress: newProgress(e.ErrOut, e.clock)}
	cluster, err := r.read(command.Context(), s)
	if err != nil {
		return nil, err
	}
	return e.engine(command, cluster)
}
