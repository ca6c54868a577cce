// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"context"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
)

// EventsToRegister returns the events that can make a pod schedulable that this
// plugin has refused. Changes of DaemonSets and of holds, and adoptions, are not among
// them: see wakeOnChange.
func (pl *Headroom) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add | fwk.UpdatePodScaleDown | fwk.Delete}, QueueingHintFn: pl.isSchedulableAfterPodChange},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodScaleDown}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint},
			QueueingHintFn: pl.isSchedulableAfterNodeChange},
	}, nil
}

// isSchedulableAfterPodChange: a pod that comes, shrinks or goes changes what is used on
// its node, and a daemon pod or a static pod also what is held there.
func (pl *Headroom) isSchedulableAfterPodChange(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	set := pl.cluster.Set()
	if before == nil && pl.mayGo(set, after) {
		// An ordinary pod that comes frees nothing.
		return fwk.QueueSkip, nil
	}
	change := pl.last.of(oldObj, newObj, set, func() *change { return pl.podChange(set, before, after) })
	return pl.hint(logger, set, pod, change)
}

// isSchedulableAfterNodeChange: a node that is new, has another size or belongs
// to other DaemonSets than before may have room now.
func (pl *Headroom) isSchedulableAfterNodeChange(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	set := pl.cluster.Set()
	change := pl.last.of(oldObj, newObj, set, func() *change {
		pods := cluster.Bound(pl.cluster.PodsOn(after.Name))
		change := &change{node: after.Name, after: pl.stateOf(set, after, pods)}
		if before != nil {
			change.before = pl.stateOf(set, before, pods)
		}
		return change
	})
	return pl.hint(logger, set, pod, change)
}

// hint queues pod only if the event frees some room that the pod asks for, and the pod
// fits on the node afterwards.
//
// That the pod did not fit before does not matter: of two pods that go at the same time,
// both may have gone from what the informers know when the first event comes.
func (pl *Headroom) hint(logger klog.Logger, set *daemonset.Set, pod *corev1.Pod, change *change) (fwk.QueueingHint, error) {
	s, known := pl.refused.Get(pod)
	if !known {
		s = pl.newState(set, pod)
	}
	if s != nil && !change.helps(s) {
		return fwk.QueueSkip, nil
	}
	logger.V(5).Info("A node has room that is not held", "pod", klog.KObj(pod), "node", change.node)
	return fwk.Queue, nil
}

// mayGo says whether pod changes nothing about what is held on its node.
func (pl *Headroom) mayGo(set *daemonset.Set, pod *corev1.Pod) bool {
	return set.OwnerOf(pod) == nil && !daemonset.IsMirror(pod) && !pl.args.DaemonKinds.Own(pod)
}

// podChange returns what it changes that a pod becomes after: before is nil for a new pod,
// after for one that is gone.
func (pl *Headroom) podChange(set *daemonset.Set, before, after *corev1.Pod) *change {
	subject := after
	if subject == nil {
		subject = before
	}
	name := subject.Spec.NodeName
	if name == "" {
		// The pod was nominated, and its room was kept.
		name = subject.Status.NominatedNodeName
	}
	node, err := pl.nodes.Get(name)
	if err != nil {
		return &change{node: name}
	}
	others := cluster.Bound(slices.DeleteFunc(pl.cluster.PodsOn(name), func(pod *corev1.Pod) bool { return pod.UID == subject.UID }))
	without := pl.stateOf(set, node, others)
	if before == nil && without.takesOver(set, after) {
		return &change{node: name}
	}
	with := func(pod *corev1.Pod) *nodeState {
		switch {
		case pod == nil:
			return without
		case pl.mayGo(set, pod):
			return without.with(pod)
		default:
			bound := *pod
			bound.Spec.NodeName = name
			return pl.stateOf(set, node, func(yield func(*corev1.Pod, daemonset.Resources) bool) {
				for other, takes := range others {
					if !yield(other, takes) {
						return
					}
				}
				yield(&bound, daemonset.PodResources(&bound))
			})
		}
	}
	return &change{node: name, before: with(before), after: with(after)}
}

// lastEvent remembers what the latest event changes. The queue asks the hint of one event
// for each pod that waits, and the answer depends on the event alone.
type lastEvent struct {
	mu             sync.Mutex
	oldObj, newObj any
	set            *daemonset.Set
	change         *change
}

func (l *lastEvent) of(oldObj, newObj any, set *daemonset.Set, compute func() *change) *change {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.change == nil || l.oldObj != oldObj || l.newObj != newObj || l.set != set {
		l.oldObj, l.newObj, l.set, l.change = oldObj, newObj, set, compute()
	}
	return l.change
}

// watchAdoptions has refused pods tried again when a pod gets another owner: the room
// that was held for a DaemonSet is not held any more when it adopts a pod. A hint would
// need an event for every update of every bound pod.
func (pl *Headroom) watchAdoptions() error {
	owner := func(pod *corev1.Pod) types.UID {
		if reference := daemonset.OwnerOf(pod); reference != nil {
			return reference.UID
		}
		return ""
	}
	_, err := pl.handle.SharedInformerFactory().Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(oldObj, newObj any) {
			if before, after := oldObj.(*corev1.Pod), newObj.(*corev1.Pod); owner(before) != owner(after) {
				pl.notify()
			}
		},
	})
	return err
}

// notify has wakeOnChange look at the nodes.
func (pl *Headroom) notify() {
	select {
	case pl.changed <- struct{}{}:
	default:
		// It has not begun to look yet.
	}
}

// wakeOnChange has refused pods tried again that fit on some node after a change of
// DaemonSets or of holds.
func (pl *Headroom) wakeOnChange(ctx context.Context) {
	logger := klog.FromContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-pl.changed:
		}
		if pl.refused.Len() == 0 {
			continue
		}
		woken := pl.refused.Take(pl.newSurvey().fits)
		if len(woken) > 0 {
			logger.V(4).Info("DaemonSets or holds have changed", "retriedPods", len(woken))
			pl.handle.Activate(logger, woken)
		}
	}
}

// survey is the state of all nodes at one moment.
type survey struct {
	plugin *Headroom
	set    *daemonset.Set
	nodes  []*nodeState
	// largest is the most that any node has for pods of a priority.
	largest map[int32]daemonset.Resources
}

func (pl *Headroom) newSurvey() *survey {
	s := &survey{plugin: pl, set: pl.cluster.Set(), largest: make(map[int32]daemonset.Resources)}
	// A lister on a cache returns no error.
	nodes, _ := pl.nodes.List(labels.Everything())
	for _, node := range nodes {
		s.nodes = append(s.nodes, pl.stateOf(s.set, node, cluster.Bound(pl.cluster.PodsOn(node.Name))))
	}
	return s
}

// fits says whether a refused pod fits on some node, or may by preemption.
func (s *survey) fits(pod *corev1.Pod, _ *preFilterState) bool {
	state := s.plugin.newState(s.set, pod)
	if state == nil {
		return true
	}
	largest, known := s.largest[state.priority]
	if !known {
		for _, node := range s.nodes {
			largest = largest.Max(node.preemptible(state))
		}
		s.largest[state.priority] = largest
	}
	// Most pods that wait fit on no node, and this is quick to tell.
	return state.requests.FitsIn(largest) && slices.ContainsFunc(s.nodes, func(node *nodeState) bool { return node.fitsByPreemption(state) })
}
