// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package tracker

import (
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Waiting is the pods that a plugin has refused and will have tried again by
// itself, where a queueing hint would not do.
type Waiting struct {
	mu   sync.Mutex
	pods map[types.UID]*corev1.Pod
}

// NewWaiting returns an empty Waiting, which forgets pods that are deleted.
func (t *Tracker) NewWaiting() *Waiting {
	w := &Waiting{pods: make(map[types.UID]*corev1.Pod)}
	t.HandlePods(cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if pod, ok := obj.(*corev1.Pod); ok {
			w.Remove(pod)
		}
	}})
	return w
}

// Add has pod wait. Add it before you look whether it has to: what it waits for
// may come in between.
func (w *Waiting) Add(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.UID] = pod
}

// Remove has pod wait no more.
func (w *Waiting) Remove(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, pod.UID)
}

// Empty says whether no pod waits.
func (w *Waiting) Empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pods) == 0
}

// Take returns the pods for which wants is true, by namespace/name, and has them
// wait no more: those that are refused again will be added again.
func (w *Waiting) Take(wants func(*corev1.Pod) bool) map[string]*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := make(map[string]*corev1.Pod)
	maps.DeleteFunc(w.pods, func(_ types.UID, pod *corev1.Pod) bool {
		if !wants(pod) {
			return false
		}
		taken[klog.KObj(pod).String()] = pod
		return true
	})
	return taken
}
