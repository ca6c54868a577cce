// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Set is all DaemonSets of a cluster at one moment. It is immutable: two equal
// pointers are the same DaemonSets.
type Set struct {
	// ordered is sorted by priority, highest first, then by namespace and name:
	// the order in which they get room where there is not enough for all.
	ordered []*DaemonSet
	index   map[types.UID]int
	gates   bool
	// held sums up what the DaemonSets before each index need that room is held for.
	// It ends where that depends on the node.
	held []Needs
}

// NewSet compiles list. What previous has compiled already is used again;
// previous itself is returned if nothing differs from it. It may be nil.
func NewSet(previous *Set, list []*appsv1.DaemonSet, options Options) *Set {
	set := &Set{
		ordered: make([]*DaemonSet, 0, len(list)),
		index:   make(map[types.UID]int, len(list)),
	}
	same := previous != nil && len(list) == len(previous.ordered)
	for _, ds := range list {
		compiled := previous.Get(ds.UID)
		if compiled == nil || !Same(compiled.source, ds) ||
			compiled.Priority != options.Priority(ds.Spec.Template.Spec.PriorityClassName) {
			compiled = New(ds, options)
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
	set.held = sumUp(set.ordered)
	return set
}

func sumUp(ordered []*DaemonSet) []Needs {
	held := make([]Needs, 1, len(ordered)+1)
	for _, ds := range ordered {
		sum := held[len(held)-1]
		if ds.Holds {
			if ds.sizes != nil {
				break
			}
			sum.Resources = sum.Resources.Plus(ds.needs.Resources)
			sum.HostPorts = append(slices.Clip(sum.HostPorts), ds.needs.HostPorts...)
		}
		held = append(held, sum)
	}
	return held
}

// Gates says whether any DaemonSet gates its nodes.
func (s *Set) Gates() bool {
	return s.gates
}

// MostHeld returns the most that can be held on any node against a pod of that
// priority: as much as all DaemonSets need whose own priority is at least as high. It
// returns nil if that depends on the size of the node.
func (s *Set) MostHeld(priority int32) *Needs {
	n, _ := slices.BinarySearchFunc(s.ordered, priority, func(ds *DaemonSet, priority int32) int {
		if ds.Priority >= priority {
			return -1
		}
		return 1
	})
	if n >= len(s.held) {
		return nil
	}
	return &s.held[n]
}

// Named returns the DaemonSet of that name, or nil.
func (s *Set) Named(namespace, name string) *DaemonSet {
	i := slices.IndexFunc(s.ordered, func(ds *DaemonSet) bool { return ds.Name == name && ds.Namespace == namespace })
	if i < 0 {
		return nil
	}
	return s.ordered[i]
}

// Without returns the DaemonSets of s that other lacks or has in another state.
func (s *Set) Without(other *Set) []*DaemonSet {
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
