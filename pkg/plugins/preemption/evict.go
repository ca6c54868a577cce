// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/metrics"
)

// preemptFunc evicts one pod. It returns true if nobody will hear of its end any more:
// it had not started, and left the scheduler's memory only, or it had gone before.
type preemptFunc = func(context.Context, preemption.Candidate, preemption.ExecutorPreemptor, *corev1.Pod, string) (bool, error)

// preemptPod evicts pods of lower priority by upstream's function, which deletes
// them, and the others through the API that guards PodDisruptionBudgets: the
// scheduler knows a budget as it was a moment ago, and no pod of equal priority may
// be evicted beyond it.
func (pl *Preemption) preemptPod(upstream preemptFunc) preemptFunc {
	return func(ctx context.Context, candidate preemption.Candidate, preemptor preemption.ExecutorPreemptor, victim *corev1.Pod, pluginName string) (bool, error) {
		var ds *daemonset.DaemonSet
		for _, pod := range preemptor.Pods() {
			ds = pl.privileged(pod)
		}
		hasStarted := pl.handle.GetWaitingPod(victim.UID) == nil && pl.handle.GetPodInPreBind(victim.UID) == nil
		if ds == nil || !hasStarted || corev1helper.PodPriority(victim) < preemptor.Priority() {
			silent, err := upstream(ctx, candidate, preemptor, victim, pluginName)
			return silent || pl.hasGone(victim), err
		}
		err := pl.evict(ctx, ds, candidate.Name(), preemptor, victim)
		return pl.hasGone(victim), err
	}
}

// hasGone says whether the scheduler knows that a victim is there no more. Upstream has the
// preemptor wait for its end, even where somebody else has deleted it meanwhile and the
// queue was told before it began to listen.
func (pl *Preemption) hasGone(pod *corev1.Pod) bool {
	known, err := pl.handle.SharedInformerFactory().Core().V1().Pods().Lister().Pods(pod.Namespace).Get(pod.Name)
	return apierrors.IsNotFound(err) || err == nil && known.UID != pod.UID
}

// refusalPeriod is how long a pod is left alone that could not be evicted.
const refusalPeriod = 10 * time.Second

func (pl *Preemption) evict(ctx context.Context, ds *daemonset.DaemonSet, node string, preemptor preemption.ExecutorPreemptor, victim *corev1.Pod) error {
	logger := klog.FromContext(ctx)
	err := pl.handle.ClientSet().CoreV1().Pods(victim.Namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: victim.Namespace, Name: victim.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		logger.V(2).Info("The pod has gone already", "preemptor", klog.KObj(preemptor), "victim", klog.KObj(victim), "node", node)
		return nil
	}
	if err != nil {
		// The caller tries again at once, which might be for ever.
		pl.refused.Set(victim.UID, true, refusalPeriod)
		time.AfterFunc(refusalPeriod, func() { pl.handle.Activate(logger, preemptor.Pods()) })
		return fmt.Errorf("evicting pod %s for pod %s: %w", klog.KObj(victim), klog.KObj(preemptor), err)
	}
	metrics.EqualPriorityEvictions.WithLabelValues(ds.Namespace, ds.Name).Inc()
	logger.V(2).Info("Evicted a pod for a DaemonSet pod of the same priority", "preemptor", klog.KObj(preemptor), "victim", klog.KObj(victim), "node", node)
	pl.handle.EventRecorder().WithLogger(logger).Eventf(victim, nil, corev1.EventTypeNormal, "Preempted", "Preempting",
		"Made room for pod %s of DaemonSet %s, which has the same priority and can run on node %s only", klog.KObj(preemptor), ds, node)
	return nil
}

// wakeOnBudget has pods tried again that were in need of a PodDisruptionBudget when
// it allows more disruptions than before.
func (pl *Preemption) wakeOnBudget(logger klog.Logger) error {
	wake := func() {
		if woken := pl.blocked.Take(func(*corev1.Pod, struct{}) bool { return true }); len(woken) > 0 {
			logger.V(4).Info("A PodDisruptionBudget allows more", "retriedPods", len(woken))
			pl.handle.Activate(logger, woken)
		}
	}
	_, err := pl.handle.SharedInformerFactory().Policy().V1().PodDisruptionBudgets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(oldObj, newObj any) {
			before, after := oldObj.(*policyv1.PodDisruptionBudget), newObj.(*policyv1.PodDisruptionBudget)
			if after.Status.DisruptionsAllowed > before.Status.DisruptionsAllowed || after.Generation != before.Generation {
				wake()
			}
		},
		DeleteFunc: func(any) { wake() },
	})
	return err
}
