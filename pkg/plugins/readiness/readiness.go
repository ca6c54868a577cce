// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package readiness has ordinary pods wait for the DaemonSet pods that they
// cannot do without, and prefers nodes whose DaemonSet pods are Ready.
package readiness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
	"everynode.dev/everynode/pkg/plugins/refused"
	"everynode.dev/everynode/pkg/plugins/views"
)

// Readiness keeps ordinary pods off nodes where a gating DaemonSet, or one that
// the pod names itself, has no Ready pod. Among the other nodes it prefers those
// whose DaemonSet pods are Ready.
type Readiness struct {
	args    Args
	cluster *cluster.Cluster
	views   *views.Views
	pods    corelisters.PodLister
	shares  *shares
	refused *refused.Pods[waits]
}

var (
	_ fwk.EnqueueExtensions = &Readiness{}
	_ fwk.PreFilterPlugin   = &Readiness{}
	_ fwk.FilterPlugin      = &Readiness{}
	_ fwk.PreScorePlugin    = &Readiness{}
	_ fwk.ScorePlugin       = &Readiness{}
	_ fwk.SignPlugin        = &Readiness{}
)

const (
	// Name is the name of the plugin in scheduler configurations.
	Name = "DaemonSetReadiness"

	// RequiresAnnotation on a pod names DaemonSets that need a Ready pod on its
	// node before it starts, as namespace/name, separated by commas.
	RequiresAnnotation = "everynode.dev/requires"

	// preFilterStateKey is the key in CycleState of what PreFilter computes for Filter.
	preFilterStateKey = "PreFilter" + Name
)

// ErrReasonUnready is the reason why a node is refused on which ds has no Ready pod.
func ErrReasonUnready(ds *daemonset.DaemonSet) string {
	return "node(s) waited for DaemonSet " + ds.String() + " to be Ready"
}

// ErrReasonNotExpected is the reason why a node is refused on which the named DaemonSet,
// which the pod requires, never has a pod.
func ErrReasonNotExpected(name string) string {
	return "node(s) didn't belong to DaemonSet " + name + ", which the pod requires"
}

// Name returns the name of the plugin.
func (pl *Readiness) Name() string {
	return Name
}

// EventsToRegister returns the events that can make a pod schedulable that this
// plugin has refused. Daemon pods that turn Ready and changes of DaemonSets are not
// among them: see wakeOnReady and wakeOnChange.
func (pl *Readiness) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.Update}, QueueingHintFn: pl.isSchedulableAfterOwnUpdate},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint},
			QueueingHintFn: pl.isSchedulableAfterNodeChange},
	}, nil
}

