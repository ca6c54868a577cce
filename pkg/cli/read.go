// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"

	"everynode.dev/everynode/pkg/dryrun"
	"everynode.dev/everynode/pkg/snapshot"
)

// reader reads a cluster, once or for as long as it is followed.
type reader struct {
	client   kubernetes.Interface
	progress *progress
	// fallback is the namespace to read where all may not be read.
	fallback string
	trimmer  trimmer
	// follow: the objects are kept up to date by watches. complain is told what goes wrong then.
	follow   bool
	complain func(error)
	fail     context.CancelCauseFunc
	synced   []cache.InformerSynced
	// devices: DeviceClasses are read.
	devices bool

	// lists return what has been read of each resource.
	lists []func() []runtime.Object

	mu sync.Mutex // protects the rest
	// unread are the resources that may not be listed at all, and narrowed those that may be
	// in one namespace only.
	unread, narrowed sets.Set[string]
}

// scope says what is read besides the state of the whole cluster.
type scope struct {
	// namespace is where events and revisions are read, "" for all namespaces.
	namespace string
	// podEvents is whether those of pods are among the events.
	podEvents bool
	// limits is whether quotas, LimitRanges and RuntimeClasses are read.
	limits bool
	// planned are DaemonSets that count besides those of the cluster.
	planned []*appsv1.DaemonSet
}

// read reads what an engine needs. Where access is denied to something, the cluster says so.
func (r *reader) read(ctx context.Context, s scope) (*snapshot.Cluster, error) {
	defer r.progress.done()
	r.unread, r.narrowed = sets.New[string](), sets.New[string]()
	r.trimmer.noManagers = r.follow
	ctx, r.fail = context.WithCancelCause(ctx)
	c, err := r.readAll(ctx, func(list func(resource string, ways ...*cache.ListWatch)) {
		core, apps := r.client.CoreV1(), r.client.AppsV1()
		list("nodes", from(core.Nodes(), nil))
		list("daemonsets.apps", in(apps.DaemonSets, "", r.fallback)...)
		list("pods", in(core.Pods, "", r.fallback)...)
		list("namespaces", from(core.Namespaces(), nil))
		list("priorityclasses.scheduling.k8s.io", from(r.client.SchedulingV1().PriorityClasses(), nil))
		list("poddisruptionbudgets.policy", in(r.client.PolicyV1().PodDisruptionBudgets, "", r.fallback)...)
		list("controllerrevisions.apps", in(apps.ControllerRevisions, s.namespace, r.fallback)...)
		selectors := []fields.Selector{fields.OneTermEqualSelector("involvedObject.kind", "DaemonSet")}
		if s.podEvents {
			selectors = append(selectors, fields.AndSelectors(fields.OneTermEqualSelector("involvedObject.kind", "Pod"), fields.OneTermEqualSelector("type", corev1.EventTypeWarning)))
		}
		for _, selector := range selectors {
			list("events", from(core.Events(s.namespace), selector), from(core.Events(r.fallback), selector))
		}
		if s.limits {
			list("resourcequotas", in(core.ResourceQuotas, "", r.fallback)...)
			list("limitranges", in(core.LimitRanges, "", r.fallback)...)
			list("runtimeclasses.node.k8s.io", from(r.client.NodeV1().RuntimeClasses(), nil))
		}
	})
	if err != nil {
		return c, err
	}
	daemonSets := slices.Concat(c.DaemonSets, s.planned)
	volumes := slices.ContainsFunc(daemonSets, claimsVolumes)
	r.devices = slices.ContainsFunc(daemonSets, func(ds *appsv1.DaemonSet) bool { return len(dryrun.ExtendedResources(&ds.Spec.Template.Spec)) > 0 }) ||
		slices.ContainsFunc(c.Pods, func(pod *corev1.Pod) bool { return len(dryrun.ExtendedResources(&pod.Spec)) > 0 })
	if !volumes && !r.devices {
		return c, nil
	}
	return r.readAll(ctx, func(list func(resource string, ways ...*cache.ListWatch)) {
		if r.devices {
			list(deviceClasses, from(r.client.ResourceV1().DeviceClasses(), nil))
		}
		if !volumes {
			return
		}
		core, storage := r.client.CoreV1(), r.client.StorageV1()
		list("persistentvolumeclaims", in(core.PersistentVolumeClaims, "", r.fallback)...)
		list("persistentvolumes", from(core.PersistentVolumes(), nil))
		list("storageclasses.storage.k8s.io", from(storage.StorageClasses(), nil))
		list("csinodes.storage.k8s.io", from(storage.CSINodes(), nil))
		list("csidrivers.storage.k8s.io", from(storage.CSIDrivers(), nil))
		list("csistoragecapacities.storage.k8s.io", from(storage.CSIStorageCapacities(""), nil))
		list("volumeattachments.storage.k8s.io", from(storage.VolumeAttachments(), nil))
	})
}

