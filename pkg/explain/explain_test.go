// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
	"everynode.dev/everynode/pkg/snapshot"
)

// now is when all clusters of the tests are read.
var now = metav1.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// ago is a moment before now.
func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

// node returns a Ready node of 4 cores, 8Gi and 10 pods.
func node(name string) *st.NodeWrapper {
	n := st.MakeNode().Name(name).Label(corev1.LabelHostname, name).Capacity(map[corev1.ResourceName]string{
		corev1.ResourceCPU: "4", corev1.ResourceMemory: "8Gi", corev1.ResourcePods: "10",
	})
	n.CreationTimestamp = ago(24 * time.Hour)
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(23 * time.Hour)}}
	return n
}

// daemons returns a DaemonSet that the controller has seen.
func daemons(name string) *daemonsettest.Wrapper {
	w := daemonsettest.Make(name)
	w.Obj().CreationTimestamp = ago(time.Hour)
	w.Obj().Status.ObservedGeneration = 1
	w.Obj().Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	w.Obj().Spec.Template.Labels = map[string]string{"app": name}
	w.Obj().Spec.Template.Spec.SchedulerName = corev1.DefaultSchedulerName
	return w
}

// pod changes a copy of a pod.
func pod(p *corev1.Pod, edits ...func(*corev1.Pod)) *corev1.Pod {
	p = p.DeepCopy()
	if p.CreationTimestamp.IsZero() {
		p.CreationTimestamp = ago(5 * time.Minute)
	}
	if p.Spec.SchedulerName == "" {
		p.Spec.SchedulerName = corev1.DefaultSchedulerName
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func created(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp = ago(d) }
}

// refused says what the scheduler has said of a pod.
func refused(message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message, LastTransitionTime: ago(4 * time.Minute),
		})
	}
}

const stockSaid = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."

const everynodeSaid = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 " + everynodepreemption.ErrReasonNoVictims + "."

func isReady(p *corev1.Pod) {
	p.Status.Phase = corev1.PodRunning
	p.Status.StartTime = new(ago(4 * time.Minute))
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(3 * time.Minute)})
}

// container has the kubelet report one container.
func container(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status.Name = "main"
		p.Status.Phase = corev1.PodPending
		p.Status.StartTime = new(ago(4 * time.Minute))
		p.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	}
}

// sidecar is a container beside the one that runs and is ready.
func sidecar(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		container(corev1.ContainerStatus{Ready: true, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Hour)}}})(p)
		status.Name, status.Started = "proxy", new(true)
		p.Spec.InitContainers = []corev1.Container{{Name: status.Name, RestartPolicy: new(corev1.ContainerRestartPolicyAlways), ReadinessProbe: &corev1.Probe{}}}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{status}
	}
}

func waiting(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Image: "example/agent:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

// notReady is a node whose kubelet reports that it is not ready.
func notReady(message string) *corev1.Node {
	n := node("n").Obj()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Message: message, LastTransitionTime: ago(30 * time.Minute)}}
	return n
}

func withoutNetwork() *corev1.Node {
	return notReady("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized")
}

// eviction is the event of the kubelet of node n on a pod that it has evicted.
func eviction(name string, uid types.UID) *corev1.Event {
	e := event(uid, "Evicted", "The node was low on resource: ephemeral-storage.", time.Minute, time.Minute, 1)
	e.Type, e.Source.Host = corev1.EventTypeWarning, "n"
	e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name, UID: uid}
	return e
}

func tainted(n *corev1.Node, keys ...string) *corev1.Node {
	for _, key := range keys {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: "1795646307", Effect: corev1.TaintEffectNoSchedule})
	}
	return n
}

// crashes has the kubelet wait before it starts a container again.
func crashes(p *corev1.Pod) {
	s := waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container")
	s.RestartCount = 57
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}
	container(s)(p)
}

// flapping is a container that was killed half a minute ago, after another half.
func flapping(restarts int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Started: new(true), RestartCount: restarts, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(24 * time.Second)}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "OOMKilled", StartedAt: ago(time.Minute), FinishedAt: ago(30 * time.Second),
		}},
	}
}

func isReadyFor(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		isReady(p)
		p.CreationTimestamp = ago(d)
		p.Status.Conditions[len(p.Status.Conditions)-1].LastTransitionTime = ago(d)
	}
}

// web returns an ordinary pod of a Deployment on a node.
func web(name, on, cpu string) *st.PodWrapper {
	p := st.MakePod().Namespace("default").Name(name).UID(name).Node(on).Label("app", "web").Label("pod-template-hash", "abc").
		Req(map[corev1.ResourceName]string{corev1.ResourceCPU: cpu}).StartTime(ago(time.Hour))
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-abc", UID: "web-abc", Controller: new(true)}}
	return p
}

