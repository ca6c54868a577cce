// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Step is a link of the chain from a DaemonSet to a Ready pod on a node.
type Step string

// The steps, in their order.
const (
	// StepController: the DaemonSet controller decides whether the node gets a pod.
	StepController Step = "controller"
	// StepCreation: it creates the pod.
	StepCreation Step = "creation"
	// StepAdmission: the API server and its webhooks change the pod.
	StepAdmission Step = "admission"
	// StepQueue: the pod waits for its scheduler to look at it.
	StepQueue Step = "queue"
	// StepFilters: the scheduler decides whether the pod may go to its node.
	StepFilters Step = "filters"
	// StepPreemption: if not, the scheduler makes room.
	StepPreemption Step = "preemption"
	// StepKubelet: the node's kubelet starts the pod.
	StepKubelet Step = "kubelet"
	// StepReady: the pod is Ready.
	StepReady Step = "ready"
)

// Steps returns all steps in their order.
func Steps() []Step {
	return []Step{StepController, StepCreation, StepAdmission, StepQueue, StepFilters, StepPreemption, StepKubelet, StepReady}
}

// Reason is a verdict in one word, for programs. [Reason.Words] is for people.
type Reason string

// The reasons, by the step that they belong to.
const (
	// The controller does not want a pod on the node.

	// ReasonNodeName: the template names another node.
	ReasonNodeName Reason = "NodeNameMismatch"
	// ReasonNodeSelector: a label that the template's nodeSelector asks for is missing or different.
	ReasonNodeSelector Reason = "NodeSelectorMismatch"
	// ReasonNodeAffinity: the template's required node affinity does not match.
	ReasonNodeAffinity Reason = "NodeAffinityMismatch"
	// ReasonTaint: the node has a taint that the pod does not tolerate. With
	// StepFilters the template does tolerate it, but the pod doesn't.
	ReasonTaint Reason = "TaintNotTolerated"
	// ReasonDeleting: the DaemonSet is being deleted.
	ReasonDeleting Reason = "DaemonSetDeleting"

	// The controller wants a pod, and there is none.

	// ReasonCreateFailed: the API server refuses the pod.
	ReasonCreateFailed Reason = "CreateFailed"
	// ReasonBackOff: earlier pods failed on the node, the controller waits before it makes another one.
	ReasonBackOff Reason = "FailedPodBackOff"
	// ReasonNotCreated: the controller has not got to it.
	ReasonNotCreated Reason = "NotCreated"

	// Admission made something of the pod that cannot run.

	// ReasonNarrowed: the pod asks for labels that the template doesn't, and its node lacks them.
	ReasonNarrowed Reason = "AdmissionNarrowed"
	// ReasonUnpinned: the pod no longer says which node it is for.
	ReasonUnpinned Reason = "PinLost"

	// The pod waits for a scheduler.

	// ReasonGated: the pod has scheduling gates.
	ReasonGated Reason = "SchedulingGated"
	// ReasonNoScheduler: no scheduler has looked at the pod.
	ReasonNoScheduler Reason = "NoScheduler"

	// A scheduler refuses the node.

	// ReasonNeverFits: the pod asks for more than the node has in all.
	ReasonNeverFits Reason = "NeverFits"
	// ReasonNoRoom: the pod asks for more than the node has left.
	ReasonNoRoom Reason = "NoRoom"
	// ReasonPortTaken: another pod has the host port.
	ReasonPortTaken Reason = "PortTaken"
	// ReasonUnschedulable: another filter refuses the node.
	ReasonUnschedulable Reason = "Unschedulable"
	// ReasonPreempting: pods are leaving to make room.
	ReasonPreempting Reason = "Preempting"
	// ReasonSchedulable: nothing is in the way any more.
	ReasonSchedulable Reason = "Schedulable"

	// The kubelet has the pod.

	// ReasonRejected: the kubelet refused the pod, or ended it.
	ReasonRejected Reason = "PodFailed"
	// ReasonNodeNotReady: the node does not report.
	ReasonNodeNotReady Reason = "NodeNotReady"
	// ReasonNotStarted: the kubelet has not begun with the pod.
	ReasonNotStarted Reason = "NotStarted"
	// ReasonImage: an image cannot be had.
	ReasonImage Reason = "ImagePull"
	// ReasonContainer: a container cannot be created.
	ReasonContainer Reason = "ContainerCreate"
	// ReasonCrash: a container ends again and again.
	ReasonCrash Reason = "CrashLoop"
	// ReasonInit: an init container has not finished.
	ReasonInit Reason = "Initializing"
	// ReasonNotReady: the containers run and the pod is not Ready.
	ReasonNotReady Reason = "NotReady"
	// ReasonTerminating: the old pod has not ended, and no new one is made before it has.
	ReasonTerminating Reason = "Terminating"

	// All is well, or nearly.

	// ReasonNotAvailable: the pod is Ready, but not for minReadySeconds.
	ReasonNotAvailable Reason = "NotAvailable"
	// ReasonOutdated: the pod is Ready and of an earlier template.
	ReasonOutdated Reason = "Outdated"
	// ReasonReady: the pod is Ready.
	ReasonReady Reason = "Ready"
)

