// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package install installs everynode with the real helm on a real control plane,
// and runs our programs as their pods would: with the chart's arguments and
// configurations, as the chart's ServiceAccounts, with no other rights. kwok plays
// the kubelets, so no container runs. Run it with make test-install.
package install
