// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Rack is a set of machines on one network.
type Rack struct {
	program string
	// name is how the names of the machines' control groups begin.
	name string

	// The network is a bridge in a namespace that lasts as long as network is open.
	network netns.NsHandle
	links   *netlink.Handle
	bridge  *netlink.Bridge

	sweeper *sweeper

	mu       sync.Mutex // protects the rest
	machines []*Machine
}

// NewRack returns a rack without machines. program is the path of a program that
// hands its arguments to Main if the first of them is Component. The caller has to
// Close the rack.
func NewRack(program string) (_ *Rack, err error) {
	r := &Rack{program: program, name: "everynode-" + rand.String(8), network: netns.None()}
	defer func() {
		if err != nil {
			r.closeNetwork()
		}
	}()
	if err := r.makeNetwork(); err != nil {
		return nil, fmt.Errorf("making a network in a namespace of its own: %w", err)
	}
	if r.sweeper, err = startSweeper(program, r.name); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rack) makeNetwork() (err error) {
	if r.network, err = newNetworkNamespace(); err != nil {
		return err
	}
	if r.links, err = netlink.NewHandleAt(r.network); err != nil {
		return err
	}
	r.bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}
	if err := r.links.LinkAdd(r.bridge); err != nil {
		return fmt.Errorf("adding a bridge: %w", err)
	}
	return r.links.LinkSetUp(r.bridge)
}

// newNetworkNamespace returns a new namespace, which no process is in.
func newNetworkNamespace() (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	results := make(chan result)
	go func() {
		// The thread is in the namespace now and ends with the goroutine: it is not unlocked.
		runtime.LockOSThread()
		handle, err := netns.New()
		results <- result{handle, err}
	}()
	r := <-results
	return r.handle, r.err
}

func (r *Rack) closeNetwork() {
	if r.links != nil {
		r.links.Close()
	}
	if r.network.IsOpen() {
		// The namespace is released in any case.
		_ = r.network.Close()
	}
}

// Close removes what is left of machines whose first processes have ended, and
// returns when nothing is.
func (r *Rack) Close() error {
	r.mu.Lock()
	for _, m := range r.machines {
		m.close()
	}
	r.mu.Unlock()
	r.closeNetwork()
	return r.sweeper.stop()
}

// sweeper is a process that removes the control groups of a rack when the process
// that made the rack has gone, however it went.
type sweeper struct {
	command *exec.Cmd
	output  *bytes.Buffer
	// alive is a pipe that nobody writes to: the sweeper sees it being closed.
	alive *os.File
}

func startSweeper(program, name string) (*sweeper, error) {
	sees, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer sees.Close()
	s := &sweeper{alive: alive, output: &bytes.Buffer{}}
	s.command = exec.Command(program, Component, "sweep", name) //nolint:noctx // it ends when the rack does
	s.command.Dir = "/"
	s.command.Stdin, s.command.Stderr = sees, s.output
	// What ends us, such as Ctrl-C or the end of a terminal, is not for it.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the sweeper of control groups: %w", err), alive.Close())
	}
	return s, nil
}

func (s *sweeper) stop() error {
	if err := s.alive.Close(); err != nil {
		return err
	}
	if err := s.command.Wait(); err != nil {
		return fmt.Errorf("removing control groups: %w: %s", err, bytes.TrimSpace(s.output.Bytes()))
	}
	return nil
}
