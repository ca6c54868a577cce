// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"

	"everynode.dev/everynode/pkg/explain"
)

// reader reads a cluster, once or for as long as it is followed.
type reader struct {
	client   kubernetes.Interface
	progress *progress
	// fallback is the namespace to read where all may not be read.
	fallback string
	// follow: the objects are kept up to date by watches. complain is told what goes wrong then.
	follow   bool
	complain func(error)
	fail     context.CancelCauseFunc
	synced   []cache.InformerSynced

	// collectors put what was read into a cluster.
	collectors []func(*explain.Cluster)

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
}

// read reads what an engine needs. Where access is denied to something, the cluster says so.
func (r *reader) read(ctx context.Context, s scope) (*explain.Cluster, error) {
	r.unread, r.narrowed = sets.New[string](), sets.New[string]()
	ctx, r.fail = context.WithCancelCause(ctx)
	group, groupCtx := r.group(ctx)
	core, apps := r.client.CoreV1(), r.client.AppsV1()
	managers := &explain.Cluster{}
	note := func(node *corev1.Node) {
		if !r.follow {
			managers.NoteManagers(node)
		}
		trimNode(node)
	}
	goRead(group, groupCtx, r, "nodes", func(c *explain.Cluster) *[]*corev1.Node { return &c.Nodes }, note, core.Nodes(), nil)
	goRead(group, groupCtx, r, "daemonsets.apps", func(c *explain.Cluster) *[]*appsv1.DaemonSet { return &c.DaemonSets }, trimDaemonSet, apps.DaemonSets(""), apps.DaemonSets(r.fallback))
	goRead(group, groupCtx, r, "pods", func(c *explain.Cluster) *[]*corev1.Pod { return &c.Pods }, (&sharer{}).shrink, core.Pods(""), core.Pods(r.fallback))
	goRead(group, groupCtx, r, "namespaces", func(c *explain.Cluster) *[]*corev1.Namespace { return &c.Namespaces }, trim, core.Namespaces(), nil)
	goRead(group, groupCtx, r, "priorityclasses.scheduling.k8s.io", func(c *explain.Cluster) *[]*schedulingv1.PriorityClass { return &c.PriorityClasses }, trim, r.client.SchedulingV1().PriorityClasses(), nil)
	goRead(group, groupCtx, r, "poddisruptionbudgets.policy", func(c *explain.Cluster) *[]*policyv1.PodDisruptionBudget { return &c.Budgets }, trim,
		r.client.PolicyV1().PodDisruptionBudgets(""), r.client.PolicyV1().PodDisruptionBudgets(r.fallback))
	goRead(group, groupCtx, r, "controllerrevisions.apps", func(c *explain.Cluster) *[]*appsv1.ControllerRevision { return &c.Revisions }, trimRevision,
		apps.ControllerRevisions(s.namespace), apps.ControllerRevisions(r.fallback))
	events := func(c *explain.Cluster) *[]*corev1.Event { return &c.Events }
	selectors := []fields.Selector{fields.OneTermEqualSelector("involvedObject.kind", "DaemonSet")}
	if s.podEvents {
		selectors = append(selectors, fields.AndSelectors(fields.OneTermEqualSelector("involvedObject.kind", "Pod"), fields.OneTermEqualSelector("type", corev1.EventTypeWarning)))
	}
	for _, selector := range selectors {
		goRead(group, groupCtx, r, "events", events, trim, selected{core.Events(s.namespace), selector}, selected{core.Events(r.fallback), selector})
	}
	if s.limits {
		goRead(group, groupCtx, r, "resourcequotas", func(c *explain.Cluster) *[]*corev1.ResourceQuota { return &c.Quotas }, trim, core.ResourceQuotas(""), core.ResourceQuotas(r.fallback))
		goRead(group, groupCtx, r, "limitranges", func(c *explain.Cluster) *[]*corev1.LimitRange { return &c.LimitRanges }, trim, core.LimitRanges(""), core.LimitRanges(r.fallback))
		goRead(group, groupCtx, r, "runtimeclasses.node.k8s.io", func(c *explain.Cluster) *[]*nodev1.RuntimeClass { return &c.RuntimeClasses }, trim, r.client.NodeV1().RuntimeClasses(), nil)
	}
	c, err := r.collect(ctx, group)
	if err == nil && slices.ContainsFunc(c.DaemonSets, claimsVolumes) {
		group, groupCtx := r.group(ctx)
		r.goReadStorage(groupCtx, group)
		c, err = r.collect(ctx, group)
	}
	r.progress.done()
	if err == nil {
		c.LabelManagers = managers.LabelManagers
	}
	return c, err
}

