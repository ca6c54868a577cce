// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"everynode.dev/everynode/pkg/daemonset"
)

// quickly is how long a scheduler or a kubelet takes to look at a pod that is new to it.
const quickly = 10 * time.Second

// havePods says how far the DaemonSet's pods on the node have come. There are several
// while an update surges, and while an old one ends.
func (i *inquiry) havePods(ctx context.Context, pods []*corev1.Pod) error {
	live := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
	if len(live) == 0 {
		i.terminating(pods[0])
		return nil
	}
	// The latest pod that is not Ready is the one to look at, but not one that has ended
	// if there is another.
	slices.SortStableFunc(live, func(a, b *corev1.Pod) int {
		return cmp.Or(compareBool(podutil.IsPodTerminal(a), podutil.IsPodTerminal(b)),
			compareBool(daemonset.IsReady(a), daemonset.IsReady(b)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time))
	})
	i.v.Ready = slices.ContainsFunc(live, daemonset.IsReady)
	pod := live[0]
	i.about(pod)
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		i.rejected(pod)
	case daemonset.IsReady(pod):
		i.ready(pod)
	case pod.Spec.NodeName != "":
		return i.started(ctx, pod)
	case len(pod.Spec.SchedulingGates) > 0:
		i.end(ReasonGated, Args{"gates": describeGates(pod.Spec.SchedulingGates)})
	default:
		return i.queued(ctx, pod)
	}
	return nil
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// queued is for pods that wait for a node.
func (i *inquiry) queued(ctx context.Context, pod *corev1.Pod) error {
	tried := scheduledCondition(pod)
	if tried == nil && i.now.Sub(pod.CreationTimestamp.Time) > quickly {
		i.end(ReasonNoScheduler, Args{"scheduler": pod.Spec.SchedulerName})
		return nil
	}
	return i.filters(ctx, pod)
}
