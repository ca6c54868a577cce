// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"everynode.dev/everynode/pkg/explain"
)

// words are the ways in which kubectl lets resources be written.
var words = map[string][]string{
	"ds":   {"ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"},
	"pod":  {"po", "pod", "pods"},
	"node": {"no", "node", "nodes"},
}

// resourceName begins the name of a DaemonSet as kubectl prints it.
const resourceName = "daemonset.apps/"

// resource is what a user has named.
type resource struct{ kind, name string }

// parseNames parses arguments of the forms TYPE/NAME, TYPE NAME... and, for a DaemonSet, NAME. The
// types have to be among kinds.
func parseNames(args []string, kinds ...string) ([]resource, error) {
	kindOf := func(word string) string {
		for kind, all := range words {
			if slices.Contains(all, strings.ToLower(word)) {
				return kind
			}
		}
		return ""
	}
	prefix := ""
	if len(args) > 1 && kindOf(args[0]) != "" {
		prefix, args = args[0]+"/", args[1:]
	}
	var named []resource
	for _, arg := range args {
		arg = prefix + arg
		word, name, found := strings.Cut(arg, "/")
		if !found {
			word, name = "ds", arg
		}
		write := strings.Join(kinds, "/NAME or ") + "/NAME"
		switch kind := kindOf(word); {
		case !slices.Contains(kinds, kind):
			return nil, fmt.Errorf("%q is of another kind: write %s", arg, write)
		case name == "":
			return nil, fmt.Errorf("%q has no name: write %s", arg, write)
		default:
			named = append(named, resource{kind, name})
		}
	}
	return named, nil
}

// selection is the DaemonSets that a verb is about: those of a namespace, or of all, or
// those that are named.
type selection struct {
	all      bool
	selector string
	labels   labels.Selector
	names    []resource
	space    string
}

func (s *selection) addFlags(command *cobra.Command) {
	command.Flags().StringVarP(&s.selector, "selector", "l", "", "Show the DaemonSets with these labels, as in kubectl get -l.")
	command.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "Show the DaemonSets of all namespaces.")
}

func (s *selection) complete(e *environment, args []string) (err error) {
	switch {
	case s.all && len(args) > 0:
		return errors.New("a name belongs to one namespace: leave out --all-namespaces")
	case s.selector != "" && len(args) > 0:
		return errors.New("names and --selector exclude each other: leave one out")
	}
	if s.labels, err = labels.Parse(s.selector); err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	if s.names, err = parseNames(args, "ds"); err == nil && !s.all {
		s.space, err = e.config.namespace()
	}
	return err
}

// choose returns the DaemonSets that were asked for.
func (s *selection) choose(engine *explain.Engine) ([]*appsv1.DaemonSet, error) {
	if len(s.names) == 0 {
		return slices.DeleteFunc(engine.DaemonSets(), func(ds *appsv1.DaemonSet) bool {
			return !s.all && ds.Namespace != s.space || !s.labels.Matches(labels.Set(ds.Labels))
		}), nil
	}
	var chosen []*appsv1.DaemonSet
	for _, named := range s.names {
		ds, err := find(engine, s.space, named.name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, ds)
	}
	return chosen, nil
}

// nothing says that there is nothing to choose from.
func (s *selection) nothing() string {
	switch {
	case s.selector != "":
		return "There are no DaemonSets with the labels " + s.selector + "."
	case s.all:
		return "The cluster has no DaemonSets."
	}
	return fmt.Sprintf("There are no DaemonSets in namespace %s: -A shows those of all namespaces.", s.space)
}

// find returns the DaemonSet that a user has named.
func find(engine *explain.Engine, namespace, name string) (*appsv1.DaemonSet, error) {
	if ds := engine.Find(namespace, name); ds != nil {
		return ds, nil
	}
	var elsewhere []string
	for _, ds := range engine.DaemonSets() {
		if ds.Name == name {
			elsewhere = append(elsewhere, ds.Namespace)
		}
	}
	if len(elsewhere) > 0 {
		return nil, fmt.Errorf("there is no DaemonSet %s in namespace %s, but in %s: add -n %s", name, namespace, strings.Join(elsewhere, ", "), elsewhere[0])
	}
	return nil, fmt.Errorf("there is no DaemonSet %s in any namespace", name)
}

// completionTimeout is how long a user waits after Tab.
const completionTimeout = 3 * time.Second

// completeDaemonSets completes ds/NAME, as often as there are names.
func (e *environment) completeDaemonSets(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.completeNames(command, "ds/", args, func(ctx context.Context, client kubernetes.Interface, namespace string) (runtime.Object, error) {
		return client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	})
}

// completeNodes completes names of nodes.
func (e *environment) completeNodes(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.completeNames(command, "", nil, func(ctx context.Context, client kubernetes.Interface, _ string) (runtime.Object, error) {
		return client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	})
}

// completeNames returns the names in what list returns, without those that are there already. An
// error while typing is of no use.
func (e *environment) completeNames(command *cobra.Command, prefix string, there []string, list func(context.Context, kubernetes.Interface, string) (runtime.Object, error)) ([]string, cobra.ShellCompDirective) {
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
