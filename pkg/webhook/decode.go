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

// review is an AdmissionReview of an object of type T. Fields that no decision depends
// on are not decoded.
type review[T any] struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Request    *request[T] `json:"request"`
}

// request is an AdmissionRequest.
type request[T any] struct {
	requestInfo
	// Object and OldObject are not nil in decide, except OldObject of a CREATE.
	Object    *T `json:"object"`
	OldObject *T `json:"oldObject"`

	// objectError says why the object could not be decoded.
	objectError error
}

// requestInfo is an AdmissionRequest without its objects.
type requestInfo struct {
	UID         types.UID                   `json:"uid"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Name        string                      `json:"name"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	UserInfo    struct {
		Username string `json:"username"`
	} `json:"userInfo"`
}

// pod is a corev1.Pod of which only the fields are decoded that decisions depend on: a
// whole pod takes eight times as long.
type pod corev1.Pod

// podFields are these fields.
type podFields struct {
	Metadata struct {
		Annotations     map[string]string       `json:"annotations"`
		OwnerReferences []metav1.OwnerReference `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		Affinity          *corev1.Affinity             `json:"affinity"`
		Containers        []containerFields            `json:"containers"`
		HostNetwork       bool                         `json:"hostNetwork"`
		InitContainers    []containerFields            `json:"initContainers"`
		NodeName          string                       `json:"nodeName"`
		PreemptionPolicy  *corev1.PreemptionPolicy     `json:"preemptionPolicy"`
		Priority          *int32                       `json:"priority"`
		PriorityClassName string                       `json:"priorityClassName"`
		ResourceClaims    []corev1.PodResourceClaim    `json:"resourceClaims"`
		Resources         *corev1.ResourceRequirements `json:"resources"`
		SchedulerName     string                       `json:"schedulerName"`
		SchedulingGates   []corev1.PodSchedulingGate   `json:"schedulingGates"`
		Tolerations       []corev1.Toleration          `json:"tolerations"`
		Volumes           []volumeFields               `json:"volumes"`
	} `json:"spec"`
}

type volumeFields struct {
	Name                  string                                    `json:"name"`
	Ephemeral             *struct{}                                 `json:"ephemeral"`
	PersistentVolumeClaim *corev1.PersistentVolumeClaimVolumeSource `json:"persistentVolumeClaim"`
}

type containerFields struct {
	Name      string                      `json:"name"`
	Resources corev1.ResourceRequirements `json:"resources"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *pod) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	var fields podFields
	if err := json.UnmarshalDecode(decoder, &fields); err != nil {
		return err
	}
	spec := &fields.Spec
	p.Annotations, p.OwnerReferences = fields.Metadata.Annotations, fields.Metadata.OwnerReferences
	p.Spec = corev1.PodSpec{
		Affinity: spec.Affinity, HostNetwork: spec.HostNetwork, NodeName: spec.NodeName, PreemptionPolicy: spec.PreemptionPolicy,
		Priority: spec.Priority, PriorityClassName: spec.PriorityClassName, Resources: spec.Resources, SchedulerName: spec.SchedulerName,
		SchedulingGates: spec.SchedulingGates, Tolerations: spec.Tolerations, ResourceClaims: spec.ResourceClaims,
		Containers: containers(spec.Containers), InitContainers: containers(spec.InitContainers),
	}
	for _, volume := range spec.Volumes {
		// Other volumes do not matter.
		switch source := (corev1.VolumeSource{PersistentVolumeClaim: volume.PersistentVolumeClaim}); {
		case volume.Ephemeral != nil:
			source.Ephemeral = &corev1.EphemeralVolumeSource{}
			fallthrough
		case volume.PersistentVolumeClaim != nil:
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: volume.Name, VolumeSource: source})
		}
	}
	return nil
}

func containers(fields []containerFields) []corev1.Container {
	if fields == nil {
		return nil
	}
	containers := make([]corev1.Container, len(fields))
	for i := range fields {
		containers[i].Name, containers[i].Resources = fields[i].Name, fields[i].Resources
	}
	return containers
}

// decode decodes a review. Names are case-sensitive, types are checked, and errors name
// the path of the value. A name may come twice, which the API server never writes: to look
// for that takes a third of the time.
func decode[T any](data []byte) (*review[T], error) {
	var r review[T]
	if err := json.Unmarshal(data, &r, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, err
	}
	return &r, nil
}

// decodeWithout decodes a review whose object cannot be decoded because of objectError.
// It fails if more is wrong than the object.
func decodeWithout[T any](data []byte, objectError error) (*review[T], error) {
	r, err := decode[jsontext.Value](data)
	if err != nil || r.Request == nil {
		return nil, objectError
	}
	return &review[T]{r.APIVersion, r.Kind, &request[T]{requestInfo: r.Request.requestInfo, objectError: objectError}}, nil
}

// encode is the reverse. Maps are in the order of their keys.
func encode(value any) ([]byte, error) {
	return json.Marshal(value, json.Deterministic(true))
}
