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
	slices.SortFunc(names, explain.CompareNames)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// read reads the cluster that the flags lead to, or the files of one.
func (e *environment) read(command *cobra.Command, s scope) (*explain.Engine, error) {
	cluster, _, err := e.cluster(command.Context(), s)
	if err != nil {
		return nil, err
	}
	return e.engine(command, cluster)
}

// cluster returns a cluster, and its client if it is not in files.
func (e *environment) cluster(ctx context.Context, s scope) (*explain.Cluster, kubernetes.Interface, error) {
	if len(e.from) > 0 {
		cluster, err := e.readFiles(e.from)
		return cluster, nil, err
	}
	r, err := e.newReader()
	if err != nil {
		return nil, nil, err
	}
	cluster, err := r.read(ctx, s)
	return cluster, r.client, err
}

func (e *environment) newReader() (*reader, error) {
	client, err := e.connect()
	if err != nil {
		return nil, err
	}
	fallback, err := e.config.namespace()
	return &reader{client: client, fallback: fallback, progress: newProgress(e.ErrOut, e.clock)}, err
}

// notChecked tells beside a table what could not be looked at.
func (e *environment) notChecked(engine *explain.Engine) {
	p := e.newPrinter(e.ErrOut)
	for _, sentence := range engine.NotChecked() {
		p.fold(0, 2, "Not checked: "+sentence)
	}
}
