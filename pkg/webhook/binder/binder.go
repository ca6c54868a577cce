// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package binder binds DaemonSet pods to their nodes while their scheduler is not at work.
package binder

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
)

const (
	// period is how often leases are read, and how often pods are looked at while one of them is stale.
	period = 2 * time.Second
	// retryPeriod is after how long a pod that could not be bound is looked at again.
	retryPeriod = 10 * time.Second
)

// Binder binds pods of DaemonSets that ask for it, each to the one node that it is pinned to and only if it fits there,
// while the lease of their scheduler is stale. Of several replicas one binds, so that no two give the same room away.
type Binder struct {
	client kubernetes.Interface
	// schedulers are the leases' names by scheduler.
	schedulers map[string]string
	leases     *leases
	lock       *resourcelock.LeaseLock
	// wanted says whether the DaemonSet of a pod exists and asks for it.
	wanted func(context.Context, *corev1.Pod) bool
}

// New returns a Binder. options have to be valid.
func New(client kubernetes.Interface, options Options, wanted func(context.Context, *corev1.Pod) bool) *Binder {
	registerMetrics()
	namespace, name, _ := cache.SplitMetaNamespaceKey(options.Lease)
	hostname, _ := os.Hostname() // It is for people; the UUID makes it unique.
	return &Binder{
		client:     client,
		schedulers: options.SchedulerLeases,
		leases:     &leases{client: client.CoordinationV1(), clock: clock.RealClock{}, seen: make(map[string]*observation)},
		lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: hostname + "_" + string(uuid.NewUUID())},
		},
		wanted: wanted,
	}
}

// Run watches the leases until ctx ends, and binds pods while one of them is stale.
func (b *Binder) Run(ctx context.Context) {
	if len(b.schedulers) == 0 {
		return
	}
	var outage sync.WaitGroup
	end := context.CancelFunc(nil)
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		stale := len(b.stale(ctx)) > 0
		switch {
		case stale && end == nil:
			during, cancel := context.WithCancel(ctx)
			end = cancel
			outage.Go(func() { wait.UntilWithContext(during, b.lead, period) })
		case !stale && end != nil:
			end()
			outage.Wait()
			end = nil
		}
	}, period)
	outage.Wait()
}

// stale returns the leases that are stale.
func (b *Binder) stale(ctx context.Context) sets.Set[string] {
	stale := sets.New[string]()
	for lease := range sets.New(slices.Collect(maps.Values(b.schedulers))...) {
		if b.leases.stale(ctx, lease) {
			stale.Insert(lease)
		}
	}
	return stale
}

// lead waits for the lead among the replicas and binds pods until ctx ends, or the lead is lost.
func (b *Binder) lead(ctx context.Context) {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: b.lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: period,
		ReleaseOnCancel: true,
		Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: b.bindAll, OnStoppedLeading: func() {}},
	})
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot bind pods without a scheduler")
		return
	}
	elector.Run(ctx)
}

// bindAll binds pods until ctx ends.
func (b *Binder) bindAll(ctx context.Context) {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: b.client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot write events")
	}
	factory := informers.NewSharedInformerFactoryWithOptions(b.client, 0, informers.WithTransform(trim),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", "").String()
		}))
	waiting := factory.Core().V1().Pods().Informer()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), waiting.HasSynced) {
		return
	}
	p := &passes{Binder: b, recorder: broadcaster.NewRecorder(scheme.Scheme, "everynode-webhook"), left: make(map[types.UID]leaving)}
	wait.UntilWithContext(ctx, func(ctx context.Context) { p.pass(ctx, waiting.GetStore().List()) }, period)
}

// trim drops what is not needed of pods that wait: all but the key of those that belong to no DaemonSet and have no
// room promised to them.
func trim(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	if daemonset.OwnerOf(pod) == nil && pod.Status.NominatedNodeName == "" {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}}, nil
	}
	pod.ManagedFields = nil
	return pod, nil
}

// passes are the looks at the pods that wait, during one outage.
type passes struct {
	*Binder
	recorder events.EventRecorder
	// left are the pods that could not be bound.
	left map[types.UID]leaving
}

