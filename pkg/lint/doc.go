// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lint says what is wrong with a DaemonSet, from its manifest alone.
//
// [Check] is a pure function. It takes what a file says as well as what the API
// server has made of it, and finds the same in both. It never repeats what the
// API server itself refuses or warns of.
//
// A rule is a [Rule] beside the function that checks it; the files are sorted by
// what the rules are about. Errors are for what can never work, so the webhook
// refuses it. A rule that might be wrong stays silent: a warning that nobody
// believes hides the others.
package lint
