// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	nodeutil "k8s.io/component-helpers/node/util"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubenode "k8s.io/kubernetes/pkg/util/node"

	"everynode.dev/everynode/pkg/daemonset"
)

// inquiry is the making of one verdict.
type inquiry struct {
	*Engine
	*subject
	node *corev1.Node
	// detail: the verdict gets facts, blockers, preemption and commands, which take time.
	detail bool
	pod    *corev1.Pod
	v      Verdict

	// root is the inquiry into what the node waits for, nil if there is none. What is a root
	// itself (isRoot) is not traced further.
	root   *inquiry
	isRoot bool

	// err is the first error: then there is no verdict.
	err error

	// The rest is what state and commands depend on besides the verdict.

	labels []mismatch
	// taints are those that stay, and passing says whether there are others.
	taints  []corev1.Taint
	passing bool
	// forgotten is a start-up taint that is not taken off.
	forgotten *corev1.Taint
	refusedAs *refusalKind
	ownPort   bool
	// unchecked: what the pod waits for may be there, and nothing tells that it is not.
	unchecked bool
	// said is what the kubelet says of a container that waits, and warnedFor for how long it
	// has warned of what the pod waits for.
	said      string
	warnedFor time.Duration
}

func (e *Engine) newInquiry(s *subject, node *corev1.Node, detail bool) *inquiry {
	i := &inquiry{Engine: e, subject: s, node: node, detail: detail, v: Verdict{Node: node.Name}}
	i.v.of = i
	return i
}

// verdict says why ds, one of the cluster's DaemonSets, has or has not a Ready pod on node.
// Without detail it is as much as a table of all DaemonSets on all nodes needs, and much faster.
func (e *Engine) verdict(ctx context.Context, ds *appsv1.DaemonSet, node *corev1.Node, detail bool) (Verdict, error) {
	i := e.newInquiry(e.subjects[ds.UID], node, detail)
	i.follow(ctx)
	return i.v, i.err
}

// verdicts are those on several nodes.
func (e *Engine) verdicts(ctx context.Context, ds *appsv1.DaemonSet, nodes []*corev1.Node, detail bool) ([]Verdict, error) {
	verdicts := make([]Verdict, len(nodes))
	for n, node := range nodes {
		var err error
		if verdicts[n], err = e.verdict(ctx, ds, node, detail); err != nil {
			return nil, err
		}
	}
	return verdicts, nil
}

// follow follows the chain from the DaemonSet to a Ready pod.
func (i *inquiry) follow(ctx context.Context) {
	run, goOn := i.compiled.ShouldRun(i.node)
	pods := i.pods[i.node.Name]
	if i.cluster.NodesUnread {
		run = len(pods) > 0
	}
	i.v.Wanted = run && i.ds.DeletionTimestamp == nil
	switch namespace := i.namespaces[i.ds.Namespace]; {
	case i.ds.DeletionTimestamp != nil:
		held := ""
		if len(i.ds.Finalizers) > 0 {
			held = ", and held by the finalizers " + strings.Join(i.ds.Finalizers, ", ")
		}
		i.end(ReasonDeleting, Args{"what": "DaemonSet", "held": held})
	case !run && i.cluster.NodesUnread:
		i.end(ReasonNotKnown, nil)
	case !run:
		i.unwanted(ctx, pods, goOn)
	case len(pods) == 0 && namespace != nil && namespace.DeletionTimestamp != nil:
		i.end(ReasonDeleting, Args{"what": "namespace", "held": ""})
	case len(pods) == 0:
		i.noPod()
	default:
		i.havePods(ctx, pods)
	}
	if i.v.Wanted {
		i.earlier()
	}
	i.conclude()
	i.advise(ctx)
}

// fail notes an error.
func (i *inquiry) fail(err error) {
	i.err = cmp.Or(i.err, err)
}

// conclude says what the causes amount to. A dump may have no times.
func (i *inquiry) conclude() {
	if i.v.Since.IsZero() {
		i.v.Since = nil
	}
	i.v.Message, i.v.Outcome = message(i.v.Causes), i.outcome()
}

// advise says what to run next and what mends the cause.
func (i *inquiry) advise(ctx context.Context) {
	if i.detail && i.err == nil {
		i.v.Next, i.v.Fix = i.next(), i.fix(ctx)
	}
}

// warnedFor is how long a kubelet may repeat a warning before that is trouble. A node that starts
// has what it needs by then.
const warnedFor = 2 * time.Minute

// outcome is what reason, age and warnings together amount to. Explain, status and map
// all ask it.
func (i *inquiry) outcome() State {
	v, ages := &i.v, i.v.Reason.row().Ages
	late := !i.unchecked && v.Since != nil && i.now.Sub(v.Since.Time) > i.patience
	joins := i.now.Sub(i.node.CreationTimestamp.Time) <= i.patience
	switch {
	case !v.Wanted && v.Pod == nil:
		return StateNone
	case !v.Wanted:
		return StateStray
	case v.Reason.row().Step == StepReady:
		return StateReady
	case ages == atOnce, ages == onceJoined && !joins, ages == noGap && v.Reason != ReasonDeleting, late, i.warnedFor > warnedFor:
		return StateStuck
	default:
		return StateWaiting
	}
}

