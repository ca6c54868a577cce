// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"everynode.dev/everynode/pkg/daemonset"
)

// cluster caches the objects that requests are answered from, as far as decisions depend
// on them: clusters are large, and no request waits for the API server.
type cluster struct {
	metadata   metadata.Interface
	ofMetadata metadatainformer.SharedInformerFactory
	typed      informers.SharedInformerFactory
	// See trim for what is kept of each object.
	daemonSets, namespaces, nodes, priorityClasses, quotas, limitRanges cache.SharedIndexInformer
	// limitedClasses are the priority classes that need a ResourceQuota.
	limitedClasses []string
}

func newCluster(meta metadata.Interface, client kubernetes.Interface, limitedClasses []string) *cluster {
	c := &cluster{
		limitedClasses: limitedClasses,
		metadata:       meta,
		ofMetadata:     metadatainformer.NewSharedInformerFactoryWithOptions(meta, 0, metadatainformer.WithTransform(trim)),
		typed:          informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim)),
	}
	c.daemonSets = c.typed.Apps().V1().DaemonSets().Informer()
	c.namespaces = c.ofMetadata.ForResource(namespacesResource).Informer()
	c.nodes = c.typed.Core().V1().Nodes().Informer()
	c.priorityClasses = c.typed.Scheduling().V1().PriorityClasses().Informer()
	c.quotas = c.typed.Core().V1().ResourceQuotas().Informer()
	c.limitRanges = c.typed.Core().V1().LimitRanges().Informer()
	return c
}

var (
	daemonSetsResource      = appsv1.SchemeGroupVersion.WithResource("daemonsets")
	namespacesResource      = corev1.SchemeGroupVersion.WithResource("namespaces")
	nodesResource           = corev1.SchemeGroupVersion.WithResource("nodes")
	priorityClassesResource = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")
	quotasResource          = corev1.SchemeGroupVersion.WithResource("resourcequotas")
	limitRangesResource     = corev1.SchemeGroupVersion.WithResource("limitranges")
)

// unknown returns the resources that have not been read yet.
func (c *cluster) unknown() []schema.GroupVersionResource {
	var unknown []schema.GroupVersionResource
	for _, resource := range []struct {
		schema.GroupVersionResource
		informer cache.SharedIndexInformer
	}{
		{daemonSetsResource, c.daemonSets}, {namespacesResource, c.namespaces}, {nodesResource, c.nodes},
		{priorityClassesResource, c.priorityClasses}, {quotasResource, c.quotas}, {limitRangesResource, c.limitRanges},
	} {
		if !resource.informer.HasSynced() {
			unknown = append(unknown, resource.GroupVersionResource)
		}
	}
	return unknown
}

// run follows the cluster until ctx ends.
func (c *cluster) run(ctx context.Context) {
	c.ofMetadata.Start(ctx.Done())
	defer c.ofMetadata.Shutdown()
	c.typed.Start(ctx.Done())
	defer c.typed.Shutdown()
	// Informers are silent about an API server that they cannot reach.
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		for _, resource := range c.unknown() {
			if _, err := c.metadata.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
				klog.FromContext(ctx).Error(err, "Waiting for what the API server knows: check --kubeconfig and the ClusterRole everynode-webhook",
					"resource", resource.Resource)
			}
		}
	}, 5*time.Second)
}

// healthy returns an error until everything is known.
func (c *cluster) healthy() error {
	var errs []error
	for _, resource := range c.unknown() {
		errs = append(errs, fmt.Errorf("the %s of the cluster are not known yet", resource.Resource))
	}
	return errors.Join(errs...)
}

// owner returns the DaemonSet in a namespace that an owner reference names, and waits for
// it until ctx ends. The DaemonSet has to exist with the UID of the reference, which is
// easily written.
func (c *cluster) owner(ctx context.Context, namespace string, reference *metav1.OwnerReference) (*appsv1.DaemonSet, error) {
	var owner *appsv1.DaemonSet
	if !waitUntil(ctx, func() (known bool) {
		owner, known = get[*appsv1.DaemonSet](c.daemonSets, namespace+"/"+reference.Name)
		return known && owner.UID == reference.UID
	}) {
		return nil, fmt.Errorf("no DaemonSet %s/%s with UID %s is known", namespace, reference.Name, reference.UID)
	}
	return owner, nil
}

// waitUntil waits until known returns true, or ctx ends, and returns whether it did.
func waitUntil(ctx context.Context, known func() bool) bool {
	// To wait takes timers, and nearly everything is known at once.
	return known() || wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) { return known(), nil }) == nil
}

// namespace returns the labels and annotations of a namespace, and waits until it is
// known, or ctx ends: without its labels the wrong policy would apply.
func (c *cluster) namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	var namespace *metav1.PartialObjectMetadata
	if !waitUntil(ctx, func() (known bool) {
		namespace, known = get[*metav1.PartialObjectMetadata](c.namespaces, name)
		return known
	}) {
		return nil, fmt.Errorf("no namespace %s is known", name)
	}
	return namespace, nil
}

// allocatable returns what can be requested of a node, and waits for it until ctx
// ends. Nil means that it is not known then.
func (c *cluster) allocatable(ctx context.Context, name string) corev1.ResourceList {
	var list corev1.ResourceList
	waitUntil(ctx, func() bool {
		if node, known := get[*corev1.Node](c.nodes, name); known {
			list = node.Status.Allocatable
		}
		return list != nil
	})
	return list
}

