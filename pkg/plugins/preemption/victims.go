// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
)

const (
	// ErrReasonTerminating is for a node whose terminating pods leave enough room.
	ErrReasonTerminating = "waiting for the room of terminating pods"
	// ErrReasonPaced is for a node where victims of the same priority belong to
	// controllers that have lost a pod a moment ago.
	ErrReasonPaced = "waiting until pods that were evicted before are replaced"
	// ErrReasonNoVictims is for a node without possible victims of the same priority,
	// or where evicting all of them would not make enough room.
	ErrReasonNoVictims = "no pods of the same priority may make room for the DaemonSet pod"
)

// trial is the search for the fewest pods of the same or lower priority whose
// removal makes room for preemptor. It changes nodeInfo, which is a copy, and state.
type trial struct {
	plugin    *Preemption
	ctx       context.Context //nolint:containedctx // a trial lives for one call
	state     fwk.CycleState
	preemptor *corev1.Pod
	nodeInfo  fwk.NodeInfo
	// budgets holds the PodDisruptionBudgets that cover each possible victim.
	budgets map[types.UID][]*policyv1.PodDisruptionBudget
	// left holds how many pods of each controller may be evicted now.
	left map[types.UID]int
	// blockedByBudget and blockedByPace say that a pod was left alone for a
	// PodDisruptionBudget, and for an eviction under way.
	blockedByBudget, blockedByPace bool
	// unready are pods that are not Ready yet. When they are, a pod like them may go.
	unready []*corev1.Pod
	// refusedUntil is when the first of the pods may be tried again whose eviction was
	// refused, or zero.
	refusedUntil time.Time
}

// takeTerminating takes the terminating pods out of possible, and those that are
// about to end out of the node. It returns Unschedulable if preemptor fits then: no
// pod is evicted for room that is about to be free.
func (t *trial) takeTerminating(possible []*preemption.DomainVictim) ([]*preemption.DomainVictim, *fwk.Status) {
	now := t.plugin.clock.Now()
	var wake time.Time
	var rest []*preemption.DomainVictim
	for _, victim := range possible {
		pod := victim.Pods()[0].GetPod()
		if len(victim.Pods()) != 1 || pod.DeletionTimestamp == nil {
			rest = append(rest, victim)
			continue
		}
		if !endsSoon(pod, now) {
			continue
		}
		if err := t.remove(victim); err != nil {
			return nil, fwk.AsStatus(err)
		}
		if stuck := stuckAt(pod); wake.IsZero() || stuck.Before(wake) {
			wake = stuck
		}
	}
	if wake.IsZero() || !t.fits() {
		return rest, nil
	}
	t.plugin.postpone(t.ctx, t.preemptor, wake)
	return nil, fwk.NewStatus(fwk.Unschedulable, ErrReasonTerminating)
}

// selectVictims returns the victims to evict now, the most important one first. If
// one controller would lose more pods than it may at a time, the others follow in
// later attempts.
func (t *trial) selectVictims(possible []*preemption.DomainVictim) ([]*corev1.Pod, *fwk.Status) {
	candidates, err := t.candidates(possible)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	// The preemptor is recorded before the budgets are read: otherwise a change in
	// between would be lost.
	if !t.plugin.attempt.isDryRun() {
		t.plugin.blocked.Add(t.preemptor, struct{}{})
	}
	pdbs, err := t.plugin.Evaluator.PdbLister.List(labels.Everything())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	t.budgets = make(map[types.UID][]*policyv1.PodDisruptionBudget, len(candidates))
	for _, candidate := range candidates {
		pod := candidate.Pods()[0].GetPod()
		t.budgets[pod.UID] = covering(pod, pdbs)
	}
	t.sort(candidates)
	t.left = make(map[types.UID]int)
	chosen, err := t.choose(candidates)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if len(chosen) > 0 || !t.blockedByBudget {
		t.plugin.blocked.Remove(t.preemptor)
	}
	if len(chosen) == 0 {
		t.awaitReplicas()
		t.awaitRefused()
	}
	switch {
	case len(chosen) > 0:
		t.plugin.pacer.forget(t.preemptor)
		return t.start(chosen), nil
	case t.blockedByPace:
		t.plugin.postpone(t.ctx, t.preemptor, time.Time{})
		return nil, fwk.NewStatus(fwk.Unschedulable, ErrReasonPaced)
	default:
		return nil, fwk.NewStatus(fwk.Unschedulable, ErrReasonNoVictims)
	}
}

