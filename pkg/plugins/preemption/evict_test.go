// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	upstream "k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/preemption"
)

// onEviction calls do for each request to evict a pod, in turn.
func (w *world) onEviction(do func(pod string, dryRun bool) error) {
	w.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		eviction := action.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction)
		err := do(eviction.Name, len(eviction.DeleteOptions.DryRun) > 0)
		return err != nil, nil, err
	})
}

// wantEvicted fails the test unless these pods were evicted, and none was deleted past
// the eviction API.
func (w *world) wantEvicted(t *testing.T, want ...string) {
	t.Helper()
	evicted, deleted := w.evicted()
	slices.Sort(evicted)
	if diff := cmp.Diff([][]string{want, nil}, [][]string{evicted, deleted}); diff != "" {
		t.Errorf("evicted and deleted (-want,+got):\n%s", diff)
	}
}

// The right to evict is lost while the evictions are under way: client-side throttling
// makes that take seconds. No pod of equal priority is then deleted past its budget.
func TestTheRightToEvictIsLost(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	// A reactor holds the lock of the client.
	daemonSets := appsv1.SchemeGroupVersion.WithResource("daemonsets")
	for name, lose := range map[string]func(*testing.T, *world) (lost func() bool){
		"the DaemonSet is deleted": func(t *testing.T, w *world) func() bool {
			t.Helper()
			if err := w.client.Tracker().Delete(daemonSets, "default", "agent"); err != nil {
				t.Error(err)
			}
			return func() bool {
				_, err := w.SharedInformerFactory().Apps().V1().DaemonSets().Lister().DaemonSets("default").Get("agent")
				return apierrors.IsNotFound(err)
			}
		},
		"the DaemonSet no longer preempts": func(t *testing.T, w *world) func() bool {
			t.Helper()
			updated := ds.DeepCopy()
			metav1.SetMetaDataAnnotation(&updated.ObjectMeta, daemonset.PreemptAnnotation, "false")
			if err := w.client.Tracker().Update(daemonSets, updated, "default"); err != nil {
				t.Error(err)
			}
			return func() bool {
				known, err := w.SharedInformerFactory().Apps().V1().DaemonSets().Lister().DaemonSets("default").Get("agent")
				return err == nil && len(known.Annotations) > 0
			}
		},
		"the daemon pod is deleted": func(t *testing.T, w *world) func() bool {
			t.Helper()
			if err := w.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), "default", "agent-node"); err != nil {
				t.Error(err)
			}
			return func() bool {
				_, err := w.SharedInformerFactory().Core().V1().Pods().Lister().Pods("default").Get("agent-node")
				return apierrors.IsNotFound(err)
			}
		},
	} {
		for _, at := range []string{"dry run", "first eviction"} {
			t.Run(name+" at the "+at, func(t *testing.T) {
				pod := daemonsettest.Pod(ds, "node")
				w := newWorld(t, "", ds, node, pod, filler("a", "1", 0).Obj(), filler("b", "1", 1).Obj(), budget(2, fillerLabels()))
				var done atomic.Bool
				w.onEviction(func(_ string, dryRun bool) error {
					if dryRun == (at == "dry run") && !done.Swap(true) {
						lost := lose(t, w)
						w.eventually(t, func() bool {
							return lost() && (w.plugin.MayPreemptEqual(pod) == nil || name == "the daemon pod is deleted")
						})
					}
					return nil
				})
				if _, status := w.cycle(t, pod); !status.IsSuccess() {
					t.Fatal(status)
				}
				w.finish(t, pod)
				evicted, deleted := w.evicted()
				want := map[string]int{"dry run": 0, "first eviction": 1}[at]
				if len(evicted) != want || len(deleted) > 0 {
					t.Errorf("evicted: %v, want %d; deleted past the eviction API: %v", evicted, want, deleted)
				}
			})
		}
	}
}

