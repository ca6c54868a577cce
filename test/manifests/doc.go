// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package manifests tests what is installed: that the chart and the kustomizations
// render the same objects, that these are what they have to be, that every alert
// fires and that the dashboard can be drawn. No cluster is needed; make verify-chart
// runs it.
package manifests