// isSchedulableAfterOwnUpdate: the pod requires other DaemonSets than before.
func (pl *Readiness) isSchedulableAfterOwnUpdate(_ klog.Logger, _ *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if before != nil && before.Annotations[RequiresAnnotation] == after.Annotations[RequiresAnnotation] {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}

// isSchedulableAfterNodeChange: a node is new or belongs to other DaemonSets.
func (pl *Readiness) isSchedulableAfterNodeChange(_ klog.Logger, _ *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if before != nil {
		set := pl.cluster.Set()
		if slices.Equal(set.Expected(before, pl.args.StartupTaints), set.Expected(after, pl.args.StartupTaints)) {
			return fwk.QueueSkip, nil
		}
	}
	return fwk.Queue, nil
}

// waits are the DaemonSets that a pod waits for.
type waits struct {
	// gated: the pod waits for every DaemonSet that gates.
	gated bool
	// required are the names of those that the pod requires itself.
	required []klog.ObjectRef
}

// include says whether the pod needs a Ready pod of ds beside it.
func (w *waits) include(ds *daemonset.DaemonSet) bool {
	return ds != nil && (w.gated && ds.Gates || slices.Contains(w.required, klog.KRef(ds.Namespace, ds.Name)))
}

// preFilterState is what Filter needs to know of the pod.
type preFilterState struct {
	set *daemonset.Set
	waits
	remember sync.Once
	attempt  metrics.Attempt
}

// Clone returns the state itself: nothing of it is different in a simulation.
func (s *preFilterState) Clone() fwk.StateData {
	return s
}

// PreFilter skips pods that wait for no DaemonSet, and refuses those that wait for a
// DaemonSet that does not exist.
func (pl *Readiness) PreFilter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	pl.refused.Remove(pod)
	s, err := pl.newState(pod)
	if err != nil {
		// Add comes before the last look, or a DaemonSet that is created in between is lost.
		pl.refused.Add(pod, pl.waitsOf(pl.cluster.Set(), pod))
		s, err = pl.newState(pod)
	}
	switch {
	case err != nil:
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	case s == nil:
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(preFilterStateKey, s)
	return nil, nil
}

// newState returns nil for a pod that waits for no DaemonSet. The error is for the
// pod's author.
func (pl *Readiness) newState(pod *corev1.Pod) (*preFilterState, error) {
	set := pl.cluster.Set()
	if value, ok := pod.Annotations[RequiresAnnotation]; ok {
		if _, err := ParseRequires(value); err != nil {
			return nil, fmt.Errorf("annotation %s: %w", RequiresAnnotation, err)
		}
	}
	s := &preFilterState{set: set, waits: pl.waitsOf(set, pod)}
	for _, name := range s.required {
		if set.Named(name.Namespace, name.Name) == nil {
			return nil, fmt.Errorf("annotation %s: there is no DaemonSet %s", RequiresAnnotation, name)
		}
	}
	if pod.Spec.NodeName != "" || !s.gated && len(s.required) == 0 {
		return nil, nil
	}
	return s, nil
}

// waitsOf returns what pod waits for; what it requires is left out if it cannot be parsed.
func (pl *Readiness) waitsOf(set *daemonset.Set, pod *corev1.Pod) waits {
	w := waits{gated: set.Gates() && pl.args.Ordinary(set, pod)}
	if value, ok := pod.Annotations[RequiresAnnotation]; ok {
		w.required, _ = ParseRequires(value)
	}
	return w
}

// PreFilterExtensions returns nil: Filter reads everything from the node it is given.
func (pl *Readiness) PreFilterExtensions() fwk.PreFilterExtensions {
	return nil
}

// Filter refuses nodes without a Ready pod of every DaemonSet that the pod waits
// for. Evicting pods never helps.
func (pl *Readiness) Filter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *fwk.Status {
	s, err := pl.preFilterState(state, pod)
	if err != nil {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	}
	if s == nil || !s.mayWait(pl.views.Of(s.set, pod, nodeInfo)) {
		return nil
	}
	// Add comes before the last look, or what the pod waits for is lost in between.
	s.remember.Do(func() { pl.refused.Add(pod, s.waits) })
	set := pl.cluster.Set()
	view := pl.views.Of(set, pod, nodeInfo)
	var reasons []string
	for _, ds := range view.Unready {
		if s.include(ds) && !pl.readyNow(set, ds, nodeInfo) {
			reasons = append(reasons, ErrReasonUnready(ds))
			s.attempt.HeldBack(Name, ds.String())
		}
	}
	for _, name := range s.required {
		if !slices.ContainsFunc(view.Expected, func(ds *daemonset.DaemonSet) bool { return klog.KRef(ds.Namespace, ds.Name) == name }) {
			reasons = append(reasons, ErrReasonNotExpected(name.String()))
		}
	}
	if len(reasons) > 0 {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasons...)
	}
	return nil
}

// mayWait says whether a node of that view is not ready for the pod.
func (s *preFilterState) mayWait(view *daemonset.View) bool {
	if slices.ContainsFunc(view.Unready, s.include) {
		return true
	}
	return slices.ContainsFunc(s.required, func(name klog.ObjectRef) bool {
		return !slices.ContainsFunc(view.Expected, func(ds *daemonset.DaemonSet) bool { return klog.KRef(ds.Namespace, ds.Name) == name })
	})
}

func (pl *Readiness) preFilterState(state fwk.CycleState, pod *corev1.Pod) (*preFilterState, error) {
	data, err := state.Read(preFilterStateKey)
	if err != nil {
		// PreFilter is disabled, or has been skipped.
		return pl.newState(pod)
	}
	s, ok := data.(*preFilterState)
	if !ok {
		return nil, fmt.Errorf("%q in cycleState is of type %T", preFilterStateKey, data)
	}
	return s, nil
}

// readyNow looks at the latest state of ds's pods on the node. The scheduler's
// snapshot is older: a pod that was woken because a daemon pod had turned Ready
// would find it unready there, and wait on for an event that has passed.
func (pl *Readiness) readyNow(set *daemonset.Set, ds *daemonset.DaemonSet, nodeInfo fwk.NodeInfo) bool {
	return slices.ContainsFunc(nodeInfo.GetPods(), func(info fwk.PodInfo) bool {
		known := info.GetPod()
		if set.OwnerOf(known) != ds {
			return false
		}
		pod, err := pl.pods.Pods(known.Namespace).Get(known.Name)
		return err == nil && pod.UID == known.UID && isReady(pod)
	})
}

