// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package holds ends the holding of room that no DaemonSet pod comes to use.
//
// Invariant: room is held for a missing pod while its pod can be expected soon. That is
// until the node is open to the DaemonSet, and then for a limited time after the last
// thing that lets a pod be expected: the node has opened, the DaemonSet was changed,
// its update has moved, its pod has gone. A pod object for the node keeps the hold. A
// DaemonSet that a quota or another admission refuses would otherwise hold room on every
// node for ever.
//
// The time does not run while the DaemonSet controller is not at work (controller.go).
package holds

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/daemonsets"
)

// Options are for how long room is held.
type Options struct {
	// HoldFor is how long a pod that does not appear is expected.
	HoldFor time.Duration
	// StartupFor is how long a Ready node is expected to lose its start-up taints.
	StartupFor time.Duration
	// Startup are these taints.
	Startup daemonset.StartupTaints
}

// Holds ends holds. It watches DaemonSets, nodes and pods, and tells DaemonSets which
// holds have lapsed.
type Holds struct {
	Options

	daemonSets *daemonsets.DaemonSets
	lister     appslisters.DaemonSetLister
	nodes      corelisters.NodeLister
	podsOn     func(node string) []*corev1.Pod
	recorder   events.EventRecorderLogger
	controller controller
	clock      clock.WithTicker

	mu      sync.Mutex
	running bool
	// deadlines are when the holds end of a pair for which no pod has appeared.
	deadlines map[pair]time.Time
	lapsed    daemonset.Lapsed
	startup   map[string]*startup
}

// pair is a DaemonSet on a node. A pair without a DaemonSet stands for all of them, one
// without a node for all nodes.
type pair struct {
	daemonSet types.UID
	node      string
}

// startup is a Ready node that wears start-up taints.
type startup struct {
	since time.Time
	// overdue: it has for longer than StartupFor.
	overdue bool
	taint   string
}

// Sources is what Holds watches and uses.
type Sources struct {
	DaemonSets *daemonsets.DaemonSets
	Informers  informers.SharedInformerFactory
	Client     kubernetes.Interface
	Recorder   events.EventRecorderLogger
	// PodsOn returns the pods that are bound to the named node, or pinned to it.
	PodsOn func(node string) []*corev1.Pod
	Clock  clock.WithTicker
}

// New returns Holds that ends no hold before Run is called and a first scheduling cycle
// has begun. Call it before the informers are started.
func New(options Options, from Sources) (*Holds, error) {
	h := &Holds{
		Options:    options,
		daemonSets: from.DaemonSets,
		lister:     from.Informers.Apps().V1().DaemonSets().Lister(),
		nodes:      from.Informers.Core().V1().Nodes().Lister(),
		podsOn:     from.PodsOn,
		recorder:   from.Recorder,
		controller: controller{leases: from.Client.CoordinationV1().Leases(controllerNamespace)},
		clock:      from.Clock,
		deadlines:  make(map[pair]time.Time),
		lapsed:     make(daemonset.Lapsed),
		startup:    make(map[string]*startup),
	}
	from.DaemonSets.OnStart(h.start)
	if err := h.watch(from.Informers); err != nil {
		return nil, err
	}
	return h, nil
}

// start begins to count: nothing is known of the time before.
func (h *Holds) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = true
	h.deadlines[pair{}] = h.clock.Now().Add(h.HoldFor)
}

// period is how often deadlines are looked at.
const period = 500 * time.Millisecond

// Run ends holds until ctx is done.
func (h *Holds) Run(ctx context.Context) {
	tick := h.clock.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
			h.tick(ctx)
		}
	}
}

// renew has pods of p expected for HoldFor from now on, and extra. Holds that have lapsed
// are back.
func (h *Holds) renew(p pair, extra time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running {
		return
	}
	h.deadlines[p] = h.clock.Now().Add(h.HoldFor + extra)
	h.unlapse(p)
}

// unlapse has the holds of p back. It holds the lock.
func (h *Holds) unlapse(p pair) {
	changed := false
	for uid, nodes := range h.lapsed {
		switch {
		case p.daemonSet != "" && p.daemonSet != uid:
			continue
		case p.node == "":
			delete(h.lapsed, uid)
		case nodes.Has(p.node):
			// Sets that were given away do not change.
			if h.lapsed[uid] = nodes.Difference(sets.New(p.node)); len(h.lapsed[uid]) == 0 {
				delete(h.lapsed, uid)
			}
		default:
			continue
		}
		changed = true
	}
	if changed {
		h.daemonSets.SetLapsed(maps.Clone(h.lapsed))
	}
}

