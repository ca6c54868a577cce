// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
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

func waiting(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Image: "example/agent:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
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

func newEngine(tb testing.TB, c *Cluster) *Engine {
	tb.Helper()
	e, err := New(tb.Context(), c, Options{Now: now.Time})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// summary writes a verdict for a table: where the chain ends, why, and what is next.
func summary(v *Verdict) string {
	lines := []string{string(v.Step) + "/" + string(v.Reason), v.Message}
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
	return strings.Join(lines, "\n")
}

const narrowSelector = "scheduler.alpha.kubernetes.io/node-selector"

// patch is the beginning of commands that change the DaemonSet.
const patch = "next: kubectl patch daemonset/agent --type="

func TestVerdict(t *testing.T) {
	t.Parallel()
	agent := daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "500m"}).Obj()
	bound, unbound := daemonsettest.BoundPod(agent, "n"), daemonsettest.Pod(agent, "n")
	probed := agent.DeepCopy()
	probed.Spec.Template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}

	tests := map[string]struct {
		ds      *appsv1.DaemonSet // default: agent
		node    *corev1.Node      // default: an empty node n
		cluster Cluster           // without the two
		want    string
	}{
		"all is well": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
			want:    "ready/Ready\nThe pod is Ready.",
		},

		// The controller.
		"the template names another node": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.NodeName = "other"
				return ds
			}(),
			want: "controller/NodeNameMismatch\nThe template's nodeName is other.\nnext: kubectl edit daemonset/agent -n default",
		},
		"a label is missing": {
			ds:   daemons("agent").NodeSelector("disktype", "ssd").Obj(),
			want: "controller/NodeSelectorMismatch\nnodeSelector: wants disktype=ssd, the node has no label disktype.\nnext: kubectl label node n disktype=ssd",
		},
		"a label is different": {
			ds:   daemons("agent").NodeSelector("disktype", "ssd").Obj(),
			node: node("n").Label("disktype", "hdd").Obj(),
			want: "controller/NodeSelectorMismatch\nnodeSelector: wants disktype=ssd, the node has disktype=hdd.\nnext: kubectl label node n disktype=ssd --overwrite",
		},
		"a label that tells what the node is cannot be changed": {
			ds:   daemons("agent").NodeSelector(corev1.LabelArchStable, "arm64").Obj(),
			node: node("n").Label(corev1.LabelArchStable, "amd64").Obj(),
			want: "controller/NodeSelectorMismatch\nnodeSelector: wants kubernetes.io/arch=arm64, the node has kubernetes.io/arch=amd64.\nnext: kubectl edit daemonset/agent -n default",
		},
		"required affinity": {
			ds: affinity(agent, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a", "b"}},
				{Key: "control-plane", Operator: corev1.NodeSelectorOpDoesNotExist},
			}}),
			node: node("n").Label("zone", "c").Label("control-plane", "").Obj(),
			want: "controller/NodeAffinityMismatch\nNode affinity: wants zone in (a, b), the node has zone=c and wants no label control-plane, the node has control-plane without a value.\n" +
				"next: kubectl edit daemonset/agent -n default",
		},
		"required affinity with several terms": {
			ds: affinity(agent,
				corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}},
				corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"m"}}}}),
			want: "controller/NodeAffinityMismatch\nNode affinity: none of its terms matches: term 1 wants zone=a, the node has no label zone; term 2 wants the field metadata.name=m.\n" +
				"next: kubectl edit daemonset/agent -n default",
		},
		"a taint": {
			node: node("n").Taints([]corev1.Taint{{Key: "role", Value: "compute", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			want: "controller/TaintNotTolerated\nThe node has the taint role=compute:NoSchedule, which the DaemonSet does not tolerate.\n" +
				patch + `json -p '[{"op":"add","path":"/spec/template/spec/tolerations","value":[{"key":"role","operator":"Equal","value":"compute","effect":"NoSchedule"}]}]' -n default`,
		},
		"a taint, and a pod that is there already": {
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
			want: "controller/TaintNotTolerated\nThe node has the taint role:NoSchedule, which the DaemonSet does not tolerate. The pod that is there stays: the taint only keeps new ones out.\n" +
				patch + `json -p '[{"op":"add","path":"/spec/template/spec/tolerations","value":[{"key":"role","operator":"Exists","effect":"NoSchedule"}]}]' -n default`,
		},
		"a taint that evicts": {
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoExecute}}).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
			want: "controller/TaintNotTolerated\nThe node has the taint role:NoExecute, which the DaemonSet does not tolerate. The controller deletes the pod that is there.\n" +
				patch + `json -p '[{"op":"add","path":"/spec/template/spec/tolerations","value":[{"key":"role","operator":"Exists","effect":"NoExecute"}]}]' -n default`,
		},
		"a taint that goes by itself": {
			node: node("n").Taints([]corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			want: "controller/TaintNotTolerated\nThe node has the taint node.kubernetes.io/not-ready:NoSchedule, which the DaemonSet does not tolerate. It goes when the node is Ready.\n" +
				"next: kubectl describe node n",
		},
		"several things at once": {
			ds:   daemons("agent").NodeSelector("disktype", "ssd").Obj(),
			node: node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			want: "controller/NodeSelectorMismatch\nnodeSelector: wants disktype=ssd, the node has no label disktype. " +
				"Besides: The node has the taint role:NoSchedule, which the DaemonSet does not tolerate.\nnext: kubectl label node n disktype=ssd",
		},
		"a DaemonSet that is being deleted": {
			ds:   daemons("agent").Terminating().Obj(),
			want: "controller/DaemonSetDeleting\nThe DaemonSet is being deleted.\nnext: kubectl get daemonset/agent -o 'jsonpath={.metadata.finalizers}' -n default",
		},

		// Creation.
		"a quota": {
			cluster: Cluster{Events: []*corev1.Event{
				event("agent", "SuccessfulCreate", "Created pod: agent-x", 10*time.Minute, 10*time.Minute, 1),
				event("agent", "FailedCreate", `Error creating: pods "agent-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3`, 8*time.Minute, 2*time.Minute, 9),
			}},
			want: "creation/CreateFailed\nThe API server refuses the pod: the quota compute is used up (limit pods=3, used pods=3, asked for pods=1).\n" +
				"fact: Tried last 2m ago; the next try comes in about 4m.\nnext: kubectl describe resourcequota compute -n default",
		},
		"a refusal that is over": {
			cluster: Cluster{Events: []*corev1.Event{
				event("agent", "FailedCreate", "Error creating: nope", 8*time.Minute, 5*time.Minute, 3),
				event("agent", "SuccessfulCreate", "Created pod: agent-x", time.Minute, time.Minute, 1),
			}},
			want: "creation/NotCreated\nThe DaemonSet controller has not created the pod and has reported no trouble: it is about to, or kube-controller-manager does not run.\n" +
				"next: kubectl get lease kube-controller-manager -n kube-system",
		},
		"a refusal that nobody knows": {
			cluster: Cluster{Events: []*corev1.Event{event("agent", "FailedCreate", "Error creating: etcdserver: request timed out", 30*time.Second, 30*time.Second, 1)}},
			want: "creation/CreateFailed\nThe API server refuses the pod: etcdserver: request timed out.\n" +
				"fact: Tried last 30s ago; the next try is due.\nnext: kubectl describe daemonset/agent -n default",
		},
		"pods that fail on the node": {
			cluster: Cluster{Events: []*corev1.Event{
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", 9*time.Minute, 9*time.Minute, 1),
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-b on node n, will try to kill it", 8*time.Minute, time.Minute, 7),
				event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-c on node other, will try to kill it", time.Minute, time.Second, 90),
			}},
			want: "creation/FailedPodBackOff\nPods failed on the node, and the controller waits before it creates another one.\n" +
				"fact: 8 failed, the last one 60s ago; the next try comes in about 68s.\nnext: kubectl describe daemonset/agent -n default",
		},
		"a controller that has not seen the latest template": {
			ds: daemons("agent").Generation(2).Obj(),
			want: "creation/NotCreated\nThe DaemonSet controller has not seen the latest version of the DaemonSet: it has just been changed, or kube-controller-manager does not run.\n" +
				"next: kubectl get lease kube-controller-manager -n kube-system",
		},
		"an old pod that does not end": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady, func(p *corev1.Pod) {
				p.DeletionTimestamp, p.Finalizers = new(ago(10*time.Minute)), []string{"example.com/wait"}
			})}},
			want: "creation/Terminating\nThe old pod is held by the finalizers example.com/wait, and the controller creates the next one when it has gone.\n" +
				"next: kubectl get pod/agent-n -o yaml -n default",
		},

		// Admission.
		"a namespace's node selector": {
			cluster: Cluster{
				Pods: []*corev1.Pod{pod(unbound, refused("0/1 nodes are available"), func(p *corev1.Pod) {
					p.Spec.NodeSelector = map[string]string{"env": "prod"}
				})},
				Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default", Annotations: map[string]string{narrowSelector: "env=prod, team=a"}}}},
			},
			want: "admission/AdmissionNarrowed\nThe controller wants the pod here, but admission added a node selector that the node does not match: " +
				"wants env=prod, the node has no label env. It comes from the annotation scheduler.alpha.kubernetes.io/node-selector of namespace default.\n" +
				"admission: nodeSelector: env=prod, the template has none\n" +
				"next: kubectl annotate namespace default scheduler.alpha.kubernetes.io/node-selector- && kubectl delete pod --field-selector=status.phase=Pending -l app=agent -n default",
		},
		"a node selector from nowhere": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"env": "prod"} })}},
			want: "admission/AdmissionNarrowed\nThe controller wants the pod here, but admission added a node selector that the node does not match: " +
				"wants env=prod, the node has no label env.\nadmission: nodeSelector: env=prod, the template has none\nnext: kubectl label node n env=prod",
		},
		"a pin that was lost": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) { p.Spec.Affinity = nil })}},
			want: "admission/PinLost\nThere are pods that don't say which node they are for: something took away the node affinity that the controller had given them. " +
				"It takes the node for empty and makes ever more of them.\nnext: kubectl get pod/agent-n -o yaml -n default",
		},

		// The queue.
		"scheduling gates": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) {
				p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}}
			})}},
			want: "queue/SchedulingGated\nThe pod has scheduling gates that nobody has opened: example.com/quota.\n" +
				"admission: schedulingGates: example.com/quota, the template has none\n" +
				"next: kubectl get pod/agent-n -o 'jsonpath={.spec.schedulingGates}' -n default",
		},
		"a scheduler that does not run": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.SchedulerName = "other"
				return ds
			}(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, func(p *corev1.Pod) { p.Spec.SchedulerName = "other" })}},
			want: "queue/NoScheduler\nNo scheduler has looked at the pod. It asks for the scheduler other: that does not run, or has a long queue.\n" +
				patch + `merge -p '{"spec":{"template":{"spec":{"schedulerName":"default-scheduler"}}}}' -n default`,
		},
		"a pod that was just created": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, created(time.Second))}},
			want:    "queue/Schedulable\nThe pod fits, and its scheduler is about to place it.\nnext: kubectl get pod/agent-n --watch -n default",
		},

		// The filters.
		"more than the node has": {
			ds:      daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "8", "example.com/gpu": "1"}).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(daemonsettest.Pod(daemons("agent").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "8", "example.com/gpu": "1"}).Obj(), "n"), refused("no"))}},
			want: "filters/NeverFits\nThe pod can never fit: it asks for cpu 8, the node has cpu 4 in all and it asks for example.com/gpu 1, the node has none.\n" +
				"short: cpu 8, free 4\nshort: example.com/gpu 1, free 0\nnext: kubectl set resources daemonset/agent -c main --requests=cpu=4000m -n default",
		},
		"no room, and nobody may be evicted by kube-scheduler": {
			cluster: Cluster{Pods: []*corev1.Pod{
				pod(unbound, refused(stockSaid)),
				pod(web("web-1", "n", "3").Obj(), isReady), pod(web("web-2", "n", "700m").Obj(), isReady),
			}},
			want: "filters/NoRoom\nThe node has not enough cpu left.\nshort: cpu 500m, free 300m\n" +
				"blocker: web-1 (Deployment web) cpu 3: same priority\nblocker: web-2 (Deployment web) cpu 700m: same priority\n" +
				"kube-scheduler evicts nobody: no pod on the node has a lower priority than 0.\n" +
				"everynode-scheduler would evict pod default/web-1 (Deployment web, priority 0).\n" +
				patch + `merge -p '{"spec":{"template":{"spec":{"priorityClassName":"system-node-critical"}}}}' -n default`,
		},
		"no room, and nobody may be evicted by everynode-scheduler": {
			cluster: Cluster{
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
			want: "filters/NoRoom\nThe node has not enough cpu left.\nshort: cpu 500m, free 100m\n" +
				"blocker: web-1 (Deployment web) cpu 1: same priority, and PodDisruptionBudget web allows no disruption\n" +
				"blocker: bare () cpu 800m: same priority, and nothing would create it again\n" +
				"blocker: precious (Deployment web) cpu 700m: same priority, and annotated karpenter.sh/do-not-disrupt: true\n" +
				"blocker: safe (Deployment web) cpu 600m: same priority, and annotated cluster-autoscaler.kubernetes.io/safe-to-evict: false\n" +
				"blocker: high (Deployment web) cpu 500m: higher priority\n" +
				"blocker: static (Deployment web) cpu 300m: static pod\n" +
				"Nobody is evicted: none of the pods of priority 0 and lower may make room, or it would not be enough.\n" +
				patch + `merge -p '{"spec":{"template":{"spec":{"priorityClassName":"middle"}}}}' -n default`,
		},
		"no room, and a pod of lower priority": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no")), pod(web("low", "n", "3600m").Priority(-10).Obj(), isReady)}},
			want: "filters/NoRoom\nThe node has not enough cpu left.\nshort: cpu 500m, free 400m\nblocker: low (Deployment web) cpu 3600m: \n" +
				"The scheduler evicts pod default/low (Deployment web, priority -10) to make room.\nnext: kubectl get pod/agent-n --watch -n default",
		},
		"no room beside daemon pods": {
			cluster: Cluster{
				DaemonSets: []*appsv1.DaemonSet{daemons("other").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "3900m"}).Obj()},
				Pods: []*corev1.Pod{
					pod(unbound, refused(stockSaid)),
					pod(daemonsettest.BoundPod(daemons("other").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "3900m"}).Obj(), "n"), isReady),
				},
			},
			want: "filters/NoRoom\nThe node has not enough cpu left.\nshort: cpu 500m, free 100m\n" +
				"blocker: other-n (DaemonSet other) cpu 3900m: daemon pod of the same priority\n" +
				"Nobody is evicted: no pod on the node has a lower priority than 0.\nnext: kubectl describe node n",
		},
		"no pod slots": {
			node:    node("n").Capacity(map[corev1.ResourceName]string{corev1.ResourceCPU: "4", corev1.ResourceMemory: "8Gi", corev1.ResourcePods: "1"}).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused(stockSaid)), pod(web("web-1", "n", "0").Obj(), isReady)}},
			want: "filters/NoRoom\nThe node has not enough pod slots left.\nshort: 1 pod slot, free 0\nblocker: web-1 (Deployment web) 1 pod slot: same priority\n" +
				"kube-scheduler evicts nobody: no pod on the node has a lower priority than 0.\neverynode-scheduler would evict pod default/web-1 (Deployment web, priority 0).\n" +
				patch + `merge -p '{"spec":{"template":{"spec":{"priorityClassName":"system-node-critical"}}}}' -n default`,
		},
		"pods that are ending leave enough": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused(stockSaid)), pod(web("web-1", "n", "3600m").Obj(), isReady, func(p *corev1.Pod) {
				p.DeletionTimestamp = new(ago(20 * time.Second))
			})}},
			want: "preemption/Preempting\nPods on the node are ending, and what they leave is enough for the pod.\nblocker: web-1 (Deployment web) ending for 20s: \n" +
				"next: kubectl get pod/agent-n --watch -n default",
		},
		"room is promised to a more important pod": {
			cluster: Cluster{Pods: []*corev1.Pod{
				pod(unbound, refused(stockSaid)),
				pod(web("important", "", "3600m").Priority(100).NominatedNodeName("n").Obj()),
			}},
			want: "filters/NoRoom\nThe node has not enough cpu left.\nshort: cpu 500m, free 400m\nblocker: important (Deployment web) cpu 3600m, to come: higher priority\n" +
				"Nobody is evicted: no pod on the node has a lower priority than 0.\n" +
				patch + `merge -p '{"spec":{"template":{"spec":{"priorityClassName":"system-node-critical"}}}}' -n default`,
		},
		"a host port": {
			ds: daemons("agent").HostPort(9100).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.Pod(daemons("agent").HostPort(9100).Obj(), "n"), refused(stockSaid)),
				pod(web("web-1", "n", "1").HostPort(9100).Obj(), isReady),
			}},
			want: "filters/PortTaken\nThe host port 9100 is taken on the node.\nblocker: web-1 (Deployment web) host port 9100: same priority\n" +
				"kube-scheduler evicts nobody: no pod on the node has a lower priority than 0.\neverynode-scheduler would evict pod default/web-1 (Deployment web, priority 0).\n" +
				"next: kubectl get pod/web-1 -o wide -n default",
		},
		"a taint that only the template tolerates": {
			ds: func() *appsv1.DaemonSet {
				ds := agent.DeepCopy()
				ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "role", Operator: corev1.TolerationOpExists}}
				return ds
			}(),
			node:    node("n").Taints([]corev1.Taint{{Key: "role", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"))}},
			want: "filters/TaintNotTolerated\nThe node has the taint role:NoSchedule, which the pod does not tolerate.\n" +
				"admission: tolerations removed: role\n" +
				patch + `json -p '[{"op":"add","path":"/spec/template/spec/tolerations/-","value":{"key":"role","operator":"Exists","effect":"NoSchedule"}}]' -n default`,
		},
		"a rule that is not the scheduler's own": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("0/1 nodes are available: 1 the node is haunted."))}},
			want: "filters/Schedulable\nNothing that was checked is in the way, but the scheduler has not placed the pod yet.\n" +
				"fact: The scheduler said 4m ago: 0/1 nodes are available: 1 the node is haunted.\nnext: kubectl get pod/agent-n --watch -n default",
		},
		"pod anti-affinity": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) {
				p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
					TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				}}}
			}), pod(web("web-1", "n", "1").Obj(), isReady)}},
			want: "filters/Unschedulable\nThe scheduler's plugin InterPodAffinity refuses: node(s) didn't match pod anti-affinity rules.\n" +
				"kube-scheduler evicts nobody: no pod on the node has a lower priority than 0.\neverynode-scheduler would evict pod default/web-1 (Deployment web, priority 0).\n" +
				"next: kubectl describe pod/agent-n -n default",
		},
		"a claim that does not exist": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(unbound, refused("no"), func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
			})}},
			want: "filters/Unschedulable\nThe scheduler's plugin VolumeRestrictions refuses: persistentvolumeclaim \"data\" not found.\nnext: kubectl describe pod/agent-n -n default",
		},

		// The kubelet.
		"a pod that the kubelet rejected": {
			cluster: Cluster{
				Pods: []*corev1.Pod{pod(bound, func(p *corev1.Pod) {
					p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu."
				})},
				Events: []*corev1.Event{event("agent", "FailedDaemonPod", "Found failed daemon pod default/agent-a on node n, will try to kill it", time.Minute, time.Minute, 3)},
			},
			want: "kubelet/PodFailed\nThe pod failed (OutOfcpu): Pod was rejected: Node didn't have enough resource: cpu.\n" +
				"fact: 3 pods have failed on the node. The controller deletes them and waits longer each time, up to 15m.\nnext: kubectl describe pod/agent-n -n default",
		},
		"a node that does not report": {
			node: func() *corev1.Node {
				n := node("n").Obj()
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Message: "Kubelet stopped posting node status."}}
				return n
			}(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound)}},
			want:    "kubelet/NodeNotReady\nThe pod is on the node, but the node is not Ready: Kubelet stopped posting node status.\nnext: kubectl describe node n",
		},
		"a kubelet that does nothing": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound)}},
			want:    "kubelet/NotStarted\nThe pod is bound to the node, and the kubelet has not begun with it.\nnext: kubectl describe pod/agent-n -n default",
		},
		"an image": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("ImagePullBackOff", "Back-off pulling image")))}},
			want: "kubelet/ImagePull\nThe image example/agent:1 of container main cannot be had (ImagePullBackOff).\nfact: The kubelet says: Back-off pulling image.\n" +
				"next: kubectl describe pod/agent-n -n default",
		},
		"a ConfigMap that is missing": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, container(waiting("CreateContainerConfigError", `configmap "agent" not found`)))}},
			want: "kubelet/ContainerCreate\nThe container main cannot be created (CreateContainerConfigError).\nfact: The kubelet says: configmap \"agent\" not found.\n" +
				"next: kubectl describe pod/agent-n -n default",
		},
		"a crash": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, container(func() corev1.ContainerStatus {
				s := waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container")
				s.RestartCount = 12
				s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
				return s
			}()))}},
			want: "kubelet/CrashLoop\nThe container main ends again and again, with exit code 137 (OOMKilled).\nfact: It was restarted 12 times.\n" +
				"next: kubectl logs pod/agent-n -c main --previous -n default",
		},
		"a volume that cannot be mounted": {
			cluster: Cluster{
				Pods: []*corev1.Pod{pod(bound, container(waiting("ContainerCreating", "")))},
				Events: []*corev1.Event{
					event("agent-n", "Scheduled", "Successfully assigned", 4*time.Minute, 4*time.Minute, 1),
					event("agent-n", "FailedMount", `MountVolume.SetUp failed for volume "config"`, 3*time.Minute, time.Minute, 5),
				},
			},
			want: "kubelet/NotStarted\nThe kubelet cannot start the pod's containers (FailedMount).\nfact: The kubelet says: MountVolume.SetUp failed for volume \"config\".\n" +
				"next: kubectl describe pod/agent-n -n default",
		},
		"an init container": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{
					{Name: "first", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
					{Name: "second", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
				}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("PodInitializing", "")}
			})}},
			want: "kubelet/Initializing\nThe init container second has not finished; the containers start after it.\nnext: kubectl logs pod/agent-n -c second -n default",
		},
		"a probe": {
			ds: probed,
			cluster: Cluster{
				Pods: []*corev1.Pod{pod(daemonsettest.BoundPod(probed, "n"), container(corev1.ContainerStatus{
					Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
				}))},
				Events: []*corev1.Event{event("agent-n", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", time.Minute, time.Second, 30)},
			},
			want: "kubelet/NotReady\nThe container main runs, but its readiness probe does not succeed.\n" +
				"fact: The kubelet says: Readiness probe failed: HTTP probe failed with statuscode: 503.\nnext: kubectl logs pod/agent-n -c main -n default",
		},

		// Nearly well.
		"an earlier template": {
			ds:      daemons("agent").Generation(2).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady)}},
			want:    "ready/Outdated\nThe pod is Ready, and made from an earlier template.\nnext: kubectl rollout status daemonset/agent -n default",
		},
		"a new pod beside an old one": {
			ds: daemons("agent").Generation(2).MaxSurge(1).HostPort(80).Obj(),
			cluster: Cluster{Pods: []*corev1.Pod{
				pod(daemonsettest.BoundPod(daemons("agent").HostPort(80).Obj(), "n"), isReady, created(time.Hour)),
				pod(daemonsettest.Pod(daemons("agent").Generation(2).HostPort(80).Obj(), "n"), refused(stockSaid), func(p *corev1.Pod) { p.Name, p.UID = "agent-new", "agent-new" }),
			}},
			want: "filters/PortTaken\nThe old pod of the same DaemonSet has the host port 80: with maxSurge, the new pod is to start before the old one ends, and the two cannot share the port.\n" +
				"blocker: agent-n (DaemonSet agent) host port 80: daemon pod of the same priority\n" +
				"Nobody is evicted: no pod on the node has a lower priority than 0.\n" +
				patch + `merge -p '{"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}' -n default`,
		},
		"what admission did to a pod that runs": {
			cluster: Cluster{Pods: []*corev1.Pod{pod(bound, isReady, func(p *corev1.Pod) {
				p.Spec.PriorityClassName = "high"
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "extra", Operator: corev1.TolerationOpExists})
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "sidecar"})
			})}},
			want: "ready/Ready\nThe pod is Ready.\nadmission: tolerations added: extra\nadmission: priorityClassName: high, the template has none\n" +
				"admission: containers: main,sidecar, the template has main",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
			verdict, err := newEngine(t, &cluster).Verdict(t.Context(), ds, on)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(tc.want, "\n"), strings.Split(summary(&verdict), "\n")); diff != "" {
				t.Errorf("verdict (-want,+got):\n%s", diff)
			}
			if !slices.Contains(Reasons(), verdict.Reason) {
				t.Errorf("%s is not among the reasons", verdict.Reason)
			}
		})
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
