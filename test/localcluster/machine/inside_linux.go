// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// What a machine's first process is given beside its standard files, and what it reports.
const (
	releaseFile = 3 + iota
	reportFile
	firstListener

	reportReady   = "ready"
	reportOverlay = "overlay"
)

// bootOrder is what a machine's first process has to know.
type bootOrder struct {
	// Group is the name of the machine's control groups.
	Group string
	// Listeners is the number of listeners that were handed over.
	Listeners int
	Options   Options
}

// processFile is the first process of the machine that a command enters.
const processFile = 3

// Main does what a process of a rack has to do, and returns an exit code. args are
// the program's arguments after Component.
func Main(ctx context.Context, args []string) int {
	var err error
	switch {
	case len(args) == 2 && args[0] == "init":
		err = initialize(args[1])
	case len(args) == 2 && args[0] == "run":
		err = run(args[1])
	case len(args) >= 3 && args[0] == "enter":
		err = enter(args[1], args[2:])
	case len(args) == 2 && args[0] == "sweep":
		err = sweep(ctx, os.Stdin, args[1])
	default:
		err = fmt.Errorf("machine %q: it is for processes of localcluster", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// initialize waits until the process is in its control groups, makes them the
// roots of those that the machine sees, and runs the machine.
func initialize(order string) error {
	release := os.NewFile(releaseFile, "release")
	if _, err := io.Copy(io.Discard, release); err != nil {
		return err
	}
	if err := release.Close(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// A namespace of control groups is that of a thread; exec makes it the process's.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("making a namespace of control groups: %w", err)
	}
	err = syscall.Exec(self, []string{self, Component, "run", order}, os.Environ())
	return fmt.Errorf("%s: %w", self, err)
}

// run sets up the machine and is its first process. It returns only errors.
func run(order string) error {
	var o bootOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(o.Options.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := setUpRoot(o.Group, &o.Options); err != nil {
		return err
	}
	if cgroups.IsCgroup2UnifiedMode() {
		if err := delegateControllers("/sys/fs/cgroup"); err != nil {
			return err
		}
	}
	// The machine routes packets to its pods.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	report := reportReady
	if canOverlay("/var/tmp/overlay") {
		report += " " + reportOverlay
	}
	file := os.NewFile(reportFile, "report")
	if _, err := file.WriteString(report); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	// Processes whose parents have gone become ours. The kernel buries them then.
	signal.Ignore(unix.SIGCHLD)
	for i := range o.Listeners {
		if err := forward(firstListener + i); err != nil {
			return err
		}
	}
	for {
		// It returns after a signal that is handled, and there is none.
		if err := unix.Pause(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// delegateControllers moves this process, the only one in the group at root, into
// a group below it, and lets groups there have limits.
func delegateControllers(root string) error {
	path := filepath.Join(root, leaf)
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := cgroups.WriteCgroupProc(path, 0); err != nil {
		return err
	}
	controllers, err := cgroups.ReadFile(root, "cgroup.controllers")
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(controllers) {
		if err := cgroups.WriteFile(root, "cgroup.subtree_control", "+"+controller); err != nil {
			return err
		}
	}
	// A container that has not delegated them to its children cannot give them to us either.
	for _, needed := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(strings.Fields(controllers), needed) {
			return fmt.Errorf("control groups of version 2 have no controller %s here, only: %s", needed, controllers)
		}
	}
	return nil
}

// forward serves a listener that was handed over.
func forward(file int) error {
	listener, err := net.FileListener(os.NewFile(uintptr(file), "listener"))
	if err != nil {
		return fmt.Errorf("file %d: %w", file, err)
	}
	go serve(listener)
	return nil
}

// serve connects clients to the same port of the loopback address.
func serve(listener net.Listener) {
	_, port, err := net.SplitHostPort(listener.Addr().String())
	for err == nil {
		var client net.Conn
		if client, err = listener.Accept(); err == nil {
			go connect(client.(*net.TCPConn), net.JoinHostPort("127.0.0.1", port))
		}
	}
	fmt.Fprintln(os.Stderr, err)
}

// connect copies between a client and an address until both have said all.
func connect(client *net.TCPConn, address string) {
	// What has happened to one end, the other one sees by its connection's end.
	defer func() { _ = client.Close() }()
	conn, err := (&net.Dialer{}).Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	server := conn.(*net.TCPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		transfer(server, client)
	}()
	transfer(client, server)
	<-done
}

func transfer(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

// enter replaces the process, whose number is one of the machine's already, by a
// program in all of the machine's other namespaces and in its control groups.
func enter(group string, command []string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	// The groups' folders are the host's.
	if err := join(group); err != nil {
		return fmt.Errorf("entering control groups: %w", err)
	}
	// Namespaces are those of a thread, as is the folder it works in; exec makes
	// them the process's.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	if err := unix.Setns(processFile, flags); err != nil {
		return fmt.Errorf("entering namespaces: %w", err)
	}
	unix.CloseOnExec(processFile)
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return fmt.Errorf("%s: %w", command[0], syscall.Exec(command[0], command, os.Environ()))
}

// canOverlay says whether overlay file systems can be made of folders on the disk
// that dir is on. It makes dir, and removes it.
func canOverlay(dir string) bool {
	lower, upper, work, merged := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "merged")
	for _, path := range []string{lower, upper, work, merged} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return false
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return false
	}
	return unix.Unmount(merged, unix.MNT_DETACH) == nil && os.RemoveAll(dir) == nil
}
