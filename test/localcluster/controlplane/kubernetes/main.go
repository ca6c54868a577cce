// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// kubernetes is the control plane of a version of Kubernetes other than the one that
// everynode is built with. localcluster starts it; make build-versions builds it.
package main

import (
	"fmt"
	"os"

	"everynode.dev/everynode/test/localcluster/controlplane"
)

func main() {
	code, ok := controlplane.Run(os.Args)
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: kubernetes COMPONENT [FLAG...]: this is what localcluster up --kubernetes starts")
		os.Exit(2)
	}
	os.Exit(code)
}