// reasons are all of them in the order of the steps, with their words.
var reasons = []struct {
	reason Reason
	words  string
}{
	{ReasonNodeName, "not selected"},
	{ReasonNodeSelector, "not selected"},
	{ReasonNodeAffinity, "not selected"},
	{ReasonTaint, "taint not tolerated"},
	{ReasonDeleting, "being deleted"},
	{ReasonCreateFailed, "no pod: refused"},
	{ReasonBackOff, "no pod: back-off"},
	{ReasonNotCreated, "no pod"},
	{ReasonNarrowed, "narrowed by admission"},
	{ReasonUnpinned, "pin lost"},
	{ReasonGated, "gated"},
	{ReasonNoScheduler, "no scheduler"},
	{ReasonNeverFits, "can never fit"},
	{ReasonNoRoom, "no room"},
	{ReasonPortTaken, "host port taken"},
	{ReasonUnschedulable, "unschedulable"},
	{ReasonPreempting, "making room"},
	{ReasonSchedulable, "about to be placed"},
	{ReasonRejected, "pod failed"},
	{ReasonNodeNotReady, "node not ready"},
	{ReasonNotStarted, "not started"},
	{ReasonImage, "image not pulled"},
	{ReasonContainer, "container not created"},
	{ReasonCrash, "crashing"},
	{ReasonInit, "initializing"},
	{ReasonNotReady, "not ready"},
	{ReasonTerminating, "terminating"},
	{ReasonNotAvailable, "ready, not yet available"},
	{ReasonOutdated, "ready, to be updated"},
	{ReasonReady, "ready"},
	{ReasonWouldRun, "would run"},
}

// Reasons returns all reasons in the order of the steps.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for n := range reasons {
		all[n] = reasons[n].reason
	}
	return all
}

// Words returns the reason as an operator would say it.
func (r Reason) Words() string {
	for n := range reasons {
		if reasons[n].reason == r {
			return reasons[n].words
		}
	}
	return string(r)
}

