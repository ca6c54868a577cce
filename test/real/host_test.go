// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package real

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// inventory is what a cluster has no business to change on its host.
type inventory struct {
	Mounts, Interfaces, Routes, Filters []string
}

// takeInventory lists it.
func takeInventory(t *testing.T) inventory {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var i inventory
	for _, link := range interfaces {
		addresses, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		i.Interfaces = append(i.Interfaces, fmt.Sprint(link.Name, " ", link.Flags, " ", addresses))
	}
	i.Mounts = linesOf(t, "/proc/self/mountinfo")
	i.Routes = linesOf(t, "/proc/self/net/route")
	filters, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, filters)
	}
	// With iptables' older back end, rules are in tables of this list.
	i.Filters = append(strings.Split(string(filters), "\n"), linesOf(t, "/proc/self/net/ip_tables_names")...)
	return i
}

// linesOf returns the lines of a file, none if it does not exist.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// footprint is what a cluster's machines have on the host.
type footprint struct {
	// groups is how the names of their control groups begin.
	groups string
	// networks are the network namespaces that their processes are in.
	networks []string
}

// footprintOf returns the footprint of the cluster that a machine's process belongs to.
func footprintOf(t *testing.T, pid int) footprint {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	group := regexp.MustCompile(`everynode-[a-z0-9]+-`).FindString(string(content))
	if group == "" {
		t.Fatalf("process %d is in no control group of a machine:\n%s", pid, content)
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{groups: group}
	for _, process := range processes(func(pid int) bool { return bytes.Contains(readProc(pid, "cgroup"), []byte(group)) }) {
		// A process that enters a machine is in its control group first, and still in the host's network.
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", process))
		if err == nil && namespace != host && !slices.Contains(f.networks, namespace) {
			f.networks = append(f.networks, namespace)
		}
	}
	if len(f.networks) < 2 {
		t.Fatalf("the machines are in the network namespaces %v", f.networks)
	}
	return f
}

// left returns what is left of it.
func (f footprint) left() []string {
	var left []string
	for _, depth := range []string{"", "*/"} {
		groups, err := filepath.Glob("/sys/fs/cgroup/" + depth + f.groups + "*")
		if err != nil {
			return []string{err.Error()}
		}
		left = append(left, groups...)
	}
	for _, pid := range processes(func(pid int) bool {
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err == nil && slices.Contains(f.networks, namespace) || bytes.Contains(readProc(pid, "cgroup"), []byte(f.groups))
	}) {
		left = append(left, fmt.Sprintf("process %d (%s)", pid, bytes.ReplaceAll(readProc(pid, "cmdline"), []byte{0}, []byte{' '})))
	}
	return left
}

// processes returns the ids of the processes that match.
func processes(match func(pid int) bool) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(filepath.Base(entry)); err == nil && match(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// readProc returns what the kernel says of a process, nothing if it has gone.
func readProc(pid int, file string) []byte {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil
	}
	return content
}

// processesOfPod returns the processes of a pod's containers.
func processesOfPod(pod *corev1.Pod) []int {
	return processes(func(pid int) bool {
		environment := bytes.Split(readProc(pid, "environ"), []byte{0})
		return slices.ContainsFunc(environment, func(variable []byte) bool { return string(variable) == "HOSTNAME="+pod.Name })
	})
}

// However the process that owns a cluster ends, nothing of the cluster is left. The
// clusters run at the same time, with the same names and addresses.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	skipIfMissing(t)
	for name, signal := range map[string]os.Signal{"Ctrl-C": os.Interrupt, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := takeInventory(t)
			home := t.TempDir()
			up := exec.CommandContext(t.Context(), filepath.Join(*binDir, "localcluster"), "up", "--real", "1")
			up.Env = append(os.Environ(), "XDG_CACHE_HOME="+home)
			output, err := up.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			up.Stderr = os.Stderr
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			awaitLine(t, output, "Ctrl-C ends the cluster")
			machines := processes(func(pid int) bool {
				return bytes.Contains(readProc(pid, "cmdline"), []byte(home)) && bytes.Contains(readProc(pid, "cmdline"), []byte("machine\x00run"))
			})
			if len(machines) != 2 {
				t.Fatalf("there are %d machines, want the control plane's and the node's", len(machines))
			}
			footprint := footprintOf(t, machines[0])

			if err := up.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := up.Wait(); err != nil && signal != syscall.SIGKILL {
				t.Errorf("it ended with: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
				return len(footprint.left()) == 0, nil
			})
			if err != nil {
				t.Errorf("these are left behind: %s", strings.Join(footprint.left(), ", "))
			}
			if diff := cmp.Diff(before, takeInventory(t)); diff != "" {
				t.Errorf("the host has changed (-before, +after):\n%s", diff)
			}
		})
	}
}

// awaitLine reads until a line says what is wanted.
func awaitLine(t *testing.T, from io.Reader, want string) {
	t.Helper()
	var said strings.Builder
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		if strings.Contains(lines.Text(), want) {
			return
		}
		fmt.Fprintln(&said, lines.Text())
	}
	t.Fatalf("it did not say %q, but:\n%s", want, &said)
}
