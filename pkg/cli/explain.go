// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/pkg/explain"
)

// explainOptions are the arguments and flags of explain.
type explainOptions struct {
	query
	node      string
	resources []resource
	whole     bool
}

func newExplainCommand(e *environment) *cobra.Command {
	o := &explainOptions{query: query{environment: e}}
	command := newVerb("explain", o.complete, o.run)
	o.addFlags(command, formatWide, formatName, formatMarkdown)
	command.Flags().BoolVar(&o.whole, "all", false, "Tell the details of every group of nodes.")
	command.Flags().StringVar(&o.node, "node", "", "Explain this node alone, step by step.")
	_ = command.RegisterFlagCompletionFunc("node", e.completeNodes)
	return command
}

func (o *explainOptions) complete(args []string) (err error) {
	switch {
	case len(args) == 0 && o.selector == "" && !o.all:
		return errors.New("name what to explain: ds/NAME, pod/NAME or node/NAME, or DaemonSets by --selector")
	case len(args) > 0 && o.selector != "":
		return errors.New("names and --selector exclude each other: leave one out")
	}
	if o.resources, err = parseNames(args, "ds", "pod", "node"); err != nil {
		return err
	}
	return o.query.complete(nil)
}

func (o *explainOptions) run(command *cobra.Command) error {
	namespace := o.space
	if slices.ContainsFunc(o.resources, func(r resource) bool { return r.kind == "node" }) {
		namespace = ""
	}
	engine, err := o.read(command, namespace)
	if err != nil {
		return err
	}
	if len(engine.Nodes()) == 0 {
		return errors.New("the cluster has no nodes")
	}
	for n, named := range o.resources {
		o.output.separate(o.Out, n)
		if err := o.explainResource(command, engine, named); err != nil {
			return err
		}
	}
	if len(o.resources) > 0 {
		return nil
	}
	daemonSets, err := o.choose(engine)
	if err == nil && len(daemonSets) == 0 {
		fmt.Fprintln(o.ErrOut, o.nothing())
	}
	for n, ds := range daemonSets {
		o.output.separate(o.Out, n)
		if err := o.explain(command, engine, ds, o.node); err != nil {
			return err
		}
	}
	return err
}

// explainResource explains what the user has named.
func (o *explainOptions) explainResource(command *cobra.Command, engine *explain.Engine, named resource) error {
	switch named.kind {
	case "node":
		node, err := findNode(engine, named.name)
		if err != nil {
			return err
		}
		x, err := engine.ExplainNode(command.Context(), node)
		return o.print(err, "NodeExplanation", x, "node/"+node.Name, func(p *printer) { p.nodeExplanation(x) })
	case "pod":
		pod := engine.Pod(o.space, named.name)
		if pod == nil {
			return fmt.Errorf("there is no pod %s in namespace %s: name another namespace with -n", named.name, o.space)
		}
		if ds, node := engine.OfPod(pod); ds != nil {
			return o.explain(command, engine, ds, node)
		}
		x, err := engine.ExplainPod(command.Context(), pod)
		return o.print(err, "PodExplanation", x, "pod/"+pod.Name, func(p *printer) { p.podExplanation(x) })
	default:
		ds, err := find(engine, o.space, named.name)
		if err != nil {
			return err
		}
		return o.explain(command, engine, ds, o.node)
	}
}

// explain explains a DaemonSet on all nodes, or on that of a name.
func (o *explainOptions) explain(command *cobra.Command, engine *explain.Engine, ds *appsv1.DaemonSet, name string) error {
	nodes := engine.Nodes()
	if name != "" {
		node, err := findNode(engine, name)
		if err != nil {
			return err
		}
		nodes = []*corev1.Node{node}
	}
	x, err := engine.Explain(command.Context(), ds, nodes)
	return o.print(err, "DaemonSetExplanation", x, resourceName+ds.Name, func(p *printer) {
		if name != "" {
			p.chain(x)
		} else {
			p.overview(x)
		}
	})
}

func findNode(engine *explain.Engine, name string) (*corev1.Node, error) {
	node := engine.Node(name)
	if node == nil {
		return nil, fmt.Errorf("there is no node %s: see kubectl get nodes", name)
	}
	return node, nil
}

// print writes an explanation as an object of a kind, as the name of what it is about, or for
// people. It returns err, if there is one.
func (o *explainOptions) print(err error, kind string, x any, name string, people func(*printer)) error {
	switch {
	case err != nil:
		return err
	case o.output.isObject():
		return o.output.printObject(o.Out, kind, x)
	case o.output.format == formatName:
		fmt.Fprintln(o.Out, name)
	default:
		p := o.printer()
		p.all = o.whole
		people(p)
	}
	return nil
}
