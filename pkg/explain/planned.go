// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	quota "k8s.io/apiserver/pkg/quota/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	quotacore "k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/utils/clock"
)

// With returns a copy of c in which ds and the objects that come with it are as given. A
// DaemonSet that is new gets a UID; of one that is not, its present state is returned.
func (c *Cluster) With(ds *appsv1.DaemonSet, others ...runtime.Object) (_ *Cluster, old *appsv1.DaemonSet) {
	changed := *c
	changed.DaemonSets, old = with(c.DaemonSets, ds)
	ds.UID = types.UID("planned/" + ds.Namespace + "/" + ds.Name)
	if old != nil {
		ds.UID, ds.CreationTimestamp, ds.Status, ds.Generation = old.UID, old.CreationTimestamp, old.Status, old.Generation
	}
	for _, other := range others {
		switch other := other.(type) {
		case *schedulingv1.PriorityClass:
			changed.PriorityClasses, _ = with(changed.PriorityClasses, other)
		case *corev1.Namespace:
			changed.Namespaces, _ = with(changed.Namespaces, other)
		case *nodev1.RuntimeClass:
			changed.RuntimeClasses, _ = with(changed.RuntimeClasses, other)
		case *corev1.LimitRange:
			changed.LimitRanges, _ = with(changed.LimitRanges, other)
		case *corev1.ResourceQuota:
			var before *corev1.ResourceQuota
			if changed.Quotas, before = with(changed.Quotas, other); before != nil {
				other.Status = before.Status
			}
			other.Status.Hard = other.Spec.Hard
		}
	}
	return &changed, old
}

// with returns objects with one in place of that of its name, which is returned, too.
func with[T metav1.Object](objects []T, object T) (changed []T, old T) {
	changed = slices.Clone(objects)
	n := slices.IndexFunc(changed, func(other T) bool {
		return other.GetName() == object.GetName() && other.GetNamespace() == object.GetNamespace()
	})
	if n < 0 {
		return append(changed, object), old
	}
	old, changed[n] = changed[n], object
	return changed, old
}

func (c *Cluster) limitRanges(namespace string) []*corev1.LimitRange {
	return slices.DeleteFunc(slices.Clone(c.LimitRanges), func(l *corev1.LimitRange) bool { return l.Namespace != namespace })
}

// runtimeClass returns the one of that name, or nil.
func (c *Cluster) runtimeClass(name string) *nodev1.RuntimeClass {
	n := slices.IndexFunc(c.RuntimeClasses, func(class *nodev1.RuntimeClass) bool { return class.Name == name })
	if n < 0 {
		return nil
	}
	return c.RuntimeClasses[n]
}

// limit gives a pod what LimitRanges and its RuntimeClass would.
func (c *Cluster) limit(pod *corev1.Pod) {
	for _, limits := range c.limitRanges(pod.Namespace) {
		for _, item := range limits.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for n := range pod.Spec.Containers {
				resources := &pod.Spec.Containers[n].Resources
				resources.Requests, resources.Limits = filled(resources.Requests, item.DefaultRequest), filled(resources.Limits, item.Default)
			}
		}
	}
	if pod.Spec.RuntimeClassName == nil {
		return
	}
	class := c.runtimeClass(*pod.Spec.RuntimeClassName)
	if class == nil {
		return
	}
	if class.Overhead != nil {
		pod.Spec.Overhead = class.Overhead.PodFixed
	}
	if scheduling := class.Scheduling; scheduling != nil {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, scheduling.Tolerations...)
		pod.Spec.NodeSelector = maps.Clone(pod.Spec.NodeSelector)
		for key, value := range scheduling.NodeSelector {
			if pod.Spec.NodeSelector == nil {
				pod.Spec.NodeSelector = make(map[string]string)
			}
			pod.Spec.NodeSelector[key] = value
		}
	}
}

// filled returns resources with defaults for what is not in them.
func filled(resources, defaults corev1.ResourceList) corev1.ResourceList {
	if len(defaults) == 0 {
		return resources
	}
	all := maps.Clone(defaults)
	maps.Copy(all, resources)
	return all
}

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
		used := q.Status.Used
		// What the present pods use is given back.
		for _, pods := range s.pods {
			for _, present := range pods {
				if takes, err := evaluator.Usage(present); err == nil && !podutil.IsPodTerminal(present) {
					used = quota.SubtractWithNonNegativeResult(used, takes)
				}
			}
		}
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
		if slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
			return !podutil.IsPodAvailable(pod, old.Spec.MinReadySeconds, metav1.NewTime(e.now))
		}) {
			unavailable = append(unavailable, node)
		}
	}
	if len(unavailable) > 1 {
		SortNames(unavailable)
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
	SortNames(names)
	return names
}
