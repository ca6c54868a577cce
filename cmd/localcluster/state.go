// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
)

// state is the folder of a named cluster, which 'up' holds a lock on as long as
// the cluster runs.
type state struct{ name string }

func (s *state) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.name, "name", "default", "name of the cluster; several can run at once")
}

// dir is where the cluster's files are, which only its owner may read.
func (s *state) dir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "everynode", s.name)
}

func (s *state) kubeconfig() string { return filepath.Join(s.dir(), "admin.kubeconfig") }
func (s *state) lockFile() string   { return filepath.Join(s.dir(), "lock") }
func (s *state) readyFile() string  { return filepath.Join(s.dir(), "ready") }

// lock makes the folder empty and ours. It fails if the cluster runs already.
func (s *state) lock() (unlock func(), err error) {
	if problems := validation.IsDNS1123Label(s.name); len(problems) > 0 {
		return nil, fmt.Errorf("--name is %q: %s", s.name, strings.Join(problems, ", "))
	}
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(s.lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster %q is running: end it with 'localcluster down --name %s', or choose another --name", s.name, s.name), file.Close())
	}
	// What an earlier cluster has left, but for the lock and our own output.
	entries, err := os.ReadDir(s.dir())
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "lock" && name != "localcluster.log" {
			if err := os.RemoveAll(filepath.Join(s.dir(), name)); err != nil {
				return nil, err
			}
		}
	}
	if err := file.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return nil, err
	}
	// The kernel releases the lock with the last handle, also if we are killed.
	return func() { _ = file.Close() }, nil
}

// running returns the process id of the 'up' that runs the cluster.
func (s *state) running() (pid int, ok bool) {
	file, err := os.Open(s.lockFile())
	if err != nil {
		return 0, false
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0, false
	}
	content, err := os.ReadFile(s.lockFile())
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(string(content))
	return pid, err == nil
}

// stop ends the cluster and waits until it has gone.
func (s *state) stop(ctx context.Context) error {
	pid, ok := s.running()
	if !ok {
		return fmt.Errorf("cluster %q is not running", s.name)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(context.Context) (bool, error) {
		_, ok := s.running()
		return !ok, nil
	})
}

// clear prepares the folder for a cluster that will report that it is ready.
func (s *state) clear() error {
	if _, ok := s.running(); ok {
		return fmt.Errorf("cluster %q is running: end it with 'localcluster down --name %s', or choose another --name", s.name, s.name)
	}
	if err := os.Remove(s.readyFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.MkdirAll(s.dir(), 0o700)
}

func (s *state) setReady() error {
	return os.WriteFile(s.readyFile(), nil, 0o600)
}

func (s *state) isReady() bool {
	_, err := os.Stat(s.readyFile())
	return err == nil
}
