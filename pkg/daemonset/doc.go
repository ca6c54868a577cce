// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package daemonset knows what a DaemonSet means for a node: which DaemonSets
// belong there, which are missing, and how much room has to be held for them.
//
// It is pure: it reads API objects and returns values. It starts no goroutine,
// watches nothing and does no I/O, so the scheduler plugins, the webhook and
// the command line all ask it the same questions and get the same answers.
//
// # Words
//
//   - daemon pod: a pod whose controller owner is an apps/v1 DaemonSet.
//   - ordinary pod: any other pod.
//   - pinned: a pod that can run on one node only ([PinnedNode]).
//   - expected(N): the DaemonSets that should have a pod on node N by the
//     DaemonSet controller's own rule ([DaemonSet.ShouldRun]).
//   - present(N): the DaemonSets that have a live pod on N.
//   - missing(N): expected(N) without present(N).
//   - held(N): the room that the missing ones need ([View]).
//
// # Order of reading
//
// pod.go (who is a daemon pod), daemonset.go and eligibility.go (where a
// DaemonSet belongs), resources.go, needs.go, size.go and admitted.go (what its pod
// takes), set.go (all DaemonSets of a cluster), view.go (one node), bounds.go (the most
// that any node can owe).
package daemonset
