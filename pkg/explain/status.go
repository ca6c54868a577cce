// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"everynode.dev/everynode/pkg/daemonset"
)

// Status is how a DaemonSet fares, counted in nodes. What the DaemonSet controller
// counts too is counted by its rules.
type Status struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Desired are the nodes that the DaemonSet belongs on.
	Desired int `json:"desired"`
	// Created are those of Desired with a pod that may still wait for its node. The
	// controller calls them currentNumberScheduled.
	Created int `json:"created"`
	// Scheduled are those of Desired with a pod that is bound.
	Scheduled int `json:"scheduled"`
	// Ready are those of Desired with a Ready pod.
	Ready int `json:"ready"`
	// Missing are those of Desired where no pod is bound that goes on: without it
	// nothing of the DaemonSet runs there.
	Missing int `json:"missing"`
	// Misscheduled are the nodes that it has a pod on and does not belong on.
	Misscheduled int `json:"misscheduled"`
	// Updated are those of Desired with a pod of the current template, and Available those
	// with a pod that is Ready for minReadySeconds.
	Updated   int `json:"updated"`
	Available int `json:"available"`
	// Restarts are those of all containers of its pods.
	Restarts int `json:"restarts"`
	// CreationTimestamp is when the DaemonSet was created.
	CreationTimestamp metav1.Time `json:"creationTimestamp"`
	// Stalled says why an update goes no further, if one does not.
	Stalled string `json:"stalled,omitempty"`
	// State is the worst of its gaps: [StateReady] if there are none.
	State State `json:"state"`
	// Held is the room that everynode-scheduler holds for the missing pods, on all
	// nodes together; nothing where it has not been seen. HeldNodes is on how many.
	Held      corev1.ResourceList `json:"held,omitempty"`
	HeldNodes int                 `json:"heldNodes,omitempty"`
	// LapsedNodes is on how many nodes it holds room no longer, because no pod appeared.
	LapsedNodes int `json:"lapsedNodes,omitempty"`
	// GapSince is when the oldest gap opened, if there is one and the objects tell.
	GapSince *metav1.Time `json:"gapSince,omitempty"`
	// Top is the most frequent cause of gaps, those first that are trouble; or of not
	// being wanted if no node is.
	Top *TopReason `json:"top,omitempty"`
	// Controller says in what the controller's own count differs, which it does while
	// it has not caught up.
	Controller []string `json:"controller,omitempty"`
}

// TopReason is a cause and the nodes it holds for.
type TopReason struct {
	Reason  Reason   `json:"reason"`
	State   State    `json:"state"`
	Message string   `json:"message"`
	Nodes   []string `json:"nodes"`
}

// HeldText writes the room that is held, "" for none.
func (s *Status) HeldText() string {
	return describeRequests(daemonset.NewResources(s.Held))
}

