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
	"k8s.io/apimachinery/pkg/labels"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/dryrun"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

// offer offers the node to pod, and makes the verdict of what is against it. gone are
// pods on the node that are taken to have left.
func (i *inquiry) offer(ctx context.Context, pod *corev1.Pod, gone ...*corev1.Pod) (fits bool) {
	if i.cluster.NodesUnread {
		return true
	}
	pod = i.checkable(pod)
	scheduler := i.schedulers.Stock
	if i.inForce(pod) == Everynode {
		scheduler = i.schedulers.Everynode
	}
	var a *dryrun.Attempt
	node, err := i.schedulers.Node(i.node.Name)
	if err == nil {
		a, err = scheduler.Try(ctx, pod, node, gone...)
	}
	if err != nil {
		i.fail(fmt.Errorf("pod %s/%s on node %s: %w", pod.Namespace, pod.Name, i.node.Name, err))
		return false
	}
	if a.Fits() {
		return true
	}
	leaving := slices.DeleteFunc(slices.Clone(i.on[i.node.Name]), func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp == nil || slices.Contains(gone, pod)
	})
	if len(leaving) > 0 && !a.Final() {
		// It may fit when the pods that are ending have left.
		if b, err := scheduler.Try(ctx, pod, node, slices.Concat(gone, leaving)...); err == nil && b.Fits() {
			i.end(ReasonPreempting, nil)
			for _, pod := range leaving {
				i.block(pod, "ending"+i.span(" for ", *pod.DeletionTimestamp, ""))
			}
			return false
		}
	}
	i.refusals(ctx, pod, a)
	if i.detail {
		i.findBlockers(pod, gone)
	}
	if !a.Final() {
		i.preemption(ctx, pod, node, gone)
	}
	return false
}

// checkable returns pod without the volumes that nothing can be said of: the claims
// could not be read, or are made when the pod has been created.
func (i *inquiry) checkable(pod *corev1.Pod) *corev1.Pod {
	unknown := func(volume corev1.Volume) bool {
		return i.cluster.ClaimsUnread && (volume.PersistentVolumeClaim != nil || volume.Ephemeral != nil) || pod.UID == "" && volume.Ephemeral != nil
	}
	if !slices.ContainsFunc(pod.Spec.Volumes, unknown) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, unknown)
	return pod
}

// fitsNow is for pods that the simulated scheduler would bind. The node has just changed, or the
// real scheduler has other rules.
func (i *inquiry) fitsNow(pod *corev1.Pod) {
	said := i.v.Pod.Said
	if said == "" {
		i.end(ReasonSchedulable, Args{"what": "The pod fits, and its scheduler is about to place it."})
		return
	}
	const nothing = "Nothing that was checked is in the way, but the scheduler has not placed the pod yet."
	switch allocated := joinAnd(i.schedulers.Devices.Allocated(&pod.Spec, i.node)); {
	case allocated == "":
		i.endAt(StepFilters, ReasonSchedulable, Args{"what": nothing})
	case saysDevices(said):
		i.end(ReasonNoDevice, Args{"what": "The scheduler finds no free " + allocated + ", which Dynamic Resource Allocation serves: what is free was not checked."})
	default:
		i.unchecked = true
		i.endAt(StepFilters, ReasonSchedulable, Args{"what": nothing + " What is free of " + allocated + ", which Dynamic Resource Allocation serves, was not checked."})
	}
	i.fact("The scheduler said" + i.span(" ", scheduledCondition(pod).LastTransitionTime, " ago") + ": " + said)
	if pod.Status.NominatedNodeName == i.node.Name {
		i.fact("Room was made for the pod, and the scheduler will try it again.")
	}
}

// refusals makes the verdict of what the filters have against the node. Where there
// are several, the one that is hardest to overcome is the reason and the others are
// facts.
func (i *inquiry) refusals(ctx context.Context, pod *corev1.Pod, a *dryrun.Attempt) {
	ordered := slices.Clone(a.Refusals)
	slices.SortStableFunc(ordered, func(a, b dryrun.Refusal) int { return compareBool(!a.Final, !b.Final) })
	for n := range ordered {
		switch cause := i.refusal(ctx, pod, a.Node, &ordered[n]); {
		case n > 0:
			i.fact("Besides: " + cause.String())
		case cause.Reason == ReasonNarrowed:
			i.end(cause.Reason, cause.Args)
		default:
			i.endAt(StepFilters, cause.Reason, cause.Args)
		}
	}
}

