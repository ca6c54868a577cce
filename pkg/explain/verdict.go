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

// State is a verdict in one of five kinds, each of which a map has a symbol for.
type State string

// The states.
const (
	// StateReady: the node has a Ready pod that does not crash.
	StateReady State = "ready"
	// StateWaiting: it has none yet, or an update brings one, and it may come by itself within
	// [Options.Patience].
	StateWaiting State = "waiting"
	// StateStuck: it will not come by itself.
	StateStuck State = "stuck"
	// StateStray: it has a pod, and the DaemonSet does not belong there.
	StateStray State = "stray"
	// StateNone: the DaemonSet does not belong there.
	StateNone State = "none"
)

// States returns all states, the best first.
func States() []State {
	return []State{StateReady, StateWaiting, StateStuck, StateStray, StateNone}
}

var stateWords = map[State]string{
	StateReady: "ready", StateWaiting: "on its way", StateStuck: "stuck", StateStray: "should not be here", StateNone: "does not belong here",
}

// Words returns the state as a legend explains it.
func (s State) Words() string {
	return stateWords[s]
}

// Verdict is what is to be said of one DaemonSet on one node.
type Verdict struct {
	Node string `json:"node"`
	// Step is where the chain ends.
	Step   Step   `json:"step"`
	Reason Reason `json:"reason"`
	// Outcome is what reason, age and warnings together amount to.
	Outcome State `json:"state"`
	// Causes are all that keeps a Ready pod from the node, the main one first: that is
	// Reason. Message writes them.
	Causes  []Cause `json:"causes,omitempty"`
	Message string  `json:"message"`
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
	// Next is the command that shows more. It only reads.
	Next string `json:"next,omitempty"`
	// Fix is what mends it, nil if there is nothing to mend.
	Fix *Fix `json:"fix,omitempty"`

	of *inquiry
}

// forgotten says whether a start-up taint is still there that its agent should have taken off.
func (v *Verdict) forgotten() bool {
	return v.of.forgotten != nil || v.of.root != nil
}

// Fix is what mends the cause of a verdict.
type Fix struct {
	// Text says what to do, what that changes, and how much.
	Text string `json:"text"`
	// Command does it, but for its flag --dry-run=server, with which it changes nothing.
	// It is empty where no command is safe to give.
	Command string `json:"command,omitempty"`

	// forNodes returns what mends the same on several nodes; nil if that is no more than on one.
	forNodes func(verdicts []*Verdict) *Fix
	// evicts is how many pods of a lower priority than above have to go.
	evicts int
	above  int32
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

	// amounts are those of the short resources.
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

// The schedulers whose rules may be in force. Everynode is also the name under which it can be asked for beside
// another scheduler (deploy/scheduler-config/second.yaml).
const (
	Stock     = "kube-scheduler"
	Everynode = "everynode-scheduler"
)

// Eviction is the pods that a scheduler evicts, or why it evicts none.
type Eviction struct {
	Victims []Pod `json:"victims,omitempty"`
	// OverBudget is how many of them a PodDisruptionBudget would have spared.
	OverBudget int `json:"overBudget,omitempty"`
	// WhyNot is why no pod is evicted; empty if one is.
	WhyNot string `json:"whyNot,omitempty"`
}
