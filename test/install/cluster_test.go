// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
	"everynode.dev/everynode/test/rights"
)

var binDir = flag.String("bin", "../../bin", "folder with the programs that make build makes, and helm")

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "helm", "test-install") }

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// cluster is a cluster with two nodes.
type cluster struct {
	*localcluster.Cluster
	*testing.T
	// audit says what ServiceAccounts did.
	audit *rights.Log
}

func newCluster(t *testing.T, scheduler localcluster.Scheduler, apiServerFlags ...string) *cluster {
	t.Helper()
	audit, err := rights.NewLog(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, audit: audit}
	c.Cluster, err = localcluster.Start(t.Context(), localcluster.Options{
		BinDir:    *binDir,
		Scheduler: scheduler,
		Args: map[string][]string{
			// The Services' IPs are this machine's own, so that it can listen there.
			localcluster.APIServer: append(append(audit.Flags(), "--service-cluster-ip-range=127.10.0.0/16"), apiServerFlags...),
		},
	})
	t.Cleanup(c.Stop)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddNodes(t.Context(), localcluster.Nodes(1, 2)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.WaitNodesReady(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) kubectl(args ...string) string {
	c.Helper()
	return clustertest.Kubectl(c, c.Cluster, args...)
}

func (c *cluster) apply(manifests string) {
	c.Helper()
	clustertest.Apply(c, c.Cluster, manifests)
}

// helm runs helm as the administrator.
func (c *cluster) helm(args ...string) {
	c.Helper()
	if _, err := c.Helm(c.Context(), args...); err != nil {
		c.Fatal(err)
	}
}

// eventually waits until check returns nil.
func (c *cluster) eventually(what string, check func(context.Context) error) {
	c.Helper()
	clustertest.Eventually(c, patience, what, check)
}

// release is an installed chart.
type release struct {
	*node
	name, namespace string
}

// chart is the folder of the chart.
const chart = "../../charts/everynode"

// install installs a chart and waits until its pods are ready, and the webhook is called.
func (n *node) install(name, chart string, args ...string) *release {
	n.Helper()
	r := &release{node: n, name: name, namespace: "team-" + name}
	r.helm(append([]string{"install", name, chart, "--namespace", r.namespace, "--values", "testdata/values.yaml", "--wait", "--timeout", "2m"}, args...)...)
	// The webhook's Service has a port more here, by which the API server calls it.
	service, port := r.object("webhook"), n.serve(r.namespace, r.object("webhook"))
	r.kubectl("patch", "service", service, "--namespace", r.namespace, "--type=json", "-p",
		fmt.Sprintf(`[{"op": "add", "path": "/spec/ports/-", "value": {"name": "here", "port": %d, "targetPort": "https"}}]`, port))
	for _, kind := range []string{"mutatingwebhookconfiguration", "validatingwebhookconfiguration"} {
		names := strings.Fields(r.kubectl("get", kind, name+"-everynode", "--output=jsonpath={.webhooks[*].name}"))
		for i := range names {
			r.kubectl("patch", kind, name+"-everynode", "--type=json", "-p",
				fmt.Sprintf(`[{"op": "add", "path": "/webhooks/%d/clientConfig/service/port", "value": %d}]`, i, port))
		}
	}
	return r
}

// object returns the full name of one of the release's objects.
func (r *release) object(component string) string { return r.name + "-everynode-" + component }

// podNames returns the names of the pods of the release that run.
func (r *release) podNames() []string {
	r.Helper()
	pods, err := r.pods(r.Context(), ",app.kubernetes.io/instance="+r.name)
	if err != nil {
		r.Fatal(err)
	}
	var names []string
	for i := range pods {
		names = append(names, pods[i].Name)
	}
	return names
}

// schedulers returns the pods of the release's scheduler.
func (r *release) schedulers(ctx context.Context) ([]corev1.Pod, error) {
	return r.pods(ctx, ",app.kubernetes.io/component=scheduler,app.kubernetes.io/instance="+r.name)
}

// process is a running program.
type process struct {
	command *exec.Cmd
	// log is the path of what it says.
	log   string
	ended chan struct{}
}

// said returns what it has said.
func (p *process) said(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Error(err)
	}
	return string(content)
}

// start starts a program. It ends with the test, if not before.
func (c *cluster) start(name, program string, args []string) (*process, error) {
	p := &process{
		command: exec.CommandContext(c.Context(), program, args...),
		log:     filepath.Join(c.TempDir(), "log"),
		ended:   make(chan struct{}),
	}
	file, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.command.Stdout, p.command.Stderr = file, file
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		// How it ended, its log says.
		_ = p.command.Wait()
		close(p.ended)
	}()
	c.Cleanup(func() {
		if c.Failed() {
			c.Logf("%s:\n%s", name, p.said(c.T))
		}
	})
	return p, nil
}

// stop asks a process to end, and waits for so long.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it has not ended within %s", grace)
	}
}