// The right is lost before the evictions begin: the pods of lower priority would go in
// vain.
func TestTheRightToEvictIsLostBefore(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	// All victims but the last are evicted in parallel.
	w := newWorld(t, "", ds, node, pod, filler("a", "1", 0).Obj(), filler("low", "500m", 1).Priority(-1).Obj(), filler("lower", "500m", 1).Priority(-2).Obj())
	begin, preempt := make(chan struct{}), w.plugin.Executor.PreemptPod
	w.plugin.Executor.PreemptPod = func(ctx context.Context, candidate upstream.Candidate, preemptor upstream.ExecutorPreemptor, victim *corev1.Pod, plugin string) (bool, error) {
		<-begin
		return preempt(ctx, candidate, preemptor, victim, plugin)
	}
	if _, status := w.cycle(t, pod); !status.IsSuccess() {
		t.Fatal(status)
	}
	if err := w.client.Tracker().Delete(appsv1.SchemeGroupVersion.WithResource("daemonsets"), "default", "agent"); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, func() bool { return w.plugin.MayPreemptEqual(pod) == nil })
	close(begin)
	w.finish(t, pod)
	w.wantEvicted(t)
}

// If one of several victims may not be evicted, none is.
func TestNoVictimIsEvictedInVain(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	refuse := func(refused string) func(string, bool) error {
		return func(pod string, _ bool) error {
			if pod == refused {
				return apierrors.NewTooManyRequests("the budget says no", 10)
			}
			return nil
		}
	}
	tests := map[string]struct {
		present []*corev1.Pod
		edit    func(*testing.T, *world)
	}{
		"the budget of the first": {
			[]*corev1.Pod{ownedBy(filler("a", "1", 0).Obj(), "a"), ownedBy(filler("b", "1", 1).Obj(), "b")},
			func(_ *testing.T, w *world) { w.onEviction(refuse("a")) }},
		"the budget of the last": {
			[]*corev1.Pod{ownedBy(filler("a", "1", 0).Obj(), "a"), ownedBy(filler("b", "1", 1).Obj(), "b")},
			func(_ *testing.T, w *world) { w.onEviction(refuse("b")) }},
		"the budget beside a pod of lower priority": {
			[]*corev1.Pod{filler("a", "1", 0).Obj(), filler("low", "1", 1).Priority(-1).Obj()},
			func(_ *testing.T, w *world) { w.onEviction(refuse("a")) }},
		"an annotation that has come": {
			[]*corev1.Pod{ownedBy(filler("a", "1", 0).Obj(), "a"), ownedBy(filler("b", "1", 1).Obj(), "b")},
			func(t *testing.T, w *world) {
				t.Helper()
				marked := filler("b", "1", 1).Annotation("karpenter.sh/do-not-disrupt", "true").Obj()
				if _, err := w.client.CoreV1().Pods("default").Update(t.Context(), marked, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				w.eventually(t, func() bool {
					known, err := w.SharedInformerFactory().Core().V1().Pods().Lister().Pods("default").Get("b")
					return err == nil && len(known.Annotations) > 0
				})
			}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := daemonsettest.Pod(ds, "node")
			objects := []runtime.Object{ds, node, pod}
			for _, pod := range tc.present {
				objects = append(objects, pod)
			}
			w := newWorld(t, "", objects...)
			tc.edit(t, w)
			if _, status := w.cycle(t, pod); !status.IsSuccess() {
				t.Fatal(status)
			}
			w.finish(t, pod)
			w.wantEvicted(t)
			// The pod that was refused is left alone.
			<-w.activated
			if _, status := w.cycle(t, pod); status.IsSuccess() || !strings.Contains(status.Message(), preemption.ErrReasonNoVictims) {
				t.Errorf("status is %v", status)
			}
		})
	}
}

type binding struct{ cancelled, cancels bool }

func (b *binding) CancelPod(string) bool { b.cancelled = true; return b.cancels }
func (b *binding) MarkPrebound() bool    { return true }

