// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// truthSeeds is small: each seed is a cluster.
var truthSeeds = flag.Int("truth-seeds", 2, "how many random clusters to compare verdicts with")

// A19: what the command says of every DaemonSet on every node, in advance and afterwards, is what
// the controller, the scheduler and the kubelet then do, also in the middle of an update that goes
// wrong: status, map and explain agree. So with kube-scheduler too.
func TestA19VerdictsAreTrue(t *testing.T) {
	t.Parallel()
	for seed := 1; seed <= *truthSeeds; seed++ {
		if *onlySeed != 0 && seed != *onlySeed {
			continue
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 19)) //nolint:gosec // nothing secret
			c := newCluster(t, withFates(t))
			c.apply(priorityClasses)
			nodes := make([]localcluster.Node, 2+random.IntN(4))
			for i := range nodes {
				nodes[i] = drawNode(random, i+1)
			}
			c.addNodes(nodes...)
			var ordinary strings.Builder
			for i := range 2 + random.IntN(5) {
				ordinary.WriteString(drawDeployment(random, i))
			}
			c.apply(ordinary.String())
			c.eventually(60*time.Second, "ordinary pods are settled", c.atRest(c.verdictsAreTrue))
			for i := range 2 + random.IntN(3) {
				manifest := drawDaemonSet(random, i)
				plan := c.planned(manifest)
				c.apply(manifest)
				c.eventually(60*time.Second, "the verdicts are true", c.atRest(c.verdictsAreTrue))
				for _, lie := range c.lies(plan) {
					t.Errorf("%s, in the plan for\n%s", lie, manifest)
				}
			}
			updated := c.drawUpdates(random)
			c.eventually(90*time.Second, "the verdicts are true in trouble: "+updated, c.atRest(c.troubleIsTrue))
		})
	}
}

// planned returns what plan says of a manifest while the scheduler rests.
func (c *cluster) planned(manifest string) *explain.Plan {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "daemonset.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		c.t.Fatal(err)
	}
	plan := &explain.Plan{}
	c.eventually(30*time.Second, "it is planned", c.atRest(func(context.Context) error {
		output, err := c.everynode("plan", "-f", path, "-o", "json")
		if err != nil {
			return err
		}
		*plan = explain.Plan{}
		return json.Unmarshal([]byte(output), plan)
	}))
	return plan
}

// atRest returns a check that is made while the scheduler has nothing to do: no pod waits
// to be tried, and none has been tried in the meantime. A pod that waits after an attempt
// may still evict another one at the next attempt.
func (c *cluster) atRest(check func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		before, err := c.attempts(ctx)
		if err != nil {
			return err
		}
		if err := check(ctx); err != nil {
			return err
		}
		after, err := c.attempts(ctx)
		if err == nil && before != after {
			err = errors.New("the scheduler was at work")
		}
		return err
	}
}

var (
	triedPods   = regexp.MustCompile(`(?m)^scheduler_schedule_attempts_total{.*$`)
	waitingPods = regexp.MustCompile(`(?m)^scheduler_pending_pods{.*queue="(?:active|backoff)".*} [1-9].*$`)
)

// attempts returns what the scheduler counts of its attempts, and an error if another one
// is to come.
func (c *cluster) attempts(ctx context.Context) (string, error) {
	metrics, err := c.Get(ctx, localcluster.EverynodeScheduler, "/metrics")
	if err != nil {
		return "", err
	}
	if waiting := waitingPods.FindString(metrics); waiting != "" {
		return "", errors.New(waiting)
	}
	return strings.Join(triedPods.FindAllString(metrics, -1), "\n"), nil
}

