// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// localclusterCommand returns a command of cmd/localcluster whose state is in home.
func localclusterCommand(ctx context.Context, home string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(*binDir, "localcluster"), args...)
	command.Env = append(os.Environ(), "XDG_CACHE_HOME="+home)
	return command
}

func run(t *testing.T, home string, args ...string) string {
	t.Helper()
	output, err := localclusterCommand(t.Context(), home, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("localcluster %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// processesOf returns the processes that work in a folder.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		// A process may be gone by now.
		if cmdline, err := os.ReadFile(entry); err == nil && bytes.Contains(cmdline, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// However the process that owns a cluster ends, the cluster ends with it.
func TestLocalclusterEnds(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells children that their parent was killed")
	}
	for name, signal := range map[string]os.Signal{"Ctrl-C": os.Interrupt, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			up := localclusterCommand(t.Context(), home, "up", "--nodes", "1")
			ready := make(chan struct{})
			said := &until{want: "Ctrl-C ends the cluster", then: func() { close(ready) }}
			up.Stdout, up.Stderr = said, said
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- up.Wait() }()
			select {
			case <-ready:
			case err := <-ended:
				t.Fatalf("it has ended: %v", err)
			}
			if processes := processesOf(t, home); len(processes) < 6 {
				t.Errorf("these run: %v", processes)
			}
			if err := up.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			err := <-ended
			if exit := (*exec.ExitError)(nil); name == "Ctrl-C" && err != nil || err != nil && !errors.As(err, &exit) {
				t.Errorf("it ended with %v\n%s", err, said)
			}
			var left []string
			err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 5*time.Second, true, func(context.Context) (bool, error) {
				left = processesOf(t, home)
				return len(left) == 0, nil
			})
			if err != nil {
				t.Errorf("these survived: %v", left)
			}
		})
	}
}

func TestLocalclusterCommands(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	output := run(t, home, "up", "--detach", "--name", "e2e", "--nodes", "2")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		output, err := localclusterCommand(ctx, home, "down", "--name", "e2e").CombinedOutput()
		if err != nil || !strings.Contains(string(output), "has ended") {
			t.Errorf("down: %v\n%s", err, output)
		}
		if left := processesOf(t, home); len(left) > 0 {
			t.Errorf("these survived: %v", left)
		}
	})
	for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kwok", "everynode-scheduler", "everynode-webhook", "2 nodes"} {
		if !strings.Contains(output, component+" ") {
			t.Errorf("up does not mention %s:\n%s", component, output)
		}
	}
	kubeconfig := filepath.Join(home, "everynode", "e2e", "admin.kubeconfig")
	if want := "export KUBECONFIG=" + kubeconfig; !strings.Contains(output, want) {
		t.Errorf("up does not print %q:\n%s", want, output)
	}

	if second, err := localclusterCommand(t.Context(), home, "up", "--name", "e2e").CombinedOutput(); err == nil ||
		!strings.Contains(string(second), `cluster "e2e" is running: end it with 'localcluster down --name e2e', or choose another --name`) {
		t.Errorf("a second cluster of that name: %v\n%s", err, second)
	}

	run(t, home, "node", "--name", "e2e", "add", "big", "--label", "disktype=ssd", "--capacity", "cpu=64,example.com/gpu=8")
	run(t, home, "node", "--name", "e2e", "label", "node-1", "disktype=hdd")
	run(t, home, "node", "--name", "e2e", "taint", "node-1", "maintenance=now:NoSchedule")
	run(t, home, "node", "--name", "e2e", "remove", "node-2")
	kubectl := exec.CommandContext(t.Context(), filepath.Join(*binDir, "kubectl"), "--kubeconfig", kubeconfig, "get", "nodes", "-o",
		`go-template={{range .items}}{{.metadata.name}} {{.metadata.labels.disktype}} {{index .status.allocatable "cpu"}} {{range .spec.taints}}{{.key}} {{end}}{{"\n"}}{{end}}`)
	nodes, err := kubectl.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, nodes)
	}
	for _, want := range []string{"big ssd 64", "node-1 hdd 4 maintenance"} {
		if !strings.Contains(string(nodes), want) {
			t.Errorf("nodes are\n%s\nwant %s", nodes, want)
		}
	}
	if strings.Contains(string(nodes), "node-2") {
		t.Errorf("node-2 is still there:\n%s", nodes)
	}
}

func TestLocalclusterBadInput(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"up --scheduler fast":            `--scheduler is "fast", must be one of everynode, stock, none`,
		"up --webhook maybe":             `--webhook is "maybe", must be on or off`,
		"up --kubernetes 1.34":           `--kubernetes is "1.34", must be one of 1.35, 1.36, 1.37`,
		"up --kubernetes 1.36 --real 3":  "real nodes have the kubelet of Kubernetes 1.37, which must not be newer than the control plane of 1.36",
		"up --nodes -1":                  "--nodes is -1, must be between 0 and 10000",
		"up --name Me!":                  `--name is "Me!": a lowercase RFC 1123 label`,
		"up --scheduler-config /nowhere": "open /nowhere: no such file or directory",
		"down":                           `cluster "default" is not running`,
		"node add x":                     `cluster "default": it is not running`,
		"node add x --capacity cpu=lots": `cluster "default": it is not running`,
		"node remove":                    "requires at least 1 arg(s)",
		"up everything":                  `unknown command "everything"`,
	} {
		output, err := localclusterCommand(t.Context(), t.TempDir(), strings.Fields(args)...).CombinedOutput()
		if err == nil || !strings.Contains(string(output), want) {
			t.Errorf("localcluster %s: %v\n%s\nwant %s", args, err, output, want)
		}
	}
}
