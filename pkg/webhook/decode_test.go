// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"testing"

	v2json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func decodePod(data []byte, into *corev1.Pod) error {
	return v2json.Unmarshal(data, (*pod)(into), jsontext.AllowDuplicateNames(true))
}

// What is passed over while a pod is read changes no decision.
func FuzzDecodePod(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		facts := drawFacts(choose)
		pod := daemonsettest.BoundPod(daemonsettest.Agent("agent"), choose.NodeName())
		placement := choose.Placement()
		pod.Spec.NodeSelector, pod.Spec.Affinity, pod.Spec.Tolerations = placement.NodeSelector, placement.Affinity, placement.Tolerations
		facts.annotations[daemonset.ResourcesAnnotation] = `{"agent": {"cpu": "2%"}, "install": {"memory": "1%"}}`
		encoded, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		var all, some corev1.Pod
		if err := json.Unmarshal(encoded, &all); err != nil {
			t.Fatal(err)
		}
		if err := decodePod(encoded, &some); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(mutatePod(&all, facts), mutatePod(&some, facts)); diff != "" {
			t.Errorf("mutation of all of the pod and of what was read (-all,+read):\n%s", diff)
		}
		if daemonset.OwnerOf(&some) == nil || len(some.Spec.Containers[0].Env) > 0 {
			t.Error("the wrong things were passed over")
		}
	})
}

// What is read is read as the library reads it, in whatever way it is written.
func TestDecodePod(t *testing.T) {
	for name, object := range map[string]string{
		"nothing":             `{}`,
		"null":                `null`,
		"null in place of":    `{"metadata": null, "spec": {"containers": null, "priority": null, "affinity": null, "resources": null}}`,
		"null within":         `{"spec": {"containers": [null, {"name": null, "resources": null}, {"resources": {"requests": null, "limits": {}}}]}}`,
		"empty":               `{"metadata": {"annotations": {}, "ownerReferences": []}, "spec": {"affinity": {}, "containers": [], "resources": {}}}`,
		"names with escapes":  `{"s\u0070ec": {"n\u006fdeName": "a", "containers": [{"resources": {"requests": {"c\u0070u": "1"}}}]}}`,
		"a name twice":        `{"spec": {"nodeName": "a", "hostNetwork": true}, "spec": {"nodeName": "b", "containers": [{"resources": {"requests": {"cpu": "1", "cpu": 2}}}]}}`,
		"names in other case": `{"Spec": {"nodename": "a"}}`,
		"an amount in full":   `{"spec": {"containers": [{"resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}, "limits": {"example.com/gpu": "3"}}}]}}`,
		"no pod":              `{"spec": 1}`,
		"no container":        `{"spec": {"containers": [1]}}`,
		"no amount":           `{"spec": {"containers": [{"resources": {"requests": {"cpu": "much"}}}]}}`,
		"no amounts":          `{"spec": {"containers": [{"resources": {"requests": []}}]}}`,
		"cut short":           `{"spec": {"nodeName": "a"`,
		"no name":             `{"spec": {1: "a"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			var all, some corev1.Pod
			allErr, someErr := v2json.Unmarshal([]byte(object), &all, jsontext.AllowDuplicateNames(true)), decodePod([]byte(object), &some)
			if (allErr == nil) != (someErr == nil) {
				t.Errorf("error is %v, the library's %v", someErr, allErr)
			}
			if diff := cmp.Diff(all, some); allErr == nil && diff != "" {
				t.Errorf("pod (-library,+read):\n%s", diff)
			}
		})
	}
}

func BenchmarkDecodePod(b *testing.B) {
	encoded, err := json.Marshal(daemonsettest.BoundPod(daemonsettest.Agent("agent"), "node"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(encoded)))
	b.ReportAllocs()
	for b.Loop() {
		var pod corev1.Pod
		if err := decodePod(encoded, &pod); err != nil {
			b.Fatal(err)
		}
	}
}
