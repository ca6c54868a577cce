// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"

	"everynode.dev/everynode/pkg/explain"
)

// reader reads a cluster.
type reader struct {
	client   kubernetes.Interface
	progress *progress

	mu sync.Mutex // protects the rest
	// denied are the indispensable resources that may not be listed, and unread the others.
	denied, unread []string
}

// scope says what is read besides the state of the whole cluster.
type scope struct {
	// namespace is where events and revisions are read, "" for all namespaces.
	namespace string
	// podEvents is whether those of pods are among the events.
	podEvents bool
}

// read reads what an engine needs. Where access to something is denied that is not
// indispensable, the cluster says so.
func (r *reader) read(ctx context.Context, s scope) (*explain.Cluster, error) {
	c := &explain.Cluster{}
	core, apps := r.client.CoreV1(), r.client.AppsV1()
	group, groupCtx := errgroup.WithContext(ctx)
	goList(group, groupCtx, r, "nodes", &c.Nodes, func(node *corev1.Node) { c.NoteManagers(node); trimNode(node) }, core.Nodes().List)
	goList(group, groupCtx, r, "daemonsets.apps", &c.DaemonSets, trimDaemonSet, apps.DaemonSets("").List)
	goList(group, groupCtx, r, "pods", &c.Pods, trimPod, core.Pods("").List)
	goList(group, groupCtx, r, "namespaces", &c.Namespaces, trim, core.Namespaces().List)
	goList(group, groupCtx, r, "priorityclasses.scheduling.k8s.io", &c.PriorityClasses, trim, r.client.SchedulingV1().PriorityClasses().List)
	goList(group, groupCtx, r, "poddisruptionbudgets.policy", &c.Budgets, trim, r.client.PolicyV1().PodDisruptionBudgets("").List)
	goList(group, groupCtx, r, "controllerrevisions.apps", &c.Revisions, trimRevision, apps.ControllerRevisions(s.namespace).List)
	var events, podEvents []*corev1.Event
	goList(group, groupCtx, r, "events", &events, trim, eventsOf(core.Events(s.namespace).List, "DaemonSet"))
	if s.podEvents {
		goList(group, groupCtx, r, "events", &podEvents, trim, eventsOf(core.Events(s.namespace).List, "Pod", fields.OneTermEqualSelector("type", corev1.EventTypeWarning)))
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(r.denied) > 0 {
		r.progress.done()
		slices.Sort(r.denied)
		return nil, fmt.Errorf("no access: RBAC has to allow you the verb list on %s in all namespaces", strings.Join(r.denied, ", "))
	}
	c.Events = slices.Concat(events, podEvents)
	if slices.ContainsFunc(c.DaemonSets, claimsVolumes) {
		if err := r.readStorage(ctx, c); err != nil {
			return nil, err
		}
	}
	r.progress.done()
	slices.Sort(r.unread)
	c.ClaimsUnread = slices.Contains(r.unread, "persistentvolumeclaims")
	if unread := slices.Compact(r.unread); len(unread) > 0 {
		c.Unread = []string{fmt.Sprintf("what depends on %s (RBAC does not allow you to list them).", strings.Join(unread, ", "))}
	}
	return c, nil
}

// claimsVolumes says whether pods of ds have volumes that a scheduler looks at.
func claimsVolumes(ds *appsv1.DaemonSet) bool {
	return slices.ContainsFunc(ds.Spec.Template.Spec.Volumes, func(volume corev1.Volume) bool {
		return volume.PersistentVolumeClaim != nil || volume.Ephemeral != nil || volume.CSI != nil
	})
}

func (r *reader) readStorage(ctx context.Context, c *explain.Cluster) error {
	core, storage := r.client.CoreV1(), r.client.StorageV1()
	group, ctx := errgroup.WithContext(ctx)
	goList(group, ctx, r, "persistentvolumeclaims", &c.Claims, trim, core.PersistentVolumeClaims("").List)
	goList(group, ctx, r, "persistentvolumes", &c.Volumes, trim, core.PersistentVolumes().List)
	goList(group, ctx, r, "storageclasses.storage.k8s.io", &c.StorageClasses, trim, storage.StorageClasses().List)
	goList(group, ctx, r, "csinodes.storage.k8s.io", &c.CSINodes, trim, storage.CSINodes().List)
	goList(group, ctx, r, "csidrivers.storage.k8s.io", &c.CSIDrivers, trim, storage.CSIDrivers().List)
	goList(group, ctx, r, "csistoragecapacities.storage.k8s.io", &c.StorageCapacities, trim, storage.CSIStorageCapacities("").List)
	goList(group, ctx, r, "volumeattachments.storage.k8s.io", &c.Attachments, trim, storage.VolumeAttachments().List)
	return group.Wait()
}

// listFunc is the List method of a typed client.
type listFunc[L runtime.Object] func(context.Context, metav1.ListOptions) (L, error)

// eventsOf limits list to events of one kind of object, and of what more selects.
func eventsOf(list listFunc[*corev1.EventList], kind string, more ...fields.Selector) listFunc[*corev1.EventList] {
	return func(ctx context.Context, options metav1.ListOptions) (*corev1.EventList, error) {
		options.FieldSelector = fields.AndSelectors(append(more, fields.OneTermEqualSelector("involvedObject.kind", kind))...).String()
		return list(ctx, options)
	}
}

// indispensable are the resources without which nothing can be said.
var indispensable = []string{"nodes", "daemonsets.apps", "pods"}

// goList reads all objects of a resource, page by page, in a goroutine of group. Of
// each it keeps what trim leaves of it.
func goList[P interface {
	*T
	runtime.Object
}, T any, L runtime.Object](group *errgroup.Group, ctx context.Context, r *reader, resource string, into *[]P, trim func(P), list listFunc[L]) { //nolint:revive // the group is what the context belongs to
	group.Go(func() error {
		pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			page, err := list(ctx, options)
			if err == nil {
				r.progress.read(resource, page)
			}
			return page, err
		})
		err := pages.EachListItemWithAlloc(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
			item := object.(P)
			trim(item)
			*into = append(*into, item)
			return nil
		})
		return r.judge(resource, err)
	})
}