// Statuses returns how the DaemonSets fare, in their order.
func (e *Engine) Statuses(ctx context.Context, daemonSets []*appsv1.DaemonSet) ([]Status, error) {
	held, heldNodes := e.held()
	lapsed := e.lapsed()
	nodes := e.Nodes()
	statuses := make([]Status, 0, len(daemonSets))
	for _, ds := range daemonSets {
		verdicts, err := e.verdicts(ctx, ds, nodes, false)
		if err != nil {
			return nil, err
		}
		status := e.status(ds, verdicts)
		status.HeldNodes, status.LapsedNodes = heldNodes[ds.UID], len(lapsed[ds.UID])
		if resources := held[ds.UID]; !resources.IsZero() {
			status.Held = resources.List()
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}

// status counts. verdicts are those of all nodes.
func (e *Engine) status(ds *appsv1.DaemonSet, verdicts []Verdict) Status {
	status := Status{Namespace: ds.Namespace, Name: ds.Name, CreationTimestamp: ds.CreationTimestamp, State: StateReady}
	s, ready := e.subjects[ds.UID], 0
	for n := range verdicts {
		v, pods := &verdicts[n], s.pods[verdicts[n].Node]
		if v.Wanted {
			e.countNode(&status, s, v, pods)
			if len(pods) > 0 && daemonset.IsReady(slices.MinFunc(pods, compareForController)) {
				ready++
			}
		} else if len(pods) > 0 {
			status.Misscheduled++
		}
	}
	if rollout := e.rollout(ds, verdicts); rollout != nil && rollout.Stalled {
		status.Stalled = rollout.Message
	}
	status.Top = topReason(verdicts, status.Desired)
	if !e.cluster.Partial {
		status.Controller = differences(&status, ready, ds)
	}
	return status
}

// countNode adds a node that s belongs on.
func (e *Engine) countNode(status *Status, s *subject, v *Verdict, pods []*corev1.Pod) {
	status.Desired++
	add := func(number *int, match func(*corev1.Pod) bool) {
		if slices.ContainsFunc(pods, match) {
			*number++
		}
	}
	add(&status.Created, func(*corev1.Pod) bool { return true })
	add(&status.Scheduled, func(pod *corev1.Pod) bool { return pod.Spec.NodeName != "" })
	add(&status.Updated, func(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && s.updated(pod) })
	add(&status.Available, func(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && e.available(pod, s.ds) })
	if !slices.ContainsFunc(pods, isRunning) {
		status.Missing++
	}
	for _, pod := range pods {
		for _, container := range lasting(pod) {
			status.Restarts += int(container.RestartCount)
		}
	}
	if v.Outcome == StateStuck || v.Outcome == StateWaiting && status.State == StateReady {
		status.State = v.Outcome
	}
	if v.Ready {
		status.Ready++
	} else {
		status.GapSince = earliest(status.GapSince, v.Since)
	}
}

// isRunning says whether pod is bound and goes on.
func isRunning(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded
}

// topReason returns the cause that most gaps have, if any is trouble one of those. Where
// no node is wanted at all, it is the one for which most are not.
func topReason(verdicts []Verdict, desired int) *TopReason {
	var top []*Verdict
	for _, same := range grouped(verdicts, func(v *Verdict) string {
		if v.Outcome == StateReady || v.Wanted != (desired > 0) {
			return ""
		}
		return string(v.Outcome) + keyOf(v.Causes)
	}) {
		if len(top) == 0 || cmp.Or(compareBool(same[0].Outcome != StateStuck, top[0].Outcome != StateStuck), cmp.Compare(len(top), len(same))) < 0 {
			top = same
		}
	}
	if len(top) == 0 {
		return nil
	}
	reason := &TopReason{Reason: top[0].Reason, State: top[0].Outcome, Message: message(merge(top))}
	for _, v := range top {
		reason.Nodes = append(reason.Nodes, v.Node)
	}
	return reason
}

// compareForController puts first the pod by which the controller says whether a node has a Ready one,
// even if it is ending (podByCreationTimestampAndPhase in k8s.io/kubernetes/pkg/controller/daemon).
func compareForController(a, b *corev1.Pod) int {
	return cmp.Or(compareBool(a.Spec.NodeName == "", b.Spec.NodeName == ""), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// differences says in what the controller's count differs. ready are the nodes where its first pod is Ready.
func differences(s *Status, ready int, ds *appsv1.DaemonSet) []string {
	if ds.DeletionTimestamp != nil {
		return nil
	}
	// Of another version it counts other things.
	if ds.Status.ObservedGeneration < ds.Generation {
		return []string{"it has not seen the latest version of the DaemonSet"}
	}
	var texts []string
	for _, number := range []struct {
		name         string
		ours, theirs int
	}{
		{"desired", s.Desired, int(ds.Status.DesiredNumberScheduled)},
		{"created", s.Created, int(ds.Status.CurrentNumberScheduled)},
		{"ready", ready, int(ds.Status.NumberReady)},
		{"misscheduled", s.Misscheduled, int(ds.Status.NumberMisscheduled)},
	} {
		if number.ours != number.theirs {
			texts = append(texts, fmt.Sprintf("%d %s (the objects show %d)", number.theirs, number.name, number.ours))
		}
	}
	if len(texts) > 0 {
		return []string{"it counts " + strings.Join(texts, ", ")}
	}
	return nil
}

// held returns the room that everynode-scheduler holds for each DaemonSet, and on how
// many nodes.
func (e *Engine) held() (map[types.UID]daemonset.Resources, map[types.UID]int) {
	held, nodes := make(map[types.UID]daemonset.Resources), make(map[types.UID]int)
	if !e.everynode || e.cluster.Partial {
		return held, nodes
	}
	for _, node := range e.cluster.Nodes {
		expected := e.set.Expected(node, daemonset.DefaultStartupTaints())
		// Most nodes have all their pods, so that no room is held, and to sum those up is what takes time.
		if !slices.ContainsFunc(expected, func(ds *daemonset.DaemonSet) bool {
			s := e.subjects[ds.UID]
			pods := s.pods[node.Name]
			return ds.Holds && (len(pods) != 1 || !isRunning(pods[0]) || !s.updated(pods[0]))
		}) {
			continue
		}
		var before daemonset.Resources
		for _, hold := range e.view(node, expected).Held {
			held[hold.DaemonSet.UID] = held[hold.DaemonSet.UID].Plus(hold.Total.Minus(before))
			nodes[hold.DaemonSet.UID]++
			before = hold.Total
		}
	}
	return held, nodes
}

// view is what everynode-scheduler knows of a node that the DaemonSets expected belong on.
func (e *Engine) view(node *corev1.Node, expected []*daemonset.DaemonSet) *daemonset.View {
	scope := daemonset.Scope{Startup: daemonset.DefaultStartupTaints(), Kinds: daemonset.DefaultKinds()}
	return daemonset.NewView(e.set, scope, node, expected, e.present(node.Name))
}

// lapsed returns the nodes on which everynode-scheduler holds room no longer for each
// DaemonSet: its event says so (k8s.io/api's events; reason HoldLapsed of pkg/plugins/holds),
// and no pod has appeared since.
func (e *Engine) lapsed() daemonset.Lapsed {
	lapsed := make(daemonset.Lapsed)
	for uid, s := range e.subjects {
		event := latestEvent(e.events[uid], func(event *corev1.Event) bool { return event.Reason == "HoldLapsed" })
		if event == nil || !s.compiled.Holds {
			continue
		}
		_, since, _ := eventTimes(event)
		if s.count(func(pod *corev1.Pod) bool { return pod.CreationTimestamp.After(since.Time) }) > 0 {
			continue
		}
		for _, node := range e.cluster.Nodes {
			if len(s.pods[node.Name]) == 0 && s.compiled.WillRun(node, daemonset.DefaultStartupTaints()) {
				lapsed[uid] = lapsed[uid].Union(sets.New(node.Name))
			}
		}
	}
	return lapsed
}

// present yields the pods that a scheduler counts on a node, with what they take.
func (e *Engine) present(node string) iter.Seq2[*corev1.Pod, daemonset.Resources] {
	return func(yield func(*corev1.Pod, daemonset.Resources) bool) {
		for _, pod := range e.on[node] {
			if !yield(pod, daemonset.PodResources(pod)) {
				return
			}
		}
		for _, nominee := range e.schedulers.Nominated[node] {
			if pod := nominee.GetPod(); !yield(pod, daemonset.PodResources(pod)) {
				return
			}
		}
	}
}
