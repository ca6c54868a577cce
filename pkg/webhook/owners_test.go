// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata/fake"
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

func TestOwners(t *testing.T) {
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	agent := daemonsettest.Make("agent").Annotation(daemonset.SchedulingAnnotation, "direct").Annotation("else", "x").Obj()
	agent.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	client := fake.NewSimpleMetadataClient(scheme, metadataOf(agent))

	// Time stands still but while everybody waits: patience costs none.
	synctest.Test(t, func(t *testing.T) {
		owners := newOwners(client)
		if owners.healthy() == nil {
			t.Error("healthy before the DaemonSets are known")
		}
		go owners.run(t.Context())
		synctest.Wait()
		if err := owners.healthy(); err != nil {
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
			if name == "an owner we hear of late" {
				time.AfterFunc(patience/2, func() {
					if err := client.Tracker().Add(metadataOf(late)); err != nil {
						t.Error(err)
					}
				})
			}
			got, err := owners.annotations(t.Context(), tc.namespace, tc.pod)
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Errorf("%s: error is %v, want %s", name, err, tc.wantErr)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(tc.want, keepOurs(got)); diff != "" {
				t.Errorf("%s: annotations (-want,+got):\n%s", name, diff)
			}
		}
		if kept, err := owners.lister.ByNamespace("default").Get("agent"); err != nil {
			t.Error(err)
		} else if managed := kept.(metav1.Object).GetManagedFields(); managed != nil {
			t.Errorf("more is kept than needed: %v", managed)
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