// A victim that is being bound is stopped, and if that comes too late it goes through
// the eviction API as all others.
func TestVictimsThatAreBeingBound(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	for name, tc := range map[string]struct {
		cancels bool
		want    []string
	}{
		"in time":  {cancels: true},
		"too late": {want: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := daemonsettest.Pod(ds, "node")
			w := newWorld(t, "", ds, node, pod, filler("a", "2", 0).Obj())
			bound := &binding{cancels: tc.cancels}
			w.binding = bound
			if _, status := w.cycle(t, pod); !status.IsSuccess() {
				t.Fatal(status)
			}
			w.finish(t, pod)
			w.wantEvicted(t, tc.want...)
			if !bound.cancelled {
				t.Error("binding was not cancelled")
			}
			if tc.cancels {
				// No event tells that it has left the scheduler's memory.
				if diff := cmp.Diff([]string{"agent-node"}, slices.Collect(maps.Keys(<-w.activated))); diff != "" {
					t.Errorf("tried again (-want,+got):\n%s", diff)
				}
			}
		})
	}
}

// The API server tells of a nomination when the attempt after it has found no victims. One more
// attempt takes it back. What an attempt stands behind, and what is not a DaemonSet's, is left alone.
func TestLateNominationsAreLookedAtAgain(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	evicting, late, ordinary := daemonsettest.Pod(ds, "node"), daemonsettest.Pod(ds, "gone"), st.MakePod().Namespace("default").Name("ordinary").UID("ordinary").Obj()
	w := newWorld(t, "", ds, node, evicting, late, ordinary, filler("a", "2", 0).Obj())
	if _, status := w.cycle(t, evicting); !status.IsSuccess() {
		t.Fatal(status)
	}
	w.finish(t, evicting)
	for _, pod := range []*corev1.Pod{ordinary, evicting, late} {
		nominated := pod.DeepCopy()
		nominated.Status.NominatedNodeName = "node"
		if _, err := w.client.CoreV1().Pods("default").UpdateStatus(t.Context(), nominated, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"default/" + late.Name}, w.woken(t)); diff != "" {
		t.Errorf("tried again (-want,+got):\n%s", diff)
	}
}

func TestTwoBudgetsAreTooMany(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	for name, selector := range map[string]*metav1.LabelSelector{"by label": fillerLabels(), "one for all pods": {}} {
		t.Run(name, func(t *testing.T) {
			first, second := budget(1, fillerLabels()), budget(1, selector)
			second.Name = "second"
			if got, _ := newWorld(t, "", ds, pod, filler("a", "2", 0).Obj(), first, second, node).victims(t, pod); len(got) > 0 {
				t.Errorf("victims are %v; the eviction API never evicts them", got)
			}
		})
	}
}

// A terminating pod counts only while it is about to end.
func TestTerminatingPodsCountWhileTheyAreAboutToEnd(t *testing.T) {
	const none = ""
	tests := map[string]struct {
		ahead time.Duration // of its deletionTimestamp
		want  string
		waits bool
	}{
		"now":                         {0, preemption.ErrReasonTerminating, true},
		"soon":                        {preemption.TerminationAhead - time.Second, preemption.ErrReasonTerminating, true},
		"in an hour":                  {time.Hour, none, true},
		"a moment ago":                {-preemption.TerminationSlack + time.Second, preemption.ErrReasonTerminating, true},
		"longer ago than it may take": {-preemption.TerminationSlack, none, false},
		"an hour ago":                 {-time.Hour, none, false},
	}
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	for name, tc := range tests {
		for reason, priority := range map[string]int32{"EvictionByEvictionAPI": 0, corev1.PodReasonPreemptionByScheduler: -1} {
			t.Run(name+", "+reason, func(t *testing.T) {
				clock := newClock()
				going := ownedBy(filler("going", "500m", 0).Priority(priority).Obj(), "other")
				going.DeletionTimestamp, going.Finalizers = &metav1.Time{Time: clock.Now().Add(tc.ahead)}, []string{"example.com/slow"}
				going.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason}}
				pod := daemonsettest.Pod(ds, "node")
				w := newWorldAt(t, clock, "", ds, pod, node, going, filler("a", "1500m", 0).Obj())
				victims, got := w.victims(t, pod)
				if got != tc.want || (tc.want == none) != slices.Equal(victims, []string{"a"}) {
					t.Errorf("victims are %v, %q, want %q", victims, got, tc.want)
				}

				// Where it was evicted for the pod, the pod waits until it is stuck.
				nominated := daemonsettest.Pod(ds, "node")
				nominated.Status.NominatedNodeName = "node"
				w = newWorldAt(t, clock, "", ds, nominated, node, going, filler("a", "1500m", 0).Obj())
				_, status := w.cycle(t, nominated)
				if status.IsSuccess() == tc.waits {
					t.Errorf("status is %v, want the pod to wait: %t", status, tc.waits)
				}
				w.finish(t, nominated)
				if tc.waits {
					clock.Step(tc.ahead + preemption.TerminationSlack)
					w.woken(t)
					if _, status := w.cycle(t, nominated); !status.IsSuccess() {
						t.Errorf("status is %v when the other pod is stuck", status)
					}
					w.finish(t, nominated)
				}
				w.wantEvicted(t, "a")
			})
		}
	}
}

