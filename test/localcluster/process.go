// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Process is one component of a running cluster.
type Process struct {
	// Name is the component's name.
	Name string
	// Log is the file that receives its output.
	Log string

	cmd    *exec.Cmd
	exited chan struct{}
	// err is why the process ended. Read it after exited is closed.
	err error
}

// startProcess has start start a command whose output goes to dir/name.log. A
// process that is started again appends to its log.
func startProcess(dir, name string, command *exec.Cmd, start func(*exec.Cmd) error) (*Process, error) {
	p := &Process{
		Name:   name,
		Log:    filepath.Join(dir, name+".log"),
		cmd:    command,
		exited: make(chan struct{}),
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintf(log, "$ %s\n", strings.Join(command.Args, " "))
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// An interrupt typed in a terminal is for the process that owns the cluster.
	p.cmd.SysProcAttr.Setpgid = true
	if err := start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// startOnLivingThread starts cmd, to die with us, from a thread that lives as long
// as the program: Linux takes the end of the thread that started a child for the end of
// its parent (prctl(2), PR_SET_PDEATHSIG).
func startOnLivingThread(cmd *exec.Cmd) error {
	dieWithParent(cmd.SysProcAttr)
	result := make(chan error)
	starts() <- func() { result <- cmd.Start() }
	return <-result
}

var starts = sync.OnceValue(func() chan<- func() {
	queue := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range queue {
			start()
		}
	}()
	return queue
})

// Pid returns the process id.
func (p *Process) Pid() int {
	return p.cmd.Process.Pid
}

// Kill ends the process at once (SIGKILL) and waits until it has gone.
func (p *Process) Kill() {
	// It may have ended already.
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Stop asks the process to end (SIGTERM) and waits until it has gone or ctx ends.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping %s: %w", p.Name, context.Cause(ctx))
	}
}

// Pause halts the process (SIGSTOP) until Resume.
func (p *Process) Pause() error {
	return p.cmd.Process.Signal(syscall.SIGSTOP)
}

// Resume lets a paused process go on.
func (p *Process) Resume() error {
	return p.cmd.Process.Signal(syscall.SIGCONT)
}

// waitReady polls ready until it succeeds. It gives up when the process ends,
// and says then what the process said last.
func (p *Process) waitReady(ctx context.Context, ready func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		select {
		case <-p.exited:
			return false, fmt.Errorf("it has ended: %w", p.err)
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last = ready(attempt)
		return last == nil, nil
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && last != nil {
		err = last
	}
	return fmt.Errorf("%s did not become ready: %w\nIts log ends with:\n%s", p.Name, err, p.tail(10))
}

// tail returns the last lines of the log.
func (p *Process) tail(lines int) string {
	content, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