// end says where the chain ends, and why.
func (i *inquiry) end(reason Reason, args Args) {
	i.endAt(reason.row().Step, reason, args)
}

// endAt is end for a reason that is found at another step than usual.
func (i *inquiry) endAt(step Step, reason Reason, args Args) {
	i.v.Step, i.v.Reason, i.v.Causes = step, reason, []Cause{{reason, args}}
}

// fact adds a sentence about this node alone, if there is one.
func (i *inquiry) fact(sentence string) {
	if i.detail && sentence != "" {
		i.v.Facts = append(i.v.Facts, sentence)
	}
}

// about makes pod the one that the verdict is about. The gap began when the pod was last Ready, or
// was created.
func (i *inquiry) about(pod *corev1.Pod) {
	i.pod, i.v.Pod, i.v.Since = pod, new(describe(pod)), nil
	if !daemonset.IsReady(pod) {
		i.v.Since = &pod.CreationTimestamp
		if ready := podutil.GetPodReadyCondition(pod.Status); ready != nil {
			i.v.Since = latest(i.v.Since, &ready.LastTransitionTime)
		}
	}
	// A pod of an earlier template differs anyway.
	if i.detail && i.updated(pod) {
		i.v.Admission = i.changes(pod)
	}
}

// latest returns the later one of two times, a if they are equal.
func latest(a, b *metav1.Time) *metav1.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// earliest returns the earlier one of two times, of which nil is none.
func earliest(a, b *metav1.Time) *metav1.Time {
	if a == nil || b != nil && b.Before(a) {
		return b
	}
	return a
}

// describe returns what is told of a pod.
func describe(pod *corev1.Pod) Pod {
	described := Pod{
		Namespace: pod.Namespace,
		Name:      pod.Name,
		Owner:     ownerOf(pod),
		Priority:  corev1helper.PodPriority(pod),
		Scheduler: pod.Spec.SchedulerName,
		Created:   pod.CreationTimestamp,
	}
	if said := scheduledCondition(pod); said != nil && said.Status == corev1.ConditionFalse {
		described.Said = said.Message
		if !said.LastTransitionTime.IsZero() {
			described.SaidAt = &said.LastTransitionTime
		}
	}
	return described
}

func scheduledCondition(pod *corev1.Pod) *corev1.PodCondition {
	_, condition := podutil.GetPodCondition(&pod.Status, corev1.PodScheduled)
	return condition
}

// readySince returns since when node is Ready, nil if it is not or does not tell.
func readySince(node *corev1.Node) *metav1.Time {
	_, condition := nodeutil.GetNodeCondition(&node.Status, corev1.NodeReady)
	if !kubenode.IsNodeReady(node) || condition.LastTransitionTime.IsZero() {
		return nil
	}
	return &condition.LastTransitionTime
}

// ownerOf names what controls pod. A ReplicaSet whose name ends in the hash of its
// pods' template was made by a Deployment.
func ownerOf(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return ""
	}
	if hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; owner.Kind == "ReplicaSet" && hash != "" {
		if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
			return "Deployment " + deployment
		}
	}
	return owner.Kind + " " + owner.Name
}

// quickly is how long a scheduler or a kubelet takes to look at a pod that is new to it.
const quickly = 10 * time.Second

// havePods says how far the DaemonSet's pods on the node have come. There are several
// while an update surges, and while an old one ends.
func (i *inquiry) havePods(ctx context.Context, pods []*corev1.Pod) {
	staying := live(pods)
	if len(staying) == 0 {
		i.terminating(pods[0])
		return
	}
	// The latest pod that is not Ready is the one to look at, but not one that has ended
	// if there is a later one.
	slices.SortStableFunc(staying, func(a, b *corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	staying = append(staying[:1], slices.DeleteFunc(staying[1:], podutil.IsPodTerminal)...)
	slices.SortStableFunc(staying, func(a, b *corev1.Pod) int { return compareBool(daemonset.IsReady(a), daemonset.IsReady(b)) })
	i.v.Ready = slices.ContainsFunc(staying, daemonset.IsReady)
	pod := staying[0]
	i.about(pod)
	switch {
	case podutil.IsPodTerminal(pod):
		i.rejected(pod)
	case daemonset.IsReady(pod):
		i.ready(pod)
	case pod.Spec.NodeName != "":
		i.started(ctx, pod)
	case len(pod.Spec.SchedulingGates) > 0:
		i.end(ReasonGated, Args{"gates": describeGates(pod.Spec.SchedulingGates)})
	case scheduledCondition(pod) == nil && i.now.Sub(pod.CreationTimestamp.Time) > quickly:
		i.end(ReasonNoScheduler, Args{"scheduler": pod.Spec.SchedulerName})
	default:
		if i.offer(ctx, pod) {
			i.fitsNow(pod)
		}
	}
}

// live returns the pods that are not being deleted.
func live(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
