// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/refused"
)

// schedulers makes one shared state for each scheduler in this process. A scheduler
// is known by its informer factory.
type schedulers struct {
	clusters *cluster.Pool
	clock    clock.WithDelayedExecution

	mu   sync.Mutex
	made map[informers.SharedInformerFactory]*shared
}

// shared is the state of all instances of the plugin in one scheduler. There is one
// instance for each profile.
type shared struct {
	clock   clock.WithDelayedExecution
	cluster *cluster.Cluster
	pacer   *pacer
	// evictionTimeout is the longest of the profiles'. All instances are made before the
	// first event.
	evictionTimeout time.Duration
	plans           *plans
	// blocked holds pods that a PodDisruptionBudget keeps from making room.
	blocked *refused.Pods[struct{}]
	// unready holds pods that wait for replicas to turn Ready.
	unready  *refused.Pods[[]*corev1.Pod]
	profiles *profiles
}

// profiles are the names of the scheduler's profiles. All instances are made before
// the first scheduling cycle.
type profiles struct {
	mu    sync.Mutex
	names sets.Set[string]
}

// has says whether a pod with that spec.schedulerName was placed by this scheduler.
func (p *profiles) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names.Has(cmp.Or(name, corev1.DefaultSchedulerName))
}

// of returns the shared state of the scheduler that handle belongs to.
func (s *schedulers) of(ctx context.Context, handle fwk.Handle, evictionTimeout time.Duration) (*shared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	factory := handle.SharedInformerFactory()
	state := s.made[factory]
	if state == nil {
		var err error
		if state, err = newShared(ctx, s.clusters, s.clock, handle); err != nil {
			return nil, err
		}
		if s.made == nil {
			s.made = make(map[informers.SharedInformerFactory]*shared)
		}
		s.made[factory] = state
	}
	state.evictionTimeout = max(state.evictionTimeout, evictionTimeout)
	if profile, ok := handle.(framework.Framework); ok {
		state.profiles.mu.Lock()
		defer state.profiles.mu.Unlock()
		state.profiles.names.Insert(cmp.Or(profile.ProfileName(), corev1.DefaultSchedulerName))
	}
	return state, nil
}

func newShared(ctx context.Context, clusters *cluster.Pool, clock clock.WithDelayedExecution, handle fwk.Handle) (*shared, error) {
	logger := klog.FromContext(ctx)
	known, err := clusters.Get(ctx, handle)
	if err != nil {
		return nil, err
	}
	pods := handle.SharedInformerFactory().Core().V1().Pods().Informer()
	if _, exists := pods.GetIndexer().GetIndexers()[terminatingIndex]; !exists {
		if err := pods.AddIndexers(cache.Indexers{terminatingIndex: indexTerminating}); err != nil {
			return nil, fmt.Errorf("indexing terminating pods: %w", err)
		}
	}
	s := &shared{
		clock:    clock,
		cluster:  known,
		pacer:    newPacer(clock, pods.GetIndexer(), func(pods map[string]*corev1.Pod) { handle.Activate(logger, pods) }),
		plans:    newPlans(),
		profiles: &profiles{names: sets.New[string]()},
	}
	if s.blocked, err = refused.New[struct{}](pods); err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	if s.unready, err = refused.New[[]*corev1.Pod](pods); err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	if _, err := pods.AddEventHandler(s.podHandler(logger, handle)); err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	budgets := handle.SharedInformerFactory().Policy().V1().PodDisruptionBudgets().Informer()
	if _, err := budgets.AddEventHandler(s.budgetHandler(logger, handle)); err != nil {
		return nil, fmt.Errorf("watching PodDisruptionBudgets: %w", err)
	}
	return s, nil
}

// podHandler follows evictions, replacements of evicted pods, replicas that turn Ready and late
// nominations, and forgets preemptors that are bound or deleted.
func (s *shared) podHandler(logger klog.Logger, activator fwk.PodActivator) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			pod, ok := obj.(*corev1.Pod)
			if !ok {
				return
			}
			s.see(pod)
			if daemonset.IsReady(pod) {
				s.pacer.ready(pod)
			}
		},
		UpdateFunc: func(oldObj, newObj any) {
			before, after := oldObj.(*corev1.Pod), newObj.(*corev1.Pod)
			if before.UID != after.UID {
				s.gone(before)
			}
			if _, was := evictedAt(before); !was || before.UID != after.UID {
				s.see(after)
			}
			if daemonset.IsReady(after) && (before.UID != after.UID || !daemonset.IsReady(before)) {
				s.pacer.ready(after)
				isAwaited := func(_ *corev1.Pod, unready []*corev1.Pod) bool {
					return slices.ContainsFunc(unready, func(pod *corev1.Pod) bool { return pod.UID == after.UID })
				}
				if woken := s.unready.Take(isAwaited); len(woken) > 0 {
					activator.Activate(logger, woken)
				}
			}
			if before.Spec.NodeName == "" && after.Spec.NodeName != "" {
				s.forget(after)
			}
			if s.isLate(before, after) {
				activator.Activate(logger, map[string]*corev1.Pod{klog.KObj(after).String(): after})
			}
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				s.gone(pod)
			}
		},
	}
}

// isLate says whether a DaemonSet pod has got a nomination that no attempt stands behind: its
// evictions failed, and the next attempt found no victims before the API server told of the
// nomination. That attempt could not take back what it did not see (syncStatus in
// k8s.io/kubernetes/pkg/scheduler/framework/api_calls/pod_status_patch.go). One more does: the
// node's room would be kept from pods of lower priority for good.
func (s *shared) isLate(before, after *corev1.Pod) bool {
	return before.Status.NominatedNodeName == "" && after.Status.NominatedNodeName != "" && after.Spec.NodeName == "" &&
		daemonset.OwnerOf(after) != nil && s.plans.of(after.UID) == nil
}

// see records that pod was evicted, if it was.
func (s *shared) see(pod *corev1.Pod) {
	if at, evicted := evictedAt(pod); evicted {
		s.pacer.see(pod, at, s.evictionTimeout)
	}
}

func (s *shared) gone(pod *corev1.Pod) {
	s.pacer.gone(pod)
	s.forget(pod)
}

func (s *shared) forget(preemptor *corev1.Pod) {
	s.pacer.forget(preemptor)
	s.blocked.Remove(preemptor)
	s.abandon(s.plans.take(preemptor.UID))
}

// budgetHandler tries pods again that need a PodDisruptionBudget when one allows more
// disruptions than before.
func (s *shared) budgetHandler(logger klog.Logger, activator fwk.PodActivator) cache.ResourceEventHandler {
	wake := func() {
		if woken := s.blocked.Take(func(*corev1.Pod, struct{}) bool { return true }); len(woken) > 0 {
			logger.V(4).Info("A PodDisruptionBudget allows more", "retriedPods", len(woken))
			activator.Activate(logger, woken)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(oldObj, newObj any) {
			before, after := oldObj.(*policyv1.PodDisruptionBudget), newObj.(*policyv1.PodDisruptionBudget)
			if after.Status.DisruptionsAllowed > before.Status.DisruptionsAllowed || after.Generation != before.Generation {
				wake()
			}
		},
		DeleteFunc: func(any) { wake() },
	}
}
