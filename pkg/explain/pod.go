// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/dryrun"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

// PodExplanation says why an ordinary pod does not run.
type PodExplanation struct {
	Pod
	// Verdict is about the kubelet's work with a pod that is bound, nil for one that waits.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Rules says by whose rules nodes were offered to a pod that waits.
	Rules string `json:"rules,omitempty"`
	// Message says what the pod waits for.
	Message string `json:"message"`
	// Held is nil where everynode-scheduler holds the pod back on no node.
	Held *HeldBack `json:"held,omitempty"`
	// Refusals are the other nodes, by what refuses them.
	Refusals []PodRefusal `json:"refusals,omitempty"`
	// NotChecked says what was left out, a sentence each.
	NotChecked []string `json:"notChecked,omitempty"`
}

// HeldBack is where a pod would fit if nothing were held and nothing gated.
type HeldBack struct {
	Nodes []string `json:"nodes"`
	// For are the DaemonSets that room is held for, or that the pod waits for.
	For []HeldFor `json:"for"`
	// Room says how much is free, and how much of it is held.
	Room string `json:"room"`
	// Ends says when it ends.
	Ends string `json:"ends"`

	pod              *corev1.Pod
	holds            []hold
	free, held, most daemonset.Resources
}

// HeldFor is a DaemonSet that a pod is held back for.
type HeldFor struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Nodes     int    `json:"nodes"`
	// Gates: the pod waits until it is Ready. If not, room is held for it.
	Gates bool `json:"gates,omitempty"`
	// Why says why it has no Ready pod there.
	Why string `json:"why"`
}

// String returns namespace/name.
func (h *HeldFor) String() string {
	return h.Namespace + "/" + h.Name
}

// PodRefusal is nodes that are refused for the same reasons.
type PodRefusal struct {
	Why   string   `json:"why"`
	Nodes []string `json:"nodes"`
}

// Pod returns the pod of that name, or nil.
func (e *Engine) Pod(namespace, name string) *corev1.Pod {
	for _, pod := range e.cluster.Pods {
		if pod.Name == name && pod.Namespace == namespace {
			return pod
		}
	}
	return nil
}

// ExplainPod says why pod, which is of no DaemonSet, does not run.
func (e *Engine) ExplainPod(ctx context.Context, pod *corev1.Pod) (*PodExplanation, error) {
	x := &PodExplanation{Pod: describe(pod), NotChecked: e.notChecked(&pod.Spec)}
	switch node := e.nodes[pod.Spec.NodeName]; {
	case podutil.IsPodTerminal(pod) && pod.Status.Phase == corev1.PodSucceeded:
		x.Message = "It has ended, with success."
	case node != nil:
		verdict, err := e.bound(ctx, pod, node)
		x.Verdict, x.Message = verdict, "It is on "+node.Name+"."
		return x, err
	case pod.Spec.NodeName != "":
		x.Message = "It is bound to " + pod.Spec.NodeName + ", and there is no such node."
	case len(pod.Spec.SchedulingGates) > 0:
		x.Message = "Its scheduling gates are closed: " + describeGates(pod.Spec.SchedulingGates) + ". Somebody has to remove them."
	case scheduledCondition(pod) == nil && e.now.Sub(pod.CreationTimestamp.Time) > quickly:
		x.Message = "No scheduler has looked at it: is one of the name " + pod.Spec.SchedulerName + " running?"
	case e.cluster.Partial:
		x.Message = "It waits for a node. Without access to all nodes and pods, only its scheduler knows why."
	default:
		return x, e.waits(ctx, pod, x)
	}
	return x, nil
}

