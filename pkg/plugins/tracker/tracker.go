// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tracker gives the scheduler plugins the DaemonSets of the cluster.
package tracker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"

	"everynode.dev/everynode/pkg/daemonset"
)

// Pool holds one Tracker per scheduler, so that the plugins of all its profiles
// share it.
type Pool struct {
	mu       sync.Mutex
	trackers map[informers.SharedInformerFactory]*Tracker
}

// NewPool returns an empty Pool.
func NewPool() *Pool {
	return &Pool{trackers: make(map[informers.SharedInformerFactory]*Tracker)}
}

// Get returns the Tracker of the scheduler that handle belongs to. Call it while
// plugins are being made: the scheduler starts its informers afterwards, and ends
// with ctx.
func (p *Pool) Get(ctx context.Context, handle fwk.Handle) (*Tracker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	factory := handle.SharedInformerFactory()
	if tracker, ok := p.trackers[factory]; ok {
		return tracker, nil
	}
	tracker, err := newTracker(klog.FromContext(ctx), handle, factory)
	if err != nil {
		return nil, fmt.Errorf("watching DaemonSets: %w", err)
	}
	go reportUntilSynced(ctx, handle)
	p.trackers[factory] = tracker
	registerMetrics()
	served.use(tracker)
	return tracker, nil
}

// reportUntilSynced says every now and then why the scheduler does not start: it
// waits for its informers, and those are silent about an API server that they
// cannot reach (watchList in k8s.io/client-go/tools/cache/reflector.go).
func reportUntilSynced(ctx context.Context, handle fwk.Handle) {
	factory, client, logger := handle.SharedInformerFactory(), handle.ClientSet(), klog.FromContext(ctx)
	daemonSets, classes := factory.Apps().V1().DaemonSets().Informer(), factory.Scheduling().V1().PriorityClasses().Informer()
	tick := time.NewTicker(reportPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if daemonSets.HasSynced() && classes.HasSynced() {
			return
		}
		_, errDaemonSets := client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{Limit: 1})
		_, errClasses := client.SchedulingV1().PriorityClasses().List(ctx, metav1.ListOptions{Limit: 1})
		if err := cmp.Or(errDaemonSets, errClasses); err != nil {
			logger.Error(err, "Waiting for DaemonSets and PriorityClasses: check clientConnection.kubeconfig and the ClusterRole everynode-scheduler")
		}
	}
}

// reportPeriod is much longer than informers take when all is well.
const reportPeriod = 5 * time.Second

// Tracker follows the DaemonSets and PriorityClasses of a cluster.
type Tracker struct {
	daemonSets appslisters.DaemonSetLister
	classes    schedulinglisters.PriorityClassLister
	nodes      corelisters.NodeLister
	pods       corelisters.PodLister
	activator  fwk.PodActivator

	mu    sync.Mutex // held while set is made and views are
	set   atomic.Pointer[daemonset.Set]
	views []*Views
	// podHandlers are told of pods.
	podHandlers []cache.ResourceEventHandler
	// unready are the DaemonSets that report fewer Ready pods than nodes.
	unready sets.Set[types.UID]
	settled atomic.Bool
}

func newTracker(logger klog.Logger, activator fwk.PodActivator, factory informers.SharedInformerFactory) (*Tracker, error) {
	t := &Tracker{
		daemonSets: factory.Apps().V1().DaemonSets().Lister(),
		classes:    factory.Scheduling().V1().PriorityClasses().Lister(),
		nodes:      factory.Core().V1().Nodes().Lister(),
		pods:       factory.Core().V1().Pods().Lister(),
		activator:  activator,
		unready:    sets.New[types.UID](),
	}
	t.settled.Store(true)
	refresh := func() { t.refresh(logger) }
	if _, err := factory.Apps().V1().DaemonSets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(added any) {
			t.follow(added.(*appsv1.DaemonSet), true)
			refresh()
		},
		UpdateFunc: func(old, updated any) {
			t.follow(updated.(*appsv1.DaemonSet), true)
			if !daemonset.Same(old.(*appsv1.DaemonSet), updated.(*appsv1.DaemonSet)) {
				refresh()
			}
		},
		DeleteFunc: func(deleted any) {
			if gone, ok := deleted.(cache.DeletedFinalStateUnknown); ok {
				deleted = gone.Obj
			}
			if ds, ok := deleted.(*appsv1.DaemonSet); ok {
				t.follow(ds, false)
			}
			refresh()
		},
	}); err != nil {
		return nil, err
	}
	if _, err := factory.Scheduling().V1().PriorityClasses().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { refresh() },
		UpdateFunc: func(_, _ any) { refresh() },
		DeleteFunc: func(any) { refresh() },
	}); err != nil {
		return nil, err
	}
	if _, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: t.forget}); err != nil {
		return nil, err
	}
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(added any) {
			for _, handler := range t.handlersOfPods() {
				handler.OnAdd(added, false)
			}
		},
		UpdateFunc: func(old, updated any) {
			for _, handler := range t.handlersOfPods() {
				handler.OnUpdate(old, updated)
			}
		},
		DeleteFunc: func(deleted any) {
			for _, handler := range t.handlersOfPods() {
				handler.OnDelete(deleted)
			}
		},
	})
	return t, err
}

