// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/preemption"
)

// claim is a claim that is bound to a volume, which is local to the node with that
// hostname unless it is empty.
func claim(name, hostname string) []runtime.Object {
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "volume-" + name}}
	if hostname != "" {
		volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname}}},
		}}}}
	}
	return []runtime.Object{volume, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: volume.Name},
	}}
}

func makeReady(pod *corev1.Pod) *corev1.Pod {
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	return pod
}

// The node has two cores, which db takes or shares. What is free elsewhere does not
// matter.
func TestPodsThatCouldRunNowhereElseStay(t *testing.T) {
	onNode := map[string]string{corev1.LabelHostname: "node"}
	db := func() *st.PodWrapper { return filler("db", "2", 0) }
	other := func() *st.NodeWrapper {
		return st.MakeNode().Name("other").Label(corev1.LabelHostname, "other").Label("disktype", "ssd").Capacity(resources{"cpu": "1m", "pods": "10"})
	}
	taint := func(effect corev1.TaintEffect) []corev1.Taint { return []corev1.Taint{{Key: "gpu", Effect: effect}} }
	tests := map[string]struct {
		present []*corev1.Pod
		other   *corev1.Node // nil: the cluster has one node
		objects []runtime.Object
		want    []string
	}{
		"a pod without constraints":         {present: []*corev1.Pod{db().Obj()}, other: other().Obj(), want: []string{"db"}},
		"a hostname selector":               {present: []*corev1.Pod{db().NodeSelector(onNode).Obj()}, other: other().Obj()},
		"a hostname in the affinity":        {present: []*corev1.Pod{db().NodeAffinityIn(corev1.LabelHostname, []string{"node"}, st.NodeSelectorTypeMatchExpressions).Obj()}, other: other().Obj()},
		"a selector of both nodes":          {present: []*corev1.Pod{db().NodeSelector(map[string]string{"disktype": "ssd"}).Obj()}, other: other().Obj(), want: []string{"db"}},
		"a selector of no other node":       {present: []*corev1.Pod{db().NodeSelector(map[string]string{"disktype": "hdd"}).Obj()}, other: other().Obj()},
		"a taint":                           {present: []*corev1.Pod{db().Obj()}, other: other().Taints(taint(corev1.TaintEffectNoSchedule)).Obj()},
		"a taint that evicts":               {present: []*corev1.Pod{db().Obj()}, other: other().Taints(taint(corev1.TaintEffectNoExecute)).Obj()},
		"a taint that is tolerated":         {present: []*corev1.Pod{db().Toleration("gpu").Obj()}, other: other().Taints(taint(corev1.TaintEffectNoSchedule)).Obj(), want: []string{"db"}},
		"a taint that keeps no pod out":     {present: []*corev1.Pod{db().Obj()}, other: other().Taints(taint(corev1.TaintEffectPreferNoSchedule)).Obj(), want: []string{"db"}},
		"the other node is cordoned":        {present: []*corev1.Pod{db().Obj()}, other: other().Unschedulable(true).Obj()},
		"the other node is virtual":         {present: []*corev1.Pod{db().Obj()}, other: other().Label("type", "virtual-kubelet").Obj()},
		"a local volume":                    {present: []*corev1.Pod{db().PVC("data").Obj()}, other: other().Obj(), objects: claim("data", "node")},
		"a volume of both nodes":            {present: []*corev1.Pod{db().PVC("data").Obj()}, other: other().Obj(), objects: claim("data", ""), want: []string{"db"}},
		"a claim that is not known":         {present: []*corev1.Pod{db().PVC("data").Obj()}, other: other().Obj()},
		"one node, and no constraints":      {present: []*corev1.Pod{db().Obj()}, want: []string{"db"}},
		"one node, and a hostname selector": {present: []*corev1.Pod{db().NodeSelector(onNode).Obj()}},
		"one node, and a local volume":      {present: []*corev1.Pod{db().PVC("data").Obj()}, objects: claim("data", "node")},
		"a movable pod beside them": {
			present: []*corev1.Pod{
				ownedBy(filler("db", "500m", 9).PVC("data").Obj(), "db"), ownedBy(filler("pinned", "500m", 8).NodeSelector(onNode).Obj(), "pinned"),
				ownedBy(filler("movable", "1", 0).Obj(), "movable")},
			other: other().Obj(), objects: claim("data", "node"), want: []string{"movable"}},
		// https://github.com/kubernetes/kubernetes/issues/140984
		"one of three Ready replicas": {
			present: []*corev1.Pod{makeReady(filler("a", "500m", 0).NodeSelector(onNode).Obj()), makeReady(filler("b", "500m", 1).NodeSelector(onNode).Obj()),
				makeReady(filler("c", "1", 2).NodeSelector(onNode).Obj())},
			other: other().Obj(), want: []string{"c"}},
		"one of two Ready replicas": {
			present: []*corev1.Pod{makeReady(filler("a", "1", 0).NodeSelector(onNode).Obj()), makeReady(filler("b", "1", 1).NodeSelector(onNode).Obj())},
			other:   other().Obj()},
		"the only Ready replica": {
			present: []*corev1.Pod{makeReady(filler("a", "1", 0).NodeSelector(onNode).Obj()), filler("b", "1", 1).NodeSelector(onNode).Priority(1).Obj()},
			other:   other().Obj()},
		"replicas only where movable pods are not enough": {
			present: []*corev1.Pod{
				makeReady(filler("a", "500m", 8).NodeSelector(onNode).Obj()), makeReady(filler("b", "500m", 9).NodeSelector(onNode).Obj()),
				ownedBy(filler("movable", "1", 0).Obj(), "movable")},
			other: other().Obj(), want: []string{"movable"}},
		"replicas with local volumes": {
			present: []*corev1.Pod{makeReady(filler("a", "1", 0).PVC("a").Obj()), makeReady(filler("b", "1", 1).PVC("b").Obj())},
			other:   other().Obj(), objects: slices.Concat(claim("a", "node"), claim("b", "node"))},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
			pod := daemonsettest.Pod(ds, "node")
			objects := append(slices.Clone(tc.objects), ds, pod, st.MakeNode().Name("node").Label(corev1.LabelHostname, "node").Label("disktype", "ssd").
				Capacity(resources{"cpu": "2", "pods": "10"}).Obj())
			for _, pod := range tc.present {
				objects = append(objects, pod)
			}
			if tc.other != nil {
				objects = append(objects, tc.other)
			}
			got, reason := newWorld(t, "", objects...).victims(t, pod)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("victims (-want,+got):\n%s%s", diff, reason)
			}
		})
	}
}