// group returns a group and its context, which ends with the group unless objects are followed.
func (r *reader) group(ctx context.Context) (*errgroup.Group, context.Context) {
	if r.follow {
		return &errgroup.Group{}, ctx
	}
	return errgroup.WithContext(ctx)
}

// collect returns what has been read when group is ready.
func (r *reader) collect(ctx context.Context, group *errgroup.Group) (*explain.Cluster, error) {
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if r.follow && !cache.WaitForCacheSync(ctx.Done(), r.synced...) {
		return nil, context.Cause(ctx)
	}
	return r.cluster()
}

// cluster returns what is known at this moment.
func (r *reader) cluster() (*explain.Cluster, error) {
	c := &explain.Cluster{}
	for _, collect := range r.collectors {
		collect(c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if denied := r.unread.Intersection(sets.New("daemonsets.apps", "pods")); denied.Len() > 0 {
		return nil, fmt.Errorf("no access: RBAC has to allow you the verb list on %s, in all namespaces or in %s", strings.Join(sets.List(denied), ", "), r.fallback)
	}
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

// claimsVolumes says whether pods of ds have volumes that a scheduler looks at.
func claimsVolumes(ds *appsv1.DaemonSet) bool {
	return slices.ContainsFunc(ds.Spec.Template.Spec.Volumes, func(volume corev1.Volume) bool {
		return volume.PersistentVolumeClaim != nil || volume.Ephemeral != nil || volume.CSI != nil
	})
}

func (r *reader) goReadStorage(ctx context.Context, group *errgroup.Group) {
	core, storage := r.client.CoreV1(), r.client.StorageV1()
	goRead(group, ctx, r, "persistentvolumeclaims", func(c *explain.Cluster) *[]*corev1.PersistentVolumeClaim { return &c.Claims }, trim,
		core.PersistentVolumeClaims(""), core.PersistentVolumeClaims(r.fallback))
	goRead(group, ctx, r, "persistentvolumes", func(c *explain.Cluster) *[]*corev1.PersistentVolume { return &c.Volumes }, trim, core.PersistentVolumes(), nil)
	goRead(group, ctx, r, "storageclasses.storage.k8s.io", func(c *explain.Cluster) *[]*storagev1.StorageClass { return &c.StorageClasses }, trim, storage.StorageClasses(), nil)
	goRead(group, ctx, r, "csinodes.storage.k8s.io", func(c *explain.Cluster) *[]*storagev1.CSINode { return &c.CSINodes }, trim, storage.CSINodes(), nil)
	goRead(group, ctx, r, "csidrivers.storage.k8s.io", func(c *explain.Cluster) *[]*storagev1.CSIDriver { return &c.CSIDrivers }, trim, storage.CSIDrivers(), nil)
	goRead(group, ctx, r, "csistoragecapacities.storage.k8s.io", func(c *explain.Cluster) *[]*storagev1.CSIStorageCapacity { return &c.StorageCapacities }, trim, storage.CSIStorageCapacities(""), nil)
	goRead(group, ctx, r, "volumeattachments.storage.k8s.io", func(c *explain.Cluster) *[]*storagev1.VolumeAttachment { return &c.Attachments }, trim, storage.VolumeAttachments(), nil)
}

// lists are the methods of a typed client that a reader needs.
type lists[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// selected are the events that a selector takes.
type selected struct {
	lists[*corev1.EventList]
	selector fields.Selector
}

func (s selected) List(ctx context.Context, options metav1.ListOptions) (*corev1.EventList, error) {
	options.FieldSelector = s.selector.String()
	return s.lists.List(ctx, options)
}

func (s selected) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.FieldSelector = s.selector.String()
	return s.lists.Watch(ctx, options)
}

// source is where the objects of a resource come from: everywhere, or in one namespace if
// access to the others is denied.
type source[L runtime.Object] struct {
	*reader
	resource       string
	everywhere, in lists[L]
}

// List implements [cache.ListerWithContext]. The list is empty if access is denied.
func (s *source[L]) List(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	page, err := s.everywhere.List(ctx, options)
	if apierrors.IsForbidden(err) {
		if s.in != nil {
			s.everywhere, s.in = s.in, nil
			s.note(s.narrowed)
			return s.List(ctx, options)
		}
		s.everywhere = nothing[L]{}
		s.note(s.unread)
		return s.everywhere.List(ctx, options)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.resource, err)
	}
	s.progress.read(s.resource, page)
	return page, nil
}

func (s *source[L]) note(resources sets.Set[string]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.narrowed.Delete(s.resource)
	resources.Insert(s.resource)
}

// nothing is a source that has nothing and never will.
type nothing[L runtime.Object] struct{}

func (nothing[L]) List(context.Context, metav1.ListOptions) (L, error) {
	return reflect.New(reflect.TypeFor[L]().Elem()).Interface().(L), nil
}

func (nothing[L]) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return watch.NewFake(), nil
}

// listWatch is a source without the kind of watch that begins with all objects: what may
// not be listed is found out by listing.
type listWatch struct{ *cache.ListWatch }

func (listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// goRead reads all objects of a resource in a goroutine of group: page by page, or for as
// long as they are followed. Of each it keeps what trim leaves of it.
func goRead[P interface {
	*T
	runtime.Object
}, T any, L runtime.Object](group *errgroup.Group, ctx context.Context, r *reader, resource string, into func(*explain.Cluster) *[]P, trim func(P), everywhere, in lists[L]) { //nolint:revive // the group is what the context belongs to
	s := &source[L]{reader: r, resource: resource, everywhere: everywhere, in: in}
	if r.follow {
		r.followSource(ctx, listWatch{&cache.ListWatch{
			ListWithContextFunc: s.List,
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return s.everywhere.Watch(ctx, options)
			},
		}}, P(new(T)), func(object any) (any, error) { trim(object.(P)); return object, nil }, func(c *explain.Cluster, objects []any) {
			for _, object := range objects {
				*into(c) = append(*into(c), object.(P))
			}
		})
		return
	}
	var read []P
	r.collectors = append(r.collectors, func(c *explain.Cluster) { *into(c) = append(*into(c), read...) })
	group.Go(func() error {
		return pager.New(s.List).EachListItemWithAlloc(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
			trim(object.(P))
			read = append(read, object.(P))
			return nil
		})
	})
}

