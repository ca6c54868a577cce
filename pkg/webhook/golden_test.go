// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/webhook/policy"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// scene is a file of testdata/golden: a cluster and an object that is sent to it.
type scene struct {
	// Webhook is pods, daemonsets or validation.
	Webhook string `json:"webhook"`
	// Policies are those of the configuration.
	Policies []policy.Policy `json:"policies"`
	// DaemonSet owns the pod.
	DaemonSet appsv1.DaemonSet `json:"daemonSet"`
	// Namespace is that of the object.
	Namespace metav1.PartialObjectMetadata `json:"namespace"`
	// Nodes are what nodes have, by name.
	Nodes map[string]corev1.ResourceList `json:"nodes"`
	// PriorityClasses say whether each is the default.
	PriorityClasses map[string]bool `json:"priorityClasses"`
	// Limits are of the LimitRanges of the namespace.
	Limits []corev1.LimitRangeItem `json:"limits"`
	// Validation is that of the configuration.
	Validation policy.Validation `json:"validation"`
	Object     json.RawMessage   `json:"object"`
	// OldObject makes it an update.
	OldObject json.RawMessage `json:"oldObject"`
}

// outcome is what a golden file has.
type outcome struct {
	Allowed  bool                `json:"allowed"`
	Patch    []map[string]any    `json:"patch,omitempty"`
	Audit    map[string]string   `json:"audit,omitempty"`
	Warnings []string            `json:"warnings,omitempty"`
	Message  string              `json:"message,omitempty"`
	Code     int32               `json:"code,omitempty"`
	Reason   metav1.StatusReason `json:"reason,omitempty"`
}

func (s *scene) handler(t *testing.T) (http.Handler, metav1.GroupVersionResource) {
	t.Helper()
	configuration, err := yaml.Marshal(policy.Configuration{
		TypeMeta: metav1.TypeMeta{APIVersion: policy.APIVersion, Kind: policy.Kind}, Policies: s.Policies, Validation: s.Validation,
	})
	if err != nil {
		t.Fatal(err)
	}
	policies, err := policy.Parse(configuration)
	if err != nil {
		t.Fatal(err)
	}
	classes := make(map[string]priorityClass)
	for name, isDefault := range s.PriorityClasses {
		classes[name] = priorityClass{isDefault: isDefault}
	}
	admission := (&fakeCluster{
		daemonSet: s.DaemonSet, nodes: s.Nodes, classes: classes, limits: s.Limits, policies: policies,
		namespaces: map[string]*metav1.PartialObjectMetadata{"default": &s.Namespace},
	}).admission()
	switch s.Webhook {
	case "pods":
		h := admission.mutatePods()
		return h, h.resource
	case "daemonsets":
		h := admission.mutateDaemonSets()
		return h, h.resource
	case "validation":
		h := admission.validateDaemonSets()
		return h, h.resource
	}
	t.Fatalf("webhook is %q, must be pods, daemonsets or validation", s.Webhook)
	return nil, metav1.GroupVersionResource{}
}

// send has the webhook look at object.
func (s *scene) send(t *testing.T, object []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	h, resource := s.handler(t)
	if s.Webhook == "pods" {
		// Each pod has a DaemonSet, which the scenes need not repeat.
		owned, err := jsonpatch.MergePatch(object, []byte(`{"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "controller": true}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		object = owned
	}
	request := &admissionv1.AdmissionRequest{
		UID: "review", Resource: resource, Namespace: "default", Operation: admissionv1.Create,
		Object: runtime.RawExtension{Raw: object}, OldObject: runtime.RawExtension{Raw: s.OldObject},
	}
	if s.OldObject != nil {
		request.Operation = admissionv1.Update
	}
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	recorder := post(t, h, "application/json", body)
	if recorder.Code != http.StatusOK {
		t.Fatalf("status is %d: %s", recorder.Code, recorder.Body)
	}
	return response(t, recorder)
}

// For each kind of change an object goes in and a patch comes out. Where the patch is
// applied and the object sent again, nothing more is changed.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/golden/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no scenes: %v", err)
	}
	for _, input := range inputs {
		if strings.HasSuffix(input, ".out.yaml") {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			content, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			var s scene
			if err := yaml.UnmarshalStrict(content, &s); err != nil {
				t.Fatal(err)
			}
			response := s.send(t, s.Object)
			compareGolden(t, strings.TrimSuffix(input, ".yaml")+".out.yaml", response)
			if len(response.Patch) == 0 {
				return
			}
			patch, err := jsonpatch.DecodePatch(response.Patch)
			if err != nil {
				t.Fatal(err)
			}
			patched, err := patch.Apply(s.Object)
			if err != nil {
				t.Fatalf("the patch does not apply: %v", err)
			}
			if again := s.send(t, patched); len(again.Patch) > 0 {
				t.Errorf("sent again, it is changed more: %s", again.Patch)
			}
		})
	}
}

func compareGolden(t *testing.T, path string, response *admissionv1.AdmissionResponse) {
	t.Helper()
	result := outcome{Allowed: response.Allowed, Audit: response.AuditAnnotations, Warnings: response.Warnings}
	if len(response.Patch) > 0 {
		if err := json.Unmarshal(response.Patch, &result.Patch); err != nil {
			t.Fatal(err)
		}
	}
	if status := response.Result; status != nil {
		result.Message, result.Code, result.Reason = status.Message, status.Code, status.Reason
	}
	got, err := yaml.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want,+got):\n%s", path, diff)
	}
}
