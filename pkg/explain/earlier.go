// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// endings are the reasons of the warnings with which a kubelet refuses or ends a pod, but for those that begin
// with outOf (k8s.io/kubernetes/pkg/kubelet: eviction, preemption, lifecycle, sysctl, nodeshutdown, and the
// policies of cm).
var endings = sets.New("Evicted", "Preempting", "NodeShutdown", "NodeAffinity", "NodePorts", "InvalidNodeInfo", "UnexpectedAdmissionError",
	"UnknownReason", "UnexpectedPredicateFailureType", "TopologyAffinityError", "SMTAlignmentError", "AppArmor", "SysctlForbidden",
	"PodOSNotSupported", "PodOSSelectorNodeLabelDoesNotMatch", "PodFeatureUnsupported", "PodLevelResourcesNotSupported",
	"SupplementalGroupsPolicyNotSupported", "InitContainerRestartPolicyForbidden")

// outOf begins the reason for which a kubelet refuses a pod when the node has not enough of a resource.
const outOf = "OutOf"

// place is where a DaemonSet has lost pods.
type place struct{ namespace, daemonSet, node string }

// noteLosses notes the pods that are gone and that a kubelet refused or ended.
func (e *Engine) noteLosses() {
	for _, event := range e.cluster.Events {
		about := &event.InvolvedObject
		if about.Kind != "Pod" || e.podUIDs.Has(about.UID) || !endings.Has(event.Reason) && !strings.HasPrefix(event.Reason, outOf) {
			continue
		}
		// The controller adds one word to the DaemonSet's name: agent-windows-x is a pod of agent-windows.
		at := place{about.Namespace, about.Name[:max(0, strings.LastIndexByte(about.Name, '-'))], event.Source.Host}
		if !slices.ContainsFunc(e.lost[at], func(known *corev1.Event) bool { return known.InvolvedObject.UID == about.UID }) {
			e.lost[at] = append(e.lost[at], event)
		}
	}
}

// changed returns when the DaemonSet was created or last changed, but for its status, as far as it tells.
func (s *subject) changed() *metav1.Time {
	at := &s.ds.CreationTimestamp
	for _, entry := range s.ds.ManagedFields {
		if entry.Subresource == "" {
			at = latest(at, entry.Time)
		}
	}
	return at
}

// earlier tells of the pods that were on the node before. If they failed again and again, that is the reason, and
// not what the next one waits for at the moment, or that it is Ready for a while.
func (i *inquiry) earlier() {
	// What came before the last change says nothing of the pods after it.
	var counted podFailures
	args := Args{"what": "fails again and again"}
	if f := i.creation.failures[i.node.Name]; f != nil {
		if i.changed().Before(&f.last) {
			counted = *f
		}
		i.fact(fmt.Sprintf("At least %d of its pods failed on the node, the last one%s. The controller deletes failed pods, each time after a longer wait, up to %s.",
			f.count, i.span(" ", f.last, " ago"), strings.TrimSuffix(longestBackOff.String(), "0s")))
	}
	lost := i.lost[place{i.ds.Namespace, i.ds.Name, i.node.Name}]
	if last := latestEvent(lost, func(*corev1.Event) bool { return true }); last != nil {
		var losses podFailures
		for _, event := range lost {
			if first, last, _ := eventTimes(event); i.changed().Before(&last) {
				losses.add(1, first, last)
			}
		}
		if losses.count >= counted.count {
			counted = losses
		}
		_, at, _ := eventTimes(last)
		text := fmt.Sprintf("Pod %s, which is gone: %s%s: %s.", last.InvolvedObject.Name, last.Reason, i.span(" ", at, " ago"), strings.TrimSuffix(last.Message, "."))
		if len(lost) > 1 {
			text += fmt.Sprintf(" It is the last one of %d that were lost there.", len(lost))
		}
		i.fact(text)
		args = args.saying(last.Reason, last.Message)
	}
	row, recently := i.v.Reason.row(), soundAfter
	switch {
	case i.v.Step == StepReady:
	case row.Ages != waits, row.Shared, i.v.Step != StepCreation && i.v.Step != StepKubelet:
		return
	default:
		// The controller may have kept the last one for so long.
		recently += longestBackOff
	}
	if counted.count >= fewRestarts && i.now.Sub(counted.last.Time) < recently {
		i.v.Since = &counted.first
		i.end(ReasonRejected, args)
	}
}
