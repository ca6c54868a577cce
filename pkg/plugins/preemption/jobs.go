// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultBackoffLimit is the API server's default (k8s.io/kubernetes/pkg/apis/batch/v1).
const defaultBackoffLimit = 6

// checkJob returns an error if pod is controlled by a batch/v1 Job that would fail, or
// would lose the index of pod, if evicted of its pods are evicted.
func (pl *Preemption) checkJob(ctx context.Context, pod *corev1.Pod, evicted int) error {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "Job" || owner.APIVersion != batchv1.SchemeGroupVersion.String() {
		return nil
	}
	job, err := pl.handle.ClientSet().BatchV1().Jobs(pod.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("looking up the Job of the pod (the scheduler needs the verb get on jobs.batch): %w", err)
	}
	if job.UID != owner.UID || job.DeletionTimestamp != nil {
		return fmt.Errorf("the Job %s of the pod has been deleted", owner.Name)
	}
	if !survives(job, pod, evicted) {
		return fmt.Errorf("the Job %s might fail", owner.Name)
	}
	return nil
}

// survives says whether job goes on after the eviction of pod, one of evicted of its
// pods. The rules are those of syncJob and matchPodFailurePolicy in
// k8s.io/kubernetes/pkg/controller/job. In doubt the answer is false.
func survives(job *batchv1.Job, pod *corev1.Pod, evicted int) bool {
	switch failureAction(job.Spec.PodFailurePolicy) {
	case batchv1.PodFailurePolicyActionIgnore:
		return true
	case batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionFailIndex:
		return false
	case batchv1.PodFailurePolicyActionCount:
	}
	limit, failed := int64(defaultBackoffLimit), int64(job.Status.Failed)
	if job.Spec.BackoffLimit != nil {
		limit = int64(*job.Spec.BackoffLimit)
	}
	// These pods will be counted soon.
	if uncounted := job.Status.UncountedTerminatedPods; uncounted != nil {
		failed += int64(len(uncounted.Failed))
	}
	if job.Status.Terminating != nil {
		failed += int64(*job.Status.Terminating)
	}
	if failed+int64(evicted) > limit {
		return false
	}
	if job.Spec.BackoffLimitPerIndex == nil {
		return true
	}
	ofIndex := 0
	if annotation, ok := pod.Annotations[batchv1.JobIndexFailureCountAnnotation]; ok {
		var err error
		if ofIndex, err = strconv.Atoi(annotation); err != nil {
			return false
		}
	}
	return ofIndex < int(*job.Spec.BackoffLimitPerIndex)
}

// failureAction returns the action of the first rule of policy that an evicted pod
// matches, and Count if there is none.
func failureAction(policy *batchv1.PodFailurePolicy) batchv1.PodFailurePolicyAction {
	if policy == nil {
		return batchv1.PodFailurePolicyActionCount
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		if rule.OnExitCodes != nil && rule.Action != batchv1.PodFailurePolicyActionIgnore && matchesSignal(rule.OnExitCodes) {
			return rule.Action
		}
		isDisruption := func(pattern batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
			return pattern.Type == corev1.DisruptionTarget && (pattern.Status == corev1.ConditionTrue || pattern.Status == "")
		}
		if rule.OnExitCodes == nil && slices.ContainsFunc(rule.OnPodConditions, isDisruption) {
			return rule.Action
		}
	}
	return batchv1.PodFailurePolicyActionCount
}

// matchesSignal says whether requirement may match a container that was ended by
// SIGTERM or SIGKILL. Exit codes of its own, which it may choose, are not known.
func matchesSignal(requirement *batchv1.PodFailurePolicyOnExitCodesRequirement) bool {
	isIn := requirement.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn
	return slices.ContainsFunc([]int32{128 + 15, 128 + 9}, func(code int32) bool { return slices.Contains(requirement.Values, code) == isIn })
}
