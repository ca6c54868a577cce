// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package daemonsets keeps the DaemonSets of the cluster, as the scheduler plugins
// need them, up to date.
package daemonsets

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
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	nodelisters "k8s.io/client-go/listers/node/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/features"

	"everynode.dev/everynode/pkg/daemonset"
)

// DaemonSets follows the DaemonSets of a cluster and all that decides about their
// pods: PriorityClasses, ControllerRevisions, LimitRanges, RuntimeClasses, and the pods
// that were admitted before.
type DaemonSets struct {
	daemonSets    appslisters.DaemonSetLister
	classes       schedulinglisters.PriorityClassLister
	limitRanges   corelisters.LimitRangeLister
	runtimes      nodelisters.RuntimeClassLister
	revisions     cache.Indexer
	newest        newestPods
	changed       []func(previous, set *daemonset.Set)
	mu            sync.Mutex // held while set is replaced
	set           atomic.Pointer[daemonset.Set]
	begin         sync.Once
	started       func()
	delivered     []cache.DoneChecker
	wait          func()
	missingRights func(context.Context) error
}

// New returns the DaemonSets that the informers of factory know. Call it before the
// factory is started, which ends with ctx.
func New(ctx context.Context, factory informers.SharedInformerFactory, client kubernetes.Interface) (*DaemonSets, error) {
	d := &DaemonSets{
		daemonSets:    factory.Apps().V1().DaemonSets().Lister(),
		classes:       factory.Scheduling().V1().PriorityClasses().Lister(),
		limitRanges:   factory.Core().V1().LimitRanges().Lister(),
		runtimes:      factory.Node().V1().RuntimeClasses().Lister(),
		started:       func() {},
		missingRights: func(ctx context.Context) error { return tryLists(ctx, client) },
	}
	daemonSets, revisions := factory.Apps().V1().DaemonSets().Informer(), revisionInformer(factory)
	d.revisions = revisions.GetIndexer()
	refresh := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { d.refresh() },
		UpdateFunc: func(_, _ any) { d.refresh() },
		DeleteFunc: func(any) { d.refresh() },
	}
	handlers := []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{daemonSets, cache.ResourceEventHandlerFuncs{AddFunc: func(any) { d.refresh() }, UpdateFunc: d.updated, DeleteFunc: d.deleted}},
		{revisions, refresh},
		{factory.Scheduling().V1().PriorityClasses().Informer(), refresh},
		{factory.Core().V1().LimitRanges().Informer(), refresh},
		{factory.Node().V1().RuntimeClasses().Informer(), refresh},
		{factory.Core().V1().Pods().Informer(), cache.ResourceEventHandlerFuncs{AddFunc: d.podAdded, DeleteFunc: d.podDeleted}},
	}
	for _, watch := range handlers {
		registration, err := watch.informer.AddEventHandler(watch.handler)
		if err != nil {
			return nil, err
		}
		d.delivered = append(d.delivered, registration.HasSyncedChecker())
	}
	d.wait = func() { cache.WaitFor(ctx, "", d.delivered...) }
	return d, nil
}

// OnChange has changed called after each change of the Set, one change at a time.
// Register before the scheduler's informers are started.
func (d *DaemonSets) OnChange(changed func(previous, set *daemonset.Set)) {
	d.changed = append(d.changed, changed)
}

// OnStart has started called when a plugin asks for the Set for the first time, which
// is in the first scheduling cycle: a scheduler that waits for the lead has none.
func (d *DaemonSets) OnStart(started func()) {
	d.started = started
}

// Set returns the DaemonSets as they are now. Do not ask before the scheduler has
// filled its listers, which is before the first cycle. The first cycle waits until the
// handlers know all objects, too: the newest pods are among these.
func (d *DaemonSets) Set() *daemonset.Set {
	if set := d.set.Load(); set != nil {
		return set
	}
	d.begin.Do(func() {
		d.wait()
		d.mu.Lock()
		d.set.Store(d.compile(nil))
		d.mu.Unlock()
		d.started()
	})
	return d.set.Load()
}

// Started says whether a scheduling cycle has begun, so that there is a Set.
func (d *DaemonSets) Started() bool {
	return d.set.Load() != nil
}

// SetLapsed replaces the holds that have lapsed. lapsed must not change afterwards.
func (d *DaemonSets) SetLapsed(lapsed daemonset.Lapsed) {
	d.replace(func(previous *daemonset.Set) *daemonset.Set { return previous.WithLapsed(lapsed) })
}

// refresh makes a new Set of the objects that the listers have now.
//
// A queueing hint for DaemonSet events could not do this: the scheduling queue
// hears of them from an informer of its own, so that a pod could be tried again
// before the Set has changed, be refused once more and then wait for the queue's
// periodic flush.
func (d *DaemonSets) refresh() {
	d.replace(d.compile)
}

