// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package headroom holds room on every node for the DaemonSet pods that are
// still missing there.
package headroom

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
	"everynode.dev/everynode/pkg/plugins/tracker"
)

// Headroom lets ordinary pods take only what a node has left after the room for
// its missing DaemonSet pods.
type Headroom struct {
	args    Args
	tracker *tracker.Tracker
	views   *tracker.Views
	nodes   corelisters.NodeLister
}

var (
	_ fwk.EnqueueExtensions = &Headroom{}
	_ fwk.PreFilterPlugin   = &Headroom{}
	_ fwk.FilterPlugin      = &Headroom{}
	_ fwk.SignPlugin        = &Headroom{}
)

const (
	// Name is the name of the plugin in scheduler configurations.
	Name = "DaemonSetHeadroom"

	// preFilterStateKey is the key in CycleState of what PreFilter computes for Filter.
	preFilterStateKey = "PreFilter" + Name
)

// ErrReason is the reason why a node is refused when resource (as in a resource
// list, or "host port N") is held for DaemonSet pods.
func ErrReason(resource string) string {
	return "node(s) had " + resource + " held for DaemonSet pods"
}

// Name returns the name of the plugin.
func (pl *Headroom) Name() string {
	return Name
}

// EventsToRegister returns the events that can make a pod schedulable that this
// plugin has refused. Changes of DaemonSets are not among them: see Tracker.
func (pl *Headroom) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add}, QueueingHintFn: pl.isSchedulableAfterPodAdd},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: pl.isSchedulableAfterPodDelete},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.UpdatePodScaleDown}},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodScaleDown}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint},
			QueueingHintFn: pl.isSchedulableAfterNodeChange},
	}, nil
}

