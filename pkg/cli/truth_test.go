// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/explain"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
)

var truthSeeds = flag.Int("truth-seeds", 50, "how many random clusters to compare the verbs with")

// patient is how long a gap may take to close by itself, as docs/cli.md says.
const patient = 10 * time.Minute

// trouble says how a fate is judged.
type trouble int

const (
	none trouble = iota
	late         // it is trouble when it has lasted
	atOnce
)

// fate is what becomes of a pod on its node.
type fate struct {
	reason  explain.Reason
	trouble trouble
	// unbound: no scheduler has placed the pod.
	unbound bool
	// silent: the containers do not tell what is wrong, so that the state of the node does. pending:
	// none has run yet.
	silent, pending bool
	edit            change
}

// change is what its fate makes of a pod. It has been so for age.
type change func(d *truthDraw, pod *corev1.Pod, age time.Duration)

// containerIs has the kubelet report the container, and that the pod is not Ready.
func containerIs(phase corev1.PodPhase, status corev1.ContainerStatus) change {
	return func(_ *truthDraw, pod *corev1.Pod, age time.Duration) {
		status.Name, status.Image = "main", "example/agent:1"
		pod.Status.Phase, pod.Status.StartTime = phase, new(ago(age))
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
		isReadySince(pod, corev1.ConditionFalse, age)
	}
}

func isReadySince(pod *corev1.Pod, status corev1.ConditionStatus, age time.Duration) {
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: ago(age)}, {Type: corev1.PodReady, Status: status, LastTransitionTime: ago(age)},
	}
}

func waitsFor(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func runsFor(d time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(d)}}
}

func crashed(d time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", StartedAt: ago(d + time.Minute), FinishedAt: ago(d)}}
}

func ended(phase corev1.PodPhase, reason string) change {
	return func(_ *truthDraw, pod *corev1.Pod, age time.Duration) {
		isReadySince(pod, corev1.ConditionFalse, age)
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = phase, reason, "said by the kubelet"
	}
}

// mount has the kubelet warn of a volume for so long.
func mount(warned time.Duration) change {
	return func(d *truthDraw, pod *corev1.Pod, age time.Duration) {
		containerIs(corev1.PodPending, corev1.ContainerStatus{State: waitsFor("ContainerCreating")})(d, pod, age)
		d.add(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name + ".mount"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", UID: pod.UID},
			Type: corev1.EventTypeWarning, Reason: "FailedMount", Message: "no such secret", FirstTimestamp: ago(warned + time.Second), LastTimestamp: ago(time.Second), Count: 9,
		})
	}
}

// isRefused has the scheduler refuse the pod, each in its own words.
func isRefused(d *truthDraw, pod *corev1.Pod, age time.Duration) {
	preemption := "No preemption victims found for incoming pod"
	if d.everynode {
		preemption = everynodepreemption.ErrReasonNoVictims
	}
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, LastTransitionTime: ago(age),
		Message: "0/9 nodes are available: 1 Insufficient " + slot + ". preemption: 0/9 nodes are available: 1 " + preemption + ".",
	}}
}

func runs(restarts int32, since time.Duration, last corev1.ContainerState) change {
	return func(d *truthDraw, pod *corev1.Pod, age time.Duration) {
		containerIs(corev1.PodRunning, corev1.ContainerStatus{Ready: true, Started: new(true), RestartCount: restarts, State: runsFor(min(since, age)), LastTerminationState: last})(d, pod, age)
		isReadySince(pod, corev1.ConditionTrue, age)
	}
}

