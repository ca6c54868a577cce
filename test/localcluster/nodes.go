// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
)

// Node describes a node to add.
type Node struct {
	// Name is the node's name.
	Name string
	// Labels are added to those that every node has.
	Labels map[string]string
	// Taints are those besides the ones that Kubernetes sets.
	Taints []corev1.Taint
	// Address is the node's internal IP address; empty for none.
	Address string
	// Capacity overrides DefaultCapacity, resource by resource. All of it is allocatable.
	Capacity corev1.ResourceList
}

// DefaultCapacity is the size of a node: a small machine.
func DefaultCapacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("4"),
		corev1.ResourceMemory:           resource.MustParse("16Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
}

// Nodes returns n nodes, named from node-first on, over the zones us-east-1a to
// us-east-1c.
func Nodes(first, n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		number := first + i
		nodes[i] = Node{
			Name:    fmt.Sprintf("node-%d", number),
			Address: fmt.Sprintf("10.1.%d.%d", number/250, 1+number%250),
			Labels: map[string]string{
				corev1.LabelTopologyRegion:     "us-east-1",
				corev1.LabelTopologyZone:       "us-east-1" + string(rune('a'+(number-1)%3)),
				corev1.LabelInstanceTypeStable: "t3.medium",
			},
		}
	}
	return nodes
}

// AddNodes adds nodes as kubelets do that register themselves. It does not wait
// until they are ready.
func (c *Cluster) AddNodes(ctx context.Context, nodes ...Node) error {
	for _, node := range nodes {
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: node.Name,
			Labels: map[string]string{
				corev1.LabelHostname:   node.Name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: "amd64",
			},
		}}
		maps.Copy(object.Labels, node.Labels)
		object.Spec.Taints = node.Taints
		object.Status.Capacity = DefaultCapacity()
		maps.Copy(object.Status.Capacity, node.Capacity)
		object.Status.Allocatable = object.Status.Capacity
		object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: node.Name}}
		if node.Address != "" {
			object.Status.Addresses = append(object.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: node.Address})
		}
		if _, err := c.Client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("adding node %s: %w", node.Name, err)
		}
	}
	return nil
}

// WaitNodesReady waits until all nodes are Ready and have lost the taint that
// every new node wears.
func (c *Cluster) WaitNodesReady(ctx context.Context) error {
	waiting := "no node exists"
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			waiting = err.Error()
			return false, nil //nolint:nilerr // the API server may be away for a moment
		}
		for i := range list.Items {
			if !isReady(&list.Items[i]) {
				waiting = "node " + list.Items[i].Name + " is not ready"
				return false, nil
			}
		}
		return len(list.Items) > 0, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for nodes: %s: %w", waiting, err)
	}
	return nil
}

func isReady(node *corev1.Node) bool {
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == corev1.TaintNodeNotReady {
			return false
		}
	}
	for i := range node.Status.Conditions {
		if condition := &node.Status.Conditions[i]; condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// RemoveNode deletes a node, as a cloud provider does whose machine has gone, and
// its pods, which Kubernetes would take a minute for.
func (c *Cluster) RemoveNode(ctx context.Context, name string) error {
	if err := c.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		err := c.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