// hasLapsed says whether the hold of exactly p has lapsed.
func (h *Holds) hasLapsed(p pair) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lapsed[p.daemonSet].Has(p.node)
}

// tick ends the holds that are due.
func (h *Holds) tick(ctx context.Context) {
	logger := klog.FromContext(ctx)
	now := h.clock.Now()
	if !h.anyDue(now) {
		return
	}
	// This asks the API server, so the lock is not held.
	confirmed, restarted := h.controller.confirm(ctx, now)
	h.mu.Lock()
	defer h.mu.Unlock()
	if deadline := restarted.Add(h.HoldFor); !restarted.IsZero() && deadline.After(now) {
		logger.V(2).Info("The DaemonSet controller is at work again: room is held where no pods were created")
		if deadline.After(h.deadlines[pair{}]) {
			h.deadlines[pair{}] = deadline
		}
		h.unlapse(pair{})
	}
	h.publish(logger, h.look(append(h.expire(confirmed), h.expireStartup(now)...)))
}

func (h *Holds) anyDue(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, deadline := range h.deadlines {
		if !deadline.After(now) {
			return true
		}
	}
	for _, s := range h.startup {
		if h.running && !s.overdue && now.Sub(s.since) >= h.StartupFor {
			return true
		}
	}
	return false
}

// expire removes the deadlines until then and returns their pairs.
func (h *Holds) expire(until time.Time) []pair {
	var expired []pair
	maps.DeleteFunc(h.deadlines, func(p pair, deadline time.Time) bool {
		if deadline.After(until) {
			return false
		}
		expired = append(expired, p)
		return true
	})
	return expired
}

// expireStartup returns the nodes whose start-up taints are overdue now.
func (h *Holds) expireStartup(now time.Time) []pair {
	var expired []pair
	for node, s := range h.startup {
		if !s.overdue && now.Sub(s.since) >= h.StartupFor {
			s.overdue = true
			expired = append(expired, pair{node: node})
			h.reportStartup(node, s)
		}
	}
	return expired
}

func (h *Holds) reportStartup(name string, s *startup) {
	if node, err := h.nodes.Get(name); err == nil {
		h.recorder.Eventf(node, nil, corev1.EventTypeWarning, "StartupTaintStays", "Holding",
			"The node has been Ready for %s and still has the start-up taint %s. Room is no longer held for DaemonSets that do not tolerate it. "+
				"See whether the agent that removes the taint runs on the node", h.StartupFor, s.taint)
	}
}

// look returns the holds among those of pairs that nothing keeps any more.
func (h *Holds) look(pairs []pair) []end {
	if len(pairs) == 0 {
		return nil
	}
	set := h.daemonSets.Set()
	wanted := make(map[string]sets.Set[types.UID])
	everywhere := sets.New[types.UID]()
	for _, p := range pairs {
		if p.node == "" {
			everywhere.Insert(p.daemonSet)
			continue
		}
		if wanted[p.node] == nil {
			wanted[p.node] = sets.New[types.UID]()
		}
		wanted[p.node].Insert(p.daemonSet)
	}
	if len(everywhere) > 0 {
		// A lister on a cache returns no error.
		nodes, _ := h.nodes.List(labels.Everything())
		for _, node := range nodes {
			wanted[node.Name] = everywhere.Union(wanted[node.Name])
		}
	}
	var ends []end
	for name, uids := range wanted {
		if node, err := h.nodes.Get(name); err == nil {
			ends = append(ends, h.lookAt(set, node, uids)...)
		}
	}
	return ends
}

// end is a hold that lapses.
type end struct {
	daemonSet *daemonset.DaemonSet
	node      string
	// update: the node has a pod of an earlier template, whose larger or second successor
	// was held for.
	update bool
	// closed: a start-up taint keeps the pods away.
	closed bool
}

func (h *Holds) lookAt(set *daemonset.Set, node *corev1.Node, uids sets.Set[types.UID]) []end {
	if daemonset.IsVirtual(node) {
		return nil
	}
	settled, outdated := h.presentOn(set, node.Name)
	s := h.startup[node.Name]
	overdue := s != nil && s.overdue
	var ends []end
	for _, ds := range set.All() {
		if !ds.Holds || settled[ds] || !uids.HasAny(ds.UID, "") || set.HasLapsed(ds, node.Name) {
			continue
		}
		switch open, _ := ds.ShouldRun(node); {
		case open && !h.expected(ds, node.Name):
			ends = append(ends, end{daemonSet: ds, node: node.Name, update: outdated[ds]})
		case !open && overdue && ds.WillRun(node, h.Startup):
			ends = append(ends, end{daemonSet: ds, node: node.Name, closed: true})
		}
	}
	return ends
}