// fates are those of a pod that no other one is in the way of.
var fates = map[string]fate{
	"Ready":               {reason: explain.ReasonReady, edit: runs(0, 72*time.Hour, corev1.ContainerState{})},
	"Ready after crashes": {reason: explain.ReasonReady, edit: runs(7, 15*time.Minute, crashed(16*time.Minute))},
	"Ready between two":   {reason: explain.ReasonCrash, trouble: atOnce, edit: runs(214, 24*time.Second, crashed(30*time.Second))},
	"crashes":             {reason: explain.ReasonCrash, trouble: atOnce, edit: containerIs(corev1.PodRunning, corev1.ContainerStatus{RestartCount: 9, State: waitsFor("CrashLoopBackOff"), LastTerminationState: crashed(time.Minute)})},
	"has crashed":         {reason: explain.ReasonCrash, trouble: atOnce, edit: containerIs(corev1.PodRunning, corev1.ContainerStatus{RestartCount: 2, State: crashed(time.Second), LastTerminationState: crashed(time.Minute)})},
	"crashes, runs":       {reason: explain.ReasonCrash, trouble: atOnce, edit: containerIs(corev1.PodRunning, corev1.ContainerStatus{RestartCount: 5, State: runsFor(20 * time.Second), LastTerminationState: crashed(time.Minute)})},
	"has no image":        {reason: explain.ReasonImage, trouble: atOnce, edit: containerIs(corev1.PodPending, corev1.ContainerStatus{State: waitsFor("ImagePullBackOff")})},
	"has no ConfigMap":    {reason: explain.ReasonContainer, trouble: atOnce, edit: containerIs(corev1.PodPending, corev1.ContainerStatus{State: waitsFor("CreateContainerConfigError")})},
	"hangs":               {reason: explain.ReasonNotReady, trouble: late, edit: containerIs(corev1.PodRunning, corev1.ContainerStatus{Started: new(true), State: runsFor(72 * time.Hour)})},
	"is behind a gate":    {reason: explain.ReasonNotReady, trouble: late, silent: true, edit: containerIs(corev1.PodRunning, corev1.ContainerStatus{Ready: true, Started: new(true), State: runsFor(72 * time.Hour)})},
	"starts":              {reason: explain.ReasonNotStarted, trouble: late, silent: true, pending: true, edit: containerIs(corev1.PodPending, corev1.ContainerStatus{State: waitsFor("ContainerCreating")})},
	"is bound":            {reason: explain.ReasonNotStarted, trouble: late, silent: true, pending: true},
	"lacks a volume":      {reason: explain.ReasonVolume, trouble: late, pending: true, edit: mount(time.Minute)},
	"lacks a volume long": {reason: explain.ReasonVolume, trouble: atOnce, pending: true, edit: mount(5 * time.Minute)},
	"OutOfcpu":            {reason: explain.ReasonRejected, trouble: atOnce, edit: ended(corev1.PodFailed, "OutOfcpu")},
	"Evicted":             {reason: explain.ReasonRejected, trouble: atOnce, edit: ended(corev1.PodFailed, "Evicted")},
	"NodeAffinity":        {reason: explain.ReasonRejected, trouble: atOnce, edit: ended(corev1.PodFailed, "NodeAffinity")},
	"has ended":           {reason: explain.ReasonRejected, trouble: atOnce, edit: ended(corev1.PodSucceeded, "")},
	"is new":              {reason: explain.ReasonSchedulable, trouble: late, unbound: true},
	"nobody looked at":    {reason: explain.ReasonNoScheduler, trouble: atOnce, unbound: true},
	"is gated": {reason: explain.ReasonGated, trouble: atOnce, unbound: true, edit: func(_ *truthDraw, pod *corev1.Pod, _ time.Duration) {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/x"}}
	}},
	"is refused":          {reason: explain.ReasonSchedulable, trouble: late, unbound: true, edit: isRefused},
	"lacks its init":      {reason: explain.ReasonInit, trouble: late, edit: inInit(runsFor(72*time.Hour), 0)},
	"crashes in its init": {reason: explain.ReasonCrash, trouble: atOnce, edit: inInit(waitsFor("CrashLoopBackOff"), 3)},
}

func inInit(state corev1.ContainerState, restarts int32) change {
	return func(d *truthDraw, pod *corev1.Pod, age time.Duration) {
		containerIs(corev1.PodPending, corev1.ContainerStatus{State: waitsFor("PodInitializing")})(d, pod, age)
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", State: state, RestartCount: restarts}}
	}
}

// slot is a resource that one pod of a node can have.
const slot = "example.com/slot"