// lies returns the nodes on which something else came than was planned.
func (c *cluster) lies(plan *explain.Plan) []string {
	c.t.Helper()
	pods, err := c.pods(c.t.Context(), app(plan.Name))
	if err != nil {
		c.t.Fatal(err)
	}
	var lies []string
	for i := range plan.Verdicts {
		v := &plan.Verdicts[i]
		runs := slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Spec.NodeName == v.Node && clustertest.IsReady(&pod) })
		will := v.Reason == explain.ReasonWouldRun || v.Preemption != nil && len(c.inForce(v.Preemption).Victims) > 0
		if runs != will {
			lies = append(lies, fmt.Sprintf("%s: runs: %t, but: %s (%s) %+v", v.Node, runs, v.Reason, v.Message, v.Preemption))
		}
	}
	return lies
}

// inForce returns what is said of the scheduler under test.
func (c *cluster) inForce(p *explain.Preemption) *explain.Eviction {
	if localcluster.Scheduler(*scheduler) == localcluster.Stock {
		return &p.Stock
	}
	return &p.Everynode
}

// verdictsAreTrue compares the verdicts of all DaemonSets with the cluster.
func (c *cluster) verdictsAreTrue(ctx context.Context) error {
	pods, err := c.pods(ctx, nil)
	if err != nil {
		return err
	}
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || pod.Status.NominatedNodeName != "" || !clustertest.IsReady(pod) && scheduledFalse(pod) == "" {
			return fmt.Errorf("pod %s is on its way", pod.Name)
		}
	}
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	daemonSets, err := c.Client.AppsV1().DaemonSets("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range daemonSets.Items {
		ds := &daemonSets.Items[i]
		x, err := c.explained(ds.Name)
		if err != nil {
			return err
		}
		if len(x.Status.Controller) > 0 {
			return fmt.Errorf("DaemonSet %s: the controller does not agree: %v", ds.Name, x.Status.Controller)
		}
		for n := range nodes.Items {
			if err := c.verdictIsTrue(x, ds, &nodes.Items[n], pods); err != nil {
				return fmt.Errorf("DaemonSet %s on %s: %w", ds.Name, nodes.Items[n].Name, err)
			}
		}
	}
	return nil
}

// scheduledFalse returns why the scheduler has not placed a pod, "" if it has not said.
func scheduledFalse(pod *corev1.Pod) string {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Message
		}
	}
	return ""
}

func (c *cluster) verdictIsTrue(x *explain.Explanation, ds *appsv1.DaemonSet, node *corev1.Node, pods []corev1.Pod) error {
	i := slices.IndexFunc(x.Verdicts, func(v explain.Verdict) bool { return v.Node == node.Name })
	if i < 0 {
		return errors.New("no verdict")
	}
	v := &x.Verdicts[i]
	if wanted, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds); v.Wanted != wanted {
		return fmt.Errorf("wanted: %t, but: %s (%s)", wanted, v.Reason, v.Message)
	}
	pod := podFor(ds, node.Name, pods)
	switch {
	case (pod != nil) != v.Wanted:
		return fmt.Errorf("there is a pod: %t, but: %s (%s)", pod != nil, v.Reason, v.Message)
	case pod == nil:
		return nil
	case clustertest.IsReady(pod) != v.Ready, v.Ready != (v.Reason == explain.ReasonReady):
		return fmt.Errorf("ready: %t, but: %s (%s)", clustertest.IsReady(pod), v.Reason, v.Message)
	case v.Ready:
		return nil
	case v.Reason == explain.ReasonPaced:
		return errors.New("it waits for its turn to evict")
	}
	if (&world{pods: pods}).on(node).room(func(*corev1.Pod) bool { return true }).take(&pod.Spec, nil) {
		return fmt.Errorf("the pod would fit, but: %s (%s)", v.Reason, v.Message)
	}
	// What came to the node after the pod may be in its way now, and the scheduler has
	// had no reason to look again.
	said := scheduledFalse(pod)
	if slices.ContainsFunc(pods, func(other corev1.Pod) bool {
		return other.Spec.NodeName == node.Name && !other.CreationTimestamp.Before(&pod.CreationTimestamp)
	}) {
		said = ""
	}
	return c.refusalIsTrue(v, said)
}