// candidates returns the pods that may be evicted, or nil if evicting all of them
// would not make enough room. Replicas that could run nowhere else are among them
// only where the others are not enough.
func (t *trial) candidates(possible []*preemption.DomainVictim) ([]*preemption.DomainVictim, error) {
	all := slices.DeleteFunc(slices.Clone(possible), func(victim *preemption.DomainVictim) bool { return !t.mayBeVictim(victim) })
	// This is cheap, what follows is not.
	if enough, err := t.enough(all); err != nil || !enough {
		return nil, err
	}
	var movable, replicas []*preemption.DomainVictim
	for _, victim := range all {
		switch pod := victim.Pods()[0].GetPod(); {
		case !t.isEqual(pod) || !t.plugin.isBoundToItsNode(pod):
			movable = append(movable, victim)
		case t.isReplica(pod):
			replicas = append(replicas, victim)
		}
	}
	if enough, err := t.enough(movable); err != nil || enough {
		return movable, err
	}
	candidates := slices.Concat(movable, replicas)
	if enough, err := t.enough(candidates); err != nil || !enough {
		return nil, err
	}
	return candidates, nil
}

// mayBeVictim says whether a pod may be evicted for a pod that is no more important,
// as far as the pod itself tells: its controller will create it again, and it has not
// asked to be left alone. Pods of lower priority have no such rights.
func (t *trial) mayBeVictim(victim *preemption.DomainVictim) bool {
	pod := victim.Pods()[0].GetPod()
	if len(victim.Pods()) != 1 || victim.IsGroup() || pod.Spec.SchedulingGroup != nil || daemonset.IsMirror(pod) {
		return false
	}
	if until, refused := t.plugin.refused.Get(pod.UID); refused {
		if until := until.(time.Time); t.refusedUntil.IsZero() || until.Before(t.refusedUntil) {
			t.refusedUntil = until
		}
		return false
	}
	if !t.isEqual(pod) {
		return corev1helper.PodPriority(pod) < corev1helper.PodPriority(t.preemptor)
	}
	return metav1.GetControllerOfNoCopy(pod) != nil && !daemonset.IsProtected(pod) && t.plugin.profiles.has(pod.Spec.SchedulerName)
}

func (t *trial) isEqual(pod *corev1.Pod) bool {
	return corev1helper.PodPriority(pod) == corev1helper.PodPriority(t.preemptor)
}

// minSiblings is how many Ready pods on the node a ReplicaSet keeps if it loses one that
// could run nowhere else. With one left, it would have lost its redundancy.
const minSiblings = 2

// isReplica says whether pod, which could run nowhere else, is one of several that are
// alike: its ReplicaSet has other Ready pods on the node. Without it the ReplicaSet is
// smaller, but still there (https://github.com/kubernetes/kubernetes/issues/140984). A
// pod with a volume of this node is never one of these.
func (t *trial) isReplica(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	_, named := daemonset.NamedNode(pod)
	return owner != nil && owner.Kind == "ReplicaSet" && !named && keyOf(pod).group == string(owner.UID) && t.readySiblings(pod, nil) >= minSiblings
}

// readySiblings returns how many Ready pods the controller of pod has on the node
// apart from pod and chosen.
func (t *trial) readySiblings(pod *corev1.Pod, chosen []*preemption.DomainVictim) int {
	siblings := 0
	var unready []*corev1.Pod
	for _, info := range t.nodeInfo.GetPods() {
		other := info.GetPod()
		isChosen := slices.ContainsFunc(chosen, func(victim *preemption.DomainVictim) bool { return victim.Pods()[0].GetPod().UID == other.UID })
		switch {
		case other.UID == pod.UID || isChosen || controllerUID(other) != controllerUID(pod) || other.DeletionTimestamp != nil:
		case daemonset.IsReady(other):
			siblings++
		default:
			unready = append(unready, other)
		}
	}
	if siblings < minSiblings && siblings+len(unready) >= minSiblings {
		t.unready = append(t.unready, unready...)
	}
	return siblings
}

