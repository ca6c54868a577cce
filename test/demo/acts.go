// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/examples"
	"everynode.dev/everynode/test/localcluster"
)

// agents are the DaemonSets of the first acts: name to namespace.
var agents = map[string]string{
	"filebeat": "default", "fluentd": "default", "node-exporter": "default", "calico-node": "kube-system",
}

// covered checks that every agent runs on that many nodes.
func (s *stage) covered(nodes int32) func(context.Context) error {
	return func(ctx context.Context) error {
		var errs []error
		for name, namespace := range agents {
			errs = append(errs, s.daemonSetCovers(ctx, namespace, name, nodes))
		}
		return errors.Join(errs...)
	}
}

func (s *stage) daemonSetCovers(ctx context.Context, namespace, name string, nodes int32) error {
	ds, err := s.cluster.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	status := ds.Status
	if status.ObservedGeneration < ds.Generation || status.DesiredNumberScheduled != nodes || status.NumberReady != nodes {
		return fmt.Errorf("%s: %d of %d pods are ready, want %d", name, status.NumberReady, status.DesiredNumberScheduled, nodes)
	}
	return nil
}

// apply applies an example, by name.
func (s *stage) apply(ctx context.Context, name string) error {
	s.say("%s", s.paint("36", "$ kubectl apply -f examples/"+name+".yaml"))
	manifest, err := examples.Files.ReadFile(name + ".yaml")
	if err != nil {
		return err
	}
	_, err = s.cluster.Kubectl(ctx, manifest, "apply", "-f", "-")
	return err
}

func everyNode(ctx context.Context, s *stage) error {
	s.title("four DaemonSets reach every node")
	if err := s.cluster.AddNodes(ctx, localcluster.Nodes(1, 4)...); err != nil {
		return err
	}
	if err := s.cluster.WaitNodesReady(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(agents)) {
		if err := s.apply(ctx, name); err != nil {
			return err
		}
	}
	if err := s.until(ctx, "every agent runs on all four nodes", s.covered(4)); err != nil {
		return err
	}
	return s.kubectl(ctx, "get", "daemonsets", "--all-namespaces")
}

func joinAndLeave(ctx context.Context, s *stage) error {
	s.title("a node joins, and leaves")
	s.say("%s", s.paint("36", "$ localcluster node add node-5"))
	if err := s.cluster.AddNodes(ctx, localcluster.Nodes(5, 1)...); err != nil {
		return err
	}
	if err := s.until(ctx, "every agent runs on the new node as well", s.covered(5)); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "get", "pods", "--all-namespaces", "--field-selector", "spec.nodeName=node-5"); err != nil {
		return err
	}
	s.say("%s", s.paint("36", "$ localcluster node remove node-5"))
	if err := s.cluster.RemoveNode(ctx, "node-5"); err != nil {
		return err
	}
	if err := s.until(ctx, "its pods are gone, and four are wanted again", s.covered(4)); err != nil {
		return err
	}
	return s.kubectl(ctx, "get", "daemonsets", "--all-namespaces")
}

// runsOn checks that the pods of a DaemonSet are on those nodes and no others.
func (s *stage) runsOn(name string, nodes ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := s.cluster.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			return err
		}
		var have []string
		for i := range pods.Items {
			if pods.Items[i].Status.Phase == "Running" {
				have = append(have, pods.Items[i].Spec.NodeName)
			}
		}
		slices.Sort(have)
		if !slices.Equal(have, nodes) || len(have) != len(pods.Items) {
			return fmt.Errorf("pods run on %v, want %v", have, nodes)
		}
		return nil
	}
}

func labels(ctx context.Context, s *stage) error {
	s.title("a label brings a pod, and takes it away")
	if err := s.apply(ctx, "node-selector"); err != nil {
		return err
	}
	if err := s.until(ctx, "no node has the label, the DaemonSet wants no pod", func(ctx context.Context) error {
		return s.daemonSetCovers(ctx, "default", "node-selector", 0)
	}); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "label", "node", "node-2", "disktype=ssd"); err != nil {
		return err
	}
	if err := s.until(ctx, "a pod runs on node-2", s.runsOn("node-selector", "node-2")); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "get", "pods", "-l", "app=node-selector", "-o", "wide"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "label", "node", "node-2", "disktype-"); err != nil {
		return err
	}
	return s.until(ctx, "the pod has gone", s.runsOn("node-selector"))
}

func rollout(ctx context.Context, s *stage) error {
	s.title("a rolling update, one node at a time, and back again")
	if err := s.apply(ctx, "rolling-update"); err != nil {
		return err
	}
	if err := s.until(ctx, "revision 1 runs on all four nodes", func(ctx context.Context) error {
		return s.daemonSetCovers(ctx, "default", "rolling-update", 4)
	}); err != nil {
		return err
	}
	for _, command := range []string{
		"set image daemonset/rolling-update agent=example/agent:2.0",
		"rollout status daemonset/rolling-update --timeout=60s",
		"rollout history daemonset/rolling-update",
		"rollout undo daemonset/rolling-update --to-revision=1",
		"rollout status daemonset/rolling-update --timeout=60s",
	} {
		if err := s.kubectl(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	ds, err := s.cluster.Client.AppsV1().DaemonSets("default").Get(ctx, "rolling-update", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if image := ds.Spec.Template.Spec.Containers[0].Image; image != "example/agent:1.0" || ds.Status.UpdatedNumberScheduled != 4 {
		return fmt.Errorf("after the rollback %d nodes run %s, want 4 and example/agent:1.0", ds.Status.UpdatedNumberScheduled, image)
	}
	return nil
}
