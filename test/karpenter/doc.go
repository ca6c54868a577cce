// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package karpenter tests everynode with Karpenter itself, which buys the nodes. Run it with make test-karpenter.
//
// Karpenter's kwok provider makes Node objects in place of machines, and kwok plays their kubelets. All else is as on
// any cluster: Karpenter's own scheduling, limits, consolidation and events. Tests are named after the scenarios in
// docs/scenarios.md.
package karpenter
