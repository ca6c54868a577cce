// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package holds

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"everynode.dev/everynode/pkg/daemonset"
)

// watch registers for all that lets a pod be expected.
func (h *Holds) watch(factory informers.SharedInformerFactory) error {
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		factory.Apps().V1().DaemonSets().Informer(): cache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(obj any, _ bool) {
				h.renew(pair{daemonSet: obj.(*appsv1.DaemonSet).UID}, 0)
			},
			UpdateFunc: h.daemonSetUpdated,
			DeleteFunc: func(obj any) {
				if ds, ok := final(obj).(*appsv1.DaemonSet); ok {
					h.forget(pair{daemonSet: ds.UID})
				}
			},
		},
		factory.Core().V1().Nodes().Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc: func(obj any) {
				node := obj.(*corev1.Node)
				h.followStartup(node)
				h.renew(pair{node: node.Name}, 0)
			},
			UpdateFunc: h.nodeUpdated,
			DeleteFunc: func(obj any) {
				if node, ok := final(obj).(*corev1.Node); ok {
					h.forget(pair{node: node.Name})
				}
			},
		},
		factory.Core().V1().Pods().Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc:    h.podAdded,
			UpdateFunc: h.podUpdated,
			DeleteFunc: func(obj any) {
				if pod, ok := final(obj).(*corev1.Pod); ok {
					h.podGoes(pod)
				}
			},
		},
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	return nil
}

// final returns the object of a deletion, of which the informer may have missed the end.
func final(obj any) any {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		return unknown.Obj
	}
	return obj
}

// daemonSetUpdated: a DaemonSet was changed, the controller has seen the change, or its
// update has reached one more node.
func (h *Holds) daemonSetUpdated(oldObj, newObj any) {
	before, after := oldObj.(*appsv1.DaemonSet), newObj.(*appsv1.DaemonSet)
	seen := before.Status.ObservedGeneration < after.Generation && after.Status.ObservedGeneration >= after.Generation
	moved := after.Status.UpdatedNumberScheduled > before.Status.UpdatedNumberScheduled
	if seen || moved || !daemonset.CompileAlike(before, after) {
		h.renew(pair{daemonSet: after.UID}, minReady(after))
	}
}

// nodeUpdated: a node has opened to a DaemonSet.
func (h *Holds) nodeUpdated(oldObj, newObj any) {
	before, after := oldObj.(*corev1.Node), newObj.(*corev1.Node)
	h.followStartup(after)
	if maps.Equal(before.Labels, after.Labels) && equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) || !h.isRunning() {
		return
	}
	for _, ds := range h.daemonSets.Set().All() {
		if runs, _ := ds.ShouldRun(after); !runs {
			continue
		}
		if ran, _ := ds.ShouldRun(before); !ran {
			h.renew(pair{ds.UID, after.Name}, 0)
		}
	}
}

// podAdded: where a hold has lapsed, the first pod shows that pods are created again.
func (h *Holds) podAdded(obj any) {
	if p, ok := pairOf(obj.(*corev1.Pod)); ok && h.hasLapsed(p) {
		h.renew(pair{daemonSet: p.daemonSet}, 0)
	}
}

// podUpdated: a pod begins to terminate, or has been adopted or orphaned.
func (h *Holds) podUpdated(oldObj, newObj any) {
	before, after := oldObj.(*corev1.Pod), newObj.(*corev1.Pod)
	p, ok := pairOf(after)
	if previous, had := pairOf(before); had && (!ok || previous != p) {
		h.renew(previous, 0)
	}
	if ok && before.DeletionTimestamp == nil && after.DeletionTimestamp != nil {
		h.renew(p, 0)
	}
}

func (h *Holds) podGoes(pod *corev1.Pod) {
	if p, ok := pairOf(pod); ok {
		h.renew(p, 0)
	}
}

// pairOf returns the pair that pod belongs to.
func pairOf(pod *corev1.Pod) (pair, bool) {
	owner := daemonset.OwnerOf(pod)
	if owner == nil {
		return pair{}, false
	}
	node, ok := daemonset.PinnedNode(pod)
	return pair{owner.UID, node}, ok
}

func (h *Holds) isRunning() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running
}

// forget drops what is known of a DaemonSet or of a node that does not exist any more.
func (h *Holds) forget(p pair) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.deadlines, p)
	delete(h.startup, p.node)
	h.unlapse(p)
}

// followStartup follows the start-up taints of Ready nodes.
func (h *Holds) followStartup(node *corev1.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Effect != corev1.TaintEffectPreferNoSchedule && h.Startup.Has(taint.Key)
	})
	if i < 0 || !isReady(node) {
		delete(h.startup, node.Name)
		return
	}
	if known := h.startup[node.Name]; known != nil {
		known.taint = node.Spec.Taints[i].Key
		return
	}
	h.startup[node.Name] = &startup{since: h.clock.Now(), taint: node.Spec.Taints[i].Key}
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
}