// refusalIsTrue compares a verdict with what the scheduler has said of the pod, "" if
// that may be out of date.
func (c *cluster) refusalIsTrue(v *explain.Verdict, said string) error {
	// The scheduler stops at the first plugin that refuses: kube-scheduler tries ports first, everynode-scheduler resources.
	portsFirst, saysPort := c.schedulerName() == explain.Stock, strings.Contains(said, "free ports")
	mayBeUnsaid := said == "" || portsFirst && saysPort
	for _, shortage := range v.Shortages {
		words := "Insufficient " + shortage.Resource
		if shortage.Resource == string(corev1.ResourcePods) {
			words = "Too many pods"
		}
		if !mayBeUnsaid && !strings.Contains(said, words) {
			return fmt.Errorf("the scheduler said %q, but: %s (%s)", said, v.Reason, v.Message)
		}
	}
	switch v.Reason {
	case explain.ReasonNoRoom, explain.ReasonNeverFits, explain.ReasonPaced:
		if len(v.Shortages) == 0 || saysPort {
			return fmt.Errorf("the scheduler said %q, and %d resources are short, but: %s (%s)", said, len(v.Shortages), v.Reason, v.Message)
		}
	case explain.ReasonPortTaken:
		if said != "" && !saysPort && (portsFirst || len(v.Shortages) == 0) || len(v.Blockers) == 0 {
			return fmt.Errorf("the scheduler said %q, but: %s (%s)", said, v.Reason, v.Message)
		}
	default:
		return fmt.Errorf("the scheduler said %q, but: %s (%s)", said, v.Reason, v.Message)
	}
	if v.Preemption == nil || said == "" {
		return nil
	}
	if eviction := c.inForce(v.Preemption); len(eviction.Victims) > 0 {
		return fmt.Errorf("nobody was evicted, but: %+v", eviction.Victims)
	}
	if v.Preemption.InForce != "" && v.Preemption.InForce != c.schedulerName() {
		return fmt.Errorf("the scheduler is %s, but the rules are said to be those of %s", c.schedulerName(), v.Preemption.InForce)
	}
	return nil
}

func (c *cluster) schedulerName() string {
	if localcluster.Scheduler(*scheduler) == localcluster.Stock {
		return explain.Stock
	}
	return explain.Everynode
}

// fateAnnotation on a pod says what its kubelet makes of it.
const fateAnnotation = "truth.everynode.dev/fate"

// fates are stages of kwok for pods that crash, that the kubelet rejects and that it evicts. A pod that
// hangs is annotated for the stages of localcluster.
const fates = `
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-crash}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  weight: 1
  selector:
    matchExpressions:
      - jq: {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
      - jq: {key: '.metadata.annotations["truth.everynode.dev/fate"]', operator: In, values: [crash]}
      - jq: {key: '.status.phase', operator: In, values: [Running]}
      - jq: {key: '.status.containerStatuses.[].state.running', operator: Exists}
  next:
    statusTemplate: |
      {{ $now := Now }}
      containerStatuses:
      {{ range .status.containerStatuses }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: false
        restartCount: 4
        started: false
        state: {waiting: {reason: CrashLoopBackOff, message: back-off 1m20s restarting failed container}}
        lastState: {terminated: {exitCode: 1, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-reject}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  weight: 1
  selector:
    matchExpressions:
      - jq: {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
      - jq: {key: '.metadata.annotations["truth.everynode.dev/fate"]', operator: In, values: [reject]}
      - jq: {key: '.status.phase', operator: In, values: [Pending]}
  next:
    statusTemplate: |
      phase: Failed
      reason: OutOfcpu
      message: Node didn't have enough resource
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-evict}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  weight: 1
  selector:
    matchExpressions:
      - jq: {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
      - jq: {key: '.metadata.annotations["truth.everynode.dev/fate"]', operator: In, values: [evict]}
      - jq: {key: '.status.phase', operator: In, values: [Running]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Failed
      reason: Evicted
      message: The node was low on resource
      conditions:
      - type: Ready
        status: "False"
        reason: PodFailed
        lastTransitionTime: {{ $now | Quote }}
`

