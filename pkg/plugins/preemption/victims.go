// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
)

const (
	// ErrReasonTerminating is for a node whose terminating pods leave room enough.
	ErrReasonTerminating = "waiting for the room of terminating pods"
	// ErrReasonNoVictims is for a node with nobody to evict, or where it would not help.
	ErrReasonNoVictims = "no pods of the same priority may make room for the DaemonSet pod"
)

// Annotations by which autoscalers are asked not to evict a pod. Eviction for a
// pod that is no more important is no better a reason.
const (
	safeToEvictAnnotation  = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	doNotDisruptAnnotation = "karpenter.sh/do-not-disrupt"
)

// trial is the search for the fewest pods of the same or lower priority whose
// room is enough for preemptor. It takes pods out of nodeInfo, a copy, and puts them
// back.
type trial struct {
	plugin    *Preemption
	ctx       context.Context //nolint:containedctx // a trial lives for one call
	state     fwk.CycleState
	preemptor *corev1.Pod
	nodeInfo  fwk.NodeInfo
	pdbs      []*policyv1.PodDisruptionBudget
	// budgetInTheWay: a pod was left alone because of a PodDisruptionBudget.
	budgetInTheWay bool
}

// selectVictims returns the victims, the most important one first.
func (t *trial) selectVictims(possible []*preemption.DomainVictim) ([]*corev1.Pod, *fwk.Status) {
	// Room that is about to be free is free: nobody else is evicted for it.
	terminating := false
	for _, victim := range possible {
		if pod := victim.Pods()[0]; len(victim.Pods()) == 1 && pod.GetPod().DeletionTimestamp != nil {
			terminating = true
			if err := t.remove(victim); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
	}
	if terminating && t.fits() {
		return nil, fwk.NewStatus(fwk.Unschedulable, ErrReasonTerminating)
	}

	candidates := slices.DeleteFunc(slices.Clone(possible), func(victim *preemption.DomainVictim) bool { return !t.mayBeVictim(victim) })
	t.sort(candidates)
	// First the pod waits, then it looks at the budgets: it must not miss the moment.
	t.plugin.blocked.Add(t.preemptor, struct{}{})
	var err error
	if t.pdbs, err = t.plugin.Evaluator.PdbLister.List(labels.Everything()); err != nil {
		return nil, fwk.AsStatus(err)
	}
	chosen, err := t.choose(candidates)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if len(chosen) > 0 || !t.budgetInTheWay {
		t.plugin.blocked.Remove(t.preemptor)
	}
	if len(chosen) == 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, ErrReasonNoVictims)
	}
	slices.SortFunc(chosen, func(a, b *preemption.DomainVictim) int {
		if t.plugin.moreImportant(a, b) {
			return -1
		}
		return 1
	})
	victims := make([]*corev1.Pod, len(chosen))
	for i := range chosen {
		victims[i] = chosen[i].Pods()[0].GetPod()
	}
	return victims, nil
}

// mayBeVictim says whether a pod may be evicted for the sake of one that is no
// more important: it goes on elsewhere or comes back, and nobody has asked to be
// left alone. Pods of lower priority have no such rights.
func (t *trial) mayBeVictim(victim *preemption.DomainVictim) bool {
	if len(victim.Pods()) != 1 || victim.IsGroup() {
		return false
	}
	pod := victim.Pods()[0].GetPod()
	_, refused := t.plugin.refused.Get(pod.UID)
	switch priority := corev1helper.PodPriority(t.preemptor); {
	case pod.DeletionTimestamp != nil, daemonset.IsMirror(pod), refused:
		return false
	case victim.Priority() != priority:
		return victim.Priority() < priority
	default:
		return metav1.GetControllerOfNoCopy(pod) != nil && !t.plugin.isBoundToItsNode(pod) &&
			pod.Annotations[safeToEvictAnnotation] != "false" && pod.Annotations[doNotDisruptAnnotation] != "true"
	}
}

// sort puts first who is evicted first: pods that fit on another node right now,
// then those of lower priority, then the youngest.
func (t *trial) sort(candidates []*preemption.DomainVictim) {
	// The pods of one controller are alike, and few controllers make up a node.
	movable := make(map[types.UID]bool)
	isMovable := func(pod *corev1.Pod) bool {
		key := pod.UID
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
			key = owner.UID
		}
		if known, ok := movable[key]; ok {
			return known
		}
		movable[key] = t.fitsElsewhere(pod)
		return movable[key]
	}
	slices.SortFunc(candidates, func(a, b *preemption.DomainVictim) int {
		podA, podB := a.Pods()[0].GetPod(), b.Pods()[0].GetPod()
		if movable := isMovable(podA); movable != isMovable(podB) {
			if movable {
				return -1
			}
			return 1
		}
		return cmp.Or(
			cmp.Compare(a.Priority(), b.Priority()),
			schedutil.GetPodStartTime(podB).Compare(schedutil.GetPodStartTime(podA).Time),
			cmp.Compare(podA.UID, podB.UID))
	})
}

// lookAround is on how many other nodes fitsElsewhere tries a pod. On a full
// cluster of thousands it would otherwise take longer than it is worth.
const lookAround = 100

// fitsElsewhere says whether pod would find another node if it were created again.
func (t *trial) fitsElsewhere(pod *corev1.Pod) bool {
	scheduler, ok := t.plugin.handle.(framework.Framework)
	nodes, err := t.plugin.handle.SnapshotSharedLister().NodeInfos().List()
	if !ok || err != nil {
		return false
	}
	successor := pod.DeepCopy()
	successor.UID, successor.Spec.NodeName = "", ""
	state := framework.NewCycleState()
	narrowed, status, _ := scheduler.RunPreFilterPlugins(t.ctx, state, successor)
	if !status.IsSuccess() {
		return false
	}
	tried := 0
	for _, other := range nodes {
		name := other.Node().Name
		if name == t.nodeInfo.Node().Name || !narrowed.AllNodes() && !narrowed.NodeNames.Has(name) {
			continue
		}
		if scheduler.RunFilterPluginsWithNominatedPods(t.ctx, state, successor, other).IsSuccess() {
			return true
		}
		tried++
		if tried == lookAround {
			break
		}
	}
	return false
}

