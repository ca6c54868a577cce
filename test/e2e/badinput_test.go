// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"everynode.dev/everynode/test/localcluster"
)

// nowhere is a kubeconfig of an API server that does not exist.
const nowhere = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: x}}]
current-context: c
`

// program runs one of our programs until it ends or has said want, and returns
// what it has said and whether it failed.
func program(t *testing.T, name, want string, args ...string) (output string, failed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(*binDir, name), args...)
	said := &until{want: want, then: cancel}
	command.Stdout, command.Stderr = said, said
	err := command.Run()
	return said.String(), err != nil
}

// until keeps what is written, and calls then once it holds want.
type until struct {
	// Not embedded: a ReadFrom of its own would pass Write by.
	buffer bytes.Buffer
	want   string
	then   func()
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.buffer.Write(p)
	if u.then != nil && strings.Contains(u.buffer.String(), u.want) {
		u.then()
		u.then = nil
	}
	return n, err
}

func (u *until) String() string { return u.buffer.String() }

// Whatever is wrong with its input, the scheduler says so in one line that names
// the field.
func TestSchedulerBadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig := write("kubeconfig", nowhere)
	shipped, err := os.ReadFile("../../deploy/scheduler-config/second.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(string(localcluster.WithKubeconfig(shipped, kubeconfig)), "leaderElect: true", "leaderElect: false")
	withArgs := func(args string) string {
		return strings.Replace(config, "    plugins:\n", "    pluginConfig: [{name: DaemonSetHeadroom, args: "+args+"}]\n    plugins:\n", 1)
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })

	tests := map[string]struct {
		config string
		args   []string
		want   string
	}{
		"a misspelt argument":      {withArgs("{holdAgaints: All}"), nil, `decoding the args of DaemonSetHeadroom: unknown field \"holdAgaints\"`},
		"an unknown value":         {withArgs("{holdAgainst: Everybody}"), nil, `args.holdAgainst: Unsupported value: \"Everybody\": supported values: \"SameOrLower\", \"All\"`},
		"a misspelt plugin":        {strings.ReplaceAll(config, "name: DaemonSetPlacement", "name: DaemonSetPlacment"), nil, `\"DaemonSetPlacment\" does not exist`},
		"a misspelt field":         {strings.Replace(config, "profiles:", "profile:", 1), nil, `unknown field \"profile\"`},
		"a file that is no YAML":   {"{", nil, "command failed"},
		"an API server that's off": {config, nil, "check clientConnection.kubeconfig and the ClusterRole everynode-scheduler"},
		"a port in use": {config, []string{"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)},
			"bind: address already in use"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--config=" + write(strings.ReplaceAll(name, " ", "-"), tc.config), "--secure-port=0"}, tc.args...)
			output, failed := program(t, "everynode-scheduler", tc.want, args...)
			if !failed || !strings.Contains(output, tc.want) {
				t.Errorf("failed is %v, output is\n%s\nwant %s", failed, output, tc.want)
			}
			if strings.Contains(output, "goroutine ") {
				t.Errorf("it has crashed:\n%s", output)
			}
		})
	}
}

// The same for the webhook.
func TestWebhookBadInput(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no namespace":          {[]string{"--kubeconfig=KUBECONFIG"}, "--namespace is required outside of a cluster, or --tls-cert-file and --tls-private-key-file"},
		"half a certificate":    {[]string{"--tls-cert-file=x"}, "--tls-cert-file and --tls-private-key-file: give both, or neither"},
		"no time to renew":      {[]string{"--cert-lifetime=1s"}, "--cert-lifetime is 1s, must be between 5s and 87600h0m0s"},
		"a missing certificate": {[]string{"--tls-cert-file=/nowhere", "--tls-private-key-file=/nowhere", "--kubeconfig=KUBECONFIG"}, "--tls-cert-file, --tls-private-key-file: open /nowhere: no such file or directory"},
		"a misspelt flag":       {[]string{"--tls-cert-fil=x"}, "unknown flag: --tls-cert-fil"},
		"an argument":           {[]string{"serve"}, `unknown command "serve"`},
		"missing policies":      {[]string{"--config=/nowhere", "--kubeconfig=KUBECONFIG"}, "--config: open /nowhere: no such file or directory"},
		"wrong policies":        {[]string{"--check-config=KUBECONFIG"}, `kubeconfig: unknown field "clusters"`},
		"a missing kubeconfig":  {[]string{"--tls-cert-file=x", "--tls-private-key-file=x", "--kubeconfig=/nowhere"}, "--kubeconfig: stat /nowhere: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range tc.args {
				tc.args[i] = strings.ReplaceAll(tc.args[i], "KUBECONFIG", kubeconfig)
			}
			output, failed := program(t, "everynode-webhook", tc.want, tc.args...)
			if !failed || !strings.Contains(output, tc.want) {
				t.Errorf("failed is %v, output is\n%s\nwant %s", failed, output, tc.want)
			}
		})
	}
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	file := newPolicyFile(t, "  - {name: all, pod: {schedulerName: everynode-scheduler}}")
	output, err := exec.CommandContext(t.Context(), filepath.Join(*binDir, "everynode-webhook"), "--check-config="+string(file)).CombinedOutput()
	if want := string(file) + " is valid, policies: 1\n"; err != nil || string(output) != want {
		t.Errorf("output is %q (%v), want %q", output, err, want)
	}
}