// presentOn returns the DaemonSets that have a pod on the named node which runs, or is about
// to use the room, and those that have one that an update will replace.
func (h *Holds) presentOn(set *daemonset.Set, node string) (settled, outdated map[*daemonset.DaemonSet]bool) {
	settled, outdated = make(map[*daemonset.DaemonSet]bool), make(map[*daemonset.DaemonSet]bool)
	for _, pod := range h.podsOn(node) {
		ds := set.OwnerOf(pod)
		switch {
		case ds == nil || pod.DeletionTimestamp != nil:
		case pod.Spec.NodeName != "" && ds.Outdated(pod):
			outdated[ds] = true
		default:
			settled[ds] = true
		}
	}
	return settled, outdated
}

// expected says whether a pod of ds may still appear on the named node: a deadline is
// left, or the controller has not seen ds as it is now.
func (h *Holds) expected(ds *daemonset.DaemonSet, node string) bool {
	for _, p := range []pair{{}, {daemonSet: ds.UID}, {node: node}, {ds.UID, node}} {
		if _, left := h.deadlines[p]; left {
			return true
		}
	}
	object, err := h.lister.DaemonSets(ds.Namespace).Get(ds.Name)
	return err != nil || object.Status.ObservedGeneration < object.Generation
}

// publish has the holds lapse and tells of it, once for each DaemonSet.
func (h *Holds) publish(logger klog.Logger, ends []end) {
	if len(ends) == 0 {
		return
	}
	missing, updating := make(map[*daemonset.DaemonSet][]string), make(map[*daemonset.DaemonSet][]string)
	for _, end := range ends {
		uid := end.daemonSet.UID
		h.lapsed[uid] = h.lapsed[uid].Union(sets.New(end.node))
		switch {
		case end.closed:
			// The node's event says why.
		case end.update:
			updating[end.daemonSet] = append(updating[end.daemonSet], end.node)
		default:
			missing[end.daemonSet] = append(missing[end.daemonSet], end.node)
		}
	}
	h.daemonSets.SetLapsed(maps.Clone(h.lapsed))
	for ds, nodes := range missing {
		h.report(logger, ds, nodes, "No pod was created on %s for %s: room is no longer held there. "+
			"See the FailedCreate events of the DaemonSet for the reason")
	}
	for ds, nodes := range updating {
		h.report(logger, ds, nodes, "The update made no progress: room for new pods beside, or larger than, the present ones is no longer held on %s after %s")
	}
}

func (h *Holds) report(logger klog.Logger, ds *daemonset.DaemonSet, nodes []string, note string) {
	logger.V(2).Info("Holds have lapsed", "daemonSet", klog.KRef(ds.Namespace, ds.Name), "nodes", len(nodes))
	object, err := h.lister.DaemonSets(ds.Namespace).Get(ds.Name)
	if err != nil || object.UID != ds.UID {
		return
	}
	h.recorder.Eventf(object, nil, corev1.EventTypeWarning, "HoldLapsed", "Holding", note, someOf(nodes), h.HoldFor)
}

// someOf names up to three nodes.
func someOf(nodes []string) string {
	slices.Sort(nodes)
	switch shown := nodes[:min(3, len(nodes))]; {
	case len(nodes) == 1:
		return "1 node (" + nodes[0] + ")"
	case len(nodes) > len(shown):
		return fmt.Sprintf("%d nodes (%s, %s, %s, ...)", len(nodes), shown[0], shown[1], shown[2])
	default:
		return fmt.Sprintf("%d nodes (%s)", len(nodes), strings.Join(shown, ", "))
	}
}

// Overdue returns the start-up taints that Ready nodes have had for longer than
// StartupFor, with the number of nodes.
func (h *Holds) Overdue() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	nodes := make(map[string]int)
	for _, s := range h.startup {
		if s.overdue {
			nodes[s.taint]++
		}
	}
	return nodes
}

// minReady is how long after it has turned Ready a pod becomes available, so that an
// update moves on.
func minReady(ds *appsv1.DaemonSet) time.Duration {
	return time.Duration(ds.Spec.MinReadySeconds) * time.Second
}
