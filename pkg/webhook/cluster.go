// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
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

// cluster knows what requests are answered from, and no more of it than they need:
// clusters are large, and no request waits for the API server.
type cluster struct {
	metadata   metadata.Interface
	ofMetadata metadatainformer.SharedInformerFactory
	typed      informers.SharedInformerFactory
	// daemonSets have their UID, labels and annotations of ours; namespaces have their
	// labels, and the tolerations that they are limited to; nodes have what can be
	// requested of them; of priorityClasses it is known whether one is the default.
	daemonSets, namespaces, nodes, priorityClasses cache.SharedIndexInformer
}

func newCluster(meta metadata.Interface, client kubernetes.Interface) *cluster {
	c := &cluster{
		metadata:   meta,
		ofMetadata: metadatainformer.NewSharedInformerFactoryWithOptions(meta, 0, metadatainformer.WithTransform(trim)),
		typed:      informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim)),
	}
	c.daemonSets = c.ofMetadata.ForResource(daemonSetsResource).Informer()
	c.namespaces = c.ofMetadata.ForResource(namespacesResource).Informer()
	c.nodes = c.typed.Core().V1().Nodes().Informer()
	c.priorityClasses = c.typed.Scheduling().V1().PriorityClasses().Informer()
	return c
}

var (
	daemonSetsResource      = appsv1.SchemeGroupVersion.WithResource("daemonsets")
	namespacesResource      = corev1.SchemeGroupVersion.WithResource("namespaces")
	nodesResource           = corev1.SchemeGroupVersion.WithResource("nodes")
	priorityClassesResource = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")
)

// unknown returns the resources that have not been read yet.
func (c *cluster) unknown() []schema.GroupVersionResource {
	var unknown []schema.GroupVersionResource
	for _, resource := range []struct {
		schema.GroupVersionResource
		informer cache.SharedIndexInformer
	}{{daemonSetsResource, c.daemonSets}, {namespacesResource, c.namespaces}, {nodesResource, c.nodes}, {priorityClassesResource, c.priorityClasses}} {
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

// owner returns the DaemonSet that controls pod, and waits for it until ctx ends. It
// fails if pod, which is created in that namespace, has none: an owner reference is
// easily written, so the DaemonSet has to exist with its UID.
func (c *cluster) owner(ctx context.Context, namespace string, pod *corev1.Pod) (*metav1.PartialObjectMetadata, error) {
	reference := daemonset.OwnerOf(pod)
	if reference == nil {
		return nil, errors.New("the pod is not controlled by a DaemonSet")
	}
	var owner *metav1.PartialObjectMetadata
	if !becomes(ctx, func() (known bool) {
		owner, known = get[*metav1.PartialObjectMetadata](c.daemonSets, namespace+"/"+reference.Name)
		return known && owner.UID == reference.UID
	}) {
		return nil, fmt.Errorf("no DaemonSet %s/%s with UID %s is known", namespace, reference.Name, reference.UID)
	}
	return owner, nil
}

// becomes waits until something is known, or ctx ends, and says whether it is.
func becomes(ctx context.Context, known func() bool) bool {
	// To wait takes timers, and nearly everything is known at once.
	return known() || wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) { return known(), nil }) == nil
}

// namespace returns what is known of a namespace: nothing if it is new.
func (c *cluster) namespace(name string) *metav1.PartialObjectMetadata {
	if namespace, known := get[*metav1.PartialObjectMetadata](c.namespaces, name); known {
		return namespace
	}
	return &metav1.PartialObjectMetadata{}
}

// allocatable returns what can be requested of a node, and waits for it until ctx
// ends. Nil means that it is not known then.
func (c *cluster) allocatable(ctx context.Context, name string) corev1.ResourceList {
	var list corev1.ResourceList
	becomes(ctx, func() bool {
		if node, known := get[*corev1.Node](c.nodes, name); known {
			list = node.Status.Allocatable
		}
		return list != nil
	})
	return list
}

// priorityClass says whether a PriorityClass exists, and whether pods get it that
// name none.
func (c *cluster) priorityClass(name string) (exists, isDefault bool) {
	class, known := get[*schedulingv1.PriorityClass](c.priorityClasses, name)
	return known, known && class.GlobalDefault
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
		meta := identity(&object.ObjectMeta)
		meta.Labels = object.Labels
		for key, value := range object.Annotations {
			if strings.HasPrefix(key, daemonset.AnnotationPrefix) || key == whitelistAnnotation {
				metav1.SetMetaDataAnnotation(&meta, key, value)
			}
		}
		return &metav1.PartialObjectMetadata{ObjectMeta: meta}, nil
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

// identity keeps what informers need of an object, and its UID.
func identity(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion}
}
