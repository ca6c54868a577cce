// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/test/localcluster"
)

// A18: whatever the webhook does to a pod, the DaemonSet controller finds it on
// the node it was made for. It would make another one otherwise, at every sync.
func TestA18NoRunaway(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			c.addNodes(localcluster.Nodes(1, 4)...)
			all := []string{"node-1", "node-2", "node-3", "node-4"}
			// By name of the DaemonSet: where its pods belong.
			want := map[string][]string{"plain": all, "direct": all, "host-network": all, "zone": {"node-1", "node-4"}, "bound": {"node-2"}}
			c.apply(daemonSet("plain", "", "") +
				strings.Replace(daemonSet("direct", "", ""), "metadata: {name: direct}", "metadata: {name: direct, annotations: {everynode.dev/scheduling: direct}}", 1) +
				daemonSet("host-network", "", "hostNetwork: true") +
				daemonSet("zone", "", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "+
					"[{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [us-east-1a]}]}]}}}") +
				daemonSet("bound", "", "nodeName: node-2"))

			allRun := func(ctx context.Context) error {
				for name, nodes := range want {
					if err := c.runsOn(ctx, app(name), nodes...); err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
				}
				return nil
			}
			c.eventually(30*time.Second, "every DaemonSet has its pods", allRun)
			before := make(map[string]map[string]string)
			for name := range want {
				before[name] = c.boundUIDs(name)
			}

			// Have the controller look again and again, and wait each time until it has.
			for round := range 5 {
				for name := range want {
					c.kubectl("patch", "daemonset", name, "--type=merge", "-p", fmt.Sprintf(`{"spec": {"minReadySeconds": %d}}`, round+1))
					generation := strings.TrimSpace(c.kubectl("get", "daemonset", name, "-o", "jsonpath={.metadata.generation}"))
					c.eventually(20*time.Second, name+" is looked at", func(context.Context) error {
						if observed := strings.TrimSpace(c.kubectl("get", "daemonset", name, "-o", "jsonpath={.status.observedGeneration}")); observed != generation {
							return fmt.Errorf("generation %s is observed, want %s", observed, generation)
						}
						return nil
					})
				}
			}
			if err := allRun(t.Context()); err != nil {
				t.Error(err)
			}
			for name, nodes := range want {
				pods, err := c.pods(t.Context(), app(name))
				if err != nil {
					t.Fatal(err)
				}
				for i := range pods {
					pod := &pods[i]
					if _, ok := before[name][string(pod.UID)]; !ok {
						t.Errorf("%s: pod %s was made later", name, pod.Name)
					}
					if target, err := daemonutil.GetTargetNodeName(pod); err != nil || target != pod.Spec.NodeName {
						t.Errorf("%s: the controller sees pod %s on %q (%v), it runs on %s", name, pod.Name, target, err, pod.Spec.NodeName)
					}
					if mode, scheduled := name == "direct", wasScheduled(pod); mode == scheduled {
						t.Errorf("%s: pod %s went through the scheduler: %v", name, pod.Name, scheduled)
					}
				}
				if created := strings.Count(c.kubectl("get", "events", "--field-selector", "reason=SuccessfulCreate,involvedObject.name="+name, "--no-headers"), "\n"); created > len(nodes) {
					t.Errorf("%s: the controller made %d pods for %d nodes", name, created, len(nodes))
				}
			}
		})
	}
}

// wasScheduled says whether a scheduler has bound the pod.
func wasScheduled(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodScheduled {
			return true
		}
	}
	return false
}

// T7, the first half: with no scheduler at all, a DaemonSet that asks for direct
// scheduling runs.
func TestT7DirectWithoutScheduler(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(o *localcluster.Options) { o.Scheduler = localcluster.None })
			c.addNodes(localcluster.Nodes(1, 3)...)
			c.apply(daemonSet("plain", "", "") +
				strings.Replace(daemonSet("direct", "", ""), "metadata: {name: direct}", "metadata: {name: direct, annotations: {everynode.dev/scheduling: direct}}", 1))
			c.eventually(20*time.Second, "the direct DaemonSet runs", func(ctx context.Context) error {
				return c.runsOn(ctx, app("direct"), "node-1", "node-2", "node-3")
			})
			c.eventually(20*time.Second, "the plain one waits for a scheduler", func(ctx context.Context) error {
				pods, err := c.pods(ctx, app("plain"))
				if err != nil {
					return err
				}
				if len(pods) != 3 || len(bound(pods)) != 0 {
					return fmt.Errorf("%d of %d pods are bound, want 0 of 3", len(bound(pods)), len(pods))
				}
				return nil
			})
		})
	}
}
