// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// managedFields tell who has set a label.
func TestNoteManagers(t *testing.T) {
	t.Parallel()
	n := &corev1.Node{}
	entry := func(manager, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	n.ManagedFields = []metav1.ManagedFieldsEntry{
		entry("kubectl-label", `{"f:metadata":{"f:labels":{"f:disktype":{}}}}`), entry("nfd", `{"f:metadata":{"f:labels":{".":{},"f:gpu":{}}}}`),
		entry("kubelet", `{"f:status":{}}`), entry("broken", `{`), {Manager: "empty"},
	}
	c := &Cluster{}
	c.NoteManagers(n)
	c.NoteManagers(n)
	if diff := cmp.Diff(map[string][]string{"disktype": {"kubectl-label"}, "gpu": {"nfd"}}, c.LabelManagers); diff != "" {
		t.Errorf("(-want,+got):\n%s", diff)
	}
}

// A planned DaemonSet takes the place of the one of its name, in a copy.
func TestWith(t *testing.T) {
	t.Parallel()
	old, other := daemonsettest.Make("agent").Obj(), daemonsettest.Make("other").Obj()
	c := &Cluster{DaemonSets: []*appsv1.DaemonSet{old, other}}
	changed := daemonsettest.Make("agent").Obj()
	changed.UID = ""
	with, before := c.With(changed)
	if before != old || changed.UID != old.UID || with.DaemonSets[0] != changed || with.DaemonSets[1] != other || c.DaemonSets[0] != old {
		t.Errorf("before: %v; with: %v", before, with.DaemonSets)
	}
	added := daemonsettest.Make("new").Obj()
	with, before = c.With(added, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}})
	if want := types.UID(PlannedPrefix + added.Namespace + "/new"); before != nil || added.UID != want || len(with.DaemonSets) != 3 || len(with.Namespaces) != 1 {
		t.Errorf("before: %v; the UID is %s, want %s; with: %v", before, added.UID, want, with)
	}
}

// Objects come to the lists of their kinds, and informers have them; of the pods, those of DaemonSets.
func TestInformers(t *testing.T) {
	t.Parallel()
	ds := daemonsettest.Make("agent").Obj()
	c := &Cluster{}
	for _, object := range []runtime.Object{
		st.MakeNode().Name("node-a").Obj(), ds, daemonsettest.Pod(ds, "node-a"), st.MakePod().Name("web").Obj(), &corev1.Secret{},
	} {
		c.Add(object)
	}
	if len(c.Nodes) != 1 || len(c.DaemonSets) != 1 || len(c.Pods) != 2 {
		t.Fatalf("have %d nodes, %d DaemonSets and %d pods", len(c.Nodes), len(c.DaemonSets), len(c.Pods))
	}
	factory, err := c.Informers()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, object := range factory.Core().V1().Pods().Informer().GetStore().List() {
		have = append(have, object.(*corev1.Pod).Name)
	}
	if diff := cmp.Diff([]string{c.Pods[0].Name}, have); diff != "" {
		t.Errorf("pods (-want,+have):\n%s", diff)
	}
}
