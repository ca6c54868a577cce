// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package real tests everynode on nodes with real kubelets and containers: what
// pods that only exist as objects cannot show. Run it with make test-real; it needs
// root and what 'localcluster needs' looks for.
package real
