// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonsets

import (
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"everynode.dev/everynode/pkg/daemonset"
)

// newestPods remembers the newest pod of each DaemonSet and revision, as it was when it
// was seen first: later changes of a pod, a resize for one, concern this pod alone.
type newestPods struct {
	mu      sync.Mutex
	byOwner map[owner]map[revision]*corev1.Pod
}

// owner is a DaemonSet that pods name as their controller. A pod may name any UID, so an
// owner is known by namespace and UID: the pods of one namespace do not count in another.
type owner struct {
	namespace string
	uid       types.UID
}

// revision is what pods of one template have in common.
type revision struct{ hash, generation string }

// keptRevisions is how many revisions are remembered: an update has two under way.
const keptRevisions = 4

// add remembers pod if it is the newest one of its revision, and says whether it is.
func (n *newestPods) add(uid types.UID, pod *corev1.Pod) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byOwner == nil {
		n.byOwner = make(map[owner]map[revision]*corev1.Pod)
	}
	of := owner{pod.Namespace, uid}
	pods := n.byOwner[of]
	if pods == nil {
		pods = make(map[revision]*corev1.Pod)
		n.byOwner[of] = pods
	}
	key := revision{pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey], pod.Labels[daemonset.TemplateGenerationLabel]}
	if known := pods[key]; known != nil && pod.CreationTimestamp.Before(&known.CreationTimestamp) {
		return false
	}
	pods[key] = pod
	if len(pods) > keptRevisions {
		oldest := key
		for other, known := range pods {
			if known.CreationTimestamp.Before(&pods[oldest].CreationTimestamp) {
				oldest = other
			}
		}
		delete(pods, oldest)
	}
	return true
}

// of returns the newest pod of ds's current template, or nil if none was seen.
func (n *newestPods) of(ds *appsv1.DaemonSet, revision string) *corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	var newest *corev1.Pod
	for _, pod := range n.byOwner[owner{ds.Namespace, ds.UID}] {
		if daemonset.IsCurrent(ds, revision, pod) &&
			(newest == nil || newest.CreationTimestamp.Before(&pod.CreationTimestamp)) {
			newest = pod
		}
	}
	return newest
}

func (n *newestPods) forget(namespace string, uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byOwner, owner{namespace, uid})
}

// byController indexes objects by the UID of their controller.
const byController = "everynode.dev/controller"

// revisionInformer returns the informer of the ControllerRevisions of DaemonSets,
// without the templates in them.
func revisionInformer(factory informers.SharedInformerFactory) cache.SharedIndexInformer {
	return factory.InformerFor(&appsv1.ControllerRevision{}, func(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		informer := appsinformers.NewFilteredControllerRevisionInformer(client, metav1.NamespaceAll, resync, cache.Indexers{
			byController: func(obj any) ([]string, error) {
				if owner := metav1.GetControllerOfNoCopy(obj.(*appsv1.ControllerRevision)); owner != nil {
					return []string{string(owner.UID)}, nil
				}
				return nil, nil
			},
		}, func(options *metav1.ListOptions) {
			// Those of StatefulSets have another label.
			options.LabelSelector = appsv1.DefaultDaemonSetUniqueLabelKey
		})
		// An informer that has not been started takes any transform.
		_ = informer.SetTransform(func(obj any) (any, error) {
			if revision, ok := obj.(*appsv1.ControllerRevision); ok {
				revision.Data.Raw, revision.ManagedFields = nil, nil
			}
			return obj, nil
		})
		return informer
	})
}

// revision returns the label controller-revision-hash of ds's current pods. The
// controller gives the current revision the highest number
// (constructHistory in k8s.io/kubernetes/pkg/controller/daemon/update.go).
func (d *DaemonSets) revision(ds *appsv1.DaemonSet) string {
	revisions, err := d.revisions.ByIndex(byController, string(ds.UID))
	if err != nil {
		return ""
	}
	var current *appsv1.ControllerRevision
	for _, obj := range revisions {
		if revision := obj.(*appsv1.ControllerRevision); current == nil || revision.Revision > current.Revision {
			current = revision
		}
	}
	if current == nil {
		return ""
	}
	return current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
}
