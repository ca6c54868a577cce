// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
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
	// longestBackOff is the longest time that a failed pod stays before it is deleted
	// (startDaemonSetController in k8s.io/kubernetes/cmd/kube-controller-manager/app).
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
	count       int
	first, last metav1.Time
}

func (f *podFailures) add(count int, first, last metav1.Time) {
	if f.count == 0 || first.Before(&f.first) {
		f.first = first
	}
	f.count, f.last = f.count+count, *latest(&f.last, &last)
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
			succeeded = *latest(&succeeded, &last)
		case eventFailedPod:
			node := failedPodOn.FindStringSubmatch(event.Message)
			if node == nil {
				continue
			}
			// An event that combines several counts those of all nodes.
			if strings.HasPrefix(event.Message, "(combined from similar events)") {
				count = 1
			}
			if t.failures[node[1]] == nil {
				t.failures[node[1]] = &podFailures{}
			}
			t.failures[node[1]].add(count, first, last)
		}
	}
	// Tries before the last success do not count.
	if t.first.Before(&succeeded) && succeeded.Before(&t.last) {
		t.first = succeeded
	}
	if t.last.Before(&succeeded) {
		t.refusal = ""
	}
	return t
}

// eventTimes returns when an event was first and last seen, and how often. Which
// fields say so depends on the API that it was written through.
func eventTimes(event *corev1.Event) (first, last metav1.Time, count int) {
	first, last, count = event.FirstTimestamp, event.LastTimestamp, int(max(event.Count, 1))
	if event.Series != nil {
		last, count = metav1.Time(event.Series.LastObservedTime), int(event.Series.Count)
	}
	first = cmp.Or(first, metav1.Time(event.EventTime), event.CreationTimestamp)
	return first, cmp.Or(last, first), count
}

// noPod says why the controller wants a pod on the node and there is none.
func (i *inquiry) noPod() {
	failures := i.creation.failures[i.node.Name]
	i.v.Since = latest(latest(&i.ds.CreationTimestamp, &i.node.CreationTimestamp), readySince(i.node))
	switch {
	case len(i.unpinned) > 0:
		i.about(i.unpinned[0])
		i.end(ReasonUnpinned, nil)
	case i.creation.refusal != "":
		i.refused()
	case i.ds.Status.ObservedGeneration < i.ds.Generation:
		i.v.Since = latest(i.v.Since, i.changed())
		i.end(ReasonNotCreated, Args{"what": "seen the latest version of the DaemonSet: it has just been changed"})
	case failures != nil:
		i.v.Since = latest(i.v.Since, &failures.last)
		i.end(ReasonNotCreated, Args{"what": "created another pod since the last one failed: it is about to"})
	default:
		i.end(ReasonNotCreated, Args{"what": "created the pod and has reported no trouble: it is about to"})
	}
}

// latestEvent returns the latest of the events that match, or nil.
func latestEvent(events []*corev1.Event, match func(*corev1.Event) bool) (found *corev1.Event) {
	var when metav1.Time
	for _, event := range events {
		if !match(event) {
			continue
		}
		if _, last, _ := eventTimes(event); found == nil || when.Before(&last) {
			found, when = event, last
		}
	}
	return found
}

// refused is for pods that the API server does not take.
func (i *inquiry) refused() {
	trouble := i.creation
	i.v.Since = &trouble.first
	message, kind, name := describeRefusal(trouble.refusal)
	i.refusedAs = kind
	i.end(ReasonCreateFailed, Args{"why": message, "name": name})
	// Every try waits twice as long as the one before, so the next wait is as long as
	// all waits before together.
	next, when := trouble.last.Add(min(max(trouble.last.Sub(trouble.first.Time), time.Second), longestRetry)), "is due"
	if next.After(i.now) {
		when = "comes in about " + duration.HumanDuration(next.Sub(i.now))
	}
	i.fact(i.span("Tried last ", trouble.last, " ago; the next try "+when+"."))
}

// span writes for how long something has been, between before and after; nothing if the objects do
// not tell since when.
func (e *Engine) span(before string, at metav1.Time, after string) string {
	if at.IsZero() {
		return ""
	}
	return before + duration.HumanDuration(e.now.Sub(at.Time)) + after
}

// refusalKind is a known reason why the API server refuses pods. In message, $1 is the first
// group of the pattern; in the commands it is {name}. next shows more, and fix mends it.
type refusalKind struct {
	pattern            *regexp.Regexp
	message, next, fix string
}

const (
	describeQuota = "describe resourcequota {name} -n {namespace}"
	getWebhooks   = "get validatingwebhookconfigurations,mutatingwebhookconfigurations"
)

// refusalKinds are tried in this order.
var refusalKinds = []refusalKind{
	{regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.+), used: (.+), limited: (.+)$`),
		"the quota $1 is used up (limit $4, used $3, asked for $2).", describeQuota, ""},
	{regexp.MustCompile(`failed quota: ([^:]+): must specify (.+)$`), "the quota $1 wants every pod to say $2.", describeQuota, ""},
	{regexp.MustCompile(`error looking up service account [^/]+/([^:]+): .* not found`), "the service account $1 does not exist.",
		"get serviceaccounts -n {namespace}", "create serviceaccount {name} -n {namespace} --dry-run=server"},
	{regexp.MustCompile(`no PriorityClass with name (\S+) was found`), "the PriorityClass $1 does not exist.", "get priorityclasses", ""},
	{regexp.MustCompile(`violates PodSecurity "([^"]+)": (.+)$`),
		`the namespace's pod security level "$1" forbids it: $2.`, "get namespace {namespace} --show-labels", ""},
	{regexp.MustCompile(`pod node label selector conflicts with its namespace node label selector`),
		"its node selector contradicts the one of its namespace.", "get namespace {namespace} -o yaml", ""},
	{regexp.MustCompile(`(?s)admission webhook "([^"]+)" denied the request: (.+)$`), "the webhook $1 denies it: $2", getWebhooks, ""},
	{regexp.MustCompile(`(?s)failed calling webhook "([^"]+)": (.+)$`), "the webhook $1 does not answer: $2", getWebhooks, ""},
	{regexp.MustCompile(`((?:maximum|minimum) \S+ (?:usage|limit to request ratio) per (?:Container|Pod) is .+)$`),
		"a LimitRange forbids it: $1.", "describe limitrange -n {namespace}", ""},
}

// forbidden is the beginning of the API server's refusals. Each try has another generated name in it.
var forbidden = regexp.MustCompile(`^(?:Error creating: )?(?:pods "[^"]*" is forbidden: )?`)

// DescribeRefusal says in other words why the API server refuses a pod.
func DescribeRefusal(err error) string {
	message, _, _ := describeRefusal(err.Error())
	return message
}

// describeRefusal returns what the API server said in other words; and of what kind it
// is and the name in it, if it is known.
func describeRefusal(event string) (message string, kind *refusalKind, name string) {
	for n := range refusalKinds {
		kind := &refusalKinds[n]
		if groups := kind.pattern.FindStringSubmatchIndex(event); groups != nil {
			expand := func(text string) string { return string(kind.pattern.ExpandString(nil, text, event, groups)) }
			return expand(kind.message), kind, expand("$1")
		}
	}
	return strings.TrimSuffix(forbidden.ReplaceAllString(event, ""), ".") + ".", nil, ""
}
