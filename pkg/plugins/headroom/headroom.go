// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package headroom holds room on every node for the DaemonSet pods that are
// still missing there.
package headroom

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/holds"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
	"everynode.dev/everynode/pkg/plugins/refused"
	"everynode.dev/everynode/pkg/plugins/views"
)

// Headroom lets ordinary pods take only what a node has left after the room for
// its missing DaemonSet pods.
type Headroom struct {
	args    Args
	cluster *cluster.Cluster
	views   *views.Views
	nodes   corelisters.NodeLister
	handle  fwk.Handle
	refused *refused.Pods[*preFilterState]
	// changed has an element while a change of DaemonSets or of holds is to be looked at.
	changed chan struct{}
	// last is the event that a queueing hint was asked for last.
	last lastEvent
}

var (
	_ fwk.EnqueueExtensions   = &Headroom{}
	_ fwk.PreFilterPlugin     = &Headroom{}
	_ fwk.PreFilterExtensions = &Headroom{}
	_ fwk.FilterPlugin        = &Headroom{}
	_ fwk.SignPlugin          = &Headroom{}
)

const (
	// Name is the name of the plugin in scheduler configurations.
	Name = "DaemonSetHeadroom"

	// hostPort is what a host port is called where a resource is named otherwise.
	hostPort = "host port"
	// preFilterStateKey is the key in CycleState of what PreFilter computes for Filter.
	preFilterStateKey = "PreFilter" + Name
	// simulatedKey is the key of what preemption's simulations of a node have in common.
	simulatedKey = "Simulated" + Name
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

// preFilterState is what Filter needs to know of the pod.
type preFilterState struct {
	set       *daemonset.Set
	requests  daemonset.Resources
	hostPorts []daemonset.HostPort
	// maxHeld is the most that any node can hold against the pod. It is nil where the pod
	// asks for a port among it.
	maxHeld *daemonset.Resources
	// minPriority is the lowest priority of DaemonSets that hold room against the pod.
	minPriority int32
	priority    int32
	remember    sync.Once
	attempt     metrics.Attempt
}

// Clone returns the state itself: nothing that a simulation changes is in it.
func (s *preFilterState) Clone() fwk.StateData {
	return s
}

// PreFilter skips the pods that nothing is held against.
func (pl *Headroom) PreFilter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	pl.refused.Remove(pod)
	s := pl.newState(pl.cluster.Set(), pod)
	if s == nil {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(preFilterStateKey, s)
	state.Write(simulatedKey, &simulated{})
	return nil, nil
}

// newState returns nil for a pod that nothing is held against: a daemon pod, a
// pod of exempt priority, one that already runs and waits for a resize, or any pod
// where no DaemonSet counts.
func (pl *Headroom) newState(set *daemonset.Set, pod *corev1.Pod) *preFilterState {
	if pod.Spec.NodeName != "" || !pl.args.Ordinary(set, pod) {
		return nil
	}
	s := &preFilterState{
		set:         set,
		requests:    daemonset.PodResources(pod),
		hostPorts:   daemonset.HostPortsOf(&pod.Spec),
		minPriority: pl.args.minPriority(corev1helper.PodPriority(pod)),
		priority:    corev1helper.PodPriority(pod),
	}
	maxHeld := pl.views.Bounds(set).MaxHeld(s.minPriority)
	if maxHeld.Resources.IsZero() {
		return nil
	}
	if !daemonset.AnyConflict(s.hostPorts, maxHeld.HostPorts) {
		s.maxHeld = &maxHeld.Resources
	}
	return s
}

// PreFilterExtensions returns the plugin itself: see [Headroom.RemovePod].
func (pl *Headroom) PreFilterExtensions() fwk.PreFilterExtensions {
	return pl
}

// Filter refuses a node that has not enough left beside what is held there. The
// status is Unschedulable where evicting pods of lower priority can help.
func (pl *Headroom) Filter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *fwk.Status {
	s, err := getPreFilterState(state)
	if err != nil {
		// PreFilter is disabled, or has been skipped.
		if s = pl.newState(pl.cluster.Set(), pod); s == nil {
			return nil
		}
	}
	room := roomOf(nodeInfo)
	var buffer [shortageBuffer]shortage
	// Most nodes have room enough whatever is held there.
	if s.maxHeld != nil && len(room.shortages(buffer[:0], &s.requests, s.maxHeld)) == 0 {
		return nil
	}
	if s.refuse(&room, pl.viewOf(state, s.set, pod, nodeInfo).HeldFor(s.minPriority)) == nil {
		return nil
	}
	// A change of DaemonSets has refused pods tried again. The pod is remembered first and
	// then judged by the DaemonSets as they are now, or a change in between would be lost.
	s.remember.Do(func() { pl.refused.Add(pod, s) })
	why := s.refuse(&room, pl.viewOf(state, pl.cluster.Set(), pod, nodeInfo).HeldFor(s.minPriority))
	if why == nil {
		return nil
	}
	code, reasons := fwk.Unschedulable, make([]string, len(why.resources))
	if why.always {
		code = fwk.UnschedulableAndUnresolvable
	}
	for i, resource := range why.resources {
		reasons[i] = ErrReason(resource)
		if strings.HasPrefix(resource, hostPort) {
			resource = hostPort
		}
		s.attempt.HeldBack(Name, resource)
	}
	return fwk.NewStatus(code, reasons...)
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
func NewFactory(clusters *cluster.Pool) frameworkruntime.PluginFactory {
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args := defaultArgs()
		if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
			return nil, err
		}
		shared, err := clusters.Get(ctx, handle)
		if err != nil {
			return nil, err
		}
		if err := shared.Hold(holds.Options{HoldFor: args.HoldFor.Duration, StartupFor: args.StartupFor.Duration, Startup: args.StartupTaints}); err != nil {
			return nil, fmt.Errorf("args of %s: %w", Name, err)
		}
		pl := &Headroom{
			args:    args,
			cluster: shared,
			nodes:   handle.SharedInformerFactory().Core().V1().Nodes().Lister(),
			handle:  handle,
			changed: make(chan struct{}, 1),
		}
		if pl.views, err = shared.Views(args.Daemons()); err != nil {
			return nil, err
		}
		if pl.refused, err = refused.New[*preFilterState](handle.SharedInformerFactory().Core().V1().Pods().Informer()); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		if err := pl.watchAdoptions(); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		shared.OnChange(func(_, _ *daemonset.Set) { pl.notify() })
		go pl.wakeOnChange(ctx)
		return pl, nil
	}
}
