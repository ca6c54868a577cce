// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhook is the admission webhook for DaemonSet pods.
//
// Read it from the inside out: mutation.go decides what to change, a pure
// function; owners.go knows which DaemonSets exist; handler.go speaks
// AdmissionReview; routes.go, server.go and certificate.go put that on a port.
//
// A webhook stands in the way of every pod it is sent. So it never refuses one:
// whatever goes wrong on its own side, the pod is admitted unchanged, with a
// warning to whoever created it. It makes no API call while a request waits.
package webhook