// truthDraw is a random cluster, with what there is to say of it.
type truthDraw struct {
	*rand.Rand
	everynode  bool
	objects    []runtime.Object
	nodes      []*corev1.Node
	daemonSets []*appsv1.DaemonSet
	pods       []*corev1.Pod
	// holders are the nodes where an ordinary pod has the slot.
	holders map[string]bool
	// truths are by DaemonSet and node.
	truths map[string]truth
}

// truth is what is to be said of a DaemonSet on a node.
type truth struct {
	reason explain.Reason
	state  explain.State
}

func (d *truthDraw) add(object runtime.Object) { d.objects = append(d.objects, object) }

func (d *truthDraw) oneIn(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d *truthDraw, choices ...T) T { return choices[d.IntN(len(choices))] }

// What the nodes are told of.
const (
	nodeSays       = "PLEG is not healthy"
	noNetwork      = "container runtime network not ready: cni plugin not initialized"
	nobodyReported = "Kubelet stopped posting node status."
)

func drawTruths(seed uint64, everynode bool) *truthDraw {
	d := &truthDraw{Rand: rand.New(rand.NewPCG(seed, 16)), everynode: everynode, holders: make(map[string]bool), truths: make(map[string]truth)} //nolint:gosec // nothing secret
	for n := range 3 + d.IntN(6) {
		d.drawNode(fmt.Sprintf("node-%d", n+1))
	}
	if everynode {
		d.add(st.MakePod().Namespace("kube-system").Name("everynode").UID("everynode").Node("node-1").Container("registry.example/everynode-scheduler:v1").Obj())
	}
	for n := range 2 + d.IntN(5) {
		d.drawDaemonSet(fmt.Sprintf("agent-%d", n), n == 0)
	}
	return d
}

func (d *truthDraw) drawNode(name string) {
	w := st.MakeNode().Name(name).Label(corev1.LabelHostname, name).Label("disktype", pick(d, "ssd", "hdd")).Capacity(map[corev1.ResourceName]string{
		corev1.ResourceCPU: "4", corev1.ResourceMemory: "16Gi", corev1.ResourcePods: "110", slot: pick(d, "0", "1", "1"),
	})
	if d.oneIn(6) {
		w.Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}})
	}
	since := pick(d, 3*time.Minute, 48*time.Hour)
	w.CreationTimestamp = ago(48 * time.Hour)
	condition := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(since)}
	condition.Message = pick(d, "", "", "", "", nodeSays, noNetwork, nobodyReported)
	switch condition.Message {
	case "":
	case nobodyReported:
		condition.Status = corev1.ConditionUnknown
	default:
		condition.Status = corev1.ConditionFalse
	}
	w.Status.Conditions = []corev1.NodeCondition{condition}
	d.nodes = append(d.nodes, w.Obj())
	d.add(w.Obj())
	if d.oneIn(2) {
		holder := st.MakePod().Namespace("shop").Name("holder-" + name).UID("holder-" + name).Node(name).Req(map[corev1.ResourceName]string{slot: "1"}).Obj()
		d.holders[name] = true
		d.add(holder)
	}
}

