// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	_ "embed"
	"slices"
	"sync"

	"sigs.k8s.io/yaml"
)

// Reason is a verdict in one word, for programs. [Reason.Words] is for people.
type Reason string

// The reasons. What they mean is in reasons.yaml.
const (
	ReasonNodeName     Reason = "NodeNameMismatch"
	ReasonNodeSelector Reason = "NodeSelectorMismatch"
	ReasonNodeAffinity Reason = "NodeAffinityMismatch"
	ReasonTaint        Reason = "TaintNotTolerated"
	ReasonDeleting     Reason = "DaemonSetDeleting"
	ReasonNotKnown     Reason = "NotKnown"

	ReasonCreateFailed Reason = "CreateFailed"
	ReasonNotCreated   Reason = "NotCreated"
	ReasonTerminating  Reason = "Terminating"

	ReasonNarrowed Reason = "AdmissionNarrowed"
	ReasonUnpinned Reason = "PinLost"

	ReasonGated       Reason = "SchedulingGated"
	ReasonNoScheduler Reason = "NoScheduler"

	ReasonNeverFits     Reason = "NeverFits"
	ReasonNoDevice      Reason = "NoDevice"
	ReasonNoRoom        Reason = "NoRoom"
	ReasonPortTaken     Reason = "PortTaken"
	ReasonRequires      Reason = "RequiredNotReady"
	ReasonUnschedulable Reason = "Unschedulable"
	ReasonSchedulable   Reason = "Schedulable"
	ReasonPreempting    Reason = "Preempting"

	ReasonRejected     Reason = "PodFailed"
	ReasonNodeNotReady Reason = "NodeNotReady"
	ReasonNoNetwork    Reason = "NoNetwork"
	ReasonVolume       Reason = "VolumeNotReady"
	ReasonNotStarted   Reason = "NotStarted"
	ReasonImage        Reason = "ImagePull"
	ReasonContainer    Reason = "ContainerCreate"
	ReasonCrash        Reason = "CrashLoop"
	ReasonInit         Reason = "Initializing"
	ReasonNotReady     Reason = "NotReady"

	ReasonNotAvailable Reason = "NotAvailable"
	ReasonOutdated     Reason = "Outdated"
	ReasonReady        Reason = "Ready"
	ReasonWouldRun     Reason = "WouldRun"
)

// aging says how a gap with a reason becomes trouble.
type aging string

const (
	// waits: it may close by itself, and is trouble when it has not for [Options.Patience],
	// or when the kubelet has warned for [warnedFor].
	waits aging = "waits"
	// atOnce: it is trouble at any age.
	atOnce aging = "atOnce"
	// noGap: the node has what it should have.
	noGap aging = "noGap"
)

// Row is a reason with all that is to be said of it. Texts may have arguments in
// braces. In commands these are ds, namespace, node, pod, podspace (the pod's namespace)
// and those of the cause.
type Row struct {
	Reason Reason `json:"reason"`
	// Step is where the chain usually ends with it.
	Step Step `json:"step"`
	// Ages says how a gap with the reason becomes trouble.
	Ages aging `json:"ages"`
	// Shared: what is behind it is not the DaemonSet's own, so that others have the same problem.
	Shared bool `json:"shared,omitempty"`
	// Words are the reason as an operator would say it.
	Words string `json:"words"`
	// Message is one sentence, or a few. A value that is each node's own has a star.
	Message string `json:"message"`
	// Meaning says what has happened, for a page.
	Meaning string `json:"meaning"`
	// Next is the command that shows more, without the program. It only reads.
	Next string `json:"next,omitempty"`
	// Mend says how to mend it. It is empty where there is nothing to mend.
	Mend string `json:"mend,omitempty"`
	// Alert is the alert of the Kubernetes mixin that fires for it
	// (kubernetes-monitoring/kubernetes-mixin, alerts/apps_alerts.libsonnet).
	Alert string `json:"alert,omitempty"`
}

// Commands that the rows name, too.
const (
	describeDaemonSet = "describe {ds} -n {namespace}"
	describePod       = "describe {pod} -n {podspace}"
	showPlacement     = "get {ds} -n {namespace} -o jsonpath={.spec.template.spec}"
)

//go:embed reasons.yaml
var reasonsFile []byte

// rows are all reasons in the order of the steps.
var rows = sync.OnceValue(func() []Row {
	var all []Row
	// The file is a part of the program, and a test reads it.
	if err := yaml.UnmarshalStrict(reasonsFile, &all); err != nil {
		return nil
	}
	return all
})

// rowOf are the rows by their reasons.
var rowOf = sync.OnceValue(func() map[Reason]*Row {
	byReason := make(map[Reason]*Row)
	for n := range rows() {
		byReason[rows()[n].Reason] = &rows()[n]
	}
	return byReason
})

// Rows returns all reasons in the order of the steps.
func Rows() []Row {
	return slices.Clone(rows())
}

// row returns what is to be said of a reason; for one that is not in the table, its name.
func (r Reason) row() *Row {
	if row := rowOf()[r]; row != nil {
		return row
	}
	return &Row{Reason: r, Words: string(r)}
}

// Words returns the reason as an operator would say it.
func (r Reason) Words() string {
	return r.row().Words
}
