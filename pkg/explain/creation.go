// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Reasons of the DaemonSet controller's events
// (k8s.io/kubernetes/pkg/controller and its package daemon).
const (
	eventFailedCreate     = "FailedCreate"
	eventSuccessfulCreate = "SuccessfulCreate"
	eventFailedPod        = "FailedDaemonPod"
)

// Limits of the controller's patience.
const (
	// longestRetry is the longest time between two tries of a DaemonSet
	// (DefaultTypedControllerRateLimiter in k8s.io/client-go/util/workqueue).
	longestRetry = 1000 * time.Second
	// firstBackOff and longestBackOff are the times between two pods that fail on the same
	// node (startDaemonSetController in k8s.io/kubernetes/cmd/kube-controller-manager/app).
	firstBackOff   = time.Second
	longestBackOff = 15 * time.Minute
)

// creationTrouble is what the controller has reported of pods that it made, or
// could not make.
type creationTrouble struct {
	// refusal is what the API server said last, "" if nothing.
	refusal     string
	first, last metav1.Time
	// failures are the latest reports of failed pods, by node.
	failures map[string]*podFailures
}

// podFailures counts pods that failed on one node.
type podFailures struct {
	count int
	last  metav1.Time
}

// failedPodOn finds the node in the message of an eventFailedPod.
var failedPodOn = regexp.MustCompile(` on node (\S+), will try to kill it$`)

func newCreationTrouble(events []*corev1.Event) *creationTrouble {
	t := &creationTrouble{failures: make(map[string]*podFailures)}
	var succeeded metav1.Time
	for _, event := range events {
		first, last, count := eventTimes(event)
		switch event.Reason {
		case eventFailedCreate:
			if t.refusal == "" || first.Before(&t.first) {
				t.first = first
			}
			if t.refusal == "" || !last.Before(&t.last) {
				t.refusal, t.last = event.Message, last
			}
		case eventSuccessfulCreate:
			if succeeded.Before(&last) {
				succeeded = last
			}
		case eventFailedPod:
			if node := failedPodOn.FindStringSubmatch(event.Message); node != nil {
				t.addFailure(node[1], last, count)
			}
		}
	}
	// The tries before the last success are another story.
	if t.first.Before(&succeeded) && succeeded.Before(&t.last) {
		t.first = succeeded
	}
	if t.last.Before(&succeeded) {
		t.refusal = ""
	}
	return t
}

func (t *creationTrouble) addFailure(node string, last metav1.Time, count int) {
	known := t.failures[node]
	if known == nil {
		known = &podFailures{}
		t.failures[node] = known
	}
	known.count += count
	if known.last.Before(&last) {
		known.last = last
	}
}

// eventTimes returns when an event was first and last seen, and how often. Which
// fields say so depends on the API that it was written through.
func eventTimes(event *corev1.Event) (first, last metav1.Time, count int) {
	first, last, count = event.FirstTimestamp, event.LastTimestamp, int(max(event.Count, 1))
	if first.IsZero() {
		first = metav1.Time(event.EventTime)
	}
	if first.IsZero() {
		first = event.CreationTimestamp
	}
	if event.Series != nil {
		last, count = metav1.Time(event.Series.LastObservedTime), int(event.Series.Count)
	}
	if last.IsZero() {
		last = first
	}
	return first, last, count
}

// noPod says why the controller wants a pod on the node and there is none.
func (i *inquiry) noPod() {
	trouble := i.creation
	switch {
	case len(i.unpinned) > 0:
		i.about(i.unpinned[0])
		i.end(StepAdmission, ReasonUnpinned, "There are pods that don't say which node they are for: something took away "+
			"the node affinity that the controller had given them. It takes the node for empty and makes ever more of them.")
	case trouble.failures[i.node.Name] != nil:
		i.backOff(trouble.failures[i.node.Name])
	case trouble.refusal != "":
		i.refused()
	case i.ds.Status.ObservedGeneration < i.ds.Generation:
		i.v.Since = i.latestChange()
		i.end(StepCreation, ReasonNotCreated, "The DaemonSet controller has not seen the latest version of the DaemonSet: "+
			"it has just been changed, or kube-controller-manager does not run.")
	default:
		i.v.Since = i.latestChange()
		i.end(StepCreation, ReasonNotCreated, "The DaemonSet controller has not created the pod and has reported no trouble: "+
			"it is about to, or kube-controller-manager does not run.")
	}
}

// latestChange is the latest moment from which on the node may have wanted a pod.
func (i *inquiry) latestChange() *metav1.Time {
	since := i.ds.CreationTimestamp
	if since.Before(&i.node.CreationTimestamp) {
		since = i.node.CreationTimestamp
	}
	if ready := nodeReady(i.node); ready != nil && ready.Status == corev1.ConditionTrue && since.Before(&ready.LastTransitionTime) {
		since = ready.LastTransitionTime
	}
	return &since
}

