// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package examples holds DaemonSets to apply.
package examples

import "embed"

// Files are the manifests.
//
//go:embed *.yaml
var Files embed.FS