// leaving says why a pod was not bound, and until when it is not looked at again.
type leaving struct {
	why   string
	until time.Time
}

// pass looks at all pods that wait.
func (p *passes) pass(ctx context.Context, objects []any) {
	stale := p.stale(ctx)
	candidates, nominated := make(map[string][]*corev1.Pod), make(map[string][]*corev1.Pod)
	for _, object := range objects {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			continue
		}
		if node := pod.Status.NominatedNodeName; node != "" {
			nominated[node] = append(nominated[node], pod)
		}
		node, pinned := daemonset.PinnedNode(pod)
		target, ok := daemonset.TargetNode(pod)
		switch {
		// The DaemonSet controller has to count the pod on the node that it is bound to.
		case !pinned || !ok || target != node,
			pod.DeletionTimestamp != nil,
			!stale.Has(p.schedulers[pod.Spec.SchedulerName]),
			time.Now().Before(p.left[pod.UID].until),
			!p.wanted(ctx, pod):
		default:
			candidates[node] = append(candidates[node], pod)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(candidates)) {
		slices.SortFunc(candidates[node], func(a, b *corev1.Pod) int {
			return cmp.Or(cmp.Compare(corev1helper.PodPriority(b), corev1helper.PodPriority(a)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time))
		})
		if err := p.bindTo(ctx, node, candidates[node], nominated[node]); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot bind pods without a scheduler", "node", node)
		}
	}
}

// bindTo binds the candidates, the most important first, that fit on a node beside the pods that are there and those
// that the scheduler has promised room there.
func (p *passes) bindTo(ctx context.Context, name string, candidates, nominated []*corev1.Pod) error {
	node, err := p.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := p.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.AndSelectors(
		fields.OneTermEqualSelector("spec.nodeName", name),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	).String()})
	if err != nil {
		return err
	}
	there := make(map[types.UID]*corev1.Pod)
	for i := range list.Items {
		there[list.Items[i].UID] = &list.Items[i]
	}
	for _, pod := range candidates {
		if there[pod.UID] != nil {
			// The informer has not heard of its binding yet.
			continue
		}
		others := maps.Clone(there)
		for _, other := range nominated {
			if other.UID != pod.UID && corev1helper.PodPriority(other) >= corev1helper.PodPriority(pod) {
				others[other.UID] = other
			}
		}
		why := needsScheduler(pod)
		if why == "" {
			why = misfit(pod, node, maps.Values(others))
		}
		if why != "" {
			p.leave(pod, name, why)
			continue
		}
		// The scheduler may have come back since the pass began.
		if p.leases.stale(ctx, p.schedulers[pod.Spec.SchedulerName]) && p.bind(ctx, pod, name) {
			there[pod.UID] = pod
		}
	}
	return nil
}

// bind binds pod to a node and says whether it did.
func (p *passes) bind(ctx context.Context, pod *corev1.Pod, node string) bool {
	err := p.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err) || ctx.Err() != nil:
		// The pod has been bound or deleted since.
		return false
	case err != nil:
		p.leave(pod, node, err.Error())
		return false
	}
	pods.WithLabelValues(string(resultBound)).Inc()
	klog.FromContext(ctx).Info("Bound a pod without its scheduler", "pod", klog.KObj(pod), "node", node)
	p.recorder.Eventf(pod, nil, corev1.EventTypeNormal, "BoundWithoutScheduler", "Binding",
		"Bound to %s: nobody renews the lease of %s", node, pod.Spec.SchedulerName)
	return true
}

// leave says why a pod is not bound, once for each reason.
func (p *passes) leave(pod *corev1.Pod, node, why string) {
	if p.left[pod.UID].why != why {
		pods.WithLabelValues(string(resultLeft)).Inc()
		p.recorder.Eventf(pod, nil, corev1.EventTypeWarning, "NotBoundWithoutScheduler", "Binding",
			"Not bound to %s, though nobody renews the lease of %s: %s", node, pod.Spec.SchedulerName, why)
	}
	p.left[pod.UID] = leaving{why, time.Now().Add(retryPeriod)}
}
