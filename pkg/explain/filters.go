// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"

	"everynode.dev/everynode/pkg/daemonset"
)

// filters offers the node to a pod that waits for it, as its scheduler does.
func (i *inquiry) filters(ctx context.Context, pod *corev1.Pod) error {
	fits, err := i.offer(ctx, pod)
	if err == nil && fits {
		i.fitsNow(pod)
	}
	return err
}

// offer offers the node to pod, and makes the verdict of what is against it. gone are
// pods on the node that are taken to have left.
func (i *inquiry) offer(ctx context.Context, pod *corev1.Pod, gone ...*corev1.Pod) (fits bool, err error) {
	node, err := i.schedulers.snapshot.Get(i.node.Name)
	if err != nil {
		return false, fmt.Errorf("node %s: %w", i.node.Name, err)
	}
	a, err := i.schedulers.stock.try(ctx, pod, node, gone...)
	if err != nil {
		return false, fmt.Errorf("pod %s/%s on node %s: %w", pod.Namespace, pod.Name, i.node.Name, err)
	}
	if a.fits() {
		return true, nil
	}
	if leaving := i.leaving(gone); len(leaving) > 0 && !a.final() {
		if b, err := i.schedulers.stock.try(ctx, pod, node, slices.Concat(gone, leaving)...); err == nil && b.fits() {
			i.makingRoom(leaving)
			return false, nil
		}
	}
	i.refusals(pod, a.node, a.refusals)
	if !i.detail {
		return false, nil
	}
	i.findBlockers(pod, gone)
	if a.final() {
		return false, nil
	}
	return false, i.preemption(ctx, pod, node, a, gone)
}

// fitsNow is for pods that the simulated scheduler would bind. Either it was just
// different, or the real scheduler has rules that nobody here knows.
func (i *inquiry) fitsNow(pod *corev1.Pod) {
	said := i.v.Pod.Said
	if said == "" {
		i.end(StepQueue, ReasonSchedulable, "The pod fits, and its scheduler is about to place it.")
		return
	}
	i.end(StepFilters, ReasonSchedulable, "Nothing that was checked is in the way, but the scheduler has not placed the pod yet.")
	i.fact("The scheduler said" + i.whenSaid() + ": " + said)
	if pod.Status.NominatedNodeName == i.node.Name {
		i.fact("Room was made for the pod, and the scheduler will try it again.")
	}
}

func (i *inquiry) whenSaid() string {
	if i.v.Pod.SaidAt == nil {
		return ""
	}
	return " " + i.age(*i.v.Pod.SaidAt) + " ago"
}

// refusals makes the verdict of what the filters have against the node. Where there
// are several, the one that is hardest to overcome is the reason and the others are
// facts.
func (i *inquiry) refusals(pod *corev1.Pod, node fwk.NodeInfo, refusals []refusal) {
	ordered := slices.Clone(refusals)
	slices.SortStableFunc(ordered, func(a, b refusal) int { return compareBool(!a.final, !b.final) })
	for n := range ordered {
		step, reason, message := i.refusal(pod, node, &ordered[n])
		if n == 0 {
			i.end(step, reason, message)
			if reason == ReasonNarrowed {
				i.narrowed(i.addedSelector(pod))
			}
		} else {
			i.fact("Besides: " + message)
		}
	}
}

// refusal says what one filter has against the node.
func (i *inquiry) refusal(pod *corev1.Pod, node fwk.NodeInfo, r *refusal) (Step, Reason, string) {
	switch r.plugin {
	case names.NodeResourcesFit:
		return i.resourcesRefusal(pod, node)
	case names.NodePorts:
		return i.portsRefusal(pod, node)
	case names.TaintToleration:
		taints := untolerated(pod.Spec.Tolerations, i.node.Spec.Taints)
		i.cause.taints = taints
		return StepFilters, ReasonTaint, describeTaints(taints, "the pod") + taintHint(taints)
	case names.NodeAffinity:
		if added := i.addedSelector(pod); len(added) > 0 {
			return StepAdmission, ReasonNarrowed, "Admission added a node selector that the node does not match: " + describeMismatches(added) + "."
		}
		if mismatches := selectorMismatches(pod.Spec.NodeSelector, i.node); len(mismatches) > 0 {
			return StepFilters, ReasonNodeSelector, "The pod's nodeSelector: " + describeMismatches(mismatches) + "."
		}
		if message := affinityMismatch(pod.Spec.Affinity, i.node); message != "" {
			return StepFilters, ReasonNodeAffinity, "The pod's node affinity: " + message + "."
		}
	}
	return StepFilters, ReasonUnschedulable, fmt.Sprintf("The scheduler's plugin %s refuses: %s.", r.plugin, strings.Join(r.reasons, "; "))
}