// refused is for pods that the API server does not take.
func (i *inquiry) refused() {
	trouble := i.creation
	i.v.Since = &trouble.first
	message, hint := describeRefusal(trouble.refusal)
	i.cause.refusal = hint
	i.end(StepCreation, ReasonCreateFailed, "The API server refuses the pod: "+message)
	// Every try waits twice as long as the one before, so the next wait is as long as
	// all waits before together.
	wait := min(max(trouble.last.Sub(trouble.first.Time), time.Second), longestRetry)
	i.fact(fmt.Sprintf("Tried last %s ago; %s.", i.age(trouble.last), i.nextTry(trouble.last.Add(wait))))
}

// backOff is for nodes on which one pod after the other has failed.
func (i *inquiry) backOff(failures *podFailures) {
	i.v.Since = &failures.last
	i.end(StepCreation, ReasonBackOff, "Pods failed on the node, and the controller waits before it creates another one.")
	wait := longestBackOff
	if failures.count < 11 { // 2^10 seconds are more than a quarter of an hour
		wait = min(firstBackOff<<(failures.count-1), longestBackOff)
	}
	i.fact(fmt.Sprintf("%d failed, the last one %s ago; %s.", failures.count, i.age(failures.last), i.nextTry(failures.last.Add(wait))))
}

func (e *Engine) nextTry(at time.Time) string {
	if !at.After(e.now) {
		return "the next try is due"
	}
	return "the next try comes in about " + duration.HumanDuration(at.Sub(e.now))
}

func (e *Engine) age(at metav1.Time) string {
	return duration.HumanDuration(e.now.Sub(at.Time))
}

// refusalKind is a known reason why the API server refuses pods.
type refusalKind struct {
	pattern *regexp.Regexp
	// message has the groups of the pattern.
	message string
	// command is what to run next; it has the groups of the pattern.
	command string
}

// refusalKinds are tried in this order. NAMESPACE in a command is replaced.
var refusalKinds = []refusalKind{
	{
		regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.+), used: (.+), limited: (.+)$`),
		"the quota $1 is used up (limit $4, used $3, asked for $2).",
		"describe resourcequota $1 -n NAMESPACE",
	},
	{
		regexp.MustCompile(`failed quota: ([^:]+): must specify (.+)$`),
		"the quota $1 wants every pod to say $2.",
		"describe resourcequota $1 -n NAMESPACE",
	},
	{
		regexp.MustCompile(`error looking up service account [^/]+/([^:]+): .* not found`),
		"the service account $1 does not exist.",
		"create serviceaccount $1 -n NAMESPACE",
	},
	{
		regexp.MustCompile(`no PriorityClass with name (\S+) was found`),
		"the PriorityClass $1 does not exist.",
		"get priorityclasses",
	},
	{
		regexp.MustCompile(`violates PodSecurity "([^"]+)": (.+)$`),
		`the namespace's pod security level "$1" forbids it: $2.`,
		"get namespace NAMESPACE --show-labels",
	},
	{
		regexp.MustCompile(`pod node label selector conflicts with its namespace node label selector`),
		"its node selector contradicts the one of its namespace.",
		"get namespace NAMESPACE -o yaml",
	},
	{
		regexp.MustCompile(`(?s)admission webhook "([^"]+)" denied the request: (.+)$`),
		"the webhook $1 denies it: $2",
		"get validatingwebhookconfigurations,mutatingwebhookconfigurations",
	},
	{
		regexp.MustCompile(`(?s)failed calling webhook "([^"]+)": (.+)$`),
		"the webhook $1 does not answer: $2",
		"get validatingwebhookconfigurations,mutatingwebhookconfigurations",
	},
	{
		regexp.MustCompile(`((?:maximum|minimum) \S+ (?:usage|limit to request ratio) per (?:Container|Pod) is .+)$`),
		"a LimitRange forbids it: $1.",
		"describe limitrange -n NAMESPACE",
	},
}

// forbidden begins the API server's refusals; the name in it is made up for each try.
var forbidden = regexp.MustCompile(`^(?:Error creating: )?(?:pods "[^"]*" is forbidden: )?`)

// DescribeRefusal says in other words why the API server refuses a pod.
func DescribeRefusal(err error) string {
	message, _ := describeRefusal(err.Error())
	return message
}

// describeRefusal returns what the API server said in other words, and the command
// to run next without the program, or "" for none.
func describeRefusal(event string) (message, command string) {
	for _, kind := range refusalKinds {
		if groups := kind.pattern.FindStringSubmatchIndex(event); groups != nil {
			return string(kind.pattern.ExpandString(nil, kind.message, event, groups)),
				string(kind.pattern.ExpandString(nil, kind.command, event, groups))
		}
	}
	return strings.TrimSuffix(forbidden.ReplaceAllString(event, ""), ".") + ".", ""
}