func (d *truthDraw) drawDaemonSet(name string, slots bool) {
	ds := daemons(pick(d, "default", "team"), name, "0")
	spec := &ds.Spec.Template.Spec
	spec.Containers[0].Resources.Requests = nil
	if slots {
		spec.Containers[0].Resources.Requests = corev1.ResourceList{slot: apiresource.MustParse("1")}
	}
	if d.oneIn(3) {
		spec.NodeSelector = map[string]string{"disktype": "ssd"}
	}
	if d.oneIn(2) {
		spec.Tolerations = []corev1.Toleration{{Key: "role", Operator: corev1.TolerationOpExists}}
	}
	spec.InitContainers = []corev1.Container{{Name: "init"}}
	ds.Spec.MinReadySeconds = pick[int32](d, 0, 0, 60)
	switch d.IntN(4) {
	case 0:
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	case 1:
		ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: new(intstr.FromInt32(1)), MaxUnavailable: new(intstr.FromInt32(0))}
	default:
		ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: new(intstr.FromInt32(0)), MaxUnavailable: new(intstr.FromInt32(1 + d.Int32N(3)))}
	}
	earlier := ds.DeepCopy()
	if d.oneIn(2) {
		ds.Generation, ds.Status.ObservedGeneration = 2, 2
		ds.Annotations[appsv1.DeprecatedTemplateGeneration] = "2"
	}
	refused := d.oneIn(5)
	if refused {
		d.add(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: ds.Namespace, Name: name + ".1"}, InvolvedObject: corev1.ObjectReference{Kind: "DaemonSet", UID: ds.UID},
			Reason: "FailedCreate", Message: `Error creating: pods "x-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=30, limited: pods=30`,
			FirstTimestamp: ago(time.Minute), LastTimestamp: ago(time.Second), Count: 12,
		})
	}
	for _, node := range d.nodes {
		d.truths[name+" "+node.Name] = d.lose(ds, node, d.drawPods(ds, earlier, node, refused))
	}
	d.countAsController(ds)
	d.daemonSets = append(d.daemonSets, ds)
	d.add(ds)
}

// drawPods draws the pods of a DaemonSet on a node, and returns what is to be said of them.
func (d *truthDraw) drawPods(ds, earlier *appsv1.DaemonSet, node *corev1.Node, refused bool) truth {
	if wanted, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds); !wanted {
		reason := explain.ReasonTaint
		if ds.Spec.Template.Spec.NodeSelector != nil && node.Labels["disktype"] != "ssd" {
			reason = explain.ReasonNodeSelector
		}
		if !d.oneIn(4) {
			return truth{reason, explain.StateNone}
		}
		pod := d.drawPod(ds, node, fates["Ready"], 72*time.Hour)
		if d.oneIn(2) {
			d.end(pod, pick(d, time.Minute, 72*time.Hour))
		}
		return truth{reason, explain.StateStray}
	}
	if d.oneIn(8) {
		// The controller counts no pod that is deleted and has ended, whatever holds it.
		d.end(d.drawPod(earlier, node, fates["Evicted"], 72*time.Hour), time.Hour)
	}
	of := pick(d, ds, ds, earlier)
	switch d.IntN(8) {
	case 0:
		return noPod(node, refused)
	case 1:
		age := pick(d, time.Minute, 72*time.Hour)
		d.end(d.drawPod(of, node, pick(d, fates["Ready"], fates["hangs"], fates["crashes"]), 72*time.Hour), age)
		return truth{explain.ReasonTerminating, waitsOrStuck(age > patient)}
	case 2:
		if ds.Generation == 2 && surges(ds) {
			old := d.drawPod(earlier, node, fates["Ready"], 100*time.Hour)
			d.holders[node.Name] = d.holders[node.Name] || len(old.Spec.Containers[0].Resources.Requests) > 0
			of = ds
		}
	}
	f, age := d.drawFate(node)
	d.drawPod(of, node, f, age)
	return d.judge(ds, of, node, f, age)
}

// lose draws pods that were on the node before and that its kubelet has evicted, and returns what is then to be said.
func (d *truthDraw) lose(ds *appsv1.DaemonSet, node *corev1.Node, t truth) truth {
	lost, since := pick(d, 0, 0, 0, 1, 3), pick(d, time.Minute, 20*time.Minute, 72*time.Hour)
	for n := range lost {
		name := fmt.Sprintf("%s-lost%d%s", ds.Name, n, strings.ReplaceAll(node.Name, "-", ""))
		d.add(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: ds.Namespace, Name: name}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: ds.Namespace, Name: name, UID: types.UID(name)},
			Source: corev1.EventSource{Component: "kubelet", Host: node.Name}, Type: corev1.EventTypeWarning, Reason: "Evicted", Message: "The node was low on resource: memory.",
			FirstTimestamp: ago(since), LastTimestamp: ago(since), Count: 1,
		})
	}
	isReady := slices.Contains([]explain.Reason{explain.ReasonReady, explain.ReasonNotAvailable, explain.ReasonOutdated}, t.reason)
	starts := slices.Contains([]explain.Reason{explain.ReasonNotCreated, explain.ReasonTerminating, explain.ReasonNotStarted, explain.ReasonNotReady, explain.ReasonVolume, explain.ReasonInit}, t.reason)
	if lost == 3 && (isReady && since < patient || starts && since < time.Hour) {
		return truth{explain.ReasonRejected, explain.StateStuck}
	}
	return t
}