func TestPodsOfJobsAreEvictedIfTheJobSurvives(t *testing.T) {
	limit := func(n int32) *int32 { return &n }
	policy := func(rules ...batchv1.PodFailurePolicyRule) *batchv1.PodFailurePolicy {
		return &batchv1.PodFailurePolicy{Rules: rules}
	}
	onDisruption := func(action batchv1.PodFailurePolicyAction) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}}
	}
	onExit := func(action batchv1.PodFailurePolicyAction, operator batchv1.PodFailurePolicyOnExitCodesOperator, codes ...int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: operator, Values: codes}}
	}
	const in, notIn = batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
	tests := map[string]struct {
		spec        batchv1.JobSpec
		status      batchv1.JobStatus
		uid         types.UID
		annotations map[string]string
		want        bool
	}{
		"the default limit":                    {want: true},
		"no failure is allowed":                {spec: batchv1.JobSpec{BackoffLimit: limit(0)}},
		"the last failure":                     {spec: batchv1.JobSpec{BackoffLimit: limit(2)}, status: batchv1.JobStatus{Failed: 1}, want: true},
		"all failures are used up":             {spec: batchv1.JobSpec{BackoffLimit: limit(2)}, status: batchv1.JobStatus{Failed: 2}},
		"failures that are not yet counted":    {spec: batchv1.JobSpec{BackoffLimit: limit(1)}, status: batchv1.JobStatus{UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{Failed: []types.UID{"x"}}}},
		"pods that are terminating":            {spec: batchv1.JobSpec{BackoffLimit: limit(1)}, status: batchv1.JobStatus{Terminating: limit(1)}},
		"disruptions are ignored":              {spec: batchv1.JobSpec{BackoffLimit: limit(0), PodFailurePolicy: policy(onDisruption(batchv1.PodFailurePolicyActionIgnore))}, want: true},
		"disruptions fail the Job":             {spec: batchv1.JobSpec{PodFailurePolicy: policy(onDisruption(batchv1.PodFailurePolicyActionFailJob))}},
		"disruptions are counted":              {spec: batchv1.JobSpec{BackoffLimit: limit(0), PodFailurePolicy: policy(onDisruption(batchv1.PodFailurePolicyActionCount))}},
		"an exit code of SIGTERM fails it":     {spec: batchv1.JobSpec{PodFailurePolicy: policy(onExit(batchv1.PodFailurePolicyActionFailJob, in, 1, 143), onDisruption(batchv1.PodFailurePolicyActionIgnore))}},
		"all exit codes but one fail it":       {spec: batchv1.JobSpec{PodFailurePolicy: policy(onExit(batchv1.PodFailurePolicyActionFailJob, notIn, 42))}},
		"an exit code of the program fails it": {spec: batchv1.JobSpec{PodFailurePolicy: policy(onExit(batchv1.PodFailurePolicyActionFailJob, in, 42))}, want: true},
		"an index may fail once":               {spec: batchv1.JobSpec{BackoffLimitPerIndex: limit(1)}, want: true},
		"an index may not fail":                {spec: batchv1.JobSpec{BackoffLimitPerIndex: limit(0)}},
		"an index has failed before":           {spec: batchv1.JobSpec{BackoffLimitPerIndex: limit(1)}, annotations: map[string]string{batchv1.JobIndexFailureCountAnnotation: "1"}},
		"another Job of that name":             {uid: "another"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
			pod := daemonsettest.Pod(ds, "node")
			node := st.MakeNode().Name("node").Capacity(resources{"cpu": "1", "pods": "10"}).Obj()
			if tc.uid == "" {
				tc.uid = "job"
			}
			job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "job", UID: tc.uid}, Spec: tc.spec, Status: tc.status}
			worker := filler("worker", "1", 0).Annotations(tc.annotations).Obj()
			worker.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(
				&metav1.ObjectMeta{Name: "job", UID: "job"}, batchv1.SchemeGroupVersion.WithKind("Job"))}
			w := newWorldAt(t, clock, "", ds, pod, node, worker, job)
			if _, status := w.cycle(t, pod); !status.IsSuccess() {
				t.Fatal(status)
			}
			w.finish(t, pod)
			if tc.want {
				w.wantEvicted(t, "worker")
				return
			}
			w.wantEvicted(t)
			w.woken(t) // by the executor
			clock.Step(preemption.RefusalPeriod)
			if _, status := w.cycle(t, pod); status.IsSuccess() {
				t.Error("the pod is tried again after a short time")
			}
			clock.Step(preemption.JobRefusalPeriod)
			w.woken(t)
		})
	}
}

