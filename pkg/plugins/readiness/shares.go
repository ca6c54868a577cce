// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness

import (
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// shares knows of every node which share of its DaemonSets is Ready there. Nearly always that
// is the same on all nodes in question, and no cycle should have to look at them to see it.
//
// Invariant: a node is as the informers have it now, or is among changed. Handlers run after
// the informer has the new object, and a node is looked at with the lock held, so no change
// is lost between the two.
type shares struct {
	startup daemonset.StartupTaints
	nodes   corelisters.NodeLister
	podsOn  func(node string) []*corev1.Pod

	mu sync.Mutex
	// set is what known was computed for.
	set *daemonset.Set
	// changed are the names of the nodes that have to be looked at.
	changed sets.Set[string]
	// known are the shares by the name of the node, 0 to 100, and count how many nodes have each.
	known map[string]int64
	count map[int64]int
}

// newShares returns the shares of the nodes that factory knows. Call it before the informers
// are started.
func newShares(startup daemonset.StartupTaints, factory informers.SharedInformerFactory, podsOn func(node string) []*corev1.Pod) (*shares, error) {
	s := &shares{
		startup: startup,
		nodes:   factory.Core().V1().Nodes().Lister(),
		podsOn:  podsOn,
		changed: sets.New[string](),
		known:   make(map[string]int64),
		count:   make(map[int64]int),
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: s.lookAgain,
		UpdateFunc: func(oldObj, newObj any) {
			s.lookAgain(oldObj)
			s.lookAgain(newObj)
		},
		DeleteFunc: s.lookAgain,
	}
	for _, informer := range []cache.SharedIndexInformer{factory.Core().V1().Nodes().Informer(), factory.Core().V1().Pods().Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, fmt.Errorf("watching nodes and pods: %w", err)
		}
	}
	return s, nil
}

// lookAgain has a node looked at again: obj itself, or the one that obj, a daemon pod, is bound to.
func (s *shares) lookAgain(obj any) {
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
	s.changed.Insert(name)
}

// alike says whether the share is the same on all of nodes.
func (s *shares) alike(set *daemonset.Set, nodes []fwk.NodeInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(set)
	if len(s.count) <= 1 || len(nodes) == 0 {
		return true
	}
	first := s.known[nodes[0].Node().Name]
	return !slices.ContainsFunc(nodes, func(info fwk.NodeInfo) bool { return s.known[info.Node().Name] != first })
}

// refresh looks at the nodes that have changed, and at all of them if the DaemonSets have. It
// holds the lock.
func (s *shares) refresh(set *daemonset.Set) {
	// Sets that differ in which holds have lapsed have the same DaemonSets.
	if s.set != set && (s.set == nil || !slices.Equal(s.set.All(), set.All())) {
		// A lister on a cache returns no error.
		all, _ := s.nodes.List(labels.Everything())
		for _, node := range all {
			s.changed.Insert(node.Name)
		}
	}
	s.set = set
	for name := range s.changed {
		if before, ok := s.known[name]; ok {
			delete(s.known, name)
			s.count[before]--
			if s.count[before] == 0 {
				delete(s.count, before)
			}
		}
		if node, err := s.nodes.Get(name); err == nil {
			share := s.look(set, node)
			s.known[name] = share
			s.count[share]++
		}
	}
	clear(s.changed)
}

// look computes the share of node.
func (s *shares) look(set *daemonset.Set, node *corev1.Node) int64 {
	if daemonset.IsVirtual(node) {
		return fwk.MaxScore
	}
	ready := sets.New[*daemonset.DaemonSet]()
	for _, pod := range s.podsOn(node.Name) {
		if isReady(pod) {
			ready.Insert(set.OwnerOf(pod))
		}
	}
	expected := set.Expected(node, s.startup)
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
