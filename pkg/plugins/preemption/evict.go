// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/metrics"
)

const (
	// refusalPeriod is how long a pod is left alone after its eviction was refused.
	refusalPeriod = 10 * time.Second
	// jobRefusalPeriod is the same if its Job would fail, which seldom changes.
	jobRefusalPeriod = 10 * time.Minute
	// requestTimeout bounds the requests for one victim. The preemptor is not scheduled
	// before they end.
	requestTimeout = time.Minute
)

var errMayNotPreempt = errors.New("the pod may no longer evict pods of its own priority: it or its DaemonSet is gone, or the DaemonSet does not allow it")

// plan is the part of one preemption that evicts pods of equal priority.
type plan struct {
	// equal are these pods, and victims is the number of all victims.
	equal   []*corev1.Pod
	victims int

	// once guards err, which says why no victim may be evicted.
	once sync.Once
	err  error

	// paced holds the controllers of the pods that are recorded with the pacer, by the
	// UID of the pod.
	paced map[types.UID]types.UID
	// evicted holds the UIDs of the pods that have been evicted.
	mu      sync.Mutex
	evicted sets.Set[types.UID]
}

func newPlan() *plan {
	return &plan{paced: make(map[types.UID]types.UID), evicted: sets.New[types.UID]()}
}

// plans holds the plan of each preemptor until it is bound, deleted or tries again.
type plans struct {
	mu    sync.Mutex
	plans map[types.UID]*plan
}

func newPlans() *plans {
	return &plans{plans: make(map[types.UID]*plan)}
}

func (p *plans) set(preemptor types.UID, plan *plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans[preemptor] = plan
}

// of returns the plan of preemptor, or nil.
func (p *plans) of(preemptor types.UID) *plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plans[preemptor]
}

// take returns the plan of preemptor, or nil, and removes it.
func (p *plans) take(preemptor types.UID) *plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan := p.plans[preemptor]
	delete(p.plans, preemptor)
	return plan
}

// begin records that preemptor evicts pods according to plan.
func (pl *Preemption) begin(preemptor *corev1.Pod, plan *plan) {
	if pl.attempt.isDryRun() || len(plan.equal) == 0 {
		return
	}
	pl.plans.set(preemptor.UID, plan)
	for victim, controller := range plan.paced {
		pl.pacer.begin(controller, victim, pl.args.EvictionTimeout.Duration)
	}
}

// abandon takes the records of the evictions of plan back that have not happened.
func (s *shared) abandon(plan *plan) {
	if plan == nil {
		return
	}
	plan.mu.Lock()
	defer plan.mu.Unlock()
	for victim, controller := range plan.paced {
		if !plan.evicted.Has(victim) {
			s.pacer.cancel(controller, victim)
		}
	}
}

// finish records that victim has been evicted, so that its timeout begins now. If it
// left the scheduler's memory only, its controller has lost no pod.
func (pl *Preemption) finish(plan *plan, victim *corev1.Pod, inMemory bool) {
	controller, paced := plan.paced[victim.UID]
	switch {
	case !paced:
	case inMemory:
		pl.pacer.cancel(controller, victim.UID)
	default:
		plan.mu.Lock()
		defer plan.mu.Unlock()
		plan.evicted.Insert(victim.UID)
		pl.pacer.begin(controller, victim.UID, pl.args.EvictionTimeout.Duration)
	}
}

// preemptFunc evicts one pod. It returns true if no event will tell the end of the
// pod: it had not started and left the scheduler's memory only, or it is gone already.
type preemptFunc = func(context.Context, preemption.Candidate, preemption.ExecutorPreemptor, *corev1.Pod, string) (bool, error)

// preemptPod evicts pods of lower priority by upstream's function, which deletes them,
// and all others through the eviction API. Only the API server knows the current
// state of a PodDisruptionBudget.
func (pl *Preemption) preemptPod(upstream preemptFunc) preemptFunc {
	return func(ctx context.Context, candidate preemption.Candidate, preemptor preemption.ExecutorPreemptor, victim *corev1.Pod, pluginName string) (inMemory bool, err error) {
		plan := pl.plans.of(preemptor.UID())
		if plan != nil {
			plan.once.Do(func() { plan.err = pl.check(ctx, plan, preemptor) })
			err = plan.err
		}
		switch isLower := corev1helper.PodPriority(victim) < preemptor.Priority(); {
		case err != nil:
		case isLower || victim.Spec.SchedulingGroup != nil:
			// The priority of a pod group, which upstream compares, may be another one than
			// that of its pods. Such pods are never chosen for equal priority.
			inMemory, err = upstream(ctx, candidate, preemptor, victim, pluginName)
		case plan == nil:
			err = errMayNotPreempt
		default:
			inMemory, err = pl.evict(ctx, plan, candidate.Name(), preemptor, victim)
		}
		if err != nil {
			pl.abandon(plan)
		}
		return inMemory || pl.hasGone(victim), err
	}
}

// hasGone says whether the scheduler knows that a victim is gone. Upstream waits for
// its deletion event, which may have come before the queue listened for it.
func (pl *Preemption) hasGone(pod *corev1.Pod) bool {
	current, err := pl.current(pod)
	return err == nil && current == nil
}