// refusal says what one filter has against the node.
func (i *inquiry) refusal(ctx context.Context, pod *corev1.Pod, node fwk.NodeInfo, r *dryrun.Refusal) Cause {
	why := strings.Join(r.Reasons, "; ")
	switch r.Plugin {
	case names.NodeResourcesFit:
		return i.resourcesRefusal(pod, node)
	case names.NodePorts:
		return i.portsRefusal(pod, node)
	case names.TaintToleration:
		return Cause{ReasonTaint, i.taintArgs(ctx, untolerated(pod.Spec.Tolerations, i.node.Spec.Taints), "the pod")}
	case readiness.Name:
		return Cause{ReasonRequires, Args{"why": why}}
	case names.InterPodAffinity:
		i.repelledBy(pod)
	case names.NodeAffinity:
		if added := i.addedSelector(pod); len(added) > 0 {
			return Cause{ReasonNarrowed, i.narrowed(added)}
		}
		if mismatches := selectorMismatches(pod.Spec.NodeSelector, i.node); len(mismatches) > 0 {
			return Cause{ReasonNodeSelector, mismatchArgs(mismatches)}
		}
		if args := affinityMismatch(pod.Spec.Affinity, i.node); args != nil {
			return Cause{ReasonNodeAffinity, args}
		}
	}
	return Cause{ReasonUnschedulable, Args{"plugin": r.Plugin, "why": why}}
}

// repelledBy names the pods that anti-affinity keeps pod away from, be it their own or pod's. They
// are in the node's topology domain, which may have several nodes.
func (i *inquiry) repelledBy(pod *corev1.Pod) {
	own, err := framework.NewPodInfo(pod)
	if err != nil || !i.detail {
		return
	}
	labelsOf := func(namespace string) labels.Set {
		if n := i.namespaces[namespace]; n != nil {
			return n.Labels
		}
		return nil
	}
	repels := func(terms []fwk.AffinityTerm, other *corev1.Pod, at *corev1.Node) bool {
		return slices.ContainsFunc(terms, func(term fwk.AffinityTerm) bool {
			domain, ok := i.node.Labels[term.TopologyKey]
			return ok && at.Labels[term.TopologyKey] == domain && term.Matches(other, labelsOf(other.Namespace))
		})
	}
	for _, at := range i.cluster.Nodes {
		for _, holder := range i.on[at.Name] {
			// Few pods have an anti-affinity of their own.
			var theirs []fwk.AffinityTerm
			if affinity := holder.Spec.Affinity; affinity != nil && affinity.PodAntiAffinity != nil {
				if info, err := framework.NewPodInfo(holder); err == nil {
					theirs = info.GetRequiredAntiAffinityTerms()
				}
			}
			if repels(own.GetRequiredAntiAffinityTerms(), holder, at) || repels(theirs, pod, at) {
				i.block(holder, "anti-affinity")
			}
		}
	}
}

