// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"everynode.dev/everynode/pkg/explain"
)

// completionTimeout is how long somebody at a shell waits who has pressed Tab.
const completionTimeout = 3 * time.Second

// completeDaemonSets completes ds/NAME, as often as there are names.
func (e *environment) completeDaemonSets(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.names(command, "ds/", args, func(ctx context.Context, client kubernetes.Interface, namespace string) (runtime.Object, error) {
		return client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	})
}

// completeNodes completes names of nodes.
func (e *environment) completeNodes(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.names(command, "", nil, func(ctx context.Context, client kubernetes.Interface, _ string) (runtime.Object, error) {
		return client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	})
}

// names returns the names in what list returns, without those that are there already. An
// error while typing is of no use.
func (e *environment) names(command *cobra.Command, prefix string, there []string, list func(context.Context, kubernetes.Interface, string) (runtime.Object, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), completionTimeout)
	defer cancel()
	var names []string
	client, err := e.connect()
	namespace, errNamespace := e.config.namespace()
	if err = errors.Join(err, errNamespace); err == nil {
		var found runtime.Object
		if found, err = list(ctx, client, namespace); err == nil {
			err = meta.EachListItem(found, func(object runtime.Object) error {
				if name := prefix + object.(metav1.Object).GetName(); !slices.Contains(there, name) {
					names = append(names, name)
				}
				return nil
			})
		}
	}
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
