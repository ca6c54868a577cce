// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/test/localcluster"
)

// podGroup returns the manifests of a group that starts together or not at all.
// fragment is YAML in the specs of the group and of its pods.
func podGroup(name string, pods int, requests, fragment string) string {
	return fmt.Sprintf(`
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: %s}
spec:
  schedulingPolicy: {gang: {minCount: %d}}
  %s
---
`, name, pods, fragment) + restrict(restrict(deployment(name, pods, requests), fmt.Sprintf("schedulingGroup: {podGroupName: %s}", name)), fragment)
}

// Pod groups (feature gate GenericWorkload) leave the room of missing daemon pods as
// single pods do, and still preempt.
func TestPodGroups(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *localcluster.Options) {
		gate := "--feature-gates=GenericWorkload=true"
		o.Args = map[string][]string{
			localcluster.APIServer:          {gate, "--runtime-config=scheduling.k8s.io/v1beta1=true"},
			localcluster.ControllerManager:  {gate},
			localcluster.EverynodeScheduler: {gate},
			localcluster.KubeScheduler:      {gate},
		}
		// kube-scheduler's own role has these with the feature gate.
		o.ChartValues = []byte(`
scheduler:
  extraRules:
    - {apiGroups: [scheduling.k8s.io], resources: [podgroups], verbs: [get, list, watch]}
    - {apiGroups: [scheduling.k8s.io], resources: [podgroups/status], verbs: [patch, update]}
`)
	})
	c.apply(priorityClasses + daemonSet("agent", "cpu: '1'", "") + podGroup("large", 4, "cpu: '1'", ""))
	// Without any node, DynamicResources hides the reason behind an error of its own.
	c.eventually(20*time.Second, "the group waits for a node", c.allTried("large", 4, 0, ""))
	resume := c.openNodeWithoutControllers()
	c.eventually(20*time.Second, "the group waits: one of its pods would take the room of the daemon pod", func(ctx context.Context) error {
		pods, err := c.pods(ctx, app("large"))
		if err != nil {
			return err
		}
		// The pod that did not fit says why, the others that it is for the sake of the group.
		if len(bound(pods)) > 0 || !slices.ContainsFunc(pods, func(pod corev1.Pod) bool {
			return strings.Contains(whyWaiting(&pod), "node(s) had cpu held for DaemonSet pods")
		}) {
			return fmt.Errorf("%d pods of the group are bound, the first says %q", len(bound(pods)), whyWaiting(&pods[0]))
		}
		return nil
	})
	resume()
	c.eventually(30*time.Second, "the daemon pod runs", c.running("agent", 1))
	agent := c.boundUIDs("agent")

	c.apply(podGroup("small", 3, "cpu: '1'", ""))
	c.eventually(30*time.Second, "a group that leaves the room runs", c.running("small", 3))
	c.kubectl("delete", "deployment", "small")
	c.apply(deployment("web", 3, "cpu: '1'"))
	c.eventually(30*time.Second, "single pods run", c.running("web", 3))
	c.apply(podGroup("important", 3, "cpu: '1'", "priorityClassName: high"))
	c.eventually(30*time.Second, "a more important group runs in their place", c.running("important", 3))
	if gone := c.gone("agent", agent); len(gone) > 0 {
		t.Errorf("the daemon pod was evicted: %v", gone)
	}
}