// drawFate draws what becomes of a pod, and for how long it has been so.
func (d *truthDraw) drawFate(node *corev1.Node) (fate, time.Duration) {
	name := pick(d, append(slices.Sorted(maps.Keys(fates)), "Ready", "Ready", "Ready")...)
	switch condition := &node.Status.Conditions[0]; {
	case name == "is new":
		return fates[name], 3 * time.Second
	case name == "Ready after crashes" && condition.Status == corev1.ConditionTrue:
		return fates[name], 72 * time.Hour
	// The controllers set pods of such nodes to not Ready.
	case strings.HasPrefix(name, "Ready") && condition.Status != corev1.ConditionTrue,
		// An init container that runs may wait for the network or not: its status does not tell.
		name == "lacks its init" && condition.Message == noNetwork:
		name = "hangs"
	}
	return fates[name], pick(d, 30*time.Second, 3*time.Minute, 15*time.Minute, 72*time.Hour)
}

func waitsOrStuck(stuck bool) explain.State {
	if stuck {
		return explain.StateStuck
	}
	return explain.StateWaiting
}

func (d *truthDraw) drawPod(ds *appsv1.DaemonSet, node *corev1.Node, f fate, age time.Duration) *corev1.Pod {
	pod := daemonsettest.Pod(ds, node.Name)
	pod.Name = fmt.Sprintf("%s-%d", pod.Name, len(d.pods))
	pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = pod.Labels["pod-template-generation"]
	pod.UID, pod.CreationTimestamp = types.UID(pod.Name), ago(age)
	if !f.unbound {
		pod.Spec.NodeName = node.Name
	}
	if f.edit != nil {
		f.edit(d, pod, age)
	}
	d.pods = append(d.pods, pod)
	d.add(pod)
	return pod
}

// end deletes a pod, which a finalizer holds.
func (d *truthDraw) end(pod *corev1.Pod, age time.Duration) {
	pod.DeletionTimestamp, pod.Finalizers = new(ago(age)), []string{"example.com/wait"}
}

// judge says what a pod of the template of is to be told of.
func (d *truthDraw) judge(ds, of *appsv1.DaemonSet, node *corev1.Node, f fate, age time.Duration) truth {
	condition, slots := &node.Status.Conditions[0], len(ds.Spec.Template.Spec.Containers[0].Resources.Requests) > 0
	switch {
	case f.reason == explain.ReasonReady && of.Generation != ds.Generation:
		return truth{explain.ReasonOutdated, explain.StateReady}
	case f.reason == explain.ReasonReady && age < time.Duration(ds.Spec.MinReadySeconds)*time.Second:
		return truth{explain.ReasonNotAvailable, explain.StateReady}
	case f.trouble == none:
		return truth{f.reason, explain.StateReady}
	case f.reason == explain.ReasonSchedulable && slots && node.Status.Allocatable.Name(slot, apiresource.DecimalSI).IsZero():
		f.reason = explain.ReasonNoDevice
	case f.reason == explain.ReasonSchedulable && slots && d.holders[node.Name]:
		f.reason, f.trouble = explain.ReasonNoRoom, atOnce
	case f.unbound, f.reason == explain.ReasonRejected:
	case condition.Message == nobodyReported, condition.Message == nodeSays && f.silent, condition.Message == noNetwork && f.silent && !f.pending:
		f.reason, f.trouble = explain.ReasonNodeNotReady, atOnce
	case condition.Message == noNetwork && f.pending:
		f.reason, f.trouble = explain.ReasonNoNetwork, late
	}
	return truth{f.reason, waitsOrStuck(f.trouble == atOnce || age > patient)}
}

