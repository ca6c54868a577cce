// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/opencontainers/cgroups"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Machine is a running machine.
type Machine struct {
	// Overlay says whether the machine's disk can hold overlay file systems. Most
	// can; another overlay file system cannot.
	Overlay bool

	rack    *Rack
	options Options
	group   cgroups.Manager
	network netns.NsHandle
	// process refers to the first process.
	process *os.File
	once    sync.Once
}

// Boot starts a machine. launch starts the machine's first process, whose end is
// that of the machine, and returns its process id; it has to have the kernel kill
// that process when its parent dies (prctl(2), PR_SET_PDEATHSIG).
func (r *Rack) Boot(options Options, launch func(*exec.Cmd) (pid int, err error)) (_ *Machine, err error) {
	m := &Machine{rack: r, options: options, network: netns.None()}
	defer func() {
		if err != nil {
			m.close()
			err = fmt.Errorf("booting machine %s: %w", options.Name, err)
		}
	}()
	if m.group, err = newGroup(r.groupName(options.Name)); err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	pid, err := m.start(launch)
	if err != nil {
		return nil, err
	}
	if err := m.open(pid); err != nil {
		return nil, err
	}
	if err := m.plugIn(); err != nil {
		return nil, fmt.Errorf("connecting it to the network: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.machines = append(r.machines, m)
	return m, nil
}

func (r *Rack) groupName(machine string) string { return r.name + "-" + machine }

// start starts the first process and waits until it has set up the machine.
func (m *Machine) start(launch func(*exec.Cmd) (int, error)) (pid int, err error) {
	group := m.rack.groupName(m.options.Name)
	order, err := json.Marshal(bootOrder{Group: group, Listeners: len(m.options.Listeners), Options: m.options})
	if err != nil {
		return 0, err
	}
	waits, release, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer release.Close()
	defer waits.Close()
	reads, report, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer reads.Close()
	defer report.Close()

	command := exec.Command(m.rack.program, Component, "init", string(order)) //nolint:noctx // whoever launches it ends it
	command.ExtraFiles = append([]*os.File{waits, report}, m.options.Listeners...)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if pid, err = launch(command); err != nil {
		return 0, err
	}
	// Its control groups become the roots of those that it sees, so it waits to be in them.
	if err := m.group.Apply(pid); err != nil {
		return 0, fmt.Errorf("control groups: %w", err)
	}
	if err := errors.Join(release.Close(), report.Close()); err != nil {
		return 0, err
	}
	said, err := io.ReadAll(reads)
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(said, []byte(reportReady)) {
		return 0, errors.New("its first process has ended")
	}
	m.Overlay = bytes.HasSuffix(said, []byte(reportOverlay))
	return pid, nil
}

// open keeps hold of the first process and its network.
func (m *Machine) open(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	m.process = os.NewFile(uintptr(fd), "pidfd")
	m.network, err = netns.GetFromPid(pid)
	return err
}

// Command returns a command that Start can start. The machine has to see its
// program and folder at their paths.
func (m *Machine) Command(program string, args ...string) *exec.Cmd {
	args = append([]string{Component, "enter", m.rack.groupName(m.options.Name), program}, args...)
	command := exec.Command(m.rack.program, args...) //nolint:noctx // whoever starts it ends it
	command.ExtraFiles = []*os.File{m.process}
	return command
}

// Start starts a Command in the machine, whose processes end with its first one.
func (m *Machine) Start(command *exec.Cmd) error {
	result := make(chan error)
	go func() {
		// A process gets its number in the namespace that the thread which starts it has
		// chosen for its children. This thread ends with the goroutine: it is not unlocked.
		runtime.LockOSThread()
		if err := unix.Setns(int(m.process.Fd()), unix.CLONE_NEWPID); err != nil {
			result <- fmt.Errorf("entering machine %s: %w", m.options.Name, err)
			return
		}
		result <- command.Start()
	}()
	return <-result
}

// Off removes what is left of a machine whose first process has ended. Its disk
// is kept.
func (m *Machine) Off(ctx context.Context) error {
	m.close()
	return destroyGroup(ctx, m.group)
}

func (m *Machine) close() {
	m.once.Do(func() {
		// The namespaces are released in any case.
		if m.process != nil {
			_ = m.process.Close()
		}
		if m.network.IsOpen() {
			_ = m.network.Close()
		}
	})
}