// PreScore skips pods that have no choice, and those for which no node is better than another.
func (pl *Readiness) PreScore(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	set := pl.cluster.Set()
	if set.OwnerOf(pod) != nil || pl.shares.alike(set, nodes) {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// Score returns the share of the node's DaemonSets that are Ready there.
func (pl *Readiness) Score(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, nodeInfo fwk.NodeInfo) (int64, *fwk.Status) {
	view := pl.views.Of(pl.cluster.Set(), pod, nodeInfo)
	return share(len(view.Expected), len(view.Unready)), nil
}

// ScoreExtensions returns nil: scores are on the common scale already, and a node
// where nothing is Ready must not look better because all others are alike.
func (pl *Readiness) ScoreExtensions() fwk.ScoreExtensions {
	return nil
}

// SignPod signs what Filter looks at. Daemon pods are not signed: each is for
// another node, so none can use what was computed for the one before.
func (pl *Readiness) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if daemonset.OwnerOf(pod) != nil {
		return nil, fwk.NewStatus(fwk.Unschedulable, "DaemonSet pods are not batched")
	}
	return []fwk.SignFragment{{Key: "everynode.dev/" + Name, Value: struct {
		Gated    bool
		Requires string
	}{corev1helper.PodPriority(pod) < *pl.args.ExemptPriority && !pl.args.DaemonKinds.Own(pod), pod.Annotations[RequiresAnnotation]}}}, nil
}

// wakeOnReady has refused pods tried again as soon as a pod of a DaemonSet turns
// Ready that they wait for.
//
// A queueing hint could do it too, but only if the plugin registered for every
// update of every bound pod: the scheduling queue would go through all of its pods
// whenever any container in the cluster starts or a probe fails.
func (pl *Readiness) wakeOnReady(logger klog.Logger, handle fwk.Handle) error {
	wake := func(daemonPod *corev1.Pod) {
		if pl.refused.Len() == 0 {
			return
		}
		ds := pl.cluster.Set().OwnerOf(daemonPod)
		if woken := pl.refused.Take(func(_ *corev1.Pod, w waits) bool { return w.include(ds) }); len(woken) > 0 {
			logger.V(4).Info("A DaemonSet pod has turned Ready", "daemonPod", klog.KObj(daemonPod), "retriedPods", len(woken))
			handle.Activate(logger, woken)
		}
	}
	_, err := handle.SharedInformerFactory().Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if pod := obj.(*corev1.Pod); isReady(pod) {
				wake(pod)
			}
		},
		UpdateFunc: func(oldObj, newObj any) {
			if before, after := oldObj.(*corev1.Pod), newObj.(*corev1.Pod); isReady(after) && !isReady(before) {
				wake(after)
			}
		},
	})
	return err
}

// wakeOnChange has refused pods tried again when a DaemonSet that they wait for has come,
// gone or changed.
func (pl *Readiness) wakeOnChange(logger klog.Logger, handle fwk.Handle) {
	pl.cluster.OnChange(func(previous, set *daemonset.Set) {
		changed := append(set.NotIn(previous), previous.NotIn(set)...)
		woken := pl.refused.Take(func(pod *corev1.Pod, w waits) bool {
			// A pod whose DaemonSet was not known yet was taken for an ordinary one.
			return slices.ContainsFunc(changed, w.include) || w.gated && !pl.waitsOf(set, pod).gated
		})
		if len(woken) > 0 {
			logger.V(4).Info("DaemonSets have changed", "retriedPods", len(woken))
			handle.Activate(logger, woken)
		}
	})
}

// ParseRequires parses the value of [RequiresAnnotation].
func ParseRequires(value string) ([]klog.ObjectRef, error) {
	var names []klog.ObjectRef
	for part := range strings.SplitSeq(value, ",") {
		namespace, name, ok := strings.Cut(strings.TrimSpace(part), "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q is not the namespace/name of a DaemonSet", part)
		}
		names = append(names, klog.KRef(namespace, name))
	}
	return names, nil
}

func isReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && daemonset.IsReady(pod)
}

// NewFactory returns the factory of the plugin.
func NewFactory(clusters *cluster.Pool) frameworkruntime.PluginFactory {
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args := Args{Scope: pluginargs.DefaultScope()}
		if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
			return nil, err
		}
		shared, err := clusters.Get(ctx, handle)
		if err != nil {
			return nil, err
		}
		pods := handle.SharedInformerFactory().Core().V1().Pods()
		pl := &Readiness{args: args, cluster: shared, pods: pods.Lister()}
		if pl.views, err = shared.Views(args.Daemons()); err != nil {
			return nil, err
		}
		if pl.shares, err = newShares(args.StartupTaints, handle.SharedInformerFactory(), shared.PodsOn); err != nil {
			return nil, err
		}
		if pl.refused, err = refused.New[waits](pods.Informer()); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		if err := pl.wakeOnReady(klog.FromContext(ctx), handle); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		pl.wakeOnChange(klog.FromContext(ctx), handle)
		return pl, nil
	}
}
