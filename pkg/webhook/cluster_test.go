// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

// metadataOf returns what a metadata client sees of ds.
func metadataOf(ds *appsv1.DaemonSet) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: ds.ObjectMeta,
	}
}

func TestCluster(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	agent := daemonsettest.Make("agent").Annotation(daemonset.SchedulingAnnotation, "direct").Annotation("else", "x").Obj()
	agent.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	logging := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: "logging", Labels: map[string]string{"team": "a"}, Annotations: map[string]string{whitelistAnnotation: "[]", "else": "x"}}}
	metadata := metadatafake.NewSimpleMetadataClient(scheme, metadataOf(agent), logging)
	node := st.MakeNode().Name("node").Label("large", "label").Capacity(map[corev1.ResourceName]string{"cpu": "8", "memory": "16Gi", "example.com/gpu": "1"}).Obj()
	typed := fake.NewClientset(node, st.MakeNode().Name("new").Obj(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, GlobalDefault: true})

	// Time stands still but while everybody waits: patience costs none.
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster(metadata, typed)
		if err := cluster.healthy(); err == nil || strings.Count(err.Error(), "are not known yet") != 4 {
			t.Errorf("before anything is known: %v", err)
		}
		go cluster.run(t.Context())
		synctest.Wait()
		if err := cluster.healthy(); err != nil {
			t.Error(err)
		}

		elsewhere := daemonsettest.Pod(agent, "a")
		late := daemonsettest.Make("late").Obj()
		tests := map[string]struct {
			namespace string
			pod       *corev1.Pod
			want      map[string]string
			wantErr   string
		}{
			"an owner that exists":     {"default", daemonsettest.Pod(agent, "a"), map[string]string{daemonset.SchedulingAnnotation: "direct"}, ""},
			"in another namespace":     {"other", elsewhere, nil, "no DaemonSet other/agent with UID agent is known"},
			"with another UID":         {"default", withOwnerUID(daemonsettest.Pod(agent, "a"), "forged"), nil, "no DaemonSet default/agent with UID forged is known"},
			"no DaemonSet":             {"default", st.MakePod().Obj(), nil, "the pod is not controlled by a DaemonSet"},
			"an owner we hear of late": {"default", daemonsettest.Pod(late, "a"), nil, ""},
		}
		for name, tc := range tests {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if name == "an owner we hear of late" {
				time.AfterFunc(patience/2, func() {
					if err := metadata.Tracker().Add(metadataOf(late)); err != nil {
						t.Error(err)
					}
				})
			}
			got, err := cluster.owner(ctx, tc.namespace, tc.pod)
			cancel()
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Errorf("%s: error is %v, want %s", name, err, tc.wantErr)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(tc.want, keepOurs(got.Annotations)); diff != "" {
				t.Errorf("%s: annotations (-want,+got):\n%s", name, diff)
			}
		}
		if kept, _ := get[*metav1.PartialObjectMetadata](cluster.daemonSets, "default/agent"); kept.ManagedFields != nil || len(kept.Annotations) != 1 {
			t.Errorf("more is kept than needed: %+v", kept)
		}

		if kept := cluster.namespace("logging"); kept.Labels["team"] != "a" || len(kept.Annotations) != 1 {
			t.Errorf("of the namespace is kept: %+v", kept)
		}
		if kept := cluster.namespace("unknown"); kept.Labels != nil {
			t.Errorf("of an unknown namespace is known: %+v", kept)
		}
		for name, want := range map[string]string{"node": "8", "new": "", "unknown": "", "late": "4"} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if name == "late" {
				time.AfterFunc(patience/2, func() {
					late := st.MakeNode().Name("late").Capacity(map[corev1.ResourceName]string{"cpu": "4"}).Obj()
					if _, err := typed.CoreV1().Nodes().Create(ctx, late, metav1.CreateOptions{}); err != nil {
						t.Error(err)
					}
				})
			}
			has := cluster.allocatable(ctx, name)
			cancel()
			if cpu, known := has[corev1.ResourceCPU]; known != (want != "") || known && cpu.String() != want {
				t.Errorf("node %s has %v, want %q of CPU", name, has, want)
			}
			if _, kept := has["example.com/gpu"]; kept {
				t.Errorf("more of node %s is kept than needed: %v", name, has)
			}
		}
		if exists, isDefault := cluster.priorityClass("usual"); !exists || !isDefault {
			t.Errorf("the class exists: %v, is the default: %v", exists, isDefault)
		}
		if exists, _ := cluster.priorityClass("unknown"); exists {
			t.Error("an unknown class exists")
		}
	})
}

// keepOurs turns no annotations into nil.
func keepOurs(annotations map[string]string) map[string]string {
	if len(annotations) == 0 {
		return nil
	}
	return annotations
}

func withOwnerUID(pod *corev1.Pod, uid string) *corev1.Pod {
	pod.OwnerReferences[0].UID = st.MakePod().UID(uid).Obj().UID
	return pod
}

// BenchmarkNodes keeps 15,000 nodes, each as large as a kubelet reports it, and says how
// much memory one of them takes.
func BenchmarkNodes(b *testing.B) {
	const nodes = 15_000
	for b.Loop() {
		before := heap()
		kept := make([]any, nodes)
		for i := range kept {
			node, err := trim(largeNode(i))
			if err != nil {
				b.Fatal(err)
			}
			kept[i] = node
		}
		b.ReportMetric(float64(heap()-before)/nodes, "B/node")
		runtime.KeepAlive(kept)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// largeNode returns a node with the labels, conditions and images that nodes have.
func largeNode(i int) *corev1.Node {
	node := st.MakeNode().Name(fmt.Sprintf("node-%d.example.com", i)).UID(fmt.Sprintf("uid-%d", i)).
		Capacity(map[corev1.ResourceName]string{"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "250"}).Obj()
	node.ResourceVersion = strconv.Itoa(i)
	node.Labels = make(map[string]string)
	for label := range 20 {
		node.Labels[fmt.Sprintf("example.com/label-%d", label)] = fmt.Sprintf("value of %d", i)
	}
	for image := range 50 {
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{Names: []string{fmt.Sprintf("example.com/image-%d@sha256:%064d", image, i)}})
	}
	return node
}