// judge notes a denial.
func (r *reader) judge(resource string, err error) error {
	if err == nil {
		return nil
	}
	if !apierrors.IsForbidden(err) {
		return fmt.Errorf("reading %s: %w", resource, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(indispensable, resource) {
		r.denied = append(r.denied, resource)
	} else {
		r.unread = append(r.unread, resource)
	}
	return nil
}

// trim drops what nobody looks at and what can be large.
func trim[P metav1.Object](object P) {
	object.SetManagedFields(nil)
	if annotations := object.GetAnnotations(); annotations != nil {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
	}
}

// trimDaemonSet keeps when its spec was changed.
func trimDaemonSet(ds *appsv1.DaemonSet) {
	managers := slices.DeleteFunc(ds.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool { return entry.Subresource != "" })
	trim(ds)
	for n := range managers {
		managers[n].FieldsV1 = nil
	}
	ds.ManagedFields = managers
}

func trimNode(node *corev1.Node) {
	trim(node)
	node.Annotations = nil
	node.Status.Images = nil
	node.Status.VolumesAttached, node.Status.VolumesInUse = nil, nil
}

func trimRevision(revision *appsv1.ControllerRevision) {
	trim(revision)
	revision.Data = runtime.RawExtension{}
}

// keptAnnotations are those of pods that decide about anything.
var keptAnnotations = []string{corev1.MirrorPodAnnotationKey, "cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt", "everynode.dev/requires"}

// trimPod keeps what schedulers look at, and what tells the state of containers. A
// hundred thousand pods are hundreds of megabytes otherwise.
func trimPod(pod *corev1.Pod) {
	trim(pod)
	for key := range pod.Annotations {
		if !slices.Contains(keptAnnotations, key) {
			delete(pod.Annotations, key)
		}
	}
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool {
		source := &volume.VolumeSource
		return source.Projected != nil || source.ConfigMap != nil || source.Secret != nil || source.EmptyDir != nil || source.HostPath != nil || source.DownwardAPI != nil
	})
	pod.Spec.SecurityContext, pod.Spec.ImagePullSecrets, pod.Spec.HostAliases, pod.Spec.DNSConfig = nil, nil, nil, nil
	trimContainers(pod.Spec.InitContainers)
	trimContainers(pod.Spec.Containers)
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for n := range statuses {
			statuses[n].VolumeMounts, statuses[n].User, statuses[n].ImageID, statuses[n].ContainerID = nil, nil, "", ""
		}
	}
}

func trimContainers(containers []corev1.Container) {
	for n := range containers {
		c := &containers[n]
		containers[n] = corev1.Container{
			Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy,
			ReadinessProbe: c.ReadinessProbe, StartupProbe: c.StartupProbe,
		}
	}
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
