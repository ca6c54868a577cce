// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests everynode from the outside: every test starts a cluster of
// its own and looks only at what a user can see. Run it with make test-e2e.
//
// Tests are named after the scenarios in docs/scenarios.md. With -scheduler stock
// they run against kube-scheduler; those that need everynode fail then.
package e2e