// followSource keeps what a source has in memory, until ctx ends.
func (r *reader) followSource(ctx context.Context, source cache.ListerWatcher, example runtime.Object, trim cache.TransformFunc, add func(*explain.Cluster, []any)) {
	informer := cache.NewSharedIndexInformer(source, example, 0, nil)
	err := errors.Join(informer.SetTransform(trim), informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		switch {
		case !informer.HasSynced():
			r.fail(err)
		case !errors.Is(err, io.EOF) && !apierrors.IsResourceExpired(err):
			r.complain(err)
		}
	}))
	if err != nil {
		r.fail(err)
		return
	}
	r.synced = append(r.synced, informer.HasSynced)
	r.collectors = append(r.collectors, func(c *explain.Cluster) { add(c, informer.GetStore().List()) })
	go informer.RunWithContext(ctx)
}

// remaining returns how many objects follow a page, 0 if the server does not say.
func remaining(page runtime.Object) (items int, more int64) {
	list, err := meta.ListAccessor(page)
	if err == nil && list.GetRemainingItemCount() != nil {
		more = *list.GetRemainingItemCount()
	}
	return meta.LenList(page), more
}

// shortResource drops the API group.
func shortResource(resource string) string {
	name, _, _ := strings.Cut(resource, ".")
	return name
}