// bound is the verdict on a pod that is on a node. A stand-in takes the place of its DaemonSet.
func (e *Engine) bound(ctx context.Context, pod *corev1.Pod, node *corev1.Node) (*Verdict, error) {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: pod.Spec}}}
	s := &subject{
		ds: ds, compiled: daemonset.New(ds, daemonset.Options{Priority: e.priority}), creation: newCreationTrouble(nil), counted: make(map[string]int), current: true,
		// A change of its template concerns all pods of its controller.
		pods: map[string][]*corev1.Pod{node.Name: slices.DeleteFunc(slices.Clone(e.cluster.Pods), func(other *corev1.Pod) bool {
			return other != pod && (ownerUID(pod) == "" || ownerUID(other) != ownerUID(pod))
		})},
	}
	i := e.newInquiry(s, node, true)
	i.v.Wanted = true
	i.havePods(ctx, []*corev1.Pod{pod})
	// It is its own template.
	i.v.Admission = nil
	i.conclude()
	i.advise(ctx)
	return &i.v, i.err
}

// waits offers every node to a pod.
func (e *Engine) waits(ctx context.Context, pod *corev1.Pod, x *PodExplanation) error {
	var scheduler *dryrun.Scheduler
	scheduler, x.Rules = e.rulesFor(pod)
	prepared, err := scheduler.Prepare(ctx, pod)
	if err != nil {
		return fmt.Errorf("pod %s: %w", &x.Pod, err)
	}
	if !prepared.Fits() {
		x.Message = "No node can take it: " + strings.Join(prepared.Refusals[0].Reasons, "; ") + "."
		return nil
	}
	held := &HeldBack{pod: pod}
	var fits []string
	refused := make(map[string][]string)
	for _, node := range e.Nodes() {
		info, err := e.schedulers.Node(node.Name)
		if err != nil {
			return err
		}
		a, err := scheduler.Filter(ctx, pod, prepared, info)
		if err != nil {
			return fmt.Errorf("pod %s on node %s: %w", &x.Pod, node.Name, err)
		}
		switch why := others(a); {
		case a.Fits():
			fits = append(fits, node.Name)
		case why != "":
			refused[why] = append(refused[why], node.Name)
		default:
			if err := e.heldOn(ctx, held, node, info, a); err != nil {
				return err
			}
		}
	}
	for why, nodes := range refused {
		x.Refusals = append(x.Refusals, PodRefusal{Why: why, Nodes: nodes})
	}
	slices.SortFunc(x.Refusals, func(a, b PodRefusal) int {
		return cmp.Or(cmp.Compare(len(b.Nodes), len(a.Nodes)), cmp.Compare(a.Why, b.Why))
	})
	if len(held.Nodes) > 0 {
		held.sum()
		x.Held = held
	}
	switch {
	case len(fits) > 0:
		x.Message = "Nothing that was checked is in the way on " + NodeList(fits) + ": its scheduler is about to place it, or has rules that are not known here."
	case x.Held != nil:
		x.Message = "It is held back on " + Count(len(x.Held.Nodes), "node") + " for " + x.Held.names() + "."
	default:
		x.Message = "No node has what it needs."
	}
	return nil
}

// rulesFor returns the scheduler whose rules decide about pod, as far as can be told.
func (e *Engine) rulesFor(pod *corev1.Pod) (*dryrun.Scheduler, string) {
	if rules := e.inForce(pod); rules == Everynode || rules == "" && e.everynode {
		return e.schedulers.Everynode, Everynode
	}
	return e.schedulers.Stock, Stock
}

// others says what refuses a node, without the plugins that hold pods back.
func others(a *dryrun.Attempt) string {
	var reasons []string
	for _, r := range a.Refusals {
		if r.Plugin != headroom.Name && r.Plugin != readiness.Name {
			reasons = append(reasons, r.Reasons...)
		}
	}
	return strings.Join(reasons, "; ")
}

// hold is a DaemonSet that holds a pod back on one node, and why it has no Ready pod there.
type hold struct {
	HeldFor
	reason Reason
}

