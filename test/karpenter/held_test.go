// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package karpenter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// Two nodes of 8 CPUs, of which 7900m can be requested, have room for 13 pods of 500m each beside network and the
// 1 CPU of a DaemonSet that a quota keeps out, and for 15 without that.
const (
	besideHeld = 26
	withoutIt  = 30
)

// heldBack makes a cluster in which room is held for a DaemonSet whose pods a quota refuses, and gives Karpenter a
// NodePool of so many CPUs.
func heldBack(t *testing.T, holdFor, limit string) *cluster {
	t.Helper()
	c := newCluster(t, func(options *localcluster.Options) {
		options.PluginArgs = map[string]map[string]any{"DaemonSetHeadroom": {"holdFor": holdFor}}
	})
	c.kubectl("create", "namespace", "agents")
	c.kubectl("create", "quota", "none", "-n", "agents", "--hard=pods=0")
	c.apply(daemonSet(network, "200m", "", "tolerations: [{operator: Exists}]"))
	c.apply(strings.Replace(daemonSet("agent", "1", "", ""), "name: agent", "name: agent, namespace: agents", 1))
	c.apply(deployment("web", withoutIt, "500m", "64Mi"))
	c.eventually("all ordinary pods wait", c.waits(withoutIt))
	c.apply(nodePool(`"8"`, limit, "15s"))
	return c
}

// K3: Karpenter may buy no more than two nodes: the pods that room is held against run when it is not held any longer.
func TestK3QuotaAndLimit(t *testing.T) {
	t.Parallel()
	const holdFor = 40 * time.Second
	c := heldBack(t, holdFor.String(), "16")
	c.eventually("as many pods run as fit beside the room that is held", func(context.Context) error {
		if ready, _ := c.ordinary(); ready < besideHeld {
			return errors.New(c.story())
		}
		return nil
	})
	full := time.Now()
	c.eventually("all pods run", c.allRun(withoutIt, network))
	took := time.Since(full)
	t.Logf("%s; the last ones waited for %s", c.story(), took.Round(time.Second))
	if took > holdFor+15*time.Second {
		t.Errorf("the last pods waited for %s, want no more than holdFor (%s) and 15 s", took, holdFor)
	}
	c.staysAt(2)
}

// K3: Karpenter may buy as many nodes as it wants, for pods that it could not place beside a DaemonSet that never comes.
func TestK3QuotaWithoutLimit(t *testing.T) {
	t.Parallel()
	c := heldBack(t, "40s", "1000")
	c.eventually("all pods run", c.allRun(withoutIt, network))
	c.staysAt(3)
}

// staysAt watches that so many nodes have been bought in all, and none is bought or removed any more.
func (c *cluster) staysAt(nodes int) {
	c.t.Helper()
	c.during(*watch, func() {
		if bought, gone := c.moves(); bought > nodes || gone > 0 {
			c.t.Fatalf("want %d nodes that stay: %s", nodes, c.story())
		}
	})
	if err := c.allRun(withoutIt, network)(c.t.Context()); err != nil {
		c.t.Error(err)
	}
	if evicted, lost := c.victims(); len(evicted)+len(lost) > 0 {
		c.t.Errorf("pods had to go from nodes that stay: %q", slices.Concat(evicted, lost))
	}
	c.t.Log(c.story())
}

// K4: a pod is held back, and Karpenter's limit is reached. explain says what is held and for whom, while Karpenter's
// event says that it would buy a node and may not. When it may, it buys one, names it in its next event, and the pod
// runs there.
func TestK4HeldBackIsUnderstood(t *testing.T) {
	t.Parallel()
	c := heldBack(t, "10m", "16")
	c.eventually("the rest of the pods is held back", func(context.Context) error {
		if ready, _ := c.ordinary(); ready != besideHeld {
			return errors.New(c.story())
		}
		return nil
	})
	// Karpenter writes an event of a kind once in two minutes for a pod, and no more than five a second: one of the
	// others may have had its event before.
	c.apply("{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {containers: [{name: main, image: 'example/late:1', resources: {requests: {cpu: 500m}}}]}}")
	c.eventually("explain says what is held and for whom", func(ctx context.Context) error {
		return c.says(ctx, []string{"explain", "pod/late"},
			"It is held back on 2 nodes for agents/agent.",
			"2 node(s) had cpu held for DaemonSet pods",
			"It needs cpu 500m.",
			"of which is held: cpu 2.",
			"Next: kubectl everynode explain ds/agent -n agents")
	})
	c.eventually("the command that it names says what to mend", func(ctx context.Context) error {
		return c.says(ctx, []string{"explain", "ds/agent", "-n", "agents"}, "the quota none is used up")
	})
	c.event("late", "FailedScheduling", "limits")
	c.apply(nodePool(`"8"`, "32", "15s"))
	c.event("late", "Nominated", "Pod should schedule on: nodeclaim/")
	c.eventually("all pods run", c.allRun(withoutIt+1, network))
	if bought, _ := c.moves(); bought != 3 {
		t.Errorf("%s; want 3 nodes", c.story())
	}
}

// event waits for an event of Karpenter on a pod of the default namespace.
func (c *cluster) event(pod, reason, words string) {
	c.t.Helper()
	c.eventually("Karpenter writes the event "+reason, func(ctx context.Context) error {
		events, err := c.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
		if err != nil {
			return err
		}
		var all []string
		for i := range events.Items {
			event := &events.Items[i]
			all = append(all, event.Source.Component+" "+event.Reason+": "+event.Message)
			if event.Source.Component == localcluster.Karpenter && event.Reason == reason && strings.Contains(event.Message, words) {
				c.t.Log(event.Message)
				return nil
			}
		}
		return fmt.Errorf("there are: %q", all)
	})
}

// says checks that kubectl everynode prints all of these, in whatever lines.
func (c *cluster) says(ctx context.Context, args []string, all ...string) error {
	command := exec.CommandContext(ctx, filepath.Join(*binDir, "kubectl-everynode"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	flat := strings.Join(strings.Fields(string(output)), " ")
	for _, words := range all {
		if !strings.Contains(flat, words) {
			return fmt.Errorf("it does not say %q:\n%s", words, output)
		}
	}
	c.t.Logf("kubectl everynode %s\n%s", strings.Join(args, " "), output)
	return nil
}
