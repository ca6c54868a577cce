// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import "syscall"

// dieWithParent has the kernel kill the child when its parent has gone, even if
// the parent was killed itself.
func dieWithParent(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
}