// current returns the state of pod that the scheduler knows, or nil if it is gone.
func (pl *Preemption) current(pod *corev1.Pod) (*corev1.Pod, error) {
	current, err := pl.handle.SharedInformerFactory().Core().V1().Pods().Lister().Pods(pod.Namespace).Get(pod.Name)
	if apierrors.IsNotFound(err) || err == nil && current.UID != pod.UID {
		return nil, nil
	}
	return current, err
}

// mayStillPreempt returns the DaemonSet of preemptor if it may evict pods of its own
// priority at this moment, or nil.
func (pl *Preemption) mayStillPreempt(preemptor preemption.ExecutorPreemptor) *daemonset.DaemonSet {
	for _, pod := range preemptor.Pods() {
		if current, err := pl.current(pod); err == nil && current != nil && current.DeletionTimestamp == nil {
			return pl.mayPreemptEqual(current)
		}
	}
	return nil
}

// check returns an error if one of the pods of plan may not be evicted. It is asked
// before the first victim is evicted: none shall go in vain.
func (pl *Preemption) check(ctx context.Context, plan *plan, preemptor preemption.ExecutorPreemptor) error {
	if pl.mayStillPreempt(preemptor) == nil {
		return errMayNotPreempt
	}
	ofController := make(map[types.UID]int)
	for _, victim := range plan.equal {
		ofController[controllerUID(victim)]++
	}
	for _, victim := range plan.equal {
		if err := pl.checkVictim(ctx, plan, preemptor, victim, ofController[controllerUID(victim)]); err != nil {
			return err
		}
	}
	return nil
}

// checkVictim returns an error if victim, one of siblings of its controller in plan, may
// not be evicted.
func (pl *Preemption) checkVictim(ctx context.Context, plan *plan, preemptor preemption.ExecutorPreemptor, victim *corev1.Pod, siblings int) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if current, err := pl.current(victim); err == nil && current != nil && daemonset.IsProtected(current) {
		return pl.refuse(preemptor, victim, refusalPeriod, errors.New("an annotation of the pod forbids it"))
	}
	if err := pl.checkJob(ctx, victim, siblings); err != nil {
		return pl.refuse(preemptor, victim, jobRefusalPeriod, err)
	}
	if plan.victims == 1 {
		return nil // the eviction itself tells
	}
	if err := pl.requestEviction(ctx, victim, metav1.DryRunAll); err != nil && !isGone(err) {
		return pl.refuse(preemptor, victim, refusalPeriod, err)
	}
	return nil
}

// refuse leaves victim alone for period, and returns err with what was tried. Without the
// period the caller would try again at once, without end.
func (pl *Preemption) refuse(preemptor preemption.ExecutorPreemptor, victim *corev1.Pod, period time.Duration, err error) error {
	pl.refused.Set(victim.UID, pl.clock.Now().Add(period), period)
	return fmt.Errorf("evicting pod %s for pod %s: %w", klog.KObj(victim), klog.KObj(preemptor), err)
}

// requestEviction asks the API server to evict pod.
func (pl *Preemption) requestEviction(ctx context.Context, pod *corev1.Pod, dryRun ...string) error {
	return pl.handle.ClientSet().CoreV1().Pods(pod.Namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID)), DryRun: dryRun},
	})
}

// isGone says whether an eviction failed because the pod, or the one with that UID, does
// not exist.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

// evict evicts a pod of the same priority as preemptor. A pod that has not started
// leaves the scheduler's memory only, and evict returns true.
func (pl *Preemption) evict(ctx context.Context, plan *plan, node string, preemptor preemption.ExecutorPreemptor, victim *corev1.Pod) (inMemory bool, err error) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "preemptor", klog.KObj(preemptor), "victim", klog.KObj(victim), "node", node)
	// The right may have been lost since the check: requests for other victims take time.
	ds := pl.mayStillPreempt(preemptor)
	if ds == nil {
		return false, errMayNotPreempt
	}
	if inMemory = pl.preemptInMemory(victim); inMemory {
		pl.finish(plan, victim, true)
	} else {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		err := pl.requestEviction(ctx, victim)
		if err != nil && !isGone(err) {
			return false, pl.refuse(preemptor, victim, refusalPeriod, err)
		}
		pl.finish(plan, victim, false)
		if err != nil {
			logger.V(2).Info("The pod is gone already")
			return false, nil
		}
		metrics.EqualPriorityEvictions.WithLabelValues(ds.Namespace, ds.Name).Inc()
	}
	logger.V(2).Info("Evicted a pod for a DaemonSet pod of the same priority", "inMemory", inMemory)
	pl.handle.EventRecorder().WithLogger(logger).Eventf(victim, nil, corev1.EventTypeNormal, "Preempted", "Preempting",
		"Made room for pod %s of DaemonSet %s, which has the same priority and can run on node %s only", klog.KObj(preemptor), ds, node)
	return inMemory, nil
}

// preemptInMemory says whether it could stop a pod that is not yet bound.
func (pl *Preemption) preemptInMemory(victim *corev1.Pod) bool {
	if waiting := pl.handle.GetWaitingPod(victim.UID); waiting != nil {
		return waiting.Preempt(Name, "preempted")
	}
	if binding := pl.handle.GetPodInPreBind(victim.UID); binding != nil {
		return binding.CancelPod("preempted by " + Name)
	}
	return false
}