// withFates has kwok know the stages of fates, and the scheduler not wait for long.
func withFates(t *testing.T) func(*localcluster.Options) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fates.yaml")
	if err := os.WriteFile(path, []byte(fates), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *localcluster.Options) {
		o.Args = map[string][]string{localcluster.Kwok: {"--config=" + path}}
		// everynode-scheduler waits this long between evictions of pods that are not replaced.
		o.PluginArgs = map[string]map[string]any{"DaemonSetPreemption": {"evictionTimeout": randomEvictionTimeout.String()}}
	}
}

// drawUpdates updates the DaemonSets to pods that fare well or ill, and says how.
func (c *cluster) drawUpdates(random *rand.Rand) string {
	c.t.Helper()
	daemonSets, err := c.Client.AppsV1().DaemonSets("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var updates []string
	for i := range daemonSets.Items {
		name, fate, strategy := daemonSets.Items[i].Name, pick(random, "crash", "hang", "reject", "evict", "well"), pick(random, "1", "100%", "OnDelete")
		update := map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]string{"maxUnavailable": strategy}}
		switch strategy {
		case "1":
			update["rollingUpdate"] = map[string]int{"maxUnavailable": 1}
		case "OnDelete":
			update = map[string]any{"type": "OnDelete", "rollingUpdate": nil}
		}
		annotations := map[string]string{fateAnnotation: fate}
		if fate == "crash" || fate == "hang" {
			annotations["localcluster.everynode.dev/ready"] = "false"
		}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"updateStrategy": update, "template": map[string]any{"metadata": map[string]any{"annotations": annotations}}}})
		if err != nil {
			c.t.Fatal(err)
		}
		c.kubectl("patch", "daemonset", name, "--type=merge", "-p", string(patch))
		updates = append(updates, fmt.Sprintf("%s to pods of the fate %s (%s)", name, fate, strategy))
	}
	return strings.Join(updates, ", ")
}

// troubleIsTrue compares what explain, status and map say with the cluster, in whatever state it is.
func (c *cluster) troubleIsTrue(ctx context.Context) error {
	var statuses struct{ Items []explain.Status }
	var drawn explain.Map
	for verb, into := range map[string]any{"status": &statuses, "map": &drawn} {
		output, err := c.everynode(verb, "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(output), into)
		}
		if err != nil {
			return err
		}
	}
	pods, err := c.pods(ctx, nil)
	if err != nil {
		return err
	}
	daemonSets, err := c.Client.AppsV1().DaemonSets("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range daemonSets.Items {
		ds := &daemonSets.Items[i]
		x, err := c.explained(ds.Name)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(statuses.Items, func(s explain.Status) bool { return s.Name == ds.Name })
		if err := statusIsTrue(&statuses.Items[n], x, ds, pods); err != nil {
			return fmt.Errorf("DaemonSet %s: %w", ds.Name, err)
		}
		column := slices.IndexFunc(drawn.DaemonSets, func(column explain.MapColumn) bool { return column.Name == ds.Name })
		for v := range x.Verdicts {
			verdict := &x.Verdicts[v]
			if err := c.fateIsTrue(verdict, ds, pods); err != nil {
				return fmt.Errorf("DaemonSet %s on %s: %w", ds.Name, verdict.Node, err)
			}
			row := slices.IndexFunc(drawn.Nodes, func(row explain.MapRow) bool { return row.Name == verdict.Node })
			cell := drawn.Verdicts[drawn.Nodes[row].Cells[column]]
			if said := (explain.MapVerdict{State: verdict.Outcome, Step: verdict.Step, Reason: verdict.Reason, Message: verdict.Message}); cell != said {
				return fmt.Errorf("DaemonSet %s on %s: explain says %v, and map %v", ds.Name, verdict.Node, said, cell)
			}
		}
	}
	return nil
}