// resourcesRefusal says of what the node has too little.
func (i *inquiry) resourcesRefusal(pod *corev1.Pod, node fwk.NodeInfo) (Step, Reason, string) {
	node = i.withNominees(pod, node)
	var never, short []string
	for _, lack := range noderesources.Fits(pod, node, nil, noderesources.ResourceRequestsOptions{
		EnablePodLevelResources: utilfeature.DefaultFeatureGate.Enabled(features.PodLevelResources),
	}) {
		name := string(lack.ResourceName)
		i.v.Shortages = append(i.v.Shortages, Shortage{
			Resource: name, Needs: lack.Requested, Free: lack.Capacity - lack.Used, Allocatable: lack.Capacity,
		})
		switch {
		case lack.Unresolvable && lack.Capacity == 0:
			never = append(never, fmt.Sprintf("it asks for %s, the node has none", FormatAmount(name, lack.Requested)))
		case lack.Unresolvable:
			never = append(never, fmt.Sprintf("it asks for %s, the node has %s in all", FormatAmount(name, lack.Requested), FormatAmount(name, lack.Capacity)))
		case lack.ResourceName == corev1.ResourcePods:
			short = append(short, "pod slots")
		default:
			short = append(short, name)
		}
	}
	if len(never) > 0 {
		return StepFilters, ReasonNeverFits, "The pod can never fit: " + strings.Join(never, " and ") + "."
	}
	return StepFilters, ReasonNoRoom, "The node has not enough " + strings.Join(short, " and ") + " left."
}

// withNominees returns node with the pods that room was made for and that come before
// pod (addGENominatedPods in k8s.io/kubernetes/pkg/scheduler/framework/runtime).
func (i *inquiry) withNominees(pod *corev1.Pod, node fwk.NodeInfo) fwk.NodeInfo {
	nominees := i.nomineesBefore(pod)
	if len(nominees) == 0 {
		return node
	}
	node = node.Snapshot()
	for _, nominee := range nominees {
		node.AddPodInfo(nominee)
	}
	return node
}

func (i *inquiry) nomineesBefore(pod *corev1.Pod) []fwk.PodInfo {
	return slices.DeleteFunc(slices.Clone(i.nominated[i.node.Name]), func(nominee fwk.PodInfo) bool {
		return nominee.GetPod().UID == pod.UID || corev1helper.PodPriority(nominee.GetPod()) < corev1helper.PodPriority(pod)
	})
}

// portsRefusal names who has the pod's host ports.
func (i *inquiry) portsRefusal(pod *corev1.Pod, node fwk.NodeInfo) (Step, Reason, string) {
	wanted := daemonset.HostPortsOf(&pod.Spec)
	var taken []string
	for _, info := range node.GetPods() {
		holder := info.GetPod()
		for _, port := range conflicting(wanted, daemonset.HostPortsOf(&holder.Spec)) {
			taken = append(taken, strconv.Itoa(int(port.Port)))
			i.v.Blockers = append(i.v.Blockers, Blocker{Pod: i.describe(holder), Takes: fmt.Sprintf("host port %d", port.Port), holder: holder})
			i.cause.ownPort = i.cause.ownPort || i.set.OwnerOf(holder) == i.compiled
		}
	}
	slices.Sort(taken)
	taken = slices.Compact(taken)
	if i.cause.ownPort {
		return StepFilters, ReasonPortTaken, fmt.Sprintf("The old pod of the same DaemonSet has the host port %s: with maxSurge, the new pod "+
			"is to start before the old one ends, and the two cannot share the port.", strings.Join(taken, ", "))
	}
	return StepFilters, ReasonPortTaken, fmt.Sprintf("The host port %s is taken on the node.", strings.Join(taken, ", "))
}

// conflicting returns those of ports that conflict with one of others.
func conflicting(ports, others []daemonset.HostPort) []daemonset.HostPort {
	return slices.DeleteFunc(slices.Clone(ports), func(port daemonset.HostPort) bool {
		return !slices.ContainsFunc(others, port.Conflicts)
	})
}

// findBlockers lists the pods that have of what is short, and says why they stay.
func (i *inquiry) findBlockers(pod *corev1.Pod, gone []*corev1.Pod) {
	if i.v.Reason == ReasonNoRoom {
		for _, holder := range i.on[i.node.Name] {
			if !slices.Contains(gone, holder) {
				i.addBlocker(holder, "")
			}
		}
		for _, nominee := range i.nomineesBefore(pod) {
			i.addBlocker(nominee.GetPod(), ", to come")
		}
		first := i.v.Shortages[0].Resource
		slices.SortStableFunc(i.v.Blockers, func(a, b Blocker) int {
			return cmp.Or(cmp.Compare(b.amounts[first], a.amounts[first]), compareNames(a.Name, b.Name))
		})
	}
	for n := range i.v.Blockers {
		i.v.Blockers[n].Spared = i.whySpared(i.v.Blockers[n].holder, pod)
	}
}

// addBlocker adds holder if it has any of what is short.
func (i *inquiry) addBlocker(holder *corev1.Pod, note string) {
	has := daemonset.PodResources(holder)
	amounts := make(map[string]int64)
	var takes []string
	for _, shortage := range i.v.Shortages {
		if amount := has.Amount(corev1.ResourceName(shortage.Resource)); amount > 0 {
			amounts[shortage.Resource] = amount
			takes = append(takes, FormatAmount(shortage.Resource, amount))
		}
	}
	if len(amounts) > 0 {
		i.v.Blockers = append(i.v.Blockers, Blocker{Pod: i.describe(holder), Takes: strings.Join(takes, ", ") + note, amounts: amounts, holder: holder})
	}
}
