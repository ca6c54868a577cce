// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhook is the admission webhook for DaemonSets and their pods.
//
// Read it from the inside out: pod.go and daemonset.go decide what to change, pure
// functions that return the patches of mutation.go; cluster.go caches what they depend
// on; admission.go calls them with it; handler.go answers AdmissionReviews, which
// decode.go decodes; routes.go and server.go serve that, within the limits of limits.go
// and for the clients of clients.go. Package policy reads what operators want, package
// certs provides the serving certificate.
//
// The API server waits for the webhook whenever it sends it an object. So the webhook
// never refuses a pod: if it cannot decide, the object is admitted unchanged, with a
// warning to the user who created it. It makes no API call while a request waits.
package webhook