func TestNodesWherePodsOfEqualPriorityStay(t *testing.T) {
	node := func() *st.NodeWrapper {
		return st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"})
	}
	taint := func(key string) *corev1.Node { return node().Taints([]corev1.Taint{{Key: key}}).Obj() }
	deleted := node().Obj()
	deleted.DeletionTimestamp, deleted.Finalizers = &metav1.Time{Time: old}, []string{"example.com/machine"}
	tests := map[string]struct {
		node *corev1.Node
		want []string
	}{
		"an ordinary node":              {node().Obj(), []string{"a"}},
		"a node with another taint":     {taint("gpu"), []string{"a"}},
		"a cordoned node":               {node().Unschedulable(true).Obj(), nil},
		"a node that is deleted":        {deleted, nil},
		"the taint of a cordon":         {taint(corev1.TaintNodeUnschedulable), nil},
		"out of service":                {taint(corev1.TaintNodeOutOfService), nil},
		"cluster autoscaler":            {taint("ToBeDeletedByClusterAutoscaler"), nil},
		"cluster autoscaler, candidate": {taint("DeletionCandidateOfClusterAutoscaler"), nil},
		"Karpenter":                     {taint("karpenter.sh/disrupted"), nil},
		"Karpenter before v1":           {taint("karpenter.sh/disruption"), nil},
		"Fargate":                       {node().Label("eks.amazonaws.com/compute-type", "fargate").Obj(), nil},
		"EC2":                           {node().Label("eks.amazonaws.com/compute-type", "ec2").Obj(), []string{"a"}},
		"virtual kubelet":               {node().Label("type", "virtual-kubelet").Obj(), nil},
		"virtual kubelet's taint":       {taint("virtual-kubelet.io/provider"), nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
			pod := daemonsettest.Pod(ds, "node")
			other := st.MakeNode().Name("other").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
			got, _ := newWorld(t, "", ds, pod, tc.node, other, filler("a", "2", 0).Obj()).victims(t, pod)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("victims (-want,+got):\n%s", diff)
			}
			// Pods of lower priority have no such rights.
			got, _ = newWorld(t, "", ds, pod, tc.node, other, filler("low", "2", 0).Priority(-1).Obj()).victims(t, pod)
			if diff := cmp.Diff([]string{"low"}, got); diff != "" {
				t.Errorf("victims of lower priority (-want,+got):\n%s", diff)
			}
		})
	}
}

func TestPodsOfOtherSchedulersStay(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}).Obj()
	pod := daemonsettest.Pod(ds, "node")
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	got, reason := newWorld(t, "", ds, pod, node, filler("a", "2", 0).SchedulerName("fargate-scheduler").Obj()).victims(t, pod)
	if len(got) > 0 || reason != preemption.ErrReasonNoVictims {
		t.Errorf("victims are %v, %q", got, reason)
	}
}
