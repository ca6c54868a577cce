// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Most of the time that a request takes is for reading JSON. This package reads it
// twice as fast as encoding/json, whose successor it is
// (https://github.com/golang/go/issues/71497), and twice as fast again because it
// passes over what nobody here looks at.

// review is an AdmissionReview of objects of one kind, as far as it is looked at.
type review[T any] struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Request    *request[T] `json:"request"`
}

// request is an AdmissionRequest, as far as it is looked at.
type request[T any] struct {
	UID         types.UID                   `json:"uid"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Name        string                      `json:"name"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	UserInfo    struct {
		Username string `json:"username"`
	} `json:"userInfo"`
	// Neither is nil when it is decided about, but OldObject where something is created.
	Object    *T `json:"object"`
	OldObject *T `json:"oldObject"`

	// unreadable says why Object could not be read.
	unreadable error
}

// decode reads a review.
func decode[T any](data []byte, options json.Options) (*review[T], error) {
	var r review[T]
	return &r, json.Unmarshal(data, &r, options)
}

// encode is the reverse. Maps are in the order of their keys.
func encode(value any) ([]byte, error) {
	return json.Marshal(value, json.Deterministic(true))
}

// reading are the options for all kinds.
var reading = jsontext.AllowDuplicateNames(true) // The API server writes none; to make sure takes time.

// readingPods are the options for pods: decisions do not depend on what is skipped.
var readingPods = json.JoinOptions(reading, json.WithUnmarshalers(json.JoinUnmarshalers(
	skip[[]metav1.ManagedFieldsEntry](),
	skip[[]corev1.Volume](),
	skip[*corev1.PodSecurityContext](),
	skip[[]corev1.EnvVar](),
	skip[[]corev1.EnvFromSource](),
	skip[[]corev1.VolumeMount](),
	skip[*corev1.Probe](),
	skip[*corev1.Lifecycle](),
	skip[*corev1.SecurityContext](),
)))

// skip passes over values of a type.
func skip[T any]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(decoder *jsontext.Decoder, _ *T) error { return decoder.SkipValue() })
}
