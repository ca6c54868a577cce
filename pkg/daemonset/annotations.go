// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AnnotationPrefix is what all of our annotations start with.
const AnnotationPrefix = "everynode.dev/"

// Annotations on a DaemonSet.
const (
	// SchedulingAnnotation says who gives its pods to their nodes.
	SchedulingAnnotation = AnnotationPrefix + "scheduling"
	// HoldAnnotation says whether room is held for its missing pods. "false" turns it
	// off, anything else leaves it on.
	HoldAnnotation = AnnotationPrefix + "hold"
	// GateAnnotation says whether ordinary pods wait on each of its nodes until its
	// pod there is Ready. "true" turns it on, anything else leaves it off.
	GateAnnotation = AnnotationPrefix + "gate"
	// PreemptAnnotation says whether its pods may evict pods of their own priority.
	// "false" turns it off, anything else leaves it on.
	PreemptAnnotation = AnnotationPrefix + "preempt"
	// ResourcesAnnotation sizes its pods after their nodes, see [ParseSizes].
	ResourcesAnnotation = AnnotationPrefix + "resources"
)

// Values of SchedulingAnnotation.
const (
	// SchedulingScheduler leaves it to a scheduler, which finds or makes the room. The default.
	SchedulingScheduler = "scheduler"
	// SchedulingDirect binds pods when they are created, so that they start even if
	// no scheduler runs. The kubelet refuses those that don't fit.
	SchedulingDirect = "direct"
	// SchedulingAuto leaves it to a scheduler while one is at work. While none is, the webhook
	// binds pods that fit.
	SchedulingAuto = "auto"
)

// compiledAnnotations are those that New looks at.
var compiledAnnotations = []string{HoldAnnotation, GateAnnotation, PreemptAnnotation, ResourcesAnnotation}

// ErrUnknownAnnotation is for a key that is not among ours.
var ErrUnknownAnnotation = errors.New("there is no such annotation for DaemonSets")

// ValidateAnnotation returns what is wrong with an annotation of a DaemonSet that
// starts with [AnnotationPrefix]. The error is for its author; it is
// [ErrUnknownAnnotation] if the key is.
func ValidateAnnotation(key, value string) error {
	switch key {
	case SchedulingAnnotation:
		return oneOf(value, SchedulingScheduler, SchedulingDirect, SchedulingAuto)
	case HoldAnnotation, GateAnnotation, PreemptAnnotation:
		return oneOf(value, "true", "false")
	case ResourcesAnnotation:
		_, err := ParseSizes(value)
		return err
	default:
		return ErrUnknownAnnotation
	}
}

func oneOf(value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%q is not among the values %s", value, strings.Join(allowed, ", "))
}
