// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	ReasonPaced         Reason = "EvictionPaced"

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
	// onceJoined: it is trouble at once, except on a node that is younger than [Options.Patience].
	onceJoined aging = "onceJoined"
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

//go:embed reasons.yaml
var reasonsFile []byte

// rows are all reasons, in the order of the steps and by their names.
var rows = sync.OnceValues(func() (all []Row, byReason map[Reason]*Row) {
	byReason = make(map[Reason]*Row)
	// The file is a part of the program, and a test reads it.
	if err := yaml.UnmarshalStrict(reasonsFile, &all); err != nil {
		return nil, byReason
	}
	for n := range all {
		byReason[all[n].Reason] = &all[n]
	}
	return all, byReason
})

// row returns what is to be said of a reason; for one that is not in the table, its name.
func (r Reason) row() *Row {
	if _, byReason := rows(); byReason[r] != nil {
		return byReason[r]
	}
	return &Row{Reason: r, Words: string(r)}
}

// Words returns the reason as an operator would say it.
func (r Reason) Words() string {
	return r.row().Words
}

// Args are the arguments of a cause, by the names that the message of its reason has
// in braces. Arguments that the message does not name only tell causes apart.
type Args map[string]string

// saying adds in which words a kubelet or a condition gives the reason, as far as it does.
func (a Args) saying(why, said string) Args {
	if why != "" {
		a["why"] = " (" + why + ")"
	}
	if said != "" {
		a["colon"], a["said"] = ": ", strings.TrimSuffix(said, ".")
	}
	return a
}

// Cause is a reason with what it is about.
type Cause struct {
	Reason Reason `json:"reason"`
	Args   Args   `json:"args,omitempty"`
}

// placeholder is an argument in the text of a reason: {want}, or {have*} for a value that
// is each node's own.
var placeholder = regexp.MustCompile(`\{([a-z]+)(\*?)\}`)

// String returns the message: a sentence, or a few.
func (c *Cause) String() string {
	return fillIn(c.Reason.row().Message, c.Args)
}

// fillIn puts arguments into the text of a reason.
func fillIn(text string, args Args) string {
	return placeholder.ReplaceAllStringFunc(text, func(found string) string { return args[strings.Trim(found, "{*}")] })
}

// keyOf is the same for lists of causes that differ in the nodes' own values at most.
func keyOf(causes []Cause) string {
	var key []string
	for _, c := range causes {
		key = append(key, "", string(c.Reason))
		for _, name := range slices.Sorted(maps.Keys(c.Args)) {
			if !strings.Contains(c.Reason.row().Message, "{"+name+"*}") {
				key = append(key, name+"="+c.Args[name])
			}
		}
	}
	return strings.Join(key, "\n")
}

// message writes several causes, of which the first is the main one.
func message(causes []Cause) string {
	texts := make([]string, len(causes))
	for n := range causes {
		texts[n] = causes[n].String()
	}
	return strings.Join(texts, " Besides: ")
}

// merge returns the causes of many nodes in one: what is each node's own is a summary.
// The causes of all verdicts have the same key.
func merge(verdicts []*Verdict) []Cause {
	merged := slices.Clone(verdicts[0].Causes)
	for n := range merged {
		args := maps.Clone(merged[n].Args)
		for name := range args {
			values := make([]string, len(verdicts))
			for m, v := range verdicts {
				values[m] = v.Causes[n].Args[name]
			}
			args[name] = summarize(values)
		}
		merged[n].Args = args
	}
	return merged
}

// fewValues is how many different values are written out.
const fewValues = 3

// summarize writes values of many nodes: a range of numbers, a few values, or the first
// ones and how many more there are.
func summarize(values []string) string {
	distinct := slices.Compact(slices.SortedFunc(slices.Values(values), CompareNames))
	_, err := strconv.Atoi(distinct[0])
	last := distinct[len(distinct)-1]
	_, errLast := strconv.Atoi(last)
	switch {
	case len(distinct) == 1:
		return last
	case err == nil && errLast == nil:
		return distinct[0] + " to " + last
	case len(distinct) <= fewValues:
		return strings.Join(distinct[:len(distinct)-1], ", ") + " or " + last
	default:
		return fmt.Sprintf("%s or %d others", strings.Join(distinct[:fewValues-1], ", "), len(distinct)-fewValues+1)
	}
}
