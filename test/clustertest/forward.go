// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// Serve has handle serve the connections to a free port of this machine, which it
// returns, until the test ends.
func Serve(tb testing.TB, handle func(context.Context, net.Conn)) int {
	tb.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(tb.Context(), "tcp", "localhost:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { handle(ctx, connection) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		listener.Close()
		group.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

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

// Link is a network of one cable: it leads from a port of its own to another port of this
// machine, and can be cut.
type Link struct {
	// Port is where it begins.
	Port int

	mu sync.Mutex
	// broken is closed when the connections break, and flows while bytes flow.
	broken, flows chan struct{}
}

// NewLink returns a link to a port. It ends with the test.
func NewLink(tb testing.TB, port int) *Link {
	tb.Helper()
	l := &Link{broken: make(chan struct{}), flows: closed}
	l.Port = Serve(tb, func(ctx context.Context, client net.Conn) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		l.mu.Lock()
		broken := l.broken
		l.mu.Unlock()
		go func() {
			select {
			case <-broken:
				cancel()
			case <-ctx.Done():
			}
		}()
		Forward(ctx, &linked{client, l, ctx.Done()}, port)
	})
	return l
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Break ends all connections, and new ones at once, until Mend.
func (l *Link) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != closed {
		close(l.broken)
		l.broken = closed
	}
}

// Silence keeps what is sent from arriving, and has new connections hang, until Mend.
func (l *Link) Silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows == closed {
		l.flows = make(chan struct{})
	}
}

// Mend undoes Break and Silence. What was sent during a Silence arrives.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == closed {
		l.broken = make(chan struct{})
	}
	if l.flows != closed {
		close(l.flows)
		l.flows = closed
	}
}

// linked is a connection over a Link, from its beginning.
type linked struct {
	net.Conn
	link *Link
	end  <-chan struct{}
}

func (c *linked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wait()
	return n, err
}

func (c *linked) Write(p []byte) (int, error) {
	c.wait()
	return c.Conn.Write(p)
}

// wait returns when bytes flow, or the connection has ended.
func (c *linked) wait() {
	c.link.mu.Lock()
	flows := c.link.flows
	c.link.mu.Unlock()
	select {
	case <-flows:
	case <-c.end:
	}
}
