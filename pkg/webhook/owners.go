// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"everynode.dev/everynode/pkg/daemonset"
)

// annotationPrefix is what all of our annotations start with.
const annotationPrefix = "everynode.dev/"

// patience is how long a pod waits for its DaemonSet to be known. The controller
// creates pods milliseconds after their DaemonSet, when we may not have heard of
// it. It is short beside the timeout of the webhook configuration (2 s).
const patience = 500 * time.Millisecond

// owners knows the DaemonSets of the cluster, by their metadata alone.
type owners struct {
	client   metadata.Interface
	factory  metadatainformer.SharedInformerFactory
	informer cache.SharedIndexInformer
	lister   cache.GenericLister
}

func newOwners(client metadata.Interface) *owners {
	factory := metadatainformer.NewSharedInformerFactoryWithOptions(client, 0, metadatainformer.WithTransform(trim))
	resource := factory.ForResource(daemonSets)
	// The informer has to be made before the factory starts.
	return &owners{client: client, factory: factory, informer: resource.Informer(), lister: resource.Lister()}
}

var daemonSets = appsv1.SchemeGroupVersion.WithResource("daemonsets")

// trim keeps of a DaemonSet what owners are asked for.
func trim(obj any) (any, error) {
	if meta, ok := obj.(*metav1.PartialObjectMetadata); ok {
		meta.Labels, meta.ManagedFields, meta.OwnerReferences, meta.Finalizers = nil, nil, nil, nil
		maps.DeleteFunc(meta.Annotations, func(key, _ string) bool { return !strings.HasPrefix(key, annotationPrefix) })
	}
	return obj, nil
}

// run follows the cluster until ctx ends.
func (o *owners) run(ctx context.Context) {
	o.factory.Start(ctx.Done())
	defer o.factory.Shutdown()
	// Informers are silent about an API server that they cannot reach.
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if o.informer.HasSynced() {
			return
		}
		if _, err := o.client.Resource(daemonSets).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			klog.FromContext(ctx).Error(err, "Waiting for the DaemonSets of the cluster: check --kubeconfig and the ClusterRole everynode-webhook")
		}
	}, 5*time.Second)
}

// healthy returns an error until the DaemonSets are known.
func (o *owners) healthy() error {
	if !o.informer.HasSynced() {
		return errors.New("the DaemonSets of the cluster are not known yet")
	}
	return nil
}

// annotations returns our annotations of the DaemonSet that controls pod. It
// fails if pod, which is created in that namespace, has no such owner: an owner
// reference is easily written, so the DaemonSet has to exist with its UID.
func (o *owners) annotations(ctx context.Context, namespace string, pod *corev1.Pod) (map[string]string, error) {
	reference := daemonset.OwnerOf(pod)
	if reference == nil {
		return nil, errors.New("the pod is not controlled by a DaemonSet")
	}
	var owner metav1.Object
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		obj, err := o.lister.ByNamespace(namespace).Get(reference.Name)
		if apierrors.IsNotFound(err) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		known, ok := obj.(metav1.Object)
		if !ok || known.GetUID() != reference.UID {
			return false, nil
		}
		owner = known
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("no DaemonSet %s/%s with UID %s is known", namespace, reference.Name, reference.UID)
	}
	return owner.GetAnnotations(), nil
}