// replace has change make a new Set of the present one, and tells of it.
func (d *DaemonSets) replace(change func(previous *daemonset.Set) *daemonset.Set) {
	d.mu.Lock()
	defer d.mu.Unlock()
	previous := d.set.Load()
	if previous == nil {
		// No cycle has begun. While the listers fill up, a Set would lack what comes later.
		return
	}
	set := change(previous)
	if set == previous {
		return
	}
	d.set.Store(set)
	for _, changed := range d.changed {
		changed(previous, set)
	}
}

func (d *DaemonSets) compile(previous *daemonset.Set) *daemonset.Set {
	// Listers on caches return no errors.
	list, _ := d.daemonSets.List(labels.Everything())
	classes, _ := d.classes.List(labels.Everything())
	priorities := daemonset.Priorities(classes)
	return daemonset.NewSet(previous, list, daemonset.Options{
		Priority:                      func(class string) int32 { return priorities[class] },
		TolerationComparisonOperators: utilfeature.DefaultFeatureGate.Enabled(features.TaintTolerationComparisonOperators),
		Revision:                      d.revision,
		Newest:                        d.newest.of,
		LimitRanges: func(namespace string) []*corev1.LimitRange {
			ranges, _ := d.limitRanges.LimitRanges(namespace).List(labels.Everything())
			return ranges
		},
		RuntimeClass: func(name string) *nodev1.RuntimeClass {
			class, _ := d.runtimes.Get(name)
			return class
		},
	})
}

func (d *DaemonSets) updated(oldObj, newObj any) {
	before, ds := oldObj.(*appsv1.DaemonSet), newObj.(*appsv1.DaemonSet)
	if before.UID != ds.UID {
		d.newest.forget(before.Namespace, before.UID)
	}
	if !daemonset.CompileAlike(before, ds) {
		d.refresh()
	}
}

func (d *DaemonSets) deleted(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	if ds, ok := obj.(*appsv1.DaemonSet); ok {
		d.newest.forget(ds.Namespace, ds.UID)
	}
	d.refresh()
}

func (d *DaemonSets) podAdded(obj any) {
	pod := obj.(*corev1.Pod)
	owner := daemonset.OwnerOf(pod)
	if owner == nil || !d.newest.add(owner.UID, pod) {
		return
	}
	set := d.set.Load()
	if set == nil {
		return
	}
	if ds := set.OwnerOf(pod); ds != nil && !ds.Foresees(pod) {
		d.refresh()
	}
}

// podDeleted forgets the pods of an owner that does not exist. A pod may outlive its
// DaemonSet, and may name a UID that no DaemonSet has.
func (d *DaemonSets) podDeleted(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	owner := daemonset.OwnerOf(pod)
	if owner == nil {
		return
	}
	// By UID: the name in a reference may be wrong. A lister on a cache returns no error.
	list, _ := d.daemonSets.DaemonSets(pod.Namespace).List(labels.Everything())
	if !slices.ContainsFunc(list, func(ds *appsv1.DaemonSet) bool { return ds.UID == owner.UID }) {
		d.newest.forget(pod.Namespace, owner.UID)
	}
}

// ReportUntilSynced says every few seconds why the scheduler does not start: it
// waits for its informers, and those are silent about an API server that they
// cannot reach (watchList in k8s.io/client-go/tools/cache/reflector.go).
func (d *DaemonSets) ReportUntilSynced(ctx context.Context) {
	logger := klog.FromContext(ctx)
	tick := time.NewTicker(reportPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !slices.ContainsFunc(d.delivered, func(all cache.DoneChecker) bool { return !cache.IsDone(all) }) {
			return
		}
		if err := d.missingRights(ctx); err != nil {
			logger.Error(err, "Waiting for DaemonSets and PriorityClasses: check clientConnection.kubeconfig and the ClusterRole everynode-scheduler")
		}
	}
}

// reportPeriod is much longer than informers take when all is well.
const reportPeriod = 5 * time.Second

// tryLists returns the first error of listing what the informers list.
func tryLists(ctx context.Context, client kubernetes.Interface) error {
	one := metav1.ListOptions{Limit: 1}
	_, daemonSets := client.AppsV1().DaemonSets("").List(ctx, one)
	_, revisions := client.AppsV1().ControllerRevisions("").List(ctx, one)
	_, classes := client.SchedulingV1().PriorityClasses().List(ctx, one)
	_, limitRanges := client.CoreV1().LimitRanges("").List(ctx, one)
	_, runtimes := client.NodeV1().RuntimeClasses().List(ctx, one)
	if err := cmp.Or(daemonSets, revisions, classes, limitRanges, runtimes); err != nil {
		return fmt.Errorf("trying to list: %w", err)
	}
	return nil
}