// readAll reads the resources that what lists, in parallel, and returns them with those that were read before.
func (r *reader) readAll(ctx context.Context, what func(list func(resource string, ways ...*cache.ListWatch))) (*snapshot.Cluster, error) {
	group, groupCtx := errgroup.WithContext(ctx)
	what(func(resource string, ways ...*cache.ListWatch) {
		s := &source{reader: r, resource: resource, ways: ways}
		if r.follow {
			s.follow(ctx)
			return
		}
		var read []runtime.Object
		r.lists = append(r.lists, func() []runtime.Object { return read })
		group.Go(func() error {
			pages := pager.New(s.List)
			// Pages that wait have objects that are not trimmed: ten of them would be as large as 20,000 pods.
			pages.PageBufferSize = 1
			return pages.EachListItemWithAlloc(groupCtx, metav1.ListOptions{}, func(object runtime.Object) error {
				r.trimmer.trim(object)
				read = append(read, object)
				return nil
			})
		})
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if r.follow && !cache.WaitForCacheSync(ctx.Done(), r.synced...) {
		return nil, context.Cause(ctx)
	}
	return r.cluster()
}

// cluster returns what is known at this moment.
func (r *reader) cluster() (*snapshot.Cluster, error) {
	c := &snapshot.Cluster{LabelManagers: r.trimmer.managers.LabelManagers}
	for _, list := range r.lists {
		for _, object := range list() {
			c.Add(object)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if denied := r.unread.Intersection(sets.New("daemonsets.apps", "pods")); denied.Len() > 0 {
		return nil, fmt.Errorf("no access: RBAC has to allow you the verb list on %s, in all namespaces or in %s", strings.Join(sets.List(denied), ", "), r.fallback)
	}
	c.DeviceClassesRead = r.devices && !r.unread.Has(deviceClasses)
	c.ClaimsUnread = r.unread.Union(r.narrowed).Has("persistentvolumeclaims")
	c.NodesUnread = r.unread.Has("nodes")
	c.Partial = c.NodesUnread || r.narrowed.HasAny("pods", "daemonsets.apps")
	if c.NodesUnread {
		c.MakeUpNodes()
	}
	if r.narrowed.Len() > 0 {
		c.Unread = append(c.Unread, fmt.Sprintf("%s outside of namespace %s (RBAC does not allow you to list them in all namespaces).", strings.Join(sets.List(r.narrowed), ", "), r.fallback))
	}
	if r.unread.Len() > 0 {
		c.Unread = append(c.Unread, fmt.Sprintf("what depends on %s (RBAC does not allow you to list them).", strings.Join(sets.List(r.unread), ", ")))
	}
	return c, nil
}

// deviceClasses are needed where pods ask for extended resources.
const deviceClasses = "deviceclasses.resource.k8s.io"

// claimsVolumes says whether pods of ds have volumes that a scheduler looks at.
func claimsVolumes(ds *appsv1.DaemonSet) bool {
	return slices.ContainsFunc(ds.Spec.Template.Spec.Volumes, func(volume corev1.Volume) bool {
		return volume.PersistentVolumeClaim != nil || volume.Ephemeral != nil || volume.CSI != nil
	})
}

// typed is the part of a typed client that a reader needs.
type typed[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// from reads what selector takes by a typed client, everything if it is nil.
func from[L runtime.Object](client typed[L], selector fields.Selector) *cache.ListWatch {
	with := func(options metav1.ListOptions) metav1.ListOptions {
		if selector != nil {
			options.FieldSelector = selector.String()
		}
		return options
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, with(options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, with(options))
		},
	}
}

// in reads by a client of each of namespaces, "" for all namespaces.
func in[L runtime.Object, C typed[L]](client func(namespace string) C, namespaces ...string) []*cache.ListWatch {
	var ways []*cache.ListWatch
	for _, namespace := range namespaces {
		ways = append(ways, from[L](client(namespace), nil))
	}
	return ways
}

// source reads the objects of a resource in the first of ways that RBAC allows.
type source struct {
	*reader
	resource string
	ways     []*cache.ListWatch
}

// List implements [cache.ListerWithContext]. The list is empty if access is denied.
func (s *source) List(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	for len(s.ways) > 0 {
		page, err := s.ways[0].ListWithContext(ctx, options)
		if err == nil {
			s.progress.read(s.resource, page)
			return page, nil
		}
		if apierrors.IsNotFound(err) && strings.Contains(s.resource, ".") {
			// The API server does not have that group, and so there are no objects. Without the core
			// group it is no API server.
			s.ways = nil
			break
		}
		if !apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("reading %s: %w", s.resource, err)
		}
		s.ways = s.ways[1:]
		s.denied(len(s.ways) == 0)
	}
	return &metav1.List{}, nil
}

// denied notes that the resource may not be listed everywhere, or nowhere.
func (s *source) denied(entirely bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entirely {
		s.narrowed.Delete(s.resource)
		s.unread.Insert(s.resource)
	} else {
		s.narrowed.Insert(s.resource)
	}
}

// Watch implements [cache.WatcherWithContext]. What may not be listed never changes.
func (s *source) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if len(s.ways) == 0 {
		return watch.NewFake(), nil
	}
	return s.ways[0].WatchWithContext(ctx, options)
}

// listWatch has the informer list before it watches (no watch-list): whether access is denied, only a
// list shows.
type listWatch struct{ *cache.ListWatch }

func (listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// follow keeps what a source has in memory, until ctx ends.
func (s *source) follow(ctx context.Context) {
	informer := cache.NewSharedIndexInformer(listWatch{&cache.ListWatch{ListWithContextFunc: s.List, WatchFuncWithContext: s.Watch}}, nil, 0, nil)
	err := errors.Join(informer.SetTransform(func(object any) (any, error) {
		s.trimmer.trim(object.(runtime.Object))
		return object, nil
	}), informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		switch {
		case !informer.HasSynced():
			s.fail(err)
		case !errors.Is(err, io.EOF) && !apierrors.IsResourceExpired(err):
			s.complain(err)
		}
	}))
	if err != nil {
		s.fail(err)
		return
	}
	s.synced = append(s.synced, informer.HasSynced)
	s.lists = append(s.lists, func() (objects []runtime.Object) {
		for _, object := range informer.GetStore().List() {
			objects = append(objects, object.(runtime.Object))
		}
		return objects
	})
	go informer.RunWithContext(ctx)
}
