// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	quota "k8s.io/apiserver/pkg/quota/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	quotacore "k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/snapshot"
)

// quotas says which quotas have no room for all pods of a plan, each like pod.
func (e *Engine) quotas(s *subject, pod *corev1.Pod, wanted int) []string {
	var texts []string
	evaluator := quotacore.NewPodEvaluator(nil, clock.RealClock{})
	for _, q := range e.cluster.Quotas {
		if matches, err := evaluator.Matches(q, pod); q.Namespace != pod.Namespace || err != nil || !matches {
			continue
		}
		each, err := evaluator.Usage(pod)
		if err != nil {
			continue
		}
		used := e.usedByOthers(q, s)
		fits, short := wanted, corev1.ResourceName("")
		for name, hard := range q.Spec.Hard {
			n, has := 0, used[name]
			for total := has.DeepCopy(); n < fits; n++ {
				total.Add(each[name])
				if total.Cmp(hard) > 0 {
					break
				}
			}
			if n < fits {
				fits, short = n, name
			}
		}
		if fits < wanted {
			hard, has := q.Spec.Hard[short], used[short]
			texts = append(texts, fmt.Sprintf("The quota %s has room for %d of %s: of %s it allows %s, and %s is used by others.",
				q.Name, fits, Count(wanted, "pod"), short, hard.String(), has.String()))
		}
	}
	return texts
}

// usedByOthers returns what a quota counts without the pods of a plan's DaemonSet: also the
// pods that were planned before, and all pods if the quota is new.
func (e *Engine) usedByOthers(q *corev1.ResourceQuota, s *subject) corev1.ResourceList {
	evaluator := quotacore.NewPodEvaluator(nil, clock.RealClock{})
	used, isNew := q.Status.Used, q.Status.Used == nil
	for _, pod := range e.cluster.Pods {
		if matches, err := evaluator.Matches(q, pod); pod.Namespace != q.Namespace || err != nil || !matches || podutil.IsPodTerminal(pod) {
			continue
		}
		takes, err := evaluator.Usage(pod)
		if err != nil {
			continue
		}
		counted := !isNew && !strings.HasPrefix(string(pod.UID), snapshot.PlannedPrefix)
		switch own := e.set.OwnerOf(pod) == s.compiled; {
		case !own && !counted:
			used = quota.Add(used, takes)
		case own && counted:
			used = quota.SubtractWithNonNegativeResult(used, takes)
		}
	}
	return used
}

// changesOf says what becomes of the pods that are there: those of old, the present state of
// the DaemonSet, and those without a controller that its selector matches.
func (e *Engine) changesOf(s *subject, old *appsv1.DaemonSet) []string {
	var texts []string
	if orphans := e.orphans(s.ds); len(orphans) > 0 {
		texts = append(texts, fmt.Sprintf("It adopts %s that nothing controls, because its selector matches: %s. They are replaced, or deleted where it does not belong.",
			Count(len(orphans), "pod"), strings.Join(orphans[:min(len(orphans), fewNodes)], ", ")))
	}
	if old == nil {
		return texts
	}
	next, before := s.ds.DeepCopy(), old.DeepCopy()
	appsv1defaults.SetObjectDefaults_DaemonSet(next)
	appsv1defaults.SetObjectDefaults_DaemonSet(before)
	if equality.Semantic.DeepEqual(next.Spec.Template, before.Spec.Template) {
		return append(texts, "Its template does not change: no pod is replaced.")
	}
	if next.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return append(texts, "The strategy is OnDelete: a pod is replaced when somebody deletes it.")
	}
	var unavailable []string
	for node, pods := range s.pods {
		if slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return !e.available(pod, old) }) {
			unavailable = append(unavailable, node)
		}
	}
	if len(unavailable) > 1 {
		slices.SortFunc(unavailable, CompareNames)
		texts = append(texts, fmt.Sprintf("Its pods on %s are not available. All of them are replaced at once, whatever maxUnavailable says.", NodeList(unavailable)))
	}
	return texts
}

// orphans are the pods that ds adopts.
func (e *Engine) orphans(ds *appsv1.DaemonSet) []string {
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil
	}
	var names []string
	for _, pod := range e.cluster.Pods {
		if pod.Namespace == ds.Namespace && pod.DeletionTimestamp == nil && !podutil.IsPodTerminal(pod) && metav1.GetControllerOfNoCopy(pod) == nil && selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, pod.Name)
		}
	}
	slices.SortFunc(names, CompareNames)
	return names
}