// podFor returns the pod of a DaemonSet for a node, nil if it has none.
func podFor(ds *appsv1.DaemonSet, node string, pods []corev1.Pod) *corev1.Pod {
	i := slices.IndexFunc(pods, func(pod corev1.Pod) bool {
		target, err := daemonutil.GetTargetNodeName(&pod)
		return metav1.IsControlledBy(&pod, ds) && err == nil && target == node
	})
	if i < 0 {
		return nil
	}
	return &pods[i]
}

// fateIsTrue compares a verdict with the pod on the node. What is under way is an error, too.
func (c *cluster) fateIsTrue(v *explain.Verdict, ds *appsv1.DaemonSet, pods []corev1.Pod) error {
	pod := podFor(ds, v.Node, pods)
	switch {
	case (pod != nil) != v.Wanted || pod != nil && pod.DeletionTimestamp != nil:
		return fmt.Errorf("the pod comes or goes; wanted: %t", v.Wanted)
	case pod == nil:
		return nil
	case pod.Spec.NodeName == "":
		return c.refusalIsTrue(v, "")
	}
	updated := pod.Labels["pod-template-generation"] == ds.Annotations[appsv1.DeprecatedTemplateGeneration]
	want, state := explain.ReasonReady, explain.StateReady
	switch fate := pod.Annotations[fateAnnotation]; {
	case fate == "crash":
		want, state = explain.ReasonCrash, explain.StateStuck
	case fate == "reject", fate == "evict":
		want, state = explain.ReasonRejected, explain.StateStuck
	case fate == "hang":
		want, state = explain.ReasonNotReady, explain.StateWaiting
	case !updated:
		want = explain.ReasonOutdated
	}
	if v.Reason != want || v.Outcome != state {
		return fmt.Errorf("the truth is %s (%s), but: %s (%s, %s)", want, state, v.Reason, v.Outcome, v.Message)
	}
	return nil
}

// statusIsTrue compares what status and explain count with what the controller counts, and with the pods.
func statusIsTrue(s *explain.Status, x *explain.Explanation, ds *appsv1.DaemonSet, pods []corev1.Pod) error {
	missing, lacks, state, stuck := 0, 0, explain.StateReady, 0
	for i := range x.Verdicts {
		v := &x.Verdicts[i]
		if !v.Wanted {
			continue
		}
		pod := podFor(ds, v.Node, pods)
		if pod == nil || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodFailed {
			missing++
		}
		if pod == nil || !clustertest.IsReady(pod) {
			lacks++
		}
		switch {
		case v.Outcome == explain.StateStuck:
			state = v.Outcome
			stuck++
		case v.Outcome == explain.StateWaiting && state == explain.StateReady:
			state = v.Outcome
		}
	}
	counts := ds.Status
	want := explain.Status{
		Desired: int(counts.DesiredNumberScheduled), Created: int(counts.CurrentNumberScheduled), Ready: int(counts.NumberReady), Updated: int(counts.UpdatedNumberScheduled),
		Available: int(counts.NumberAvailable), Misscheduled: int(counts.NumberMisscheduled), Missing: missing, State: state,
	}
	for verb, have := range map[string]*explain.Status{"status": s, "explain": x.Status} {
		have := explain.Status{
			Desired: have.Desired, Created: have.Created, Ready: have.Ready, Updated: have.Updated, Available: have.Available,
			Misscheduled: have.Misscheduled, Missing: have.Missing, State: have.State,
		}
		if diff := cmp.Diff(want, have); diff != "" {
			return fmt.Errorf("(-truth,+%s):\n%s", verb, diff)
		}
	}
	update, stalled := ds.Spec.UpdateStrategy.RollingUpdate, false
	if update != nil && want.Updated < want.Created && stuck > 0 {
		stalled = lacks >= 1 && update.MaxUnavailable.IntVal == 1 || lacks == want.Desired
	}
	if (s.Stalled != "") != stalled || len(s.Controller) > 0 {
		return fmt.Errorf("the update is stalled: %t, but: %q; %v", stalled, s.Stalled, s.Controller)
	}
	return nil
}