// resourcesRefusal says which resources the node has too little of.
func (i *inquiry) resourcesRefusal(pod *corev1.Pod, node fwk.NodeInfo) Cause {
	node = i.withNominees(pod, node)
	var never, short, devices []string
	for _, lack := range noderesources.Fits(pod, node, i.schedulers.Devices.Manager(), noderesources.ResourceRequestsOptions{
		EnablePodLevelResources: utilfeature.DefaultFeatureGate.Enabled(features.PodLevelResources), EnableDRAExtendedResource: true,
	}) {
		name := string(lack.ResourceName)
		i.v.Shortages = append(i.v.Shortages, Shortage{
			Resource: name, Needs: lack.Requested, Free: lack.Capacity - lack.Used, Allocatable: lack.Capacity,
		})
		switch {
		case lack.Capacity == 0 && strings.Contains(name, "/"):
			devices = append(devices, name)
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
	switch {
	case len(never) > 0:
		return Cause{ReasonNeverFits, Args{"lacks": strings.Join(never, " and "), "container": i.greediest()}}
	case len(devices) > 0:
		what := "The node offers no " + strings.Join(devices, " and ") + "."
		// NodeResourcesFit does not say so of a device that Dynamic Resource Allocation serves.
		if said := saidOf(pod); !i.cluster.DeviceClassesRead && !strings.Contains(said, "Insufficient "+devices[0]) {
			what += " Whether Dynamic Resource Allocation serves it was not checked."
			i.unchecked = !saysDevices(said)
		}
		return Cause{ReasonNoDevice, Args{"what": what}}
	default:
		return Cause{ReasonNoRoom, Args{"short": strings.Join(short, " and ")}}
	}
}

// greediest returns the container of the template with the largest request of a resource that the
// node has too little of.
func (i *inquiry) greediest() string {
	name, most := "", int64(-1)
	for _, c := range i.template().Containers {
		amounts := daemonset.NewResources(c.Resources.Requests)
		for _, shortage := range i.v.Shortages {
			if amount := amounts.Amount(corev1.ResourceName(shortage.Resource)); shortage.Needs > shortage.Allocatable && amount > most {
				name, most = c.Name, amount
			}
		}
	}
	return name
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
	return slices.DeleteFunc(slices.Clone(i.schedulers.Nominated[i.node.Name]), func(nominee fwk.PodInfo) bool {
		return nominee.GetPod().UID == pod.UID || corev1helper.PodPriority(nominee.GetPod()) < corev1helper.PodPriority(pod)
	})
}

// portsRefusal names who has the pod's host ports.
func (i *inquiry) portsRefusal(pod *corev1.Pod, node fwk.NodeInfo) Cause {
	wanted := daemonset.HostPortsOf(&pod.Spec)
	var taken []string
	for _, info := range node.GetPods() {
		holder := info.GetPod()
		theirs := daemonset.HostPortsOf(&holder.Spec)
		for _, port := range wanted {
			if !slices.ContainsFunc(theirs, port.Conflicts) {
				continue
			}
			taken = append(taken, strconv.Itoa(int(port.Port)))
			i.block(holder, fmt.Sprintf("host port %d", port.Port))
			i.ownPort = i.ownPort || i.set.OwnerOf(holder) == i.compiled
		}
	}
	slices.Sort(taken)
	taken = slices.Compact(taken)
	args := Args{"whose": "The", "ports": strings.Join(taken, ", "), "why": " is taken on the node."}
	if i.ownPort {
		args["whose"], args["why"] = "The old pod of the same DaemonSet has the", ": with maxSurge, the new pod is to start before the old one ends, and the two cannot share the port."
	}
	return Cause{ReasonPortTaken, args}
}

// findBlockers lists the pods that have some of what is short, and says why they stay.
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
			return cmp.Or(cmp.Compare(b.amounts[first], a.amounts[first]), CompareNames(a.Name, b.Name))
		})
	}
	for n := range i.v.Blockers {
		i.v.Blockers[n].Spared = i.whySpared(i.v.Blockers[n].holder, pod)
	}
}

// addBlocker adds holder if it has any of what is short.
func (i *inquiry) addBlocker(holder *corev1.Pod, note string) {
	has, takes, amounts := daemonset.PodResources(holder), "", make(map[string]int64)
	for _, shortage := range i.v.Shortages {
		if amount := has.Amount(corev1.ResourceName(shortage.Resource)); amount > 0 {
			amounts[shortage.Resource] = amount
			takes = withAmount(takes, shortage.Resource, amount)
		}
	}
	if len(amounts) > 0 {
		i.block(holder, takes+note)
		i.v.Blockers[len(i.v.Blockers)-1].amounts = amounts
	}
}

// block adds a pod that has what the daemon pod needs.
func (i *inquiry) block(holder *corev1.Pod, takes string) {
	i.v.Blockers = append(i.v.Blockers, Blocker{Pod: describe(holder), Takes: takes, holder: holder})
}

// saysDevices says whether a scheduler has refused a pod for its devices, as DynamicResources does.
func saysDevices(said string) bool {
	return strings.Contains(said, "claim") || strings.Contains(said, "device class")
}