// A pod of another kind is not nominated for the room of a pod that is stuck: it would
// wait for ever, and keep what is free on the node from pods of lower priority.
func TestNobodyIsNominatedForTheRoomOfAStuckPod(t *testing.T) {
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	for name, ahead := range map[string]time.Duration{"about to end": 0, "stuck": -preemption.TerminationSlack} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			going := filler("going", "1", 0).Obj()
			going.DeletionTimestamp, going.Finalizers = &metav1.Time{Time: clock.Now().Add(ahead)}, []string{"example.com/slow"}
			pod := filler("pod", "2", 0).Node("").Priority(10).Obj()
			w := newWorldAt(t, clock, "", node, going, pod)
			result, status := w.cycle(t, pod)
			if isStuck := ahead < 0; status.IsSuccess() == isStuck || result.NominatedNodeName != "" == isStuck {
				t.Errorf("result is %v, %v", result, status)
			}
			w.finish(t, pod)
			if ahead < 0 {
				return
			}

			// It was nominated for a pod that was evicted for it, and is stuck later.
			going.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
			pod.Status.NominatedNodeName = "node"
			w = newWorldAt(t, clock, "", node, going, pod)
			if result, status := w.cycle(t, pod); status.IsSuccess() || result != nil {
				t.Errorf("result is %v, %v; want the pod to keep its nomination", result, status)
			}
			clock.Step(preemption.TerminationSlack)
			w.woken(t)
			if result, status := w.cycle(t, pod); status.IsSuccess() || result == nil || result.NominatedNodeName != "" {
				t.Errorf("result is %v, %v; want the nomination to end", result, status)
			}
		})
	}
}

// One of several replicas may go when the others are Ready. A DaemonSet pod that came
// before is tried again then.
func TestDaemonPodWaitsForReplicasToTurnReady(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	objects := []runtime.Object{ds, pod,
		st.MakeNode().Name("node").Capacity(resources{"cpu": "3", "pods": "10"}).Obj(),
		st.MakeNode().Name("elsewhere").Capacity(resources{"cpu": "3", "pods": "10"}).Taints([]corev1.Taint{{Key: "team", Effect: corev1.TaintEffectNoSchedule}}).Obj(),
	}
	for i, name := range []string{"a", "b", "c"} {
		objects = append(objects, filler(name, "1", i).Obj())
	}
	w := newWorld(t, "", objects...)
	if _, status := w.cycle(t, pod); !strings.Contains(status.Message(), preemption.ErrReasonNoVictims) {
		t.Errorf("status is %v while the replicas are not Ready", status)
	}
	w.becomeReady(t, "a")
	if got := w.woken(t); !slices.Equal(got, []string{"default/" + pod.Name}) {
		t.Errorf("tried again: %v, want the DaemonSet pod", got)
	}
	// The snapshot is of before: the pod is to be tried again at once.
	if _, status := w.cycle(t, pod); !strings.Contains(status.Message(), preemption.ErrReasonNoVictims) {
		t.Errorf("status is %v with an old snapshot", status)
	}
	w.woken(t)
}