func event(about types.UID, reason, message string, first, last time.Duration, count int32) *corev1.Event {
	return &corev1.Event{
		InvolvedObject: corev1.ObjectReference{UID: about}, Reason: reason, Message: message,
		FirstTimestamp: ago(first), LastTimestamp: ago(last), Count: count,
	}
}

func newEngine(tb testing.TB, c *snapshot.Cluster) *Engine {
	tb.Helper()
	e, err := New(tb.Context(), c, Options{Now: now.Time, Kubectl: "kubectl"})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// summary writes a verdict for a table: where the chain ends, why, and what is next.
func summary(v *Verdict) string {
	lines := []string{string(v.Step) + "/" + string(v.Reason) + ": " + string(v.Outcome), v.Message}
	for _, shortage := range v.Shortages {
		lines = append(lines, "short: "+FormatAmount(shortage.Resource, shortage.Needs)+", free "+FormatQuantity(shortage.Resource, shortage.Free))
	}
	for n := range v.Blockers {
		b := &v.Blockers[n]
		lines = append(lines, "blocker: "+b.Name+" ("+b.Owner+") "+b.Takes+": "+b.Spared)
	}
	lines = append(lines, v.Preemption.sentences(v.Node, 1)...)
	for _, fact := range v.Facts {
		lines = append(lines, "fact: "+fact)
	}
	for _, change := range v.Admission {
		lines = append(lines, "admission: "+change)
	}
	if v.Next != "" {
		lines = append(lines, "next: "+v.Next)
	}
	if v.Fix != nil {
		lines = append(lines, "fix: "+v.Fix.Text)
		if v.Fix.Command != "" {
			lines = append(lines, "     "+v.Fix.Command)
		}
	}
	return strings.Join(lines, "\n")
}

const narrowSelector = "scheduler.alpha.kubernetes.io/node-selector"

func TestVerdict(t *testing.T) {
	t.Parallel()
	agent := daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "500m"}).Obj()
	bound, unbound := daemonsettest.BoundPod(agent, "n"), daemonsettest.Pod(agent, "n")
	probed := agent.DeepCopy()
	probed.Spec.Template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	network := daemons("calico-node").Obj()
	network.Spec.Template.Spec.HostNetwork = true
	network.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "cni", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/cni/net.d"}}}}
	network.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	efs := daemons("efs-csi-node").Obj()
	efs.Spec.Template.Spec.Tolerations = network.Spec.Template.Spec.Tolerations

	withDevice := daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "500m", "example.com/dev": "1"}).Obj()
	deviceClass := func(resource string) *resourcev1.DeviceClass {
		return &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "class"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: &resource}}
	}
	const noDeviceSaid = "0/1 nodes are available: 1 cannot allocate all claims. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
	evictions := []*corev1.Event{eviction("agent-a", "a"), eviction("agent-b", "b"), eviction("agent-c", "c"), eviction("agent-c", "c")}
	unhealthy := func(name string) *corev1.Event {
		e := eviction(name, types.UID(name))
		e.Reason, e.Message = "Unhealthy", "Readiness probe failed: connection refused"
		return e
	}

	tests := map[string]struct {
		ds      *appsv1.DaemonSet // default: agent
		node    *corev1.Node      // default: an empty node n
		cluster snapshot.Cluster  // without the two
	}{
		"all is well": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
		},

		// The controller.
		"the template names another node": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.NodeName = "other"
				return ds
			}(),
		},
		"a label is missing": {
			ds: daemons("agent").NodeSelector("disktype", "ssd").Obj(),
		},
		"a label is different": {
			ds:   daemons("agent").NodeSelector("disktype", "ssd").Obj(),
			node: node("n").Label("disktype", "hdd").Obj(),
		},
		"a label that tells what the node is cannot be changed": {
			ds:   daemons("agent").NodeSelector(corev1.LabelArchStable, "arm64").Obj(),
			node: node("n").Label(corev1.LabelArchStable, "amd64").Obj(),
		},
		"required affinity": {
			ds: affinity(agent, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a", "b"}},
				{Key: "control-plane", Operator: corev1.NodeSelectorOpDoesNotExist},
			}}),
			node: node("n").Label("zone", "c").Label("control-plane", "").Obj(),
		},
		"required affinity with several terms": {
			ds: affinity(agent,
				corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}},
				corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"m"}}}}),
		},
		"a taint": {
			node: node("n").Taints([]corev1.Taint{{Key: "role", Value: "compute", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
		},
		"a taint, and a pod that is there already": {
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
		},
		"a taint that evicts": {
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoExecute}}).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
		},
		"a taint that goes by itself": {
			node: node("n").Taints([]corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}).Obj(),
		},
		"several things at once": {
			ds:   daemons("agent").NodeSelector("disktype", "ssd").Obj(),
			node: node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
		},
		"a DaemonSet that is being deleted": {
			ds: daemons("agent").Terminating().Obj(),
		},

		// Creation.
		"a quota": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "SuccessfulCreate", "Created pod: agent-x", 10*time.Minute, 10*time.Minute, 1),
				event("agent", "FailedCreate", `Error creating: pods "agent-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3`, 8*time.Minute, 2*time.Minute, 9),
			}},
		},
		"a refusal that is over": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedCreate", "Error creating: nope", 8*time.Minute, 5*time.Minute, 3),
				event("agent", "SuccessfulCreate", "Created pod: agent-x", time.Minute, time.Minute, 1),
			}},
		},
		"a refusal that nobody knows": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{event("agent", "FailedCreate", "Error creating: etcdserver: request timed out", 30*time.Second, 30*time.Second, 1)}},
		},
		"pods that fail on the node": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", 9*time.Minute, 9*time.Minute, 1),
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-b on node n, will try to kill it", 8*time.Minute, time.Minute, 7),
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-c on node other, will try to kill it", time.Minute, time.Second, 90),
			}},
		},
		"a controller that has not seen the latest template": {
			ds: daemons("agent").Generation(2).Obj(),
		},
		"an old pod that does not end": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady, func(p *corev1.Pod) {
				p.DeletionTimestamp, p.Finalizers = new(ago(10*time.Minute)), []string{"example.com/wait"}
			})}},
		},

		// Admission.
		"a namespace's node selector": {
			cluster: snapshot.Cluster{
				Pods: []*corev1.Pod{pod(unbound, refused("0/1 nodes are available"), func(p *corev1.Pod) {
					p.Spec.NodeSelector = map[string]string{"env": "prod"}
				})},
				Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default", Annotations: map[string]string{narrowSelector: "env=prod, team=a"}}}},
			},
		},
		"a node selector from nowhere": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"env": "prod"} })}},
		},
		"a pin that was lost": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) { p.Spec.Affinity = nil })}},
		},

		// The queue.
		"scheduling gates": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) {
				p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}}
			})}},
		},
		"a scheduler that does not run": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.SchedulerName = "other"
				return ds
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) { p.Spec.SchedulerName = "other" })}},
		},
		"a pod that was just created": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, created(time.Second))}},
		},

		// The filters.
		"more than the node has": {
			ds:      daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "8", "example.com/gpu": "1"}).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.Pod(daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "8", "example.com/gpu": "1"}).Obj(), "n"), refused("no"))}},
		},
		"no room, and nobody may be evicted by kube-scheduler": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(unbound, refused(stockSaid)),
				pod(web("web-1", "n", "3").Obj(), isReady), pod(web("web-2", "n", "700m").Obj(), isReady),
			}},
		},
		"no room, and nobody may be evicted by everynode-scheduler": {
			cluster: snapshot.Cluster{
				Pods: []*corev1.Pod{
					pod(unbound, refused(everynodeSaid)),
					pod(web("web-1", "n", "1").Obj(), isReady),
					pod(web("bare", "n", "800m").Obj(), isReady, func(p *corev1.Pod) { p.OwnerReferences = nil }),
					pod(web("precious", "n", "700m").Obj(), isReady, func(p *corev1.Pod) { p.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true"} }),
					pod(web("safe", "n", "600m").Obj(), isReady, func(p *corev1.Pod) {
						p.Annotations = map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
					}),
					pod(web("high", "n", "500m").Priority(100).Obj(), isReady),
					pod(web("static", "n", "300m").Obj(), isReady, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }),
				},
				Budgets: []*policyv1.PodDisruptionBudget{{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
					Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
				}},
				PriorityClasses: []*schedulingv1.PriorityClass{{ObjectMeta: metav1.ObjectMeta{Name: "middle"}, Value: 50}},
			},
		},
		"no room, and everynode-scheduler paces its evictions": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(unbound, refused(strings.Replace(everynodeSaid, everynodepreemption.ErrReasonNoVictims, everynodepreemption.ErrReasonPaced, 1))),
				pod(web("web-1", "n", "3600m").Obj(), isReady), pod(web("web-2", "other", "3").Obj(), isReady), pod(web("web-3", "", "3").Obj()),
			}},
		},
		"everynode-scheduler paced its evictions, and the pod fits now": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused(everynodepreemption.ErrReasonPaced))}},
		},
		"no room, and a pod of lower priority": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no")), pod(web("low", "n", "3600m").Priority(-10).Obj(), isReady)}},
		},
		"no room beside daemon pods": {
			cluster: snapshot.Cluster{
				DaemonSets: []*appsv1.DaemonSet{daemons("other").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "3900m"}).Obj()},
				Pods: []*corev1.Pod{
					pod(unbound, refused(stockSaid)),
					pod(daemonsettest.BoundPod(daemons("other").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "3900m"}).Obj(), "n"), isReady),
				},
			},
		},
		"no pod slots": {
			node:    node("n").Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "4", corev1.ResourceMemory: "8Gi", corev1.ResourcePods: "1"}).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused(stockSaid)), pod(web("web-1", "n", "0").Obj(), isReady)}},
		},
		"pods that are ending leave enough": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused(stockSaid)), pod(web("web-1", "n", "3600m").Obj(), isReady, func(p *corev1.Pod) {
				p.DeletionTimestamp = new(ago(20 * time.Second))
			})}},
		},
		"room is promised to a more important pod": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(unbound, refused(stockSaid)),
				pod(web("important", "", "3600m").Priority(100).NominatedNodeName("n").Obj()),
			}},
		},
		"a host port": {
			ds: daemons("agent").HostPort(9100).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.Pod(daemons("agent").HostPort(9100).Obj(), "n"), refused(stockSaid)),
				pod(web("web-1", "n", "1").HostPort(9100).Obj(), isReady),
			}},
		},
		"a taint that only the template tolerates": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "role", Operator: corev1.TolerationOpExists}}
				return ds
			}(),
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"))}},
		},
		"a rule that is not the scheduler's own": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("0/1 nodes are available: 1 the node is haunted."))}},
		},
		"pod anti-affinity": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) {
				p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
					TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				}}}
			}), pod(web("web-1", "n", "1").Obj(), isReady)}},
		},
		"a claim that does not exist": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
			})}},
		},

		// The kubelet.
		"a pod that the kubelet rejected": {
			cluster: snapshot.Cluster{
				Pods: []*corev1.Pod{pod(bound, func(p *corev1.Pod) {
					p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu."
				})},
				Events: []*corev1.Event{event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", time.Minute, time.Minute, 3)},
			},
		},
		"a node that does not report": {
			node: func() *corev1.Node {
				n := node("n").Obj()
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Message: "Kubelet stopped posting node status."}}
				return n
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound)}},
		},
		"a kubelet that does nothing": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound)}},
		},
		"an image": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("ImagePullBackOff", "Back-off pulling image")))}},
		},
		"a ConfigMap that is missing": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("CreateContainerConfigError", `configmap "agent" not found`)))}},
		},
		"a crash": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(func() corev1.ContainerStatus {
				s := waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container")
				s.RestartCount = 12
				s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
				return s
			}()))}},
		},
		"a volume that cannot be mounted": {
			cluster: snapshot.Cluster{
				Pods: []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", "")))},
				Events: []*corev1.Event{
					event("agent-n", "Scheduled", "Successfully assigned", 4*time.Minute, 4*time.Minute, 1),
					event("agent-n", "FailedMount", `MountVolume.SetUp failed for volume "config"`, 3*time.Minute, time.Minute, 5),
				},
			},
		},
		"an init container": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{
					{Name: "first", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
					{Name: "second", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
				}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("PodInitializing", "")}
			})}},
		},
		"a probe": {
			ds: probed,
			cluster: snapshot.Cluster{
				Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(probed, "n"), container(corev1.ContainerStatus{
					Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
				}))},
				Events: []*corev1.Event{event("agent-n", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", time.Minute, time.Second, 30)},
			},
		},

		// Nearly well.
		"an earlier template": {
			ds:      daemons("agent").Generation(2).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
		},
		"a new pod beside an old one": {
			ds: daemons("agent").Generation(2).MaxSurge(1).HostPort(80).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.BoundPod(daemons("agent").HostPort(80).Obj(), "n"), isReady, created(time.Hour)),
				pod(daemonsettest.Pod(daemons("agent").Generation(2).HostPort(80).Obj(), "n"), refused(stockSaid), func(p *corev1.Pod) { p.Name, p.UID = "agent-new", "agent-new" }),
			}},
		},
		"what admission did to a pod that runs": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady, func(p *corev1.Pod) {
				p.Spec.PriorityClassName = "high"
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "extra", Operator: corev1.TolerationOpExists})
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "sidecar"})
			})}},
		},

		// What hangs together.
		"a network plugin that crashes on a node without a network": {
			ds: network, node: withoutNetwork(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(network, "n"), crashes)}},
		},
		"a network plugin whose init container has no image": {
			ds: network, node: withoutNetwork(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(network, "n"), func(p *corev1.Pod) {
				s := waiting("ImagePullBackOff", "Back-off pulling image")
				s.Name = "install-cni"
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{s}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("PodInitializing", "")}
			})}},
		},
		"a pod that waits for the network": {
			node: withoutNetwork(),
			cluster: snapshot.Cluster{
				DaemonSets: []*appsv1.DaemonSet{network},
				Pods:       []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", ""))), pod(daemonsettest.BoundPod(network, "n"), crashes)},
			},
		},
		"a taint of a node without a network": {
			node:    tainted(withoutNetwork(), corev1.TaintNodeNotReady),
			cluster: snapshot.Cluster{DaemonSets: []*appsv1.DaemonSet{network}, Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(network, "n"), crashes)}},
		},
		"a node without a network plugin": {
			node:    withoutNetwork(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", "")))}},
		},
		"a node that is not ready for another reason, and a crash": {
			node:    notReady("PLEG is not healthy: pleg was last seen active 3m5s ago"),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, crashes)}},
		},
		"a node that has just come and is not ready yet": {
			node: func() *corev1.Node {
				n := notReady("[container runtime status check may not have completed yet]")
				n.CreationTimestamp, n.Status.Conditions[0].LastTransitionTime = ago(20*time.Second), ago(20*time.Second)
				return n
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", "")))}},
		},
		"a node that is not ready for another reason, and nothing else": {
			node: notReady("PLEG is not healthy: pleg was last seen active 3m5s ago"),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(corev1.ContainerStatus{
				Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}))}},
		},
		"a node that an autoscaler removes": {node: tainted(node("n").Obj(), "ToBeDeletedByClusterAutoscaler")},
		"a node that Karpenter replaces":    {node: tainted(node("n").Obj(), "karpenter.sh/disrupted")},
		"a node that Karpenter waits for":   {node: tainted(node("n").Obj(), "karpenter.sh/unregistered")},
		"a node that is not initialised":    {node: tainted(node("n").Obj(), "node.cloudprovider.kubernetes.io/uninitialized")},
		"a node that was declared dead":     {node: tainted(node("n").Obj(), corev1.TaintNodeOutOfService, corev1.TaintNodeNotReady)},
		"a start-up taint whose agent is Ready": {
			node: tainted(node("n").Obj(), "efs.csi.aws.com/agent-not-ready"),
			cluster: snapshot.Cluster{
				DaemonSets: []*appsv1.DaemonSet{efs},
				Pods:       []*corev1.Pod{pod(daemonsettest.BoundPod(efs, "n"), isReadyFor(2*time.Hour))},
			},
		},
		"a start-up taint whose agent crashes": {
			node: tainted(node("n").Obj(), "efs.csi.aws.com/agent-not-ready"),
			cluster: snapshot.Cluster{
				DaemonSets: []*appsv1.DaemonSet{efs},
				Pods:       []*corev1.Pod{pod(daemonsettest.BoundPod(efs, "n"), crashes)},
			},
		},
		"a start-up taint without an agent": {node: tainted(node("n").Obj(), "efs.csi.aws.com/agent-not-ready")},
		"a start-up taint without an agent on a node that has just come": {node: func() *corev1.Node {
			n := tainted(node("n").Obj(), "efs.csi.aws.com/agent-not-ready")
			n.Status.Conditions[0].LastTransitionTime = ago(time.Minute)
			return n
		}()},
		"a start-up taint whose agent may be out of sight": {
			node:    tainted(node("n").Obj(), "efs.csi.aws.com/agent-not-ready"),
			cluster: snapshot.Cluster{Partial: true},
		},

		// Age and warnings.
		"a probe that fails for days": {
			ds: probed,
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(probed, "n"), created(72*time.Hour), container(corev1.ContainerStatus{
				Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(72 * time.Hour)}},
			}))}},
		},
		"a volume that cannot be mounted for three minutes": {
			cluster: snapshot.Cluster{
				Pods:   []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", "")))},
				Events: []*corev1.Event{event("agent-n", "FailedMount", `secret "x" not found`, 4*time.Minute, time.Minute, 5)},
			},
		},
		"a finalizer for days": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady, func(p *corev1.Pod) {
				p.DeletionTimestamp, p.Finalizers = new(ago(72*time.Hour)), []string{"example.com/wait"}
			})}},
		},
		"a crash loop in its running phase": {
			ds:      probed,
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(probed, "n"), container(flapping(214)))}},
		},
		"a pod that flaps and counts as Ready": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(flapping(7)), isReady)}},
		},
		"a sidecar that flaps in a pod that counts as Ready": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(agent, "n"), sidecar(flapping(7)), isReady)}},
		},
		"a sidecar that is not ready": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(agent, "n"),
				sidecar(corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Hour)}}}))}},
		},
		"restarts of long ago": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, container(func() corev1.ContainerStatus {
				s := flapping(3)
				s.LastTerminationState.Terminated.StartedAt = ago(90 * 24 * time.Hour)
				return s
			}()), isReady)}},
		},
		"a quota after earlier failures": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", 9*time.Minute, 8*time.Minute, 2),
				event("agent", "FailedCreate", `Error creating: pods "agent-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3`, 8*time.Minute, 2*time.Minute, 9),
			}},
		},
		"events of many nodes that were put together": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "(combined from similar events): Found failed daemon pod default/agent-a on node n, will try to kill it", 9*time.Minute, 8*time.Minute, 300),
			}},
		},
		"a pod that was evicted and is gone": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{eviction("agent-abcde", "gone")}},
		},
		"a pod that was evicted, and the next one starts": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound)}, Events: []*corev1.Event{eviction("agent-abcde", "gone")}},
		},
		"pods that are evicted again and again, and the next one starts": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, created(10*time.Second))}, Events: evictions},
		},
		"pods that are evicted again and again, and the last one ends": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, func(p *corev1.Pod) { p.DeletionTimestamp = new(ago(time.Second)) })}, Events: evictions},
		},
		"pods that are evicted again and again, and one is Ready for a while": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}, Events: evictions},
		},
		"pods that were evicted again and again, and one is Ready for long": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReadyFor(12*time.Minute))}, Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", 30*time.Minute, 12*time.Minute, 9),
			}},
		},
		"pods that are evicted again and again, and there is none": {cluster: snapshot.Cluster{Events: evictions}},
		"pods that are evicted again and again, and one crashes":   {cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, crashes)}, Events: evictions}},
		"pods that were evicted before the DaemonSet was changed": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.ManagedFields = []metav1.ManagedFieldsEntry{{Time: new(ago(30 * time.Second))}}
				return ds
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, created(10*time.Second))}, Events: evictions},
		},
		"pods that were evicted before the status of the DaemonSet was changed": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.ManagedFields = []metav1.ManagedFieldsEntry{{Time: new(ago(30 * time.Second)), Subresource: "status"}}
				return ds
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, created(10*time.Second))}, Events: evictions},
		},
		"pods that the kubelet refuses again and again, and nothing tells why": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, created(10*time.Second))}, Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", 9*time.Minute, time.Minute, 3),
			}},
		},
		"probes of pods that are gone": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, created(10*time.Second))}, Events: []*corev1.Event{unhealthy("agent-a"), unhealthy("agent-b"), unhealthy("agent-c")}},
		},
		"warnings of a pod that is not the DaemonSet's": {
			cluster: snapshot.Cluster{
				Pods:   []*corev1.Pod{st.MakePod().Namespace("default").Name("agent-xyz").UID("lives").Node("n").Obj()},
				Events: []*corev1.Event{eviction("agent-xyz", "lives"), eviction("agent-windows-abcde", "gone")},
			},
		},
		"a namespace that is being deleted": {
			cluster: snapshot.Cluster{Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default", DeletionTimestamp: new(ago(time.Hour))}}}},
		},
		"a name in a message that a shell would obey": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedCreate", `Error creating: pods "a" is forbidden: exceeded quota: $(reboot), requested: pods=1, used: pods=3, limited: pods=3`, 8*time.Minute, 2*time.Minute, 9),
			}},
		},
		"a name in a message that kubectl would obey": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedCreate", `Error creating: pods "a" is forbidden: exceeded quota: --server=https://evil, requested: pods=1, used: pods=3, limited: pods=3`, 8*time.Minute, 2*time.Minute, 9),
			}},
		},
		"a service account that is missing": {
			cluster: snapshot.Cluster{Events: []*corev1.Event{
				event("agent", "FailedCreate", `Error creating: pods "a-" is forbidden: error looking up service account default/agent: serviceaccount "agent" not found`, time.Minute, time.Minute, 1),
			}},
		},

		// Devices, claims, and what everynode-scheduler refuses.
		"a device that the node does not list": {
			ds: withDevice, cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused("Insufficient example.com/dev"))}},
		},
		"a device that the node does not list for long, and other devices have classes": {
			ds: withDevice, cluster: snapshot.Cluster{
				DeviceClasses: []*resourcev1.DeviceClass{deviceClass("example.com/other")}, DeviceClassesRead: true,
				Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused("no"), created(72*time.Hour))},
			},
		},
		"a device that DRA may serve": {
			ds: withDevice, cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused("no"), created(72*time.Hour))}},
		},
		"a device that DRA may serve, and the scheduler finds none": {
			ds: withDevice, cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused(noDeviceSaid), created(72*time.Hour))}},
		},
		"a device that DRA serves": {
			ds: withDevice, cluster: snapshot.Cluster{
				DeviceClasses: []*resourcev1.DeviceClass{deviceClass("example.com/dev")}, DeviceClassesRead: true,
				Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused("no"), created(72*time.Hour))},
			},
		},
		"a device that DRA serves, and the scheduler finds none": {
			ds: withDevice, cluster: snapshot.Cluster{
				DeviceClasses: []*resourcev1.DeviceClass{deviceClass("example.com/dev")}, DeviceClassesRead: true,
				Pods: []*corev1.Pod{pod(daemonsettest.Pod(withDevice, "n"), refused(noDeviceSaid), created(72*time.Hour))},
			},
		},
		"a device that DRA serves, and a node that lists it": {
			ds: withDevice, node: node("n").Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "4", corev1.ResourceMemory: "8Gi", corev1.ResourcePods: "10", "example.com/dev": "1"}).Obj(),
			cluster: snapshot.Cluster{
				DeviceClasses: []*resourcev1.DeviceClass{deviceClass("example.com/dev")}, DeviceClassesRead: true,
				Pods: []*corev1.Pod{
					pod(daemonsettest.Pod(withDevice, "n"), refused("no")),
					pod(st.MakePod().Namespace("default").Name("holder").UID("holder").Node("n").Req(map[corev1.ResourceName]string{"example.com/dev": "1"}).Obj(), isReady),
				},
			},
		},
		"no room, and a device that DRA serves": {
			ds: withDevice, cluster: snapshot.Cluster{
				DeviceClasses: []*resourcev1.DeviceClass{deviceClass("example.com/dev")}, DeviceClassesRead: true,
				Pods: []*corev1.Pod{
					pod(daemonsettest.Pod(withDevice, "n"), refused(stockSaid)),
					pod(web("web-1", "n", "4").Obj(), isReady),
				},
			},
		},
		"a claim of devices": {
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), created(72*time.Hour), func(p *corev1.Pod) {
				p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("gpu")}}
			})}},
		},
		"claims that may not be listed": {
			cluster: snapshot.Cluster{ClaimsUnread: true, Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
			})}},
		},
		"a node that may not be read, without a pod":   {cluster: snapshot.Cluster{NodesUnread: true, Partial: true}},
		"a node that may not be read, and a pod waits": {cluster: snapshot.Cluster{NodesUnread: true, Partial: true, Pods: []*corev1.Pod{pod(unbound, refused(stockSaid))}}},
		"a DaemonSet that the pod requires": {
			cluster: snapshot.Cluster{
				DaemonSets: []*appsv1.DaemonSet{daemons("cilium").Obj()},
				Pods: []*corev1.Pod{pod(unbound, refused("0/1 nodes are available: 1 node(s) waited for DaemonSet default/cilium to be Ready."), func(p *corev1.Pod) {
					p.Annotations = map[string]string{"everynode.dev/requires": "default/cilium"}
				}), pod(daemonsettest.BoundPod(daemons("cilium").Obj(), "n"))},
			},
		},
		"not available yet": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.MinReadySeconds = 600
				return ds
			}(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
		},

		// Whose it is.
		"a taint, and a DaemonSet that Helm owns": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Annotations = map[string]string{"meta.helm.sh/release-name": "agent"}
				return ds
			}(),
			node: node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
		},
		"a label of a program":  {ds: daemons("agent").NodeSelector("nvidia.com/gpu.present", "true").Obj()},
		"a label of a provider": {ds: daemons("agent").NodeSelector("cloud.google.com/gke-nodepool", "x").Obj()},
		"a label of a role":     {ds: daemons("agent").NodeSelector("node-role.kubernetes.io/master", "").Obj()},
		"a label that a program sets on other nodes": {
			ds:      daemons("agent").NodeSelector("gpu", "true").Obj(),
			cluster: snapshot.Cluster{LabelManagers: map[string][]string{"gpu": {"gpu-feature-discovery"}}},
		},
		"a label with a domain that people set on other nodes": {
			ds:      daemons("agent").NodeSelector("example.com/pool", "a").Obj(),
			cluster: snapshot.Cluster{LabelManagers: map[string][]string{"example.com/pool": {"kubectl-label"}}},
		},
		"an update to an image that does not exist": {
			ds: daemons("agent").Generation(2).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.BoundPod(daemons("agent").Generation(2).Obj(), "n"), container(waiting("ErrImagePull", "manifest unknown"))),
				pod(daemonsettest.BoundPod(daemons("agent").Obj(), "other"), isReady),
			}},
		},
		"an update, and a node that cannot reach the registry": {
			ds: daemons("agent").Generation(2).Obj(),
			cluster: snapshot.Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.BoundPod(daemons("agent").Generation(2).Obj(), "n"), container(waiting("ErrImagePull", "dial tcp: lookup registry: no such host"))),
				pod(daemonsettest.BoundPod(daemons("agent").Obj(), "other"), isReady),
			}},
		},
	}
	var all strings.Builder
	seen := sets.New[Reason]()
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		tc := tests[name]
		ds, on := tc.ds, tc.node
		if ds == nil {
			ds = agent
		}
		if on == nil {
			on = node("n").Obj()
		}
		cluster := tc.cluster
		cluster.Nodes = []*corev1.Node{on, node("other").Capacity(map[corev1.ResourceName]string{corev1.ResourcePods: "0"}).Obj()}
		cluster.DaemonSets = append(cluster.DaemonSets, ds)
		e := newEngine(t, &cluster)
		verdict, err := e.verdict(t.Context(), ds, on, true)
		if err != nil {
			t.Fatal(name, err)
		}
		glance, err := e.verdict(t.Context(), ds, on, false)
		if err != nil || glance.Message != verdict.Message || glance.Reason != verdict.Reason || glance.Outcome != verdict.Outcome {
			t.Errorf("%s: a glance says %s, %s: %s (%v)", name, glance.Outcome, glance.Reason, glance.Message, err)
		}
		m, err := e.Map(t.Context(), []*appsv1.DaemonSet{ds}, "")
		if err != nil {
			t.Fatal(name, err)
		}
		if row := slices.IndexFunc(m.Nodes, func(row MapRow) bool { return row.Name == on.Name }); m.State(&m.Nodes[row], 0) != verdict.Outcome {
			t.Errorf("%s: the map says %s, explain %s", name, m.State(&m.Nodes[row], 0), verdict.Outcome)
		}
		statuses, err := e.Statuses(t.Context(), []*appsv1.DaemonSet{ds})
		if err != nil || verdict.Outcome == StateStuck && statuses[0].State != StateStuck {
			t.Errorf("%s: status says %s, explain %s (%v)", name, statuses[0].State, verdict.Outcome, err)
		}
		readsOnly(t, name, verdict.Next)
		if fix := verdict.Fix; fix != nil && fix.Command != "" && !howMuch.MatchString(fix.Text) {
			t.Errorf("%s: does not say how much it changes: %s", name, fix.Text)
		}
		seen.Insert(verdict.Reason)
		fmt.Fprintf(&all, "== %s\n%s\n\n", name, summary(&verdict))
	}
	golden(t, "verdicts.txt", all.String())
	for _, row := range allRows() {
		if !seen.Has(row.Reason) && row.Reason != ReasonWouldRun {
			t.Errorf("no case ends with %s", row.Reason)
		}
	}
}

// howMuch is in what a command under Fix says of itself.
var howMuch = regexp.MustCompile(`\d|one pod|no pod`)

// readsOnly fails if a command changes anything.
func readsOnly(t *testing.T, name, command string) {
	t.Helper()
	words := strings.Fields(command)
	if len(words) == 0 || words[0] != "kubectl" || strings.ContainsAny(command, ";&|") {
		if command != "" {
			t.Errorf("%s: %s is more than a command of kubectl", name, command)
		}
		return
	}
	if verb := words[1]; !slices.Contains([]string{"get", "describe", "logs", "events"}, verb) && !strings.Contains(command, "rollout status") {
		t.Errorf("%s: %s does more than look", name, command)
	}
}

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("%s (-want,+got), -update writes it anew:\n%s", path, diff)
	}
}

// affinity returns ds with required node affinity.
func affinity(ds *appsv1.DaemonSet, terms ...corev1.NodeSelectorTerm) *appsv1.DaemonSet {
	ds = ds.DeepCopy()
	ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}
	return ds
}
