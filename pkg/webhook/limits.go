// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// What all clients together can make the server hold. The sum is less than half of the
// chart's memory limit (512 Mi).
const (
	// maxBody limits a request. An object in etcd has at most 1.5 MiB by default and
	// 3 MiB at most (the API server's limit on a request, MaxRequestBodyBytes). An UPDATE
	// carries two of them; the rest of a review is less than 1 MiB.
	maxBody = 7 << 20
	// maxHeader limits the header of a request, in bytes. The API server sends less than 2 KiB.
	maxHeader = 16 << 10
	// maxStreams limits the requests of one HTTP/2 connection (RFC 9113 advises against less).
	maxStreams = 100
	// maxFrame limits a frame of HTTP/2, which each connection has a buffer for, in bytes
	// (the least that RFC 9113 allows; Go's default is 1 MiB).
	maxFrame = 16 << 10
	// maxConnections limits open connections. Each takes up to 64 KiB.
	maxConnections = 1000
	// maxRequests limits the requests that are in flight.
	maxRequests = 512
	// maxRequestMemory and maxMemory limit what one request, and all of them, take once
	// they are decoded, in bytes as decodedSize estimates them. A pod takes 0.25 MiB.
	maxRequestMemory, maxMemory = 64 << 20, 128 << 20
)

// How long clients may take.
const (
	// headerTimeout is for the TLS handshake, and for the header of a request.
	headerTimeout = 5 * time.Second
	// readTimeout is for a whole request, on every route. The API server sends it at once.
	readTimeout = 10 * time.Second
	// idleTimeout is for a connection without requests. The API server keeps
	// connections for 90 s, and has to be the one that ends them.
	idleTimeout = 2 * time.Minute
)

var (
	errTooLarge = errors.New("the request would take too much memory")
	errCutOff   = errors.New("too many requests at a time, and this one has been in flight for longest")
)

// inFlight limits the requests that are in flight, and the memory that they take.
// Beyond a limit the oldest request is cut off, not the newest one refused: the API
// server sends a review at once and has its answer after milliseconds, so the oldest
// request is that of a slow client. Slow clients never keep others out.
type inFlight struct {
	maxRequests                 int
	maxRequestMemory, maxMemory int64

	mu     sync.Mutex
	memory int64
	// requests are *inFlightRequest, the oldest one first.
	requests list.List
}

type inFlightRequest struct {
	io.ReadCloser // the body
	limits        *inFlight
	memory        int64
	// element is nil once the request is cut off.
	element *list.Element
	cutOff  func()
}

func newInFlight() *inFlight {
	return &inFlight{maxRequests: maxRequests, maxRequestMemory: maxRequestMemory, maxMemory: maxMemory}
}

// limit has next handle requests within the limits. A request that is cut off gets
// errCutOff from its body or as the cause of its context's end.
func (f *inFlight) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		request := &inFlightRequest{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), limits: f, cutOff: func() {
			cancel(errCutOff)
			// Wakes up a handler that reads the body.
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // Only the recorders of tests cannot.
		}}
		f.begin(request)
		defer f.end(request)
		r = r.WithContext(ctx)
		r.Body = request
		next.ServeHTTP(w, r)
	})
}

func (f *inFlight) begin(r *inFlightRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.element = f.requests.PushBack(r)
	f.cutOffOldest()
}

func (f *inFlight) end(r *inFlightRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(r)
}

// remove does nothing to a request that has been removed before. f.mu has to be held.
func (f *inFlight) remove(r *inFlightRequest) {
	if r.element != nil {
		f.requests.Remove(r.element)
		f.memory -= r.memory
		r.element = nil
	}
}

// cutOffOldest brings the requests back within the limits. f.mu has to be held.
func (f *inFlight) cutOffOldest() {
	for f.requests.Len() > f.maxRequests || f.memory > f.maxMemory {
		oldest := f.requests.Front().Value.(*inFlightRequest)
		f.remove(oldest)
		oldest.cutOff()
	}
}

// Read reads from the body, and counts the memory that is needed for it.
func (r *inFlightRequest) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if counted := r.count(decodedSize(p[:n])); counted != nil {
		return n, counted
	}
	return n, err
}

func (r *inFlightRequest) count(size int64) error {
	f := r.limits
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.memory+size > f.maxRequestMemory {
		return errTooLarge
	}
	if r.element != nil {
		r.memory += size
		f.memory += size
		f.cutOffOldest()
	}
	if r.element == nil {
		return errCutOff
	}
	return nil
}

// decodedSize estimates, upwards, how many bytes a piece of JSON takes once it is decoded: 3
// bytes of text, "{},", can become a container of 1 KiB.
func decodedSize(text []byte) int64 {
	return int64(len(text)) + int64(bytes.Count(text, []byte("{")))<<10 + int64(bytes.Count(text, []byte(",")))<<6
}

// connections limits open connections. Beyond the limit it closes the one that has had
// no request for longest, so that idle connections do not keep others out.
type connections struct {
	max int

	mu sync.Mutex
	// open has the place of each connection in idle or in active; both have those first
	// that have been there for longest.
	open         map[net.Conn]place
	idle, active list.List
}

type place struct {
	list    *list.List
	element *list.Element
}

// changed is called for every change of a connection's state (http.Server.ConnState).
func (c *connections) changed(connection net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(connection)
	if state == http.StateClosed {
		return
	}
	in := &c.idle
	if state == http.StateActive {
		in = &c.active
	}
	if c.open == nil {
		c.open = make(map[net.Conn]place)
	}
	c.open[connection] = place{in, in.PushBack(connection)}
	for len(c.open) > c.max {
		oldest := c.idle.Front()
		if oldest == nil {
			oldest = c.active.Front()
		}
		c.close(oldest.Value.(net.Conn))
	}
}

func (c *connections) remove(connection net.Conn) {
	if at, ok := c.open[connection]; ok {
		at.list.Remove(at.element)
		delete(c.open, connection)
	}
}

func (c *connections) close(connection net.Conn) {
	c.remove(connection)
	// To end a TLS session in good order takes up to 5 s if the client reads nothing.
	if secure, ok := connection.(*tls.Conn); ok {
		connection = secure.NetConn()
	}
	connection.Close()
}
