// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/localcluster"
)

const (
	// takeover is the most that a change of leaders takes: the lease, and 2 s.
	takeover = 17 * time.Second
	// boundWithin is what docs/configuration.md says of pods whose scheduler has died.
	boundWithin = 45 * time.Second
)

// D1: with two schedulers, of which one dies, the other one places the pods of a DaemonSet annotated
// everynode.dev/scheduling: auto. When both are dead, they are bound without them, if they fit. When a scheduler is back,
// it places them again, and no pod is bound twice.
func TestD1OutageOfTheScheduler(t *testing.T) {
	t.Parallel()
	policies := filepath.Join(t.TempDir(), "webhook.yaml")
	if err := os.WriteFile(policies, []byte(`
apiVersion: config.everynode.dev/v1alpha1
kind: WebhookConfiguration
policies: [{name: auto, match: {namespaces: [policed]}, annotations: {everynode.dev/scheduling: auto}}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, func(o *localcluster.Options) {
		o.Scheduler = localcluster.None
		o.Args = map[string][]string{localcluster.EverynodeWebhook: {"--config=" + policies}}
	})
	schedulers := map[string]*elected{"one": c.startElected("one"), "two": c.startElected("two")}
	const auto = "everynode.dev/scheduling: auto"
	c.addNodes(localcluster.Nodes(1, 2)...)
	c.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: policed}\n---\n" + daemonSet("plain", "cpu: 10m", "") +
		annotate(daemonSet("agent", "cpu: 100m", ""), "agent", auto) +
		annotate(daemonSet("spread", "cpu: 10m", "topologySpreadConstraints: [{topologyKey: kubernetes.io/hostname, maxSkew: 9, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: spread}}}]"), "spread", auto))
	for _, name := range []string{"plain", "agent", "spread"} {
		c.eventually(30*time.Second, name+" runs", func(ctx context.Context) error { return c.runsOn(ctx, app(name), "node-1", "node-2") })
	}

	// A change of leaders.
	leader := c.leading(schedulers)
	began := schedulers[leader].kill()
	c.addNodes(localcluster.Nodes(3, 1)...)
	c.eventually(time.Until(began.Add(takeover+2*time.Second)), "the other scheduler places the pod", func(ctx context.Context) error {
		return c.runsOn(ctx, app("agent"), "node-1", "node-2", "node-3")
	})
	t.Logf("after a change of leaders the pod runs after %.1fs", time.Since(began).Seconds())
	schedulers[leader] = c.startElected(leader)

	// No scheduler: node-4 joins before the lease is stale, and the others afterwards.
	for _, s := range schedulers {
		began = s.kill()
	}
	c.addNodes(localcluster.Nodes(4, 1)...)
	c.eventually(time.Until(began.Add(boundWithin)), "the pod that was Pending is bound", func(ctx context.Context) error {
		return c.runsOn(ctx, app("agent"), "node-1", "node-2", "node-3", "node-4")
	})
	t.Logf("the pod that was Pending when the schedulers died runs after %.1fs", time.Since(began).Seconds())
	small := localcluster.Nodes(6, 1)[0]
	small.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("99m")}
	began = time.Now()
	c.addNodes(localcluster.Nodes(5, 1)[0], small)
	nodes := []string{"node-1", "node-2", "node-3", "node-4", "node-5"}
	c.eventually(15*time.Second, "the pod of a node that joins is bound", func(ctx context.Context) error { return c.boundTo(ctx, "agent", nodes...) })
	t.Logf("the pod of a node that joined runs after %.1fs", time.Since(began).Seconds())
	c.kubectl("apply", "--namespace", "policed", "-f", c.file("policed.yaml", daemonSet("policed", "cpu: 10m", "")))
	c.eventually(15*time.Second, "pods of a namespace with a policy are bound", func(ctx context.Context) error { return c.complete(ctx, "policed", "policed", 6) })
	c.kubectl("delete", "pod", "--selector=app=agent", "--field-selector=spec.nodeName=node-1")
	c.eventually(15*time.Second, "the successor of a pod is bound", func(ctx context.Context) error { return c.boundTo(ctx, "agent", nodes...) })
	// Room that the scheduler has promised stays free.
	c.apply(`{apiVersion: v1, kind: Pod, metadata: {name: promised}, spec: {containers: [{name: main, image: "example/main:1.0", resources: {requests: {cpu: "3.95"}}}]}}`)
	c.kubectl("patch", "pod", "promised", "--subresource=status", "--patch", `{"status": {"nominatedNodeName": "node-5"}}`)
	c.kubectl("delete", "pod", "--selector=app=agent", "--field-selector=spec.nodeName=node-5")
	c.eventually(15*time.Second, "a pod leaves promised room free", func(ctx context.Context) error {
		for _, note := range c.notes(ctx, "NotBoundWithoutScheduler") {
			if strings.Contains(note, "Not bound to node-5") && strings.Contains(note, "too little cpu free") {
				return c.boundTo(ctx, "agent", nodes[:4]...)
			}
		}
		return errors.New("no event says so")
	})
	c.kubectl("delete", "pod", "promised")
	c.eventually(20*time.Second, "the pod is bound when nothing is promised any more", func(ctx context.Context) error { return c.boundTo(ctx, "agent", nodes...) })
	for name, why := range map[string]string{"agent": "the node has too little cpu free", "spread": "its topology spread constraints need a scheduler"} {
		c.eventually(15*time.Second, "it is said why a pod of "+name+" is not bound", func(ctx context.Context) error {
			for _, note := range c.notes(ctx, "NotBoundWithoutScheduler") {
				if strings.Contains(note, why) {
					return nil
				}
			}
			return errors.New("no event says so")
		})
	}
	for _, name := range []string{"plain", "spread"} {
		if err := c.boundTo(t.Context(), name, "node-1", "node-2", "node-3"); err != nil {
			t.Errorf("%s was not left to the scheduler: %v", name, err)
		}
	}

	// A scheduler is back.
	schedulers["one"] = c.startElected("one")
	for _, name := range []string{"plain", "spread"} {
		c.eventually(30*time.Second, "the scheduler places "+name, func(ctx context.Context) error { return c.boundTo(ctx, name, append(nodes, "node-6")...) })
	}
	c.eventually(10*time.Second, "the webhook leaves it to the scheduler", func(context.Context) error {
		if got := c.webhookSaid("The lease of a scheduler is renewed"); got == 0 {
			return errors.New("it does not say so")
		}
		return nil
	})
	c.addNodes(localcluster.Nodes(7, 1)...)
	c.eventually(15*time.Second, "the scheduler places the pod", func(ctx context.Context) error { return c.boundTo(ctx, "agent", append(nodes, "node-7")...) })

	if got := c.webhookSaid("Nobody renews the lease of a scheduler"); got != 1 {
		t.Errorf("the scheduler counted as away %d times, want once", got)
	}
	without, with := c.notes(t.Context(), "BoundWithoutScheduler"), c.notes(t.Context(), "Scheduled")
	// On node-4, node-5, node-1 and node-5 for the second time, and all six of the policy.
	if len(without) != 4+6 {
		t.Errorf("%d pods were bound without a scheduler, want 10: %v", len(without), without)
	}
	for pod := range without {
		if note, both := with[pod]; both {
			t.Errorf("a pod was bound twice: %s; %s", without[pod], note)
		}
	}
}

// boundTo checks that the pods of an app that have a node have these, one each.
func (c *cluster) boundTo(ctx context.Context, name string, nodes ...string) error {
	pods, err := c.pods(ctx, app(name))
	if err != nil {
		return err
	}
	have := make(map[string]int)
	for _, pod := range bound(pods) {
		have[pod.Spec.NodeName]++
	}
	for _, node := range nodes {
		if have[node] != 1 {
			return fmt.Errorf("pods of %s by node: %v, want one on each of %v", name, have, nodes)
		}
	}
	if len(have) != len(nodes) {
		return fmt.Errorf("pods of %s by node: %v, want one on each of %v", name, have, nodes)
	}
	return nil
}

// notes returns what events of a reason say, by the UIDs of their pods.
func (c *cluster) notes(ctx context.Context, reason string) map[string]string {
	c.t.Helper()
	events, err := c.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
	if err != nil {
		c.t.Fatal(err)
	}
	notes := make(map[string]string)
	for i := range events.Items {
		notes[string(events.Items[i].Regarding.UID)] = events.Items[i].Regarding.Name + ": " + events.Items[i].Note
	}
	return notes
}

// webhookSaid returns how often the webhook has logged a message.
func (c *cluster) webhookSaid(message string) int {
	c.t.Helper()
	log, err := os.ReadFile(c.Process(localcluster.EverynodeWebhook).Log)
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Count(string(log), message)
}

// elected is a scheduler that takes part in the election of a leader.
type elected struct {
	command *exec.Cmd
	log     string
}

// startElected starts a scheduler in place of kube-scheduler.
func (c *cluster) startElected(name string) *elected {
	c.t.Helper()
	port, err := c.ReservePort()
	if err != nil {
		c.t.Fatal(err)
	}
	config := c.file(name+".yaml", string(localcluster.WithKubeconfig(deploy.ReplaceConfig, c.Kubeconfig)))
	e := &elected{log: c.file(name+".log", ""), command: exec.CommandContext(c.t.Context(), filepath.Join(*binDir, localcluster.EverynodeScheduler),
		"--config="+config, "--authentication-kubeconfig="+c.Kubeconfig, "--authorization-kubeconfig="+c.Kubeconfig,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--permit-port-sharing")}
	log, err := os.OpenFile(e.log, os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	e.command.Stdout, e.command.Stderr = log, log
	if err := e.command.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		e.kill()
		if content, err := os.ReadFile(e.log); c.t.Failed() {
			c.t.Logf("%s (%v):\n%s", name, err, content)
		}
	})
	return e
}

// kill ends it at once and returns when.
func (e *elected) kill() time.Time {
	_ = e.command.Process.Kill() // It may have ended.
	_ = e.command.Wait()
	return time.Now()
}

// leading returns which of the schedulers leads.
func (c *cluster) leading(schedulers map[string]*elected) (leader string) {
	c.t.Helper()
	c.eventually(30*time.Second, "a scheduler leads", func(context.Context) error {
		for name, s := range schedulers {
			if log, err := os.ReadFile(s.log); err == nil && strings.Contains(string(log), "uccessfully acquired lease") {
				leader = name
				return nil
			}
		}
		return errors.New("none does")
	})
	return leader
}
