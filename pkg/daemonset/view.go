// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// Scope says what counts where the API objects leave it open.
type Scope struct {
	// Startup are the taints that a node loses when it is ready for work.
	Startup StartupTaints
	// Kinds are the owners, other than DaemonSets, whose pods stay on their node.
	Kinds Kinds
}

// View is what a node owes to the DaemonSets that belong there.
type View struct {
	// Held lists the DaemonSets that room is held for, by priority, highest
	// first, then by name. Those are left out that would not fit even if the node had no
	// ordinary pod, and those whose hold has lapsed: a hold ends when no pod can use it.
	Held []Hold
	// Expected lists the DaemonSets that belong on the node, in the Set's order.
	Expected []*DaemonSet
	// Missing lists those of Expected that have no pod there, or only one that goes.
	Missing []*DaemonSet
	// Unready lists those of Expected that have no Ready pod there.
	Unready []*DaemonSet
	// Lapsed lists those of Expected whose hold has lapsed.
	Lapsed []*DaemonSet
}

// Hold is the room held on a node for one DaemonSet.
type Hold struct {
	DaemonSet *DaemonSet
	// Total is the room held for this DaemonSet and for all before it.
	Total Resources
	// HostPorts are the ports held for this DaemonSet alone.
	HostPorts []HostPort
}

// HeldFor returns the holds of DaemonSets whose priority is at least minPriority.
func (v *View) HeldFor(minPriority int32) []Hold {
	for i := range v.Held {
		if v.Held[i].DaemonSet.Priority < minPriority {
			return v.Held[:i]
		}
	}
	return v.Held
}

// NewView computes the view of node from its live pods (bound, assumed or
// nominated, not yet ended), each with what it takes, and from expected, the
// DaemonSets that belong there in the order of set.
// It takes time in proportion to the pods and the DaemonSets.
func NewView(set *Set, scope Scope, node *corev1.Node, expected []*DaemonSet, pods iter.Seq2[*corev1.Pod, Resources]) *View {
	if len(expected) == 0 || IsVirtual(node) {
		return &View{}
	}
	present := presentOn(set, pods)
	view := &View{Expected: expected}
	var room *immovable
	for _, ds := range expected {
		here := &present[set.index[ds.UID]]
		if !here.ready {
			view.Unready = append(view.Unready, ds)
		}
		if !here.live {
			view.Missing = append(view.Missing, ds)
		}
		if here.staying || !ds.Holds || !ds.admits(node, scope.Startup) {
			continue
		}
		if room == nil {
			room = newImmovable(set, scope.Kinds, node, pods)
		}
		switch needs := here.stillNeeded(ds, node, room.allocatable); {
		case needs.Resources.IsZero():
		case set.HasLapsed(ds, node.Name):
			view.Lapsed = append(view.Lapsed, ds)
		case room.take(needs):
			hold := Hold{DaemonSet: ds, Total: needs.Resources, HostPorts: needs.HostPorts}
			if n := len(view.Held); n > 0 {
				hold.Total = view.Held[n-1].Total.Plus(needs.Resources)
			}
			view.Held = append(view.Held, hold)
		}
	}
	return view
}

// presentOn returns what pods have of each DaemonSet, by its index in set.
func presentOn(set *Set, pods iter.Seq2[*corev1.Pod, Resources]) []presence {
	present := make([]presence, len(set.ordered))
	for pod, takes := range pods {
		if i, ok := set.ownerIndex(pod); ok {
			present[i].add(set.ordered[i], pod, takes)
		}
	}
	return present
}

// presence is what a node has of one DaemonSet.
type presence struct {
	// live: there is a pod that is not being deleted; ready: there is one that is Ready.
	live, ready bool
	// staying: there is a pod that goes on.
	staying bool
	// leaving: there is a pod whose room the successor takes over. It is terminating, or
	// a rolling update will replace it.
	leaving bool
	// givesBack is what the leaving pods take now.
	givesBack Resources
}

// stillNeeded returns what ds needs on node beside its pods there.
func (p *presence) stillNeeded(ds *DaemonSet, node *corev1.Node, allocatable Resources) Needs {
	needs := ds.NeedsOn(node)
	needs.Resources = needs.Resources.ListedBy(allocatable)
	if p.leaving {
		// The successor takes over what the leaving pod gives back: only growth has to be held.
		needs.Resources = needs.Resources.Minus(p.givesBack).AtLeastZero()
		needs.HostPorts = nil
	}
	return needs
}

func (p *presence) add(ds *DaemonSet, pod *corev1.Pod, takes Resources) {
	live := pod.DeletionTimestamp == nil
	p.live = p.live || live
	p.ready = p.ready || live && IsReady(pod)
	switch {
	case live && !ds.Outdated(pod):
		p.staying = true
	case live && ds.Surges:
		// The successor starts beside it and needs room of its own.
	default:
		p.leaving = true
		p.givesBack = p.givesBack.Plus(takes)
	}
}

// immovable is the room that a node would have if it had no ordinary pod: daemon
// pods, those of other kinds among them, and static pods stay where they are.
type immovable struct {
	allocatable, room Resources
	ports             []HostPort
}

func newImmovable(set *Set, kinds Kinds, node *corev1.Node, pods iter.Seq2[*corev1.Pod, Resources]) *immovable {
	allocatable := NewResources(node.Status.Allocatable)
	m := &immovable{allocatable: allocatable, room: allocatable}
	for pod, takes := range pods {
		if set.OwnerOf(pod) != nil || IsMirror(pod) || kinds.Own(pod) {
			m.room = m.room.Minus(takes)
			m.ports = append(m.ports, HostPortsOf(&pod.Spec)...)
		}
	}
	return m
}

// take takes needs out of the room if they fit.
func (m *immovable) take(needs Needs) bool {
	if !needs.Resources.FitsIn(m.room) || AnyConflict(needs.HostPorts, m.ports) {
		return false
	}
	m.room = m.room.Minus(needs.Resources)
	m.ports = append(m.ports, needs.HostPorts...)
	return true
}
