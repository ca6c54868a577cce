// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dryrun

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
)

// Eviction is the pods that a scheduler evicts, or why it evicts none.
type Eviction struct {
	Victims []*corev1.Pod
	// OverBudget is how many of them a PodDisruptionBudget would have spared.
	OverBudget int
	// WhyNot is why no pod is evicted; empty if one is, or if the pod fits.
	WhyNot string
}

// Evict says which pods the scheduler would evict from node, or why none; nothing if pod fits. budgets are all
// PodDisruptionBudgets, and gone are pods on node that are taken to have left.
func (s *Scheduler) Evict(ctx context.Context, pod *corev1.Pod, node fwk.NodeInfo, budgets []*policyv1.PodDisruptionBudget, gone []*corev1.Pod) (e Eviction, err error) {
	a, err := s.Try(ctx, pod, node, gone...)
	if err != nil || a.Fits() {
		return e, err
	}
	ctx = quiet(ctx)
	whyNot := "to evict pods does not help"
	if !a.Final() {
		eligible, why := s.preempt.PodEligibleToPreemptOthers(ctx, pod, nil)
		if whyNot = why; eligible {
			candidates, statuses, err := s.preempt.DryRunPreemption(ctx, a.state, pod, []fwk.NodeInfo{a.Node}, budgets, 0, 1)
			if err != nil {
				return e, fmt.Errorf("trying preemption for pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
			whyNot = statuses.Get(a.Node.Node().Name).Message()
			if len(candidates) > 0 {
				chosen := candidates[0].Victims()
				e.Victims, e.OverBudget = chosen.Pods, int(chosen.NumPDBViolations)
			}
		}
	}
	if len(e.Victims) == 0 {
		e.WhyNot = explainNoVictims(whyNot, corev1helper.PodPriority(pod))
	}
	return e, nil
}

// StockNoVictims is in messages of kube-scheduler's preemption, which everynode-scheduler does not use
// (SelectVictimsOnNode in k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption).
const StockNoVictims = "No preemption victims found"

// explainNoVictims says in other words why a scheduler evicts no pod.
func explainNoVictims(why string, priority int32) string {
	switch {
	case strings.Contains(why, StockNoVictims):
		return fmt.Sprintf("no pod on the node has a lower priority than %d", priority)
	case strings.Contains(why, everynodepreemption.ErrReasonNoVictims):
		return fmt.Sprintf("none of the pods of priority %d and lower may make room, or it would not be enough", priority)
	case strings.Contains(why, "preemptionPolicy=Never"):
		return "the pod's preemptionPolicy is Never"
	default:
		return fmt.Sprintf("without all pods of lower priority than %d it would not fit either (%s)", priority, why)
	}
}
