// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// Forward connects a client with a port of this machine until one of them ends it, or ctx
// ends. It is the last part of a Service.
func Forward(ctx context.Context, client net.Conn, port int) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var group sync.WaitGroup
	for _, direction := range []struct{ to, from net.Conn }{{client, server}, {server, client}} {
		group.Go(func() {
			// Whoever ends the connection ends it for both.
			_, _ = io.Copy(direction.to, direction.from)
			direction.to.Close()
		})
	}
	group.Wait()
}
