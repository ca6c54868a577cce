// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package localcluster

import "syscall"

// dieWithParent does nothing: only Linux can end the children of a process that
// was killed. One that ends in any other way stops its cluster itself.
func dieWithParent(*syscall.SysProcAttr) {}
