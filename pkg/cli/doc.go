// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli is the command kubectl everynode. Each verb is a file: an options struct
// that is completed, validated and run. read.go reads a cluster, package explain knows
// the answers, and print.go and the verbs write them.
package cli