// Verdict is what is to be said of one DaemonSet on one node.
type Verdict struct {
	Node string `json:"node"`
	// Step is where the chain ends.
	Step   Step   `json:"step"`
	Reason Reason `json:"reason"`
	// Message is one sentence. It is the same for all nodes with the same problem.
	Message string `json:"message"`
	// Wanted says whether the DaemonSet controller wants a pod on the node.
	Wanted bool `json:"wanted"`
	// Ready says whether the node has a Ready pod of the DaemonSet, whatever else is wrong.
	Ready bool `json:"ready"`
	// Pod is the pod that the verdict is about.
	Pod *Pod `json:"pod,omitempty"`
	// Since is when the gap opened, if the objects tell.
	Since *metav1.Time `json:"since,omitempty"`
	// Facts are further sentences about this node alone.
	Facts []string `json:"facts,omitempty"`
	// Shortages are the resources that the pod asks for and the node has not left.
	Shortages []Shortage `json:"shortages,omitempty"`
	// Blockers are the pods that have what the pod needs, the largest first.
	Blockers []Blocker `json:"blockers,omitempty"`
	// Preemption is what the schedulers would do to make room.
	Preemption *Preemption `json:"preemption,omitempty"`
	// Admission is how the pod differs from the template it was made from.
	Admission []string `json:"admission,omitempty"`
	// Next is the command to run next.
	Next string `json:"next,omitempty"`

	// nextFor returns Next for several nodes with the same verdict; nil if it is for one.
	nextFor func(nodes []string) string
}

// Pod names a pod and says what matters of it.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Owner is what controls it, as Kind name; empty if nothing does. The Deployment
	// is named in place of its ReplicaSet.
	Owner    string `json:"owner,omitempty"`
	Priority int32  `json:"priority"`
	// Scheduler is the name of its scheduler.
	Scheduler string `json:"scheduler,omitempty"`
	// Created is when it was created.
	Created metav1.Time `json:"created"`
	// Said is what its scheduler has said last, and SaidAt when.
	Said   string       `json:"said,omitempty"`
	SaidAt *metav1.Time `json:"saidAt,omitempty"`
}

// String returns namespace/name.
func (p *Pod) String() string {
	return p.Namespace + "/" + p.Name
}

// OwnerText writes what controls p with its namespace, or p itself if nothing does.
func (p *Pod) OwnerText() string {
	return ownerText(p.Namespace, cmp.Or(p.Owner, "Pod "+p.Name))
}

// ownerText puts the namespace into an owner's Kind name.
func ownerText(namespace, owner string) string {
	kind, name, _ := strings.Cut(owner, " ")
	return kind + " " + namespace + "/" + name
}

// Shortage is a resource of which a node has too little. Amounts are in the unit of
// the resource: millicores, bytes, pieces.
type Shortage struct {
	Resource string `json:"resource"`
	Needs    int64  `json:"needs"`
	// Free may be negative on a node that is overcommitted.
	Free        int64 `json:"free"`
	Allocatable int64 `json:"allocatable"`
}

// Blocker is a pod that has what another one needs.
type Blocker struct {
	Pod
	// Takes is how much of each short resource it has, or the port.
	Takes string `json:"takes"`
	// Spared is why no scheduler evicts it for the daemon pod; empty if one would.
	Spared string `json:"spared,omitempty"`

	amounts map[string]int64
	holder  *corev1.Pod
}

// Preemption is what each scheduler would do to make room for a pod. They differ:
// kube-scheduler evicts pods of lower priority, everynode-scheduler on the one node
// of a daemon pod also pods of the same priority.
type Preemption struct {
	Stock     Eviction `json:"kubeScheduler"`
	Everynode Eviction `json:"everynodeScheduler"`
	// InForce says whose rules apply to the pod, as far as its scheduler has shown it:
	// "kube-scheduler", "everynode-scheduler" or "".
	InForce string `json:"inForce,omitempty"`
}

// The schedulers whose rules may be in force.
const (
	Stock     = "kube-scheduler"
	Everynode = "everynode-scheduler"
)

// Eviction is whom a scheduler evicts, or why nobody.
type Eviction struct {
	Victims []Pod `json:"victims,omitempty"`
	// OverBudget is how many of them a PodDisruptionBudget would have spared.
	OverBudget int `json:"overBudget,omitempty"`
	// WhyNot is why nobody is evicted; empty if somebody is.
	WhyNot string `json:"whyNot,omitempty"`
}
