// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/dryrun"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/placement"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

// preemption asks both schedulers which pods they would evict from the node that refuses pod, unless pod waits for its
// turn.
func (i *inquiry) preemption(ctx context.Context, pod *corev1.Pod, node fwk.NodeInfo, gone []*corev1.Pod) {
	switch {
	case strings.Contains(saidOf(pod), everynodepreemption.ErrReasonPaced):
		i.paced()
		return
	case !i.detail:
		return
	}
	stock, err := i.schedulers.Stock.Evict(ctx, pod, node, i.cluster.Budgets, gone)
	i.fail(err)
	everynode, err := i.schedulers.Everynode.Evict(ctx, pod, node, i.cluster.Budgets, gone)
	i.fail(err)
	i.v.Preemption = &Preemption{Stock: describeEviction(stock), Everynode: describeEviction(everynode), InForce: i.inForce(pod)}
}

// paced is for pods that everynode-scheduler makes no room for yet, because it has evicted other pods of the
// controllers whose pods are in the way.
func (i *inquiry) paced() {
	refusals := i.v.Causes
	i.end(ReasonPaced, nil)
	i.v.Causes = append(i.v.Causes, refusals...)
	for _, same := range grouped(i.v.Blockers, func(b *Blocker) string { return string(ownerUID(b.holder)) }) {
		if !strings.HasPrefix(same[0].Spared, samePriority) {
			continue
		}
		away := 0
		for _, pod := range i.cluster.Pods {
			if ownerUID(pod) == ownerUID(same[0].holder) && (pod.DeletionTimestamp != nil || !daemonset.IsReady(pod)) {
				away++
			}
		}
		if away > 0 {
			i.fact("Not Ready: " + Count(away, "pod") + " of " + same[0].OwnerText() + ".")
		}
	}
}

// ownerUID returns the UID of what controls pod, "" if nothing does.
func ownerUID(pod *corev1.Pod) types.UID {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return owner.UID
	}
	return ""
}

// describeEviction says what a scheduler would do to make room.
func describeEviction(of dryrun.Eviction) Eviction {
	e := Eviction{OverBudget: of.OverBudget, WhyNot: of.WhyNot}
	for _, victim := range of.Victims {
		e.Victims = append(e.Victims, describe(victim))
	}
	return e
}

// inForce says which scheduler's rules apply to pod, as far as its scheduler has shown it:
// everynode-scheduler refuses pods in words of its own.
func (e *Engine) inForce(pod *corev1.Pod) string {
	switch said := saidOf(pod); {
	case saysEverynode(said), e.profiles.Has(pod.Spec.SchedulerName) && !strings.Contains(said, dryrun.StockNoVictims):
		return Everynode
	case strings.Contains(said, "preemption: "):
		return Stock
	default:
		return ""
	}
}

// saidOf returns why the scheduler has not placed pod, "" if it has not said.
func saidOf(pod *corev1.Pod) string {
	if condition := scheduledCondition(pod); condition != nil && condition.Status == corev1.ConditionFalse {
		return condition.Message
	}
	return ""
}

// everynodeWords are in messages of everynode-scheduler alone: what its plugins say, without
// the names in it.
var everynodeWords = func() []string {
	const name = "x/y"
	words := []string{everynodepreemption.ErrReasonNoVictims, everynodepreemption.ErrReasonTerminating, everynodepreemption.ErrReasonPaced,
		placement.ErrReasonPresent, placement.ErrReasonShutdown}
	for _, reason := range []string{
		readiness.ErrReasonUnready(&daemonset.DaemonSet{Namespace: "x", Name: "y"}), readiness.ErrReasonNotExpected(name), headroom.ErrReason(name),
	} {
		before, after, _ := strings.Cut(reason, name)
		words = append(words, slices.MaxFunc([]string{before, after}, func(a, b string) int { return cmp.Compare(len(a), len(b)) }))
	}
	return words
}()

func saysEverynode(said string) bool {
	return said != "" && slices.ContainsFunc(everynodeWords, func(words string) bool { return strings.Contains(said, words) })
}

// everynodeProfiles are the names under which everynode-scheduler is asked for: its own, and
// those of pods that it has refused in its words.
func everynodeProfiles(pods []*corev1.Pod) sets.Set[string] {
	profiles := sets.New(Everynode)
	for _, pod := range pods {
		if saysEverynode(saidOf(pod)) {
			profiles.Insert(pod.Spec.SchedulerName)
		}
	}
	return profiles
}

// showsEverynode says whether everynode-scheduler is in the cluster as far as pod tells:
// it is one of its pods, or asks for it.
func (e *Engine) showsEverynode(pod *corev1.Pod) bool {
	return e.profiles.Has(pod.Spec.SchedulerName) || slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		name, _, _ := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], "@")
		name, _, _ = strings.Cut(name, ":")
		return name == Everynode
	})
}

// samePriority begins why everynode-scheduler alone may evict a pod, and does not.
const samePriority = "same priority"

// whySpared says which rule keeps holder from being evicted for pod; nothing if
// kube-scheduler evicts it. That of equal priority everynode may evict.
func (i *inquiry) whySpared(holder, pod *corev1.Pod) string {
	priority, own := corev1helper.PodPriority(holder), corev1helper.PodPriority(pod)
	_, pinned := daemonset.NamedNode(holder)
	switch {
	case holder.DeletionTimestamp != nil:
		return "it is ending"
	case priority > own:
		return "higher priority"
	case priority < own:
		return ""
	case i.set.OwnerOf(holder) != nil:
		return "daemon pod of the same priority"
	case daemonset.IsMirror(holder):
		return "static pod"
	case pinned:
		return samePriority + ", and can run here only"
	case metav1.GetControllerOfNoCopy(holder) == nil:
		return samePriority + ", and nothing would create it again"
	case holder.Annotations[daemonset.SafeToEvictAnnotation] == "false":
		return samePriority + ", and annotated " + daemonset.SafeToEvictAnnotation + ": false"
	case holder.Annotations[daemonset.DoNotDisruptAnnotation] == "true":
		return samePriority + ", and annotated " + daemonset.DoNotDisruptAnnotation + ": true"
	}
	if budget := i.exhaustedBudget(holder); budget != "" {
		return samePriority + ", and PodDisruptionBudget " + budget + " allows no disruption"
	}
	return samePriority
}

// exhaustedBudget names a PodDisruptionBudget that keeps pod from being evicted, or "".
func (e *Engine) exhaustedBudget(pod *corev1.Pod) string {
	i := slices.IndexFunc(e.cluster.Budgets, func(budget *policyv1.PodDisruptionBudget) bool {
		if budget.Namespace != pod.Namespace || budget.Status.DisruptionsAllowed > 0 || budget.Spec.Selector == nil {
			return false
		}
		selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
		return err == nil && selector.Matches(labels.Set(pod.Labels))
	})
	if i < 0 {
		return ""
	}
	return e.cluster.Budgets[i].Name
}