// HandlePods has handler told of all pods, as the informer of pods would. But each
// handler of an informer costs two goroutines that wake up for every change of any
// pod: the plugins of all profiles share one.
func (t *Tracker) HandlePods(handler cache.ResourceEventHandler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.podHandlers = append(slices.Clip(t.podHandlers), handler)
}

func (t *Tracker) handlersOfPods() []cache.ResourceEventHandler {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.podHandlers
}

// follow keeps account of whether ds has a Ready pod on every node.
func (t *Tracker) follow(ds *appsv1.DaemonSet, exists bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if exists && ds.Status.NumberReady < ds.Status.DesiredNumberScheduled {
		t.unready.Insert(ds.UID)
	} else {
		t.unready.Delete(ds.UID)
	}
	t.settled.Store(t.unready.Len() == 0)
}

// Settled says whether every DaemonSet reports a Ready pod on each of its nodes, as
// nearly always, so that no node is better than another.
func (t *Tracker) Settled() bool {
	return t.settled.Load()
}

// Views returns the views of nodes for plugins that look past startup. Those that
// look past the same taints share what one of them has computed.
func (t *Tracker) Views(startup daemonset.StartupTaints) *Views {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, views := range t.views {
		if slices.Equal(views.startup, startup) {
			return views
		}
	}
	views := &Views{startup: startup, memo: daemonset.NewMemo(startup), nodes: t.nodes}
	t.views = append(t.views, views)
	return views
}

func (t *Tracker) allViews() []*Views {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.views)
}

// forget drops the views of a node that has left the cluster.
func (t *Tracker) forget(obj any) {
	name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, views := range t.views {
		views.memo.Forget(name)
	}
}

// Set returns the DaemonSets as they are now. Don't ask before the scheduler has
// filled its listers, which is before the first cycle.
func (t *Tracker) Set() *daemonset.Set {
	if set := t.set.Load(); set != nil {
		return set
	}
	_, set := t.update()
	return set
}

// refresh makes a new Set and has the pods tried again that it may help.
//
// A queueing hint for DaemonSet events could not do this: the scheduling queue
// hears of them from an informer of its own, so that a pod could be tried again
// before the Set has changed, be refused once more and then wait for the queue's
// periodic flush.
func (t *Tracker) refresh(logger klog.Logger) {
	if t.set.Load() == nil {
		// Nobody has asked yet. While the listers fill up, a Set would lack what comes
		// later; when the first cycle asks, they are full but these handlers may lag.
		return
	}
	previous, set := t.update()
	if previous == set {
		return
	}
	added := make(map[types.UID]bool)
	for _, ds := range set.Without(previous) {
		added[ds.UID] = true
	}
	roomMayBeFree := len(previous.Without(set)) > 0

	pods, err := t.pods.List(labels.Everything())
	if err != nil {
		// A lister on a cache has nothing to fail at.
		logger.Error(err, "Listing pods after a change of DaemonSets")
		return
	}
	waiting := make(map[string]*corev1.Pod)
	for _, pod := range pods {
		if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil {
			continue
		}
		// A daemon pod that came before its DaemonSet has been taken for an ordinary one.
		owner := daemonset.OwnerOf(pod)
		if roomMayBeFree || owner != nil && added[owner.UID] {
			waiting[klog.KObj(pod).String()] = pod
		}
	}
	logger.V(4).Info("DaemonSets changed", "retriedPods", len(waiting))
	if len(waiting) > 0 {
		t.activator.Activate(logger, waiting)
	}
}

// update replaces the Set by one of the objects that the listers have now.
func (t *Tracker) update() (previous, set *daemonset.Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	previous = t.set.Load()
	// Listers on caches return no errors.
	daemonSets, _ := t.daemonSets.List(labels.Everything())
	classes, _ := t.classes.List(labels.Everything())
	set = daemonset.NewSet(previous, daemonSets, daemonset.Options{
		Priority:                      priorities(classes),
		TolerationComparisonOperators: utilfeature.DefaultFeatureGate.Enabled(features.TaintTolerationComparisonOperators),
	})
	t.set.Store(set)
	return previous, set
}

// priorities resolves the names of PriorityClasses as the API server's Priority
// admission does (k8s.io/kubernetes/plugin/pkg/admission/priority).
func priorities(classes []*schedulingv1.PriorityClass) func(name string) int32 {
	byName := make(map[string]int32, len(classes)+1)
	var globalDefault *schedulingv1.PriorityClass
	for _, class := range classes {
		byName[class.Name] = class.Value
		if class.GlobalDefault && (globalDefault == nil || class.Value < globalDefault.Value) {
			globalDefault = class
		}
	}
	if globalDefault != nil {
		byName[""] = globalDefault.Value
	}
	return func(name string) int32 { return byName[name] }
}
