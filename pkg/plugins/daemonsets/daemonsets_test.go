// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonsets_test

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/daemonsets"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

type resources = map[corev1.ResourceName]string

func start(t *testing.T, objects ...runtime.Object) (*plugintest.Scheduler, *daemonsets.DaemonSets) {
	t.Helper()
	scheduler := plugintest.NewScheduler(t, objects...)
	all, err := daemonsets.New(t.Context(), scheduler.Handle.SharedInformerFactory(), scheduler.Client)
	if err != nil {
		t.Fatal(err)
	}
	scheduler.Start(t)
	return scheduler, all
}

// needs returns the CPU that a pod of the DaemonSet agent is expected to request.
func needs(all *daemonsets.DaemonSets) int64 {
	return all.Set().Get("agent").NeedsOn(&corev1.Node{}).Resources.MilliCPU
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) { return is(), nil }); err != nil {
		t.Fatalf("not within 20s: %s", what)
	}
}

func admitted(ds *appsv1.DaemonSet, node, cpu string, created time.Time) *corev1.Pod {
	pod := daemonsettest.Pod(ds, node)
	pod.CreationTimestamp = metav1.NewTime(created)
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	return pod
}

// The newest pod of the current template is believed, and a change of it later is not.
func TestNewestPodIsBelieved(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	agent := daemonsettest.Make("agent").Generation(2).Requests(resources{"cpu": "100m"}).Obj()
	earlier := admitted(daemonsettest.Make("agent").Generation(1).Obj(), "of-earlier-template", "900m", now.Add(time.Hour))
	older, newer := admitted(agent, "older", "200m", now), admitted(agent, "newer", "300m", now.Add(time.Minute))
	scheduler, all := start(t, agent, earlier)
	if got := needs(all); got != 100 {
		t.Errorf("without a pod of the current template %dm are expected, want the template's 100m", got)
	}
	pods := scheduler.Client.CoreV1().Pods("default")
	for _, step := range []struct {
		pod  *corev1.Pod
		want int64
	}{{older, 200}, {newer, 300}} {
		if _, err := pods.Create(t.Context(), step.pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, step.pod.Name+" is believed", func() bool { return needs(all) == step.want })
	}
	before := all.Set()
	resized := newer.DeepCopy()
	resized.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2")
	if _, err := pods.Update(t.Context(), resized, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	late := admitted(agent, "late", "300m", now.Add(2*time.Minute))
	if _, err := pods.Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := scheduler.Client.AppsV1().DaemonSets("default").Create(t.Context(), daemonsettest.Make("other").Obj(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other DaemonSet is known", func() bool { return all.Set().Get("other") != nil })
	if all.Set().Get("agent") != before.Get("agent") {
		t.Error("a resize in place, or a pod that is like the one before, has changed what is expected")
	}
}

// A pod may name the UID of any DaemonSet as its controller. It counts in its own namespace
// only, and the scheduler remembers nothing of a DaemonSet that does not exist.
func TestForgedOwners(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	agent := daemonsettest.Make("agent").Requests(resources{"cpu": "100m"}).Obj()
	scheduler, all := start(t, agent, admitted(agent, "node", "300m", now))
	eventually(t, "the admitted pod is believed", func() bool { return needs(all) == 300 })
	foreign := admitted(agent, "foreign", "2", now.Add(time.Hour))
	foreign.Namespace = "other"
	invented := admitted(daemonsettest.Make("invented").Obj(), "invented", "1", now)
	misnamed := admitted(agent, "misnamed", "2", now.Add(-time.Hour))
	misnamed.OwnerReferences[0].Name = "misnamed"
	for _, pod := range []*corev1.Pod{foreign, misnamed, invented} {
		if _, err := scheduler.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the pods are seen", func() bool { return all.Owners() == 3 })
	wantOwn := func(later string) {
		if _, err := scheduler.Client.AppsV1().DaemonSets("default").Create(t.Context(), daemonsettest.Make(later).Obj(), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another DaemonSet has made a new Set", func() bool { return all.Set().Get(types.UID(later)) != nil })
		if got := needs(all); got != 300 {
			t.Errorf("%dm are expected, want the 300m of the DaemonSet's own pod", got)
		}
	}
	wantOwn("later")
	for _, pod := range []*corev1.Pod{foreign, misnamed, invented} {
		if err := scheduler.Client.CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "only the DaemonSet that exists is remembered", func() bool { return all.Owners() == 1 })
	wantOwn("last")
	replaced := agent.DeepCopy()
	replaced.UID = "another"
	if _, err := scheduler.Client.AppsV1().DaemonSets("default").Update(t.Context(), replaced, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the DaemonSet that was created again has no pods", func() bool { return all.Owners() == 0 })
}

// After a rollback the controller gives the earlier revision the highest number.
func TestRevisionDecidesWhatIsCurrent(t *testing.T) {
	agent := daemonsettest.Make("agent").Generation(3).Obj()
	revision := func(name string, number int64) *appsv1.ControllerRevision {
		return &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: "agent-" + name,
				Labels:          map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: name},
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(agent, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
			},
			Revision: number,
		}
	}
	pod := daemonsettest.BoundPod(agent, "node")
	pod.Labels = map[string]string{daemonset.TemplateGenerationLabel: "1", appsv1.DefaultDaemonSetUniqueLabelKey: "first"}
	scheduler, all := start(t, agent, revision("first", 1), revision("second", 2))
	if !all.Set().Get("agent").Outdated(pod) {
		t.Error("a pod of the first revision is current although the second one is")
	}
	if _, err := scheduler.Client.AppsV1().ControllerRevisions("default").Update(t.Context(), revision("first", 3), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is current", func() bool { return !all.Set().Get("agent").Outdated(pod) })
}

func TestLimitRangesAreFollowed(t *testing.T) {
	scheduler, all := start(t, daemonsettest.Make("agent").Obj())
	if got := needs(all); got != 0 {
		t.Errorf("%dm are expected of a template without requests", got)
	}
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "defaults"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer, DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
	}}}
	if _, err := scheduler.Client.CoreV1().LimitRanges("default").Create(t.Context(), limits, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the default counts", func() bool { return needs(all) == 1000 })
}
