// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dashboard tests the Grafana dashboard against what it is for: a cluster in
// which everynode has something to do, read by a real Prometheus. Run it with make
// test-dashboard; make dashboard-picture draws what it shows.
package dashboard