// choose returns as few of candidates as it can find whose room is enough, or none
// if even all of them are not. Earlier ones are preferred.
func (t *trial) choose(candidates []*preemption.DomainVictim) ([]*preemption.DomainVictim, error) {
	if enough, err := t.enough(candidates); err != nil || !enough {
		return nil, err
	}
	var chosen []*preemption.DomainVictim
	rest := slices.Clone(candidates)
	for len(rest) > 0 {
		shortage := t.shortage()
		// The first one that is enough, or else the one that helps most.
		best, most := -1, 0.0
		for i, candidate := range rest {
			if t.violatesBudget(append(slices.Clip(chosen), candidate)) {
				t.budgetInTheWay = true
				continue
			}
			share, all := coverage(candidate, shortage)
			if all {
				if enough, err := t.enough([]*preemption.DomainVictim{candidate}); err != nil {
					return nil, err
				} else if enough {
					return t.reprieve(append(chosen, candidate), candidate)
				}
			}
			if best < 0 || share > most {
				best, most = i, share
			}
		}
		if best < 0 {
			return nil, nil
		}
		chosen = append(chosen, rest[best])
		if err := t.remove(rest[best]); err != nil {
			return nil, err
		}
		rest = slices.Delete(rest, best, best+1)
	}
	return nil, nil
}

// reprieve puts back those of chosen that turn out not to be needed. All but last
// are out of the node.
func (t *trial) reprieve(chosen []*preemption.DomainVictim, last *preemption.DomainVictim) ([]*preemption.DomainVictim, error) {
	if err := t.remove(last); err != nil {
		return nil, err
	}
	var needed []*preemption.DomainVictim
	for _, victim := range slices.Backward(chosen) {
		if err := t.add(victim); err != nil {
			return nil, err
		}
		if t.fits() {
			continue
		}
		needed = append(needed, victim)
		if err := t.remove(victim); err != nil {
			return nil, err
		}
	}
	return needed, nil
}

// enough says whether preemptor fits once victims are out as well. They are back
// when it returns.
func (t *trial) enough(victims []*preemption.DomainVictim) (bool, error) {
	for _, victim := range victims {
		if err := t.remove(victim); err != nil {
			return false, err
		}
	}
	fits := t.fits()
	for _, victim := range victims {
		if err := t.add(victim); err != nil {
			return false, err
		}
	}
	return fits, nil
}

func (t *trial) fits() bool {
	return t.plugin.handle.RunFilterPluginsWithNominatedPods(t.ctx, t.state, t.preemptor, t.nodeInfo).IsSuccess()
}

func (t *trial) remove(victim *preemption.DomainVictim) error {
	info := victim.Pods()[0]
	if err := t.nodeInfo.RemovePod(klog.FromContext(t.ctx), info.GetPod()); err != nil {
		return err
	}
	return t.plugin.handle.RunPreFilterExtensionRemovePod(t.ctx, t.state, t.preemptor, info, t.nodeInfo).AsError()
}

func (t *trial) add(victim *preemption.DomainVictim) error {
	info := victim.Pods()[0]
	t.nodeInfo.AddPodInfo(info)
	return t.plugin.handle.RunPreFilterExtensionAddPod(t.ctx, t.state, t.preemptor, info, t.nodeInfo).AsError()
}

// violatesBudget says whether to evict all of victims would go beyond a
// PodDisruptionBudget. A selector that is empty matches all pods of the namespace;
// upstream's function, which preemption uses, takes it to match none.
func (t *trial) violatesBudget(victims []*preemption.DomainVictim) bool {
	violating, _ := preemption.FilterVictimsWithPDBViolation(victims, t.pdbs)
	return len(violating) > 0 || slices.ContainsFunc(t.pdbs, func(pdb *policyv1.PodDisruptionBudget) bool {
		if pdb.Spec.Selector == nil || len(pdb.Spec.Selector.MatchLabels)+len(pdb.Spec.Selector.MatchExpressions) > 0 {
			return false
		}
		var covered int32
		for _, victim := range victims {
			if victim.Pods()[0].GetPod().Namespace == pdb.Namespace {
				covered++
			}
		}
		return covered > 0 && covered > pdb.Status.DisruptionsAllowed
	})
}

// shortage is what the node lacks for preemptor, by resource.
func (t *trial) shortage() map[corev1.ResourceName]int64 {
	shortage := make(map[corev1.ResourceName]int64)
	for _, insufficient := range noderesources.Fits(t.preemptor, t.nodeInfo, t.plugin.handle.SharedDRAManager(), noderesources.ResourceRequestsOptions{
		EnablePodLevelResources: true,
	}) {
		shortage[insufficient.ResourceName] = insufficient.Requested + insufficient.Used - insufficient.Capacity
	}
	return shortage
}

// coverage returns how much of shortage victim would make up for, from 0 to the
// number of resources, and whether it is all of it.
func coverage(victim *preemption.DomainVictim, shortage map[corev1.ResourceName]int64) (share float64, all bool) {
	gives := daemonset.PodResources(victim.Pods()[0].GetPod())
	all = true
	for name, short := range shortage {
		amount := gives.Amount(name)
		share += min(float64(amount)/float64(short), 1)
		all = all && amount >= short
	}
	return share, all
}
