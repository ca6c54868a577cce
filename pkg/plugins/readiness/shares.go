// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness

import (
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// shares keeps which share of its DaemonSets is Ready on each node that was a candidate. Nearly
// always it is the same on all candidates, and a cycle should not have to look at their pods to see it.
//
// Invariant: what is known of a node is what the informers have now. Handlers run after the
// informer has the new object, and a node is looked at with the lock held, so no change is
// lost between the two.
type shares struct {
	startup daemonset.StartupTaints
	nodes   corelisters.NodeLister
	podsOn  func(node string) []*corev1.Pod

	mu sync.Mutex
	// set is what known was computed for.
	set *daemonset.Set
	// known are the shares, 0 to 100, by the name of the node.
	known map[string]int64
}

// newShares returns the shares of the nodes that factory knows. Call it before the informers
// are started.
func newShares(startup daemonset.StartupTaints, factory informers.SharedInformerFactory, podsOn func(node string) []*corev1.Pod) (*shares, error) {
	s := &shares{startup: startup, nodes: factory.Core().V1().Nodes().Lister(), podsOn: podsOn, known: make(map[string]int64)}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: s.forget,
		UpdateFunc: func(oldObj, newObj any) {
			s.forget(oldObj)
			s.forget(newObj)
		},
		DeleteFunc: s.forget,
	}
	for _, informer := range []cache.SharedIndexInformer{factory.Core().V1().Nodes().Informer(), factory.Core().V1().Pods().Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, fmt.Errorf("watching nodes and pods: %w", err)
		}
	}
	return s, nil
}

// forget forgets the share of a node: of obj itself, or of the one that obj, a daemon pod, is bound to.
func (s *shares) forget(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	var name string
	switch obj := obj.(type) {
	case *corev1.Node:
		name = obj.Name
	case *corev1.Pod:
		if daemonset.OwnerOf(obj) != nil {
			name = obj.Spec.NodeName
		}
	}
	if name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, name)
}

// alike says whether the share is the same on all of nodes.
func (s *shares) alike(set *daemonset.Set, nodes []fwk.NodeInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Sets that differ in which holds have lapsed have the same DaemonSets.
	if s.set != set && (s.set == nil || !slices.Equal(s.set.All(), set.All())) {
		clear(s.known)
	}
	s.set = set
	if len(nodes) == 0 {
		return true
	}
	first := s.of(nodes[0].Node().Name)
	return !slices.ContainsFunc(nodes, func(info fwk.NodeInfo) bool { return s.of(info.Node().Name) != first })
}

// of returns the share of the named node. It holds the lock. A node that has been deleted lacks nothing.
func (s *shares) of(name string) int64 {
	if share, ok := s.known[name]; ok {
		return share
	}
	node, err := s.nodes.Get(name)
	if err != nil {
		return fwk.MaxScore
	}
	share := s.look(node)
	s.known[name] = share
	return share
}

// look computes the share of node. It holds the lock.
func (s *shares) look(node *corev1.Node) int64 {
	if daemonset.IsVirtual(node) {
		return fwk.MaxScore
	}
	ready := sets.New[*daemonset.DaemonSet]()
	for _, pod := range s.podsOn(node.Name) {
		if isReady(pod) {
			ready.Insert(s.set.OwnerOf(pod))
		}
	}
	expected := s.set.Expected(node, s.startup)
	unready := 0
	for _, ds := range expected {
		if !ready.Has(ds) {
			unready++
		}
	}
	return share(len(expected), unready)
}

// share returns how much of 100 the Ready ones of the expected DaemonSets are.
func share(expected, unready int) int64 {
	if expected == 0 {
		return fwk.MaxScore
	}
	return fwk.MaxScore * int64(expected-unready) / int64(expected)
}
