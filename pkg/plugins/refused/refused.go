// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package refused remembers the pods that a plugin has refused, so that the plugin can
// have just those tried again where a queueing hint would not do.
package refused

import (
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Pods are the pods that a plugin has refused in their latest scheduling attempt, each
// with the reason R. A pod is forgotten when it is bound or deleted. A plugin removes it
// when a new attempt begins.
type Pods[R any] struct {
	mu   sync.Mutex
	pods map[types.UID]refusal[R]
}

type refusal[R any] struct {
	pod    *corev1.Pod
	reason R
}

// New returns an empty Pods that follows the pods of informer.
func New[R any](informer cache.SharedIndexInformer) (*Pods[R], error) {
	p := &Pods[R]{pods: make(map[types.UID]refusal[R])}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(oldObj, newObj any) {
			// A pod that is deleted and created again may come as an update.
			before, after := oldObj.(*corev1.Pod), newObj.(*corev1.Pod)
			if after.Spec.NodeName != "" || after.UID != before.UID {
				p.Remove(before)
			}
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				p.Remove(pod)
			}
		},
	})
	return p, err
}

// Add remembers that pod is refused. Call it before the final check, or an event
// between the check and Add is lost.
func (p *Pods[R]) Add(pod *corev1.Pod, reason R) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods[pod.UID] = refusal[R]{pod, reason}
}

// Remove forgets pod.
func (p *Pods[R]) Remove(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pods, pod.UID)
}

// Get returns why pod was refused.
func (p *Pods[R]) Get(pod *corev1.Pod) (reason R, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.pods[pod.UID]
	return known.reason, ok
}

// Len returns the number of pods.
func (p *Pods[R]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pods)
}

// Take returns the pods that wanted picks, by namespace/name, and forgets them: those
// that are refused again will be added again.
func (p *Pods[R]) Take(wanted func(pod *corev1.Pod, reason R) bool) map[string]*corev1.Pod {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.pods))
	p.mu.Unlock()
	taken := make(map[string]*corev1.Pod)
	// Filters add pods meanwhile, and must not wait.
	for _, refusal := range all {
		if wanted(refusal.pod, refusal.reason) {
			taken[klog.KObj(refusal.pod).String()] = refusal.pod
			p.Remove(refusal.pod)
		}
	}
	return taken
}