func noPod(node *corev1.Node, refused bool) truth {
	if refused {
		return truth{explain.ReasonCreateFailed, explain.StateStuck}
	}
	ready := &node.Status.Conditions[0]
	return truth{explain.ReasonNotCreated, waitsOrStuck(ready.Status != corev1.ConditionTrue || now.Sub(ready.LastTransitionTime.Time) > patient)}
}

// podsOn returns the pods of a DaemonSet for a node, without those that the controller does not count.
func (d *truthDraw) podsOn(ds *appsv1.DaemonSet, node *corev1.Node) (pods []*corev1.Pod) {
	for _, pod := range d.pods {
		target, err := daemonutil.GetTargetNodeName(pod)
		counts := pod.DeletionTimestamp == nil || pod.Status.Phase != corev1.PodFailed
		if err == nil && metav1.IsControlledBy(pod, ds) && target == node.Name && counts {
			pods = append(pods, pod)
		}
	}
	return pods
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

// countAsController sets the status as updateDaemonSetStatus does in
// k8s.io/kubernetes/pkg/controller/daemon: bound pods come first, then the oldest.
func (d *truthDraw) countAsController(ds *appsv1.DaemonSet) {
	for _, node := range d.nodes {
		pods := d.podsOn(ds, node)
		wanted, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds)
		switch {
		case !wanted && len(pods) > 0:
			ds.Status.NumberMisscheduled++
		case !wanted:
		default:
			ds.Status.DesiredNumberScheduled++
			if len(pods) == 0 {
				continue
			}
			ds.Status.CurrentNumberScheduled++
			first := slices.MinFunc(pods, func(a, b *corev1.Pod) int {
				if (a.Spec.NodeName == "") != (b.Spec.NodeName == "") {
					return strings.Compare(b.Spec.NodeName, a.Spec.NodeName)
				}
				return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
			})
			if isReady(first) {
				ds.Status.NumberReady++
			}
		}
	}
}

// status counts what status should count.
func (d *truthDraw) status(ds *appsv1.DaemonSet) explain.Status {
	s := explain.Status{Namespace: ds.Namespace, Name: ds.Name, CreationTimestamp: ds.CreationTimestamp, State: explain.StateReady}
	outdated, trouble, unavailable := false, false, 0
	for _, node := range d.nodes {
		pods, state := d.podsOn(ds, node), d.truths[ds.Name+" "+node.Name].state
		live := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
		fresh := slices.DeleteFunc(slices.Clone(live), func(pod *corev1.Pod) bool {
			return pod.Labels["pod-template-generation"] != ds.Annotations[appsv1.DeprecatedTemplateGeneration]
		})
		outdated = outdated || len(fresh) < len(live)
		isAvailable := func(pod *corev1.Pod) bool {
			return isReady(pod) && now.Sub(pod.CreationTimestamp.Time) >= time.Duration(ds.Spec.MinReadySeconds)*time.Second
		}
		lacks := len(live) != 1 || !isAvailable(live[0])
		if surges(ds) {
			lacks = len(live) == 2 && !slices.ContainsFunc(fresh, isAvailable)
		}
		if lacks && (state == explain.StateStuck || state == explain.StateWaiting || state == explain.StateReady || len(pods) > 0) {
			unavailable++
			trouble = trouble || state == explain.StateStuck || slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
				return pod.DeletionTimestamp != nil && now.Sub(pod.DeletionTimestamp.Time) > patient
			})
		}
		if wanted, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds); !wanted {
			s.Misscheduled += min(1, len(pods))
			continue
		}
		count := func(n *int, isOne bool) {
			if isOne {
				*n++
			}
		}
		isBound := func(pod *corev1.Pod) bool { return pod.Spec.NodeName != "" }
		hasEnded := func(pod *corev1.Pod) bool {
			return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
		}
		s.Desired++
		count(&s.Created, len(pods) > 0)
		count(&s.Scheduled, slices.ContainsFunc(pods, isBound))
		count(&s.Ready, slices.ContainsFunc(live, isReady))
		count(&s.Available, slices.ContainsFunc(live, isAvailable))
		count(&s.Updated, len(fresh) > 0)
		count(&s.Missing, !slices.ContainsFunc(live, func(pod *corev1.Pod) bool { return isBound(pod) && !hasEnded(pod) }))
		for _, pod := range pods {
			for n := range pod.Status.ContainerStatuses {
				s.Restarts += int(pod.Status.ContainerStatuses[n].RestartCount)
			}
		}
		if state == explain.StateStuck || state == explain.StateWaiting && s.State == explain.StateReady {
			s.State = state
		}
	}
	update := ds.Spec.UpdateStrategy.RollingUpdate
	if update != nil && outdated && trouble && s.Desired > 0 && unavailable >= update.MaxSurge.IntValue()+update.MaxUnavailable.IntValue() {
		s.Stalled = "yes"
	}
	return s
}

