// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhook is the admission webhook for DaemonSets and their pods.
//
// Read it from the inside out: pod.go and daemonset.go decide what to change, pure
// functions on the patches of mutation.go; cluster.go knows what they have to know;
// admission.go brings the two together; handler.go speaks AdmissionReview, read by
// decode.go; routes.go and server.go put that on a port. Package policy is what
// operators want, package certs whom clients talk to.
//
// A webhook stands in the way of everything it is sent. So it never refuses a pod:
// whatever goes wrong on its own side, the object is admitted unchanged, with a
// warning to whoever created it. It makes no API call while a request waits.
package webhook
