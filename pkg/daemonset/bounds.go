// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Bounds are the most that can be held on any node. A node with that much left needs
// no closer look.
type Bounds struct {
	ordered []*DaemonSet
	// held[i] sums up what the first i DaemonSets need that room is held for.
	held []Needs
}

// NewBounds returns the bounds for set on nodes of which none has more of a resource
// than largest. What a DaemonSet needs more of than any node has is held on no node, so
// it does not count: one DaemonSet that asks for 1Ei of memory does not make all pods
// take a closer look.
func NewBounds(set *Set, largest corev1.ResourceList) *Bounds {
	b := &Bounds{ordered: set.ordered, held: make([]Needs, 1, len(set.ordered)+1)}
	limit := NewResources(largest)
	for _, ds := range set.ordered {
		sum := b.held[len(b.held)-1]
		if ds.Holds {
			// Sizes grow with the node, so the largest node bounds them.
			needs := ds.needsOf(largest)
			sum.Resources = sum.Resources.Plus(needs.Resources.WhereAtMost(limit))
			sum.HostPorts = append(slices.Clip(sum.HostPorts), needs.HostPorts...)
		}
		b.held = append(b.held, sum)
	}
	return b
}

// MaxHeld returns the most that can be held on any node for DaemonSets whose priority is
// at least minPriority.
func (b *Bounds) MaxHeld(minPriority int32) *Needs {
	n, _ := slices.BinarySearchFunc(b.ordered, minPriority, func(ds *DaemonSet, minPriority int32) int {
		if ds.Priority >= minPriority {
			return -1
		}
		return 1
	})
	return &b.held[n]
}