// surges says whether an update starts new pods before it ends old ones.
func surges(ds *appsv1.DaemonSet) bool {
	update := ds.Spec.UpdateStrategy.RollingUpdate
	return update != nil && update.MaxSurge.IntValue() > 0
}

// decode reads objects in JSON, up to what is no JSON.
func decode[T any](t *testing.T, text string) (all []T) {
	t.Helper()
	text, _, _ = strings.Cut(text, "\n---")
	for decoder := json.NewDecoder(strings.NewReader(text)); ; {
		var one T
		switch err := decoder.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%v in\n%s", err, text)
		}
		all = append(all, one)
	}
}

// The truth test: in random clusters status, map, explain and doctor say the same of every DaemonSet on
// every node, and it is true: pods crash, hang, are refused, rejected and evicted, nodes go, updates are
// under way, with kube-scheduler and with everynode-scheduler.
func TestTruth(t *testing.T) {
	for seed := range *truthSeeds {
		for _, everynode := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed=%d,everynode=%t", seed, everynode), func(t *testing.T) { testTruth(t, drawTruths(uint64(seed), everynode)) })
		}
	}
}

func testTruth(t *testing.T, d *truthDraw) {
	t.Helper()
	text := func(args ...string) string {
		return run(t, fake.NewClientset(d.objects...), "", append(args, "-o", "json")...)
	}
	statuses := decode[list[explain.Status]](t, text("status", "-A"))[0].Items
	drawn := decode[explain.Map](t, text("map", "-A", "--group-by="))[0]
	explained := decode[explain.Explanation](t, text("explain", "-A"))
	doctor := text("doctor")
	diagnosis := decode[explain.Diagnosis](t, doctor)[0]
	if len(statuses) != len(d.daemonSets) || len(explained) != len(d.daemonSets) || len(drawn.DaemonSets) != len(d.daemonSets) {
		t.Fatalf("%d statuses, %d columns and %d explanations of %d DaemonSets", len(statuses), len(drawn.DaemonSets), len(explained), len(d.daemonSets))
	}
	gaps, ready, desired, problems := 0, 0, 0, 0
	for n := range explained {
		x, status, column := &explained[n], &statuses[n], &drawn.DaemonSets[n]
		ds := d.daemonSets[slices.IndexFunc(d.daemonSets, func(ds *appsv1.DaemonSet) bool { return ds.Name == x.Name })]
		want := d.status(ds)
		desired, ready, gaps = desired+want.Desired, ready+want.Ready, gaps+want.Desired-want.Ready
		if want.State == explain.StateStuck || want.Stalled != "" {
			problems++
		}
		if diff := gocmp.Diff(want, *status, cmpopts.IgnoreFields(explain.Status{}, "GapSince", "Top", "Stalled", "Held", "HeldNodes", "LapsedNodes")); diff != "" {
			t.Errorf("status of %s (-truth,+have):\n%s", x.Name, diff)
		}
		if (status.Stalled != "") != (want.Stalled != "") {
			t.Errorf("%s: the update is stalled: %t, but: %q, %+v", x.Name, want.Stalled != "", status.Stalled, x.Rollout)
		}
		if diff := gocmp.Diff(x.Status, status, cmpopts.IgnoreFields(explain.Status{}, "Held", "HeldNodes", "LapsedNodes")); diff != "" {
			t.Errorf("%s (-explain,+status):\n%s", x.Name, diff)
		}
		if column.Name != x.Name || column.Desired != want.Desired || column.Ready != want.Ready {
			t.Errorf("the map has %+v, the truth is %+v", column, want)
		}
		for v := range x.Verdicts {
			d.compare(t, ds, &x.Verdicts[v], &drawn, n, &diagnosis)
		}
		if top := status.Top; top != nil {
			for _, node := range top.Nodes {
				if truth := d.truths[x.Name+" "+node]; truth.reason != top.Reason || truth.state != top.State {
					t.Errorf("%s on %s is %v, but the top reason is %s (%s)", x.Name, node, truth, top.Reason, top.State)
				}
			}
		}
		if (status.Top == nil || status.Top.State != explain.StateStuck) && want.State == explain.StateStuck {
			t.Errorf("%s is stuck, but the top reason is %+v", x.Name, status.Top)
		}
	}
	sum := 0
	for n := range diagnosis.Problems {
		sum += diagnosis.Problems[n].Gaps
	}
	if diagnosis.Desired != desired || diagnosis.Ready != ready || sum != gaps || strings.Contains(doctor, "exit code 1") != (problems > 0) {
		t.Errorf("doctor counts %d of %d Ready and %d gaps, the truth is %d of %d and %d; %d DaemonSets have problems:\n%s",
			diagnosis.Ready, diagnosis.Desired, sum, ready, desired, gaps, problems, doctor)
	}
	node := pick(d, d.nodes...)
	for _, on := range decode[explain.NodeExplanation](t, text("explain", "node/"+node.Name))[0].DaemonSets {
		_, name, _ := strings.Cut(on.DaemonSet, "/")
		if have := (truth{on.Reason, on.State}); have != d.truths[name+" "+node.Name] {
			t.Errorf("explain node/%s says %v of %s, the truth is %v", node.Name, have, name, d.truths[name+" "+node.Name])
		}
	}
}

