// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"hash/maphash"
	"iter"
	"maps"
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
	// Filters run on many nodes at once, and ask far more often than a node comes or
	// goes. So reading takes no lock and writes no memory that others read.
	shards [64]shard
}

type shard struct {
	mu sync.Mutex // held while nodes is replaced
	// nodes has a slot for every node of the shard. The map itself is never changed.
	nodes        atomic.Pointer[map[string]*slot]
	hits, misses atomic.Uint64
}

// slot holds what is known of one node.
type slot = atomic.Pointer[remembered]

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
		m.shards[i].nodes.Store(&map[string]*slot{})
	}
	return m
}

// Get returns the view of the named node at that generation, or nil if it has to
// be computed.
func (m *Memo) Get(set *Set, name string, generation int64) *View {
	shard := m.shard(name)
	known := shard.get(name)
	if known == nil || known.set != set || known.generation != generation {
		shard.misses.Add(1)
		return nil
	}
	if generation%sampled == 0 {
		shard.hits.Add(sampled)
	}
	return known.view
}

// sampled is of how many hits one is counted, for all of them. To count each would
// take longer than the look-up.
const sampled = 16

// Compute computes the view of node from its pods at that generation and keeps it.
func (m *Memo) Compute(set *Set, node *corev1.Node, generation int64, pods iter.Seq2[*corev1.Pod, Resources]) *View {
	shard := m.shard(node.Name)
	var expected []*DaemonSet
	if known := shard.get(node.Name); known != nil && known.set == set && known.node == node {
		expected = known.expected
	} else {
		expected = set.Expected(node, m.startup)
	}
	view := NewView(set, node, expected, pods)
	shard.slot(node.Name).Store(&remembered{set: set, node: node, generation: generation, expected: expected, view: view})
	return view
}

// Forget drops the named node, which has left the cluster.
func (m *Memo) Forget(name string) {
	shard := m.shard(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	nodes := maps.Clone(*shard.nodes.Load())
	delete(nodes, name)
	shard.nodes.Store(&nodes)
}

// Len returns the number of nodes whose view is kept.
func (m *Memo) Len() int {
	n := 0
	for i := range m.shards {
		n += len(*m.shards[i].nodes.Load())
	}
	return n
}

// Lookups returns how often Get knew the view, about, and how often it did not.
func (m *Memo) Lookups() (hits, misses uint64) {
	for i := range m.shards {
		hits += m.shards[i].hits.Load()
		misses += m.shards[i].misses.Load()
	}
	return hits, misses
}

// get returns what is known of the named node, or nil.
func (s *shard) get(name string) *remembered {
	if slot := (*s.nodes.Load())[name]; slot != nil {
		return slot.Load()
	}
	return nil
}

// slot returns the slot of the named node, a new one if it has none.
func (s *shard) slot(name string) *slot {
	if known := (*s.nodes.Load())[name]; known != nil {
		return known
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes := maps.Clone(*s.nodes.Load())
	if nodes[name] == nil {
		nodes[name] = &slot{}
	}
	s.nodes.Store(&nodes)
	return nodes[name]
}

func (m *Memo) shard(name string) *shard {
	return &m.shards[maphash.String(m.seed, name)%uint64(len(m.shards))]
}