// priorityClass returns what pods in a namespace have to do with a PriorityClass.
func (c *cluster) priorityClass(namespace, name string) priorityClass {
	class, known := get[*schedulingv1.PriorityClass](c.priorityClasses, name)
	if !known {
		return priorityClass{forbidden: "it does not exist"}
	}
	return priorityClass{isDefault: class.GlobalDefault, forbidden: c.forbidden(namespace, name)}
}

// forbidden returns why ResourceQuotas keep pods of a priority class out of a namespace;
// empty if they do not.
func (c *cluster) forbidden(namespace, class string) string {
	covered := false
	for _, quota := range in[*corev1.ResourceQuota](c.quotas, namespace) {
		if !selectsClass(&quota.Spec, class) {
			continue
		}
		covered = true
		for _, name := range []corev1.ResourceName{corev1.ResourcePods, "count/pods"} {
			hard, limited := quota.Status.Hard[name]
			if used := quota.Status.Used[name]; limited && used.Cmp(hard) >= 0 {
				return fmt.Sprintf("ResourceQuota %s/%s allows no more pods of it", namespace, quota.Name)
			}
		}
	}
	if !covered && namespace != metav1.NamespaceSystem && slices.Contains(c.limitedClasses, class) {
		return fmt.Sprintf("namespace %s has no ResourceQuota for it, which some clusters require: make one, or leave the class out of --limited-priority-classes", namespace)
	}
	return ""
}

// selectsClass says whether a quota is for pods of some priority classes, and for class
// among them (podMatchesScopeFunc in k8s.io/kubernetes/pkg/quota/v1/evaluator/core).
func selectsClass(quota *corev1.ResourceQuotaSpec, class string) bool {
	selects := slices.Contains(quota.Scopes, corev1.ResourceQuotaScopePriorityClass)
	if quota.ScopeSelector == nil {
		return selects
	}
	for i := range quota.ScopeSelector.MatchExpressions {
		requirement := &quota.ScopeSelector.MatchExpressions[i]
		if requirement.ScopeName != corev1.ResourceQuotaScopePriorityClass {
			continue
		}
		listed := slices.Contains(requirement.Values, class)
		switch requirement.Operator {
		case corev1.ScopeSelectorOpIn:
			selects = listed
		case corev1.ScopeSelectorOpNotIn:
			selects = !listed
		default:
			selects = requirement.Operator == corev1.ScopeSelectorOpExists
		}
		if !selects {
			return false
		}
	}
	return selects
}

// limitsOf returns the limits of containers in a namespace.
func (c *cluster) limitsOf(namespace string) []corev1.LimitRangeItem {
	var items []corev1.LimitRangeItem
	for _, limitRange := range in[*corev1.LimitRange](c.limitRanges, namespace) {
		for _, item := range limitRange.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				items = append(items, item)
			}
		}
	}
	return items
}

// in returns the objects in a namespace.
func in[T any](informer cache.SharedIndexInformer, namespace string) []T {
	// Informers of namespaced objects have this index.
	items, _ := informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	objects := make([]T, 0, len(items))
	for _, item := range items {
		if object, ok := item.(T); ok {
			objects = append(objects, object)
		}
	}
	return objects
}

// get returns what is known under a key.
func get[T any](informer cache.SharedIndexInformer, key string) (object T, known bool) {
	// The store is a map: it has nothing to fail at.
	item, exists, _ := informer.GetStore().GetByKey(key)
	if !exists {
		return object, false
	}
	object, known = item.(T)
	return object, known
}

// trim keeps of an object what the cluster is asked for.
func trim(obj any) (any, error) {
	switch object := obj.(type) {
	case *metav1.PartialObjectMetadata:
		return &metav1.PartialObjectMetadata{ObjectMeta: described(&object.ObjectMeta)}, nil
	case *appsv1.DaemonSet:
		ds := &appsv1.DaemonSet{ObjectMeta: described(&object.ObjectMeta)}
		ds.Spec.Template.Spec.PriorityClassName = object.Spec.Template.Spec.PriorityClassName
		return ds, nil
	case *corev1.ResourceQuota:
		return &corev1.ResourceQuota{ObjectMeta: identity(&object.ObjectMeta), Spec: object.Spec, Status: object.Status}, nil
	case *corev1.LimitRange:
		return &corev1.LimitRange{ObjectMeta: identity(&object.ObjectMeta), Spec: object.Spec}, nil
	case *corev1.Node:
		node := &corev1.Node{ObjectMeta: identity(&object.ObjectMeta)}
		for _, name := range daemonset.SizedResources() {
			if amount, ok := object.Status.Allocatable[name]; ok {
				if node.Status.Allocatable == nil {
					node.Status.Allocatable = make(corev1.ResourceList)
				}
				node.Status.Allocatable[name] = amount
			}
		}
		return node, nil
	case *schedulingv1.PriorityClass:
		return &schedulingv1.PriorityClass{ObjectMeta: identity(&object.ObjectMeta), GlobalDefault: object.GlobalDefault}, nil
	default:
		return obj, nil
	}
}

// described keeps labels, and the annotations that decisions depend on.
func described(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	kept := identity(meta)
	kept.Labels = meta.Labels
	for key, value := range meta.Annotations {
		if strings.HasPrefix(key, daemonset.AnnotationPrefix) || key == whitelistAnnotation {
			metav1.SetMetaDataAnnotation(&kept, key, value)
		}
	}
	return kept
}

// identity keeps what informers need of an object, and its UID.
func identity(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion}
}