// compare compares what is said of a DaemonSet on a node.
func (d *truthDraw) compare(t *testing.T, ds *appsv1.DaemonSet, v *explain.Verdict, drawn *explain.Map, column int, diagnosis *explain.Diagnosis) {
	t.Helper()
	want := d.truths[ds.Name+" "+v.Node]
	if have := (truth{v.Reason, v.Outcome}); have != want {
		t.Errorf("explain says %v of %s on %s, the truth is %v: %s %+v", have, ds.Name, v.Node, want, v.Message, v.Pod)
	}
	row := slices.IndexFunc(drawn.Nodes, func(row explain.MapRow) bool { return row.Name == v.Node })
	if cell := (explain.MapVerdict{State: v.Outcome, Step: v.Step, Reason: v.Reason, Message: v.Message}); drawn.Verdicts[drawn.Nodes[row].Cells[column]] != cell {
		t.Errorf("%s on %s: explain says %v, and the map %v", ds.Name, v.Node, cell, drawn.Verdicts[drawn.Nodes[row].Cells[column]])
	}
	if p, said := v.Preemption, v.Pod != nil && v.Pod.Said != ""; p != nil && said && (p.InForce == explain.Everynode) != d.everynode {
		t.Errorf("%s on %s: the rules are said to be those of %s", ds.Name, v.Node, p.InForce)
	}
	told := slices.ContainsFunc(diagnosis.Problems, func(p explain.Problem) bool {
		return p.State == want.state && slices.Contains(p.DaemonSets, ds.Namespace+"/"+ds.Name) && slices.Contains(p.Nodes, v.Node)
	})
	if told != (want.state == explain.StateStuck || want.state == explain.StateWaiting) {
		t.Errorf("%s on %s is %v; among the problems: %t", ds.Name, v.Node, want, told)
	}
}
