// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// pause is the first container of every pod on a real node: it holds the pod's
// namespaces open until it is told to end.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	// Where the pod's containers share their processes it is the first of them. The
	// kernel buries orphans then.
	signal.Ignore(syscall.SIGCHLD)
	<-stop
}
