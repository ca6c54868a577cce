// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

func newNodeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "node",
		Short: "Change the nodes of a running cluster",
		Long:  "Change the nodes of a running cluster. What these commands do, kubectl can do as well.",
	}
	s := &state{}
	s.addFlags(command.PersistentFlags())
	command.AddCommand(newNodeAddCommand(s), newNodeRemoveCommand(s),
		newKubectlCommand(s, "label", "NODE KEY=VALUE|KEY-...", "Give a node labels, or take them away"),
		newKubectlCommand(s, "taint", "NODE KEY=VALUE:EFFECT|KEY-...", "Give a node taints, or take them away"))
	return command
}

func newNodeAddCommand(s *state) *cobra.Command {
	var labels, capacity map[string]string
	command := &cobra.Command{
		Use:     "add NODE...",
		Short:   "Add nodes",
		Example: "  localcluster node add node-5 --label disktype=ssd --capacity cpu=8,memory=32Gi",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			cluster, err := localcluster.Connect(s.kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %q: %w", s.name, err)
			}
			size := corev1.ResourceList{}
			for _, name := range slices.Sorted(maps.Keys(capacity)) {
				quantity, err := resource.ParseQuantity(capacity[name])
				if err != nil {
					return fmt.Errorf("--capacity %s=%s: %w", name, capacity[name], err)
				}
				size[corev1.ResourceName(name)] = quantity
			}
			existing, err := cluster.Client.CoreV1().Nodes().List(cmd.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			nodes := localcluster.Nodes(len(existing.Items)+1, len(names))
			for i, name := range names {
				nodes[i].Name = name
				nodes[i].Capacity = size
				maps.Copy(nodes[i].Labels, labels)
			}
			return cluster.AddNodes(cmd.Context(), nodes...)
		},
	}
	command.Flags().StringToStringVar(&labels, "label", nil, "labels of the nodes")
	command.Flags().StringToStringVar(&capacity, "capacity", nil, "size of the nodes, where it is not cpu=4,memory=16Gi,ephemeral-storage=100Gi,pods=110")
	return command
}

func newNodeRemoveCommand(s *state) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NODE...",
		Short: "Remove nodes",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			cluster, err := localcluster.Connect(s.kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %q: %w", s.name, err)
			}
			for _, name := range names {
				if err := cluster.RemoveNode(cmd.Context(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// newKubectlCommand leaves a verb to kubectl.
func newKubectlCommand(s *state, verb, args, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " " + args,
		Short: short,
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := localcluster.Connect(s.kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %q: %w", s.name, err)
			}
			output, err := cluster.Kubectl(cmd.Context(), nil, append([]string{verb, "--overwrite", "node"}, args...)...)
			fmt.Fprint(cmd.OutOrStdout(), output)
			return err
		},
	}
}
