// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Most of the time that a request takes is for reading JSON. This package reads it
// twice as fast as encoding/json, whose successor it is
// (https://github.com/golang/go/issues/71497), and twice as fast again because it
// passes over what nobody here looks at.

// decode reads an object of the API.
func decode(data []byte, into any) error {
	return json.Unmarshal(data, into)
}

// decodePod reads a pod without what decisions about it do not depend on.
func decodePod(data []byte, into *corev1.Pod) error {
	return json.Unmarshal(data, into, unread)
}

var unread = json.WithUnmarshalers(json.JoinUnmarshalers(
	skip[[]metav1.ManagedFieldsEntry](),
	skip[[]corev1.Volume](),
	skip[*corev1.PodSecurityContext](),
	skip[[]corev1.EnvVar](),
	skip[[]corev1.EnvFromSource](),
	skip[[]corev1.VolumeMount](),
	skip[*corev1.Probe](),
	skip[*corev1.Lifecycle](),
	skip[*corev1.SecurityContext](),
))

// skip passes over values of a type.
func skip[T any]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(decoder *jsontext.Decoder, _ *T) error { return decoder.SkipValue() })
}