// awaitReplicas has preemptor tried again when a pod turns Ready without which no other of
// its ReplicaSet may go. No event of the queue tells it.
func (t *trial) awaitReplicas() {
	if t.plugin.attempt.isDryRun() {
		return
	}
	t.plugin.unready.Remove(t.preemptor)
	if len(t.unready) == 0 {
		return
	}
	t.plugin.unready.Add(t.preemptor, t.unready)
	for _, pod := range t.unready {
		// It may have turned Ready since the snapshot was made.
		if current, err := t.plugin.current(pod); err == nil && current != nil && daemonset.IsReady(current) {
			t.plugin.retryAt(klog.FromContext(t.ctx), map[string]*corev1.Pod{klog.KObj(t.preemptor).String(): t.preemptor}, t.plugin.clock.Now())
			return
		}
	}
}

// awaitRefused has preemptor tried again when a pod may be evicted that was spared because
// its eviction was refused a short time ago.
func (t *trial) awaitRefused() {
	if !t.refusedUntil.IsZero() && !t.plugin.attempt.isDryRun() {
		t.plugin.retryAt(klog.FromContext(t.ctx), map[string]*corev1.Pod{klog.KObj(t.preemptor).String(): t.preemptor}, t.refusedUntil)
	}
}

// controllerUID returns the UID of the controller of pod, or "" if it has none.
func controllerUID(pod *corev1.Pod) types.UID {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return owner.UID
	}
	return ""
}

// covering returns the PodDisruptionBudgets that cover pod, by the API server's rule:
// an empty selector matches every pod of the namespace. (Upstream's
// FilterVictimsWithPDBViolation takes it to match none.)
func covering(pod *corev1.Pod, pdbs []*policyv1.PodDisruptionBudget) []*policyv1.PodDisruptionBudget {
	var covering []*policyv1.PodDisruptionBudget
	for _, pdb := range pdbs {
		if pdb.Namespace != pod.Namespace {
			continue
		}
		if selector, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			covering = append(covering, pdb)
		}
	}
	return covering
}

