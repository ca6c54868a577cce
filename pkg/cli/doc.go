// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli is the command kubectl everynode. Each verb is a file: an options struct that is
// completed and run; help.yaml has the help. read.go reads a cluster and manifest.go files, package
// explain knows the answers, explanation.go and the verbs write them with print.go and output.go.
package cli
