// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
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

// readingPods are the options for pods: what is read is what decisions depend on.
var readingPods = json.JoinOptions(reading, json.WithUnmarshalers(json.JoinUnmarshalers(
	only(map[string]func(*corev1.Pod) any{
		"metadata": func(pod *corev1.Pod) any { return &pod.ObjectMeta },
		"spec":     func(pod *corev1.Pod) any { return &pod.Spec },
	}),
	only(map[string]func(*metav1.ObjectMeta) any{
		"annotations":     func(meta *metav1.ObjectMeta) any { return &meta.Annotations },
		"ownerReferences": func(meta *metav1.ObjectMeta) any { return &meta.OwnerReferences },
	}),
	only(map[string]func(*corev1.PodSpec) any{
		"affinity":          func(spec *corev1.PodSpec) any { return &spec.Affinity },
		"containers":        func(spec *corev1.PodSpec) any { return &spec.Containers },
		"hostNetwork":       func(spec *corev1.PodSpec) any { return &spec.HostNetwork },
		"initContainers":    func(spec *corev1.PodSpec) any { return &spec.InitContainers },
		"nodeName":          func(spec *corev1.PodSpec) any { return &spec.NodeName },
		"preemptionPolicy":  func(spec *corev1.PodSpec) any { return &spec.PreemptionPolicy },
		"priority":          func(spec *corev1.PodSpec) any { return &spec.Priority },
		"priorityClassName": func(spec *corev1.PodSpec) any { return &spec.PriorityClassName },
		"resources":         func(spec *corev1.PodSpec) any { return &spec.Resources },
		"schedulerName":     func(spec *corev1.PodSpec) any { return &spec.SchedulerName },
		"schedulingGates":   func(spec *corev1.PodSpec) any { return &spec.SchedulingGates },
		"tolerations":       func(spec *corev1.PodSpec) any { return &spec.Tolerations },
	}),
	only(map[string]func(*corev1.Container) any{
		"name":      func(container *corev1.Container) any { return &container.Name },
		"resources": func(container *corev1.Container) any { return &container.Resources },
	}),
	json.UnmarshalFromFunc(readAmounts),
)))

// only reads those fields of an object that have a place, and passes over the others.
func only[T any](places map[string]func(*T) any) *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(decoder *jsontext.Decoder, object *T) error {
		return fields(decoder, func(name []byte) error {
			if place, wanted := places[string(name)]; wanted {
				return json.UnmarshalDecode(decoder, place(object))
			}
			_, err := decoder.ReadValue() // SkipValue takes longer.
			return err
		})
	})
}

// readAmounts reads a map without reflection.
func readAmounts(decoder *jsontext.Decoder, list *corev1.ResourceList) error {
	amounts := make(corev1.ResourceList)
	err := fields(decoder, func(name []byte) error {
		key := corev1.ResourceName(name)
		value, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		var amount resource.Quantity
		err = amount.UnmarshalJSON(value)
		amounts[key] = amount
		return err
	})
	if err == nil {
		*list = amounts
	}
	return err
}

// fields calls read with the name of each field of an object, to read its value. The
// name is gone then.
func fields(decoder *jsontext.Decoder, read func(name []byte) error) error {
	if decoder.PeekKind() != jsontext.KindBeginObject {
		return errors.ErrUnsupported // The library knows what to do with null, and what to say of anything else.
	}
	if _, err := decoder.ReadToken(); err != nil {
		return err
	}
	for decoder.PeekKind() != jsontext.KindEndObject {
		quoted, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		name := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, err = jsontext.AppendUnquote(nil, quoted); err != nil {
				return err
			}
		}
		if err := read(name); err != nil {
			return err
		}
	}
	_, err := decoder.ReadToken()
	return err
}