// sort puts the pods first that are evicted first: those that fit on another node
// now, then those of lower priority, then the youngest.
func (t *trial) sort(candidates []*preemption.DomainVictim) {
	fits := make(map[alike]bool)
	fitsElsewhere := func(pod *corev1.Pod) bool {
		key := keyOf(pod)
		if known, ok := fits[key]; ok {
			return known
		}
		fits[key] = t.fitsElsewhere(pod)
		return fits[key]
	}
	slices.SortFunc(candidates, func(a, b *preemption.DomainVictim) int {
		podA, podB := a.Pods()[0].GetPod(), b.Pods()[0].GetPod()
		if fits := fitsElsewhere(podA); fits != fitsElsewhere(podB) {
			if fits {
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

// lookAround is the number of other nodes on which fitsElsewhere tries a pod. On a
// full cluster of thousands of nodes, trying all would cost more than it is worth.
const lookAround = 100

// fitsElsewhere says whether another node has free resources for a successor of pod.
func (t *trial) fitsElsewhere(pod *corev1.Pod) bool {
	if t.plugin.isBoundToItsNode(pod) {
		return false // without a look at all nodes again
	}
	tried := 0
	for other := range t.plugin.otherNodes(pod) {
		if len(t.insufficient(pod, other)) == 0 {
			return true
		}
		tried++
		if tried == lookAround {
			break
		}
	}
	return false
}

// choose returns as few of candidates as it can find whose removal makes enough
// room, or none. Earlier ones are preferred.
func (t *trial) choose(candidates []*preemption.DomainVictim) ([]*preemption.DomainVictim, error) {
	if len(candidates) == 0 {
		return nil, nil
	}
	var chosen []*preemption.DomainVictim
	rest, uncounted := slices.Clone(candidates), t.uncounted(candidates)
	for len(rest) > 0 {
		shortage := t.shortage()
		maps.DeleteFunc(shortage, func(name corev1.ResourceName, _ int64) bool { return uncounted.Has(name) })
		// The first one that is enough, or else the one that helps most.
		best, most := -1, 0.0
		for i, candidate := range rest {
			if !t.mayAlsoGo(chosen, candidate) {
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

// mayAlsoGo says whether candidate may be evicted in addition to chosen.
func (t *trial) mayAlsoGo(chosen []*preemption.DomainVictim, candidate *preemption.DomainVictim) bool {
	pod := candidate.Pods()[0].GetPod()
	budgets := t.budgets[pod.UID]
	for _, budget := range budgets {
		var used int32
		for _, other := range chosen {
			if slices.Contains(t.budgets[other.Pods()[0].GetPod().UID], budget) {
				used++
			}
		}
		if used >= budget.Status.DisruptionsAllowed {
			t.blockedByBudget = true
			return false
		}
	}
	switch {
	case !t.isEqual(pod):
		return true
	case len(budgets) > 1:
		// The eviction API refuses pods with more than one budget.
		t.blockedByBudget = true
		return false
	case len(budgets) == 0 && t.evictionsLeft(controllerUID(pod)) == 0:
		t.blockedByPace = true
		return false
	default:
		return !t.plugin.isBoundToItsNode(pod) || t.readySiblings(pod, chosen) >= minSiblings
	}
}

func (t *trial) evictionsLeft(controller types.UID) int {
	left, known := t.left[controller]
	if !known {
		preemptor := t.preemptor
		if t.plugin.attempt.isDryRun() {
			preemptor = nil // a dry run is not tried again
		}
		left = t.plugin.pacer.left(controller, int(t.plugin.args.MaxEvictionsPerController), preemptor)
		t.left[controller] = left
	}
	return left
}

// start returns those of chosen that are evicted now, the most important one first,
// and records the evictions. In a dry run, outside of PostFilter, it returns all.
func (t *trial) start(chosen []*preemption.DomainVictim) []*corev1.Pod {
	slices.SortFunc(chosen, func(a, b *preemption.DomainVictim) int {
		if t.plugin.moreImportant(a, b) {
			return -1
		}
		return 1
	})
	var victims []*corev1.Pod
	plan := newPlan()
	for _, victim := range slices.Backward(chosen) {
		pod := victim.Pods()[0].GetPod()
		if t.isEqual(pod) {
			controller := controllerUID(pod)
			paced := len(t.budgets[pod.UID]) == 0 && !t.plugin.attempt.isDryRun()
			if paced && t.left[controller] == 0 {
				continue
			}
			if paced {
				t.left[controller]--
				plan.paced[pod.UID] = controller
			}
			plan.equal = append(plan.equal, pod)
		}
		victims = append(victims, pod)
	}
	slices.Reverse(victims)
	plan.victims = len(victims)
	t.plugin.begin(t.preemptor, plan)
	return victims
}

// reprieve puts those of chosen back that turn out not to be needed, and returns the
// others. All but last are out of the node.
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

// enough says whether preemptor fits if victims are out of the node as well. They are
// back when it returns.
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

// insufficient returns the resources that node lacks for pod.
func (t *trial) insufficient(pod *corev1.Pod, node fwk.NodeInfo) []noderesources.InsufficientResource {
	return noderesources.Fits(pod, node, t.plugin.handle.SharedDRAManager(), t.plugin.requests)
}

// uncounted returns the devices that the node still lacks without candidates, which are enough
// together. No filter counts these: NodeResourcesFit ignores them, or they are allocated (DRA).
func (t *trial) uncounted(candidates []*preemption.DomainVictim) sets.Set[corev1.ResourceName] {
	lacking := t.shortage()
	maps.DeleteFunc(lacking, func(name corev1.ResourceName, _ int64) bool { return !v1helper.IsExtendedResourceName(name) })
	for name, amount := range lacking {
		for _, candidate := range candidates {
			amount -= daemonset.PodResources(candidate.Pods()[0].GetPod()).Amount(name)
		}
		lacking[name] = amount
	}
	maps.DeleteFunc(lacking, func(_ corev1.ResourceName, amount int64) bool { return amount <= 0 })
	return sets.KeySet(lacking)
}

// shortage is the amount of each resource that the node lacks for preemptor.
func (t *trial) shortage() map[corev1.ResourceName]int64 {
	shortage := make(map[corev1.ResourceName]int64)
	for _, insufficient := range t.insufficient(t.preemptor, t.nodeInfo) {
		shortage[insufficient.ResourceName] = insufficient.Requested + insufficient.Used - insufficient.Capacity
	}
	return shortage
}

// coverage returns how much of shortage the room of victim covers, from 0 to the
// number of resources, and whether it covers all of it.
func coverage(victim *preemption.DomainVictim, shortage map[corev1.ResourceName]int64) (share float64, all bool) {
	requests := daemonset.PodResources(victim.Pods()[0].GetPod())
	all = true
	for name, short := range shortage {
		amount := requests.Amount(name)
		share += min(float64(amount)/float64(short), 1)
		all = all && amount >= short
	}
	return share, all
}
