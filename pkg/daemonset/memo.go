// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
)

// Memo keeps the latest view of each node.
//
// A view is a pure function of the DaemonSets and of the node with its pods. The
// scheduler numbers every state of a node, and never uses a number twice, not
// even for the copies that preemption takes pods out of. So a view whose Set and
// generation are still the same is still right, and nothing has to tell a Memo
// what happened in the cluster.
//
// The one exception is a pod group's cycle, which changes nodes without a new
// generation (Snapshot.AssumePod in k8s.io/kubernetes/pkg/scheduler/backend/cache):
// ask [NewView] there.
type Memo struct {
	startup StartupTaints
	seed    maphash.Seed
	// Filter runs on many nodes at once. One lock for all would be what they wait for.
	shards [64]shard
}

type shard struct {
	sync.RWMutex
	nodes        map[string]remembered
	hits, misses atomic.Uint64
}

// remembered is what a Memo knows of a node. Which DaemonSets are expected
// depends on the node object only, which changes far less often than its pods.
type remembered struct {
	set        *Set
	node       *corev1.Node
	generation int64
	expected   []*DaemonSet
	view       *View
}

// NewMemo returns an empty Memo for views that look past startup.
func NewMemo(startup StartupTaints) *Memo {
	m := &Memo{startup: startup, seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].nodes = make(map[string]remembered)
	}
	return m
}

// Get returns the view of the named node at that generation, or nil if it has to
// be computed.
func (m *Memo) Get(set *Set, name string, generation int64) *View {
	shard := m.shard(name)
	known := shard.get(name)
	if known.set != set || known.generation != generation {
		shard.misses.Add(1)
		return nil
	}
	shard.hits.Add(1)
	return known.view
}

// Compute computes the view of node from its pods at that generation and keeps it.
func (m *Memo) Compute(set *Set, node *corev1.Node, generation int64, pods iter.Seq2[*corev1.Pod, Resources]) *View {
	shard := m.shard(node.Name)
	known := shard.get(node.Name)
	if known.set != set || known.node != node {
		known.expected = set.Expected(node, m.startup)
	}
	view := NewView(set, node, known.expected, pods)

	shard.Lock()
	defer shard.Unlock()
	shard.nodes[node.Name] = remembered{set: set, node: node, generation: generation, expected: known.expected, view: view}
	return view
}

// Forget drops the named node, which has left the cluster.
func (m *Memo) Forget(name string) {
	shard := m.shard(name)
	shard.Lock()
	defer shard.Unlock()
	delete(shard.nodes, name)
}

// Len returns the number of nodes whose view is kept.
func (m *Memo) Len() int {
	n := 0
	for i := range m.shards {
		m.shards[i].RLock()
		n += len(m.shards[i].nodes)
		m.shards[i].RUnlock()
	}
	return n
}

// Lookups returns how often Get knew the view, and how often it did not.
func (m *Memo) Lookups() (hits, misses uint64) {
	for i := range m.shards {
		hits += m.shards[i].hits.Load()
		misses += m.shards[i].misses.Load()
	}
	return hits, misses
}

func (s *shard) get(name string) remembered {
	s.RLock()
	defer s.RUnlock()
	return s.nodes[name]
}

func (m *Memo) shard(name string) *shard {
	return &m.shards[maphash.String(m.seed, name)%uint64(len(m.shards))]
}