// isSchedulableAfterPodAdd: the arrival of a daemon pod changes held room into
// used room. Room appears only if the pod takes less than was held for it, or
// if it fills a node that had not enough for all of its DaemonSets, so that room
// held for another one is now held for nobody.
func (pl *Headroom) isSchedulableAfterPodAdd(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	_, added, err := schedutil.As[*corev1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	set := pl.tracker.Set()
	ds := set.OwnerOf(added)
	if ds == nil {
		return fwk.QueueSkip, nil
	}
	node, err := pl.nodes.Get(added.Spec.NodeName)
	if err != nil {
		return fwk.Queue, err
	}
	if ds.NeedsOn(node).Resources.FitsIn(daemonset.PodResources(added)) && pl.hasRoomForAll(set, node) {
		return fwk.QueueSkip, nil
	}
	logger.V(5).Info("A DaemonSet pod took less than was held", "pod", klog.KObj(pod), "daemonPod", klog.KObj(added))
	return fwk.Queue, nil
}

// hasRoomForAll says whether all DaemonSets of node fit on it together.
func (pl *Headroom) hasRoomForAll(set *daemonset.Set, node *corev1.Node) bool {
	expected := set.Expected(node, pl.args.StartupTaints)
	nobody := func(func(*corev1.Pod, daemonset.Resources) bool) {}
	return len(daemonset.NewView(set, node, expected, nobody).Held) == len(expected)
}

// isSchedulableAfterPodDelete: any pod that goes leaves room, but a daemon pod
// leaves it to its successor.
func (pl *Headroom) isSchedulableAfterPodDelete(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	deleted, _, err := schedutil.As[*corev1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if deleted.Spec.NodeName == "" && deleted.Status.NominatedNodeName == "" {
		return fwk.QueueSkip, nil
	}
	if ds := pl.tracker.Set().OwnerOf(deleted); ds != nil && ds.Holds {
		node, err := pl.nodes.Get(deleted.Spec.NodeName)
		if err == nil && ds.WillRun(node, pl.args.StartupTaints) &&
			daemonset.PodResources(deleted).FitsIn(ds.NeedsOn(node).Resources) {
			return fwk.QueueSkip, nil
		}
	}
	logger.V(5).Info("A pod has gone from a node", "pod", klog.KObj(pod), "deletedPod", klog.KObj(deleted))
	return fwk.Queue, nil
}

// isSchedulableAfterNodeChange: a node that is new, has another size or belongs
// to other DaemonSets than before may have room now.
func (pl *Headroom) isSchedulableAfterNodeChange(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if before != nil {
		set := pl.tracker.Set()
		sameSize := resourcesEqual(before.Status.Allocatable, after.Status.Allocatable)
		if sameSize && slices.Equal(set.Expected(before, pl.args.StartupTaints), set.Expected(after, pl.args.StartupTaints)) {
			return fwk.QueueSkip, nil
		}
	}
	logger.V(5).Info("A node may have room that is not held", "pod", klog.KObj(pod), "node", klog.KObj(after))
	return fwk.Queue, nil
}

func resourcesEqual(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, quantity := range a {
		if other, ok := b[name]; !ok || quantity.Cmp(other) != 0 {
			return false
		}
	}
	return true
}

// preFilterState is what Filter needs to know of the pod.
type preFilterState struct {
	set       *daemonset.Set
	resources daemonset.Resources
	hostPorts []daemonset.HostPort
	// most is the most that any node can hold against the pod. It is nil where that
	// says nothing: it depends on the node, or the pod asks for a port among it.
	most *daemonset.Resources
	// against is the lowest priority of DaemonSets that hold room against the pod.
	against int32
	attempt metrics.Attempt
}

// Clone returns the state itself: nothing changes it after PreFilter.
func (s *preFilterState) Clone() fwk.StateData {
	return s
}

// PreFilter skips the pods that nothing is held against.
func (pl *Headroom) PreFilter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	s := pl.newState(pod)
	if s == nil {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(preFilterStateKey, s)
	return nil, nil
}

// newState returns nil for a pod that nothing is held against: a daemon pod, a
// pod of exempt priority, one that already runs and waits for a resize, or any pod
// where no DaemonSet counts.
func (pl *Headroom) newState(pod *corev1.Pod) *preFilterState {
	set := pl.tracker.Set()
	if pod.Spec.NodeName != "" || !pl.args.Ordinary(set, pod) {
		return nil
	}
	s := &preFilterState{
		set:       set,
		resources: daemonset.PodResources(pod),
		hostPorts: daemonset.HostPortsOf(&pod.Spec),
		against:   corev1helper.PodPriority(pod),
	}
	if pl.args.HoldAgainst == HoldAgainstAll {
		s.against = math.MinInt32
	}
	most := set.MostHeld(s.against)
	switch {
	case most == nil:
	case most.Resources.IsZero():
		return nil
	case !daemonset.AnyConflict(s.hostPorts, most.HostPorts):
		s.most = &most.Resources
	}
	return s
}

// PreFilterExtensions returns nil: Filter reads everything from the node it is given.
func (pl *Headroom) PreFilterExtensions() fwk.PreFilterExtensions {
	return nil
}

// Filter refuses a node that has not enough left beside what is held there. The
// status is Unschedulable: to evict pods of lower priority can help.
func (pl *Headroom) Filter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *fwk.Status {
	s, err := getPreFilterState(state)
	if err != nil {
		// PreFilter is disabled, or has been skipped.
		if s = pl.newState(pod); s == nil {
			return nil
		}
	}
	// Most nodes have room enough whatever is held there.
	if s.most != nil && fits(s, s.most, nodeInfo) {
		return nil
	}
	held := pl.views.Of(s.set, pod, nodeInfo).Against(s.against)
	if len(held) == 0 {
		return nil
	}
	if reasons := insufficient(s, held, nodeInfo); len(reasons) > 0 {
		return fwk.NewStatus(fwk.Unschedulable, reasons...)
	}
	return nil
}

func getPreFilterState(state fwk.CycleState) (*preFilterState, error) {
	data, err := state.Read(preFilterStateKey)
	if err != nil {
		return nil, fmt.Errorf("reading %q from cycleState: %w", preFilterStateKey, err)
	}
	s, ok := data.(*preFilterState)
	if !ok {
		return nil, fmt.Errorf("%q in cycleState is of type %T", preFilterStateKey, data)
	}
	return s, nil
}

// fits says whether the pod fits on the node beside what is held.
func fits(s *preFilterState, held *daemonset.Resources, nodeInfo fwk.NodeInfo) bool {
	for range shortages(s, held, nodeInfo) {
		return false
	}
	return true
}

// insufficient returns a reason for everything that the pod asks for and that the
// node would have, were it not for what is held.
func insufficient(s *preFilterState, held []daemonset.Hold, nodeInfo fwk.NodeInfo) []string {
	var reasons []string
	for name := range shortages(s, &held[len(held)-1].Total, nodeInfo) {
		reasons = append(reasons, ErrReason(string(name)))
		s.attempt.HeldBack(Name, string(name))
	}
	for i := range held {
		for _, port := range held[i].HostPorts {
			if daemonset.AnyConflict(s.hostPorts, []daemonset.HostPort{port}) {
				reasons = append(reasons, ErrReason(fmt.Sprintf("host port %d", port.Port)))
				s.attempt.HeldBack(Name, "host port")
			}
		}
	}
	return reasons
}

// shortages are the resources that the pod asks for, that are held, and that the node
// has not enough of for both.
func shortages(s *preFilterState, held *daemonset.Resources, nodeInfo fwk.NodeInfo) iter.Seq[corev1.ResourceName] {
	return func(yield func(corev1.ResourceName) bool) {
		requested, allocatable := nodeInfo.GetRequested(), nodeInfo.GetAllocatable()
		short := func(asked, held, used, size int64) bool { return asked > 0 && held > 0 && asked+held+used > size }
		if short(s.resources.MilliCPU, held.MilliCPU, requested.GetMilliCPU(), allocatable.GetMilliCPU()) && !yield(corev1.ResourceCPU) ||
			short(s.resources.Memory, held.Memory, requested.GetMemory(), allocatable.GetMemory()) && !yield(corev1.ResourceMemory) ||
			short(s.resources.EphemeralStorage, held.EphemeralStorage, requested.GetEphemeralStorage(), allocatable.GetEphemeralStorage()) &&
				!yield(corev1.ResourceEphemeralStorage) ||
			short(1, held.Pods, int64(len(nodeInfo.GetPods())), int64(allocatable.GetAllowedPodNumber())) && !yield(corev1.ResourcePods) {
			return
		}
		for name, asked := range s.resources.Scalar {
			if short(asked, held.Scalar[name], requested.GetScalarResources()[name], allocatable.GetScalarResources()[name]) && !yield(name) {
				return
			}
		}
	}
}

// SignPod signs what Filter looks at. Daemon pods are not signed: each is for
// another node, so none can use what was computed for the one before.
func (pl *Headroom) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if daemonset.OwnerOf(pod) != nil {
		return nil, fwk.NewStatus(fwk.Unschedulable, "DaemonSet pods are not batched")
	}
	return []fwk.SignFragment{{Key: "everynode.dev/" + Name, Value: struct {
		Priority  int32
		Resources daemonset.Resources
		HostPorts []daemonset.HostPort
	}{corev1helper.PodPriority(pod), daemonset.PodResources(pod), daemonset.HostPortsOf(&pod.Spec)}}}, nil
}

// NewFactory returns the factory of the plugin.
func NewFactory(trackers *tracker.Pool) frameworkruntime.PluginFactory {
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args := defaultArgs()
		if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
			return nil, err
		}
		tracker, err := trackers.Get(ctx, handle)
		if err != nil {
			return nil, err
		}
		return &Headroom{
			args:    args,
			tracker: tracker,
			views:   tracker.Views(args.StartupTaints),
			nodes:   handle.SharedInformerFactory().Core().V1().Nodes().Lister(),
		}, nil
	}
}
