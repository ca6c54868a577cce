// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package refused_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/refused"
)

func named(name string) *corev1.Pod {
	return st.MakePod().Namespace("default").Name(name).UID(name).Obj()
}

// A pod is remembered until an event says that it needs no further attempt.
func TestPodsAreForgotten(t *testing.T) {
	pods := map[string]*corev1.Pod{"waits": named("waits"), "bound": named("bound"), "deleted": named("deleted"), "replaced": named("replaced")}
	scheduler := plugintest.NewScheduler(t, pods["waits"], pods["bound"], pods["deleted"], pods["replaced"])
	known, err := refused.New[string](scheduler.Handle.SharedInformerFactory().Core().V1().Pods().Informer())
	if err != nil {
		t.Fatal(err)
	}
	scheduler.Start(t)
	for name, pod := range pods {
		known.Add(pod, "no room for "+name)
	}
	client := scheduler.Client.CoreV1().Pods("default")
	bound := pods["bound"].DeepCopy()
	bound.Spec.NodeName = "node"
	if _, err := client.Update(t.Context(), bound, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	labelled := pods["waits"].DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	if _, err := client.Update(t.Context(), labelled, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	replaced := pods["replaced"].DeepCopy()
	replaced.UID = "successor"
	if _, err := client.Update(t.Context(), replaced, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		return known.Len() == 1, nil
	}); err != nil {
		t.Fatalf("%d pods are remembered, want the one that waits", known.Len())
	}
	if reason, ok := known.Get(pods["waits"]); !ok || reason != "no room for waits" {
		t.Errorf("the pod that waits was refused for %q, %v", reason, ok)
	}
}

// Take forgets exactly the pods that it returns, and lets others be added meanwhile.
func TestTake(t *testing.T) {
	scheduler := plugintest.NewScheduler(t)
	known, err := refused.New[int](scheduler.Handle.SharedInformerFactory().Core().V1().Pods().Informer())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b", "c"} {
		known.Add(named(name), i)
	}
	known.Add(named("b"), 7) // refused once more
	taken := known.Take(func(_ *corev1.Pod, reason int) bool {
		known.Add(named("meanwhile"), reason)
		return reason > 1
	})
	if diff := cmp.Diff([]string{"default/b", "default/c"}, slices.Sorted(maps.Keys(taken))); diff != "" {
		t.Errorf("taken (-want,+got):\n%s", diff)
	}
	if _, ok := known.Get(named("a")); !ok || known.Len() != 2 {
		t.Errorf("%d pods are left, want a and the one that was added meanwhile", known.Len())
	}
	known.Remove(named("a"))
	if _, ok := known.Get(named("a")); ok {
		t.Error("a removed pod is still there")
	}
}
