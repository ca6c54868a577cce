// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"github.com/go-json-experiment/json"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"everynode.dev/everynode/pkg/webhook/scan"
)

// review is an AdmissionReview of objects of one kind, as far as it is looked at.
type review[T any] struct {
	APIVersion string
	Kind       string
	Request    *request[T]
}

// request is an AdmissionRequest, as far as it is looked at.
type request[T any] struct {
	UID         types.UID
	Resource    metav1.GroupVersionResource
	SubResource string
	Name        string
	Namespace   string
	Operation   admissionv1.Operation
	Username    string
	// Neither is nil when it is decided about, but OldObject where something is created.
	Object    *T
	OldObject *T

	// unreadable says why Object could not be read.
	unreadable error
}

// reader reads the next value, or does nothing about it.
type reader[T any] func(*scan.Scanner, *T)

// decode reads a review whose objects are read by read.
func decode[T any](data []byte, read reader[T]) (*review[T], error) {
	var r review[T]
	s := scan.New(data)
	s.Object(func(name []byte) {
		switch string(name) {
		case "apiVersion":
			scan.String(s, &r.APIVersion)
		case "kind":
			scan.String(s, &r.Kind)
		case "request":
			r.Request = pointer(s, func(s *scan.Scanner, to *request[T]) { readRequest(s, to, read) })
		}
	})
	return &r, s.End()
}

func readRequest[T any](s *scan.Scanner, to *request[T], read reader[T]) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "uid":
			scan.String(s, &to.UID)
		case "resource":
			s.Into(&to.Resource)
		case "subResource":
			scan.String(s, &to.SubResource)
		case "name":
			scan.String(s, &to.Name)
		case "namespace":
			scan.String(s, &to.Namespace)
		case "operation":
			scan.String(s, &to.Operation)
		case "userInfo":
			readUsername(s, &to.Username)
		case "object":
			to.Object = pointer(s, read)
		case "oldObject":
			to.OldObject = pointer(s, read)
		}
	})
}

func readUsername(s *scan.Scanner, to *string) {
	s.Object(func(name []byte) {
		if string(name) == "username" {
			scan.String(s, to)
		}
	})
}

// readNothing finds out that an object is there, and no more.
func readNothing(*scan.Scanner, *struct{}) {}

// readDaemonSet reads all of a DaemonSet: few are sent.
func readDaemonSet(s *scan.Scanner, to *appsv1.DaemonSet) {
	s.Into(to)
}

// readPod reads what decisions about a pod depend on.
func readPod(s *scan.Scanner, to *corev1.Pod) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "metadata":
			readMeta(s, &to.ObjectMeta)
		case "spec":
			readSpec(s, &to.Spec)
		}
	})
}

func readMeta(s *scan.Scanner, to *metav1.ObjectMeta) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "annotations":
			s.Into(&to.Annotations)
		case "ownerReferences":
			s.Into(&to.OwnerReferences)
		}
	})
}

func readSpec(s *scan.Scanner, to *corev1.PodSpec) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "affinity":
			s.Into(&to.Affinity)
		case "containers":
			to.Containers = listOf(s, 2, readContainer)
		case "hostNetwork":
			s.Into(&to.HostNetwork)
		case "initContainers":
			to.InitContainers = listOf(s, 2, readContainer)
		case "nodeName":
			scan.String(s, &to.NodeName)
		case "preemptionPolicy":
			to.PreemptionPolicy = pointer(s, scan.String[corev1.PreemptionPolicy])
		case "priority":
			s.Into(&to.Priority)
		case "priorityClassName":
			scan.String(s, &to.PriorityClassName)
		case "resources":
			s.Into(&to.Resources)
		case "schedulerName":
			scan.String(s, &to.SchedulerName)
		case "schedulingGates":
			s.Into(&to.SchedulingGates)
		case "tolerations":
			to.Tolerations = listOf(s, 8, readToleration)
		}
	})
}

func readContainer(s *scan.Scanner, to *corev1.Container) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "name":
			scan.String(s, &to.Name)
		case "resources":
			readResources(s, &to.Resources)
		}
	})
}

func readResources(s *scan.Scanner, to *corev1.ResourceRequirements) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "limits":
			to.Limits = amounts(s)
		case "requests":
			to.Requests = amounts(s)
		case "claims":
			s.Into(&to.Claims)
		}
	})
}

func readToleration(s *scan.Scanner, to *corev1.Toleration) {
	s.Object(func(name []byte) {
		switch string(name) {
		case "key":
			scan.String(s, &to.Key)
		case "operator":
			scan.String(s, &to.Operator)
		case "value":
			scan.String(s, &to.Value)
		case "effect":
			scan.String(s, &to.Effect)
		case "tolerationSeconds":
			s.Into(&to.TolerationSeconds)
		}
	})
}

// pointer reads a value that may be null.
func pointer[T any](s *scan.Scanner, read reader[T]) *T {
	if s.Null() {
		return nil
	}
	value := new(T)
	read(s, value)
	return value
}

// listOf reads an array, or null, which has about so many elements.
func listOf[T any](s *scan.Scanner, about int, read reader[T]) []T {
	if s.Null() {
		return nil
	}
	elements := make([]T, 0, about)
	s.Array(func() {
		var element T
		elements = append(elements, element)
		read(s, &elements[len(elements)-1])
	})
	return elements
}

// amounts reads a list of resources.
func amounts(s *scan.Scanner) corev1.ResourceList {
	if s.Null() {
		return nil
	}
	list := make(corev1.ResourceList)
	s.Object(func(name []byte) {
		var amount resource.Quantity
		s.Check(amount.UnmarshalJSON(s.Value()))
		list[corev1.ResourceName(name)] = amount
	})
	return list
}

// encode is the reverse. Maps are in the order of their keys.
func encode(value any) ([]byte, error) {
	return json.Marshal(value, json.Deterministic(true))
}
