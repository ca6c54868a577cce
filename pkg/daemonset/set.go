// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Set is all DaemonSets of a cluster at one moment, and which holds have lapsed. It
// is immutable: two equal pointers are the same DaemonSets with the same holds.
type Set struct {
	// ordered is sorted by priority, highest first, then by namespace and name:
	// the order in which they get room where there is not enough for all.
	ordered []*DaemonSet
	index   map[types.UID]int
	gates   bool
	lapsed  Lapsed
}

// Lapsed are the holds that have lapsed: the nodes by the DaemonSet's UID. Room is held
// there again when a hold leaves it.
type Lapsed map[types.UID]sets.Set[string]

// NewSet compiles list. What previous has compiled already is used again;
// previous itself is returned if nothing differs from it. It may be nil. Holds that
// have lapsed in previous have lapsed in the result.
func NewSet(previous *Set, list []*appsv1.DaemonSet, options Options) *Set {
	set := &Set{
		ordered: make([]*DaemonSet, 0, len(list)),
		index:   make(map[types.UID]int, len(list)),
	}
	same := previous != nil && len(list) == len(previous.ordered)
	for _, ds := range list {
		compiled := New(ds, options)
		if known := previous.Get(ds.UID); known != nil && known.equal(compiled) {
			compiled = known
		} else {
			same = false
		}
		set.ordered = append(set.ordered, compiled)
	}
	if same {
		return previous
	}
	slices.SortFunc(set.ordered, func(a, b *DaemonSet) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for i, ds := range set.ordered {
		set.index[ds.UID] = i
		set.gates = set.gates || ds.Gates
	}
	if previous != nil {
		set.lapsed = previous.lapsed
	}
	return set
}

// WithLapsed returns the same DaemonSets with other holds lapsed. lapsed must not
// change afterwards.
func (s *Set) WithLapsed(lapsed Lapsed) *Set {
	other := *s
	other.lapsed = lapsed
	return &other
}

// HasLapsed says whether the hold for ds on the named node has lapsed.
func (s *Set) HasLapsed(ds *DaemonSet, node string) bool {
	return s.lapsed[ds.UID].Has(node)
}

// Gates says whether any DaemonSet gates its nodes.
func (s *Set) Gates() bool {
	return s.gates
}

// Named returns the DaemonSet of that name, or nil.
func (s *Set) Named(namespace, name string) *DaemonSet {
	i := slices.IndexFunc(s.ordered, func(ds *DaemonSet) bool { return ds.Name == name && ds.Namespace == namespace })
	if i < 0 {
		return nil
	}
	return s.ordered[i]
}

// NotIn returns the DaemonSets of s that other lacks or has in another state.
func (s *Set) NotIn(other *Set) []*DaemonSet {
	var missing []*DaemonSet
	for _, ds := range s.ordered {
		if other.Get(ds.UID) != ds {
			missing = append(missing, ds)
		}
	}
	return missing
}

// Get returns the DaemonSet with that UID, or nil.
func (s *Set) Get(uid types.UID) *DaemonSet {
	if s == nil {
		return nil
	}
	if i, ok := s.index[uid]; ok {
		return s.ordered[i]
	}
	return nil
}

// OwnerOf returns the DaemonSet that controls pod, or nil if pod is an ordinary
// pod. An owner reference alone is not believed: a DaemonSet with its UID has to
// exist in pod's namespace.
func (s *Set) OwnerOf(pod *corev1.Pod) *DaemonSet {
	if i, ok := s.ownerIndex(pod); ok {
		return s.ordered[i]
	}
	return nil
}

func (s *Set) ownerIndex(pod *corev1.Pod) (int, bool) {
	owner := OwnerOf(pod)
	if owner == nil {
		return 0, false
	}
	i, ok := s.index[owner.UID]
	return i, ok && s.ordered[i].Namespace == pod.Namespace
}

// Expected returns the DaemonSets that should have a pod on node once its
// start-up taints are gone, in order.
func (s *Set) Expected(node *corev1.Node, startup StartupTaints) []*DaemonSet {
	var expected []*DaemonSet
	for _, ds := range s.ordered {
		if ds.WillRun(node, startup) {
			expected = append(expected, ds)
		}
	}
	return expected
}

// All returns the DaemonSets in order. Don't change the slice.
func (s *Set) All() []*DaemonSet {
	return s.ordered
}
