// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package views gives the scheduler plugins the view of each node: which DaemonSets
// it belongs to, which are missing there, and what is held for them.
package views

import (
	"iter"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
)

// Views keeps the latest view of each node in the scheduler's snapshot.
//
// Invariant: a view is a pure function of the Set, the node and the pods on it. The
// scheduler numbers every state of a node, and never uses a number twice, not even for
// the copies that preemption takes pods out of. So a view whose Set and generation are
// the same is still right, and no event has to reach a Views for it to be so.
//
// The one exception is the cycle of a pod group, which changes nodes without a new
// generation (Snapshot.AssumePod in k8s.io/kubernetes/pkg/scheduler/backend/cache):
// views are computed anew there, and only which DaemonSets are expected is kept.
type Views struct {
	// Scope is what the views depend on besides the Set.
	Scope daemonset.Scope

	nodes    corelisters.NodeLister
	known    sync.Map // name of a node -> *entry
	computed atomic.Uint64
	bounds   atomic.Pointer[bounds]
	largest  largest
}

// noGeneration is the generation of no node: the scheduler counts from 1.
const noGeneration = -1

// entry is what is known of a node. Which DaemonSets are expected depends on the node
// object only, which changes far less often than its pods. An entry of noGeneration has
// no view.
type entry struct {
	set        *daemonset.Set
	node       *corev1.Node
	generation int64
	expected   []*daemonset.DaemonSet
	view       *daemonset.View
}

// New returns the views of the nodes that informer knows. Call it before the informer
// is started.
func New(scope daemonset.Scope, informer cache.SharedIndexInformer) (*Views, error) {
	v := &Views{Scope: scope, nodes: corelisters.NewNodeLister(informer.GetIndexer())}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { v.largest.include(obj.(*corev1.Node)) },
		UpdateFunc: func(_, obj any) { v.largest.include(obj.(*corev1.Node)) },
		DeleteFunc: func(obj any) {
			if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				v.known.Delete(name)
			}
		},
	})
	return v, err
}

// Of returns the view of a node for the scheduling cycle of pod, from memory if
// the node is as it was.
func (v *Views) Of(set *daemonset.Set, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *daemonset.View {
	node := nodeInfo.Node()
	inGroup := pod.Spec.SchedulingGroup != nil
	last := v.last(node.Name)
	known := last != nil && last.set == set
	if known && !inGroup && last.generation == nodeInfo.GetGeneration() {
		return last.view
	}
	v.computed.Add(1)
	next := &entry{set: set, node: node, generation: nodeInfo.GetGeneration()}
	known = known && last.node == node
	if known {
		next.expected = last.expected
	} else {
		next.expected = set.Expected(node, v.Scope.Startup)
	}
	view := daemonset.NewView(set, v.Scope, node, next.expected, podsOf(nodeInfo))
	switch {
	case !inGroup:
		next.view = view
	case known:
		return view
	default:
		next.generation = noGeneration
	}
	v.known.Store(node.Name, next)
	if _, err := v.nodes.Get(node.Name); err != nil {
		// The node was deleted after the snapshot was taken. Its event may have passed
		// already, so the view is deleted here.
		v.known.Delete(node.Name)
	}
	return view
}

func (v *Views) last(node string) *entry {
	if last, ok := v.known.Load(node); ok {
		return last.(*entry)
	}
	return nil
}

// Compute returns the view of node with pods, each with what it takes.
func (v *Views) Compute(set *daemonset.Set, node *corev1.Node, pods iter.Seq2[*corev1.Pod, daemonset.Resources]) *daemonset.View {
	return daemonset.NewView(set, v.Scope, node, set.Expected(node, v.Scope.Startup), pods)
}

// Computed returns how many views were computed for scheduling cycles.
func (v *Views) Computed() uint64 {
	return v.computed.Load()
}

// Len returns the number of nodes whose view is kept.
func (v *Views) Len() int {
	n := 0
	v.known.Range(func(_, _ any) bool {
		n++
		return true
	})
	return n
}

// bounds are those of a Set and of the largest nodes at the time.
type bounds struct {
	set     *daemonset.Set
	version int64
	*daemonset.Bounds
}

// Bounds returns the most that can be held on any node.
func (v *Views) Bounds(set *daemonset.Set) *daemonset.Bounds {
	version := v.largest.version.Load()
	if last := v.bounds.Load(); last != nil && last.set == set && last.version == version {
		return last.Bounds
	}
	next := &bounds{set: set, version: version, Bounds: daemonset.NewBounds(set, v.largest.of(v.nodes))}
	v.bounds.Store(next)
	return next.Bounds
}

// largest is the most that any node has of each resource. It never shrinks while the
// scheduler runs: too large a bound costs a look at a node, too small a one costs room.
type largest struct {
	mu      sync.Mutex
	list    corev1.ResourceList
	version atomic.Int64
}

func (l *largest) include(node *corev1.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	grown := false
	for name, quantity := range node.Status.Allocatable {
		if known, ok := l.list[name]; !ok || quantity.Cmp(known) > 0 {
			if l.list == nil {
				l.list = make(corev1.ResourceList)
			}
			l.list[name] = quantity
			grown = true
		}
	}
	if grown {
		l.version.Add(1)
	}
}

// of returns the largest amounts. Event handlers may lag behind the lister, so it
// looks at the lister's nodes as well.
func (l *largest) of(nodes corelisters.NodeLister) corev1.ResourceList {
	// A lister on a cache returns no error.
	list, _ := nodes.List(labels.Everything())
	for _, node := range list {
		l.include(node)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list.DeepCopy()
}

// podsOf returns the pods of a node with what the scheduler counts for them.
func podsOf(nodeInfo fwk.NodeInfo) iter.Seq2[*corev1.Pod, daemonset.Resources] {
	return func(yield func(*corev1.Pod, daemonset.Resources) bool) {
		for _, info := range nodeInfo.GetPods() {
			counted := info.CalculateResource().Resource
			if !yield(info.GetPod(), daemonset.Resources{
				MilliCPU:         counted.GetMilliCPU(),
				Memory:           counted.GetMemory(),
				EphemeralStorage: counted.GetEphemeralStorage(),
				Pods:             1,
				Scalar:           counted.GetScalarResources(),
			}) {
				return
			}
		}
	}
}