// heldOn adds a node that would take the pod if nothing were held or gated there.
func (e *Engine) heldOn(ctx context.Context, h *HeldBack, node *corev1.Node, info fwk.NodeInfo, a *dryrun.Attempt) error {
	h.Nodes = append(h.Nodes, node.Name)
	add := func(ds *daemonset.DaemonSet, gates bool) error {
		verdict, err := e.verdict(ctx, e.subjects[ds.UID].ds, node, false)
		h.holds = append(h.holds, hold{HeldFor{Namespace: ds.Namespace, Name: ds.Name, Gates: gates}, verdict.Reason})
		return err
	}
	view := e.view(node, e.set.Expected(node, daemonset.DefaultStartupTaints()))
	free := daemonset.NewResources(node.Status.Allocatable)
	for _, pod := range info.GetPods() {
		free = free.Minus(daemonset.PodResources(pod.GetPod()))
	}
	left := free
	for _, hold := range view.HeldFor(corev1helper.PodPriority(h.pod)) {
		left = free.Minus(hold.Total)
		if err := add(hold.DaemonSet, false); err != nil {
			return err
		}
	}
	for _, ds := range view.Unready {
		gates := func(r dryrun.Refusal) bool { return slices.Contains(r.Reasons, readiness.ErrReasonUnready(ds)) }
		if slices.ContainsFunc(a.Refusals, gates) {
			if err := add(ds, true); err != nil {
				return err
			}
		}
	}
	h.free, h.held = h.free.Plus(free), h.held.Plus(free.Minus(left))
	h.most = h.most.Max(left.AtLeastZero())
	return nil
}

// sum sums up what has been found on all nodes.
func (h *HeldBack) sum() {
	gates, rooms := false, false
	for _, same := range grouped(h.holds, func(h *hold) string { return fmt.Sprint(h, h.Gates) }) {
		by := same[0].HeldFor
		by.Nodes = len(same)
		reasons := make(map[Reason]int)
		for _, hold := range same {
			reasons[hold.reason]++
		}
		var whys []string
		for _, reason := range slices.Sorted(maps.Keys(reasons)) {
			whys = append(whys, fmt.Sprintf("%s on %s", reason.Words(), Count(reasons[reason], "node")))
		}
		by.Why = strings.Join(whys, ", ")
		h.For = append(h.For, by)
		gates, rooms = gates || by.Gates, rooms || !by.Gates
	}
	slices.SortStableFunc(h.For, func(a, b HeldFor) int { return cmp.Compare(b.Nodes, a.Nodes) })
	needs := daemonset.PodResources(h.pod)
	asked := func(room daemonset.Resources) string { return cmp.Or(describeOf(room, needs), "nothing") }
	h.Room = fmt.Sprintf("It needs %s. Free on these nodes in sum: %s, of which is held: %s. The most beside what is held, on one node: %s.",
		asked(needs), asked(h.free), asked(h.held), asked(h.most))
	var ends []string
	if rooms {
		ends = append(ends, "Room is held until the pods of these DaemonSets are there and take it, or until none has appeared for a while (holdFor, 2m by default).")
	}
	if gates {
		ends = append(ends, "A DaemonSet that gates lets the pod in when it is Ready on the node.")
	}
	h.Ends = strings.Join(ends, " ")
}

// Fix says what lets the pod in.
func (h *HeldBack) Fix() string {
	return "Mend the DaemonSets, so that their pods run. A DaemonSet annotated " + daemonset.HoldAnnotation + `: "false" holds no room: that changes no pod.`
}

// describeOf writes the resources that are needed, without pod slots, which are rarely short.
func describeOf(resources, needs daemonset.Resources) string {
	list, needed := resources.List(), needs.List()
	maps.DeleteFunc(list, func(name corev1.ResourceName, _ resource.Quantity) bool { _, ok := needed[name]; return !ok })
	return describeRequests(daemonset.NewResources(list))
}

// names lists the DaemonSets with the numbers of their nodes where these differ.
func (h *HeldBack) names() string {
	names := make([]string, len(h.For))
	for n := range h.For {
		names[n] = h.For[n].String()
		if h.For[n].Nodes != len(h.Nodes) {
			names[n] += fmt.Sprintf(" (%d)", h.For[n].Nodes)
		}
	}
	return joinAnd(names)
}

// joinAnd writes a list of names in a sentence.
func joinAnd(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
