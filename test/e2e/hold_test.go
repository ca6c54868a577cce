// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

const (
	// holdFor is the scheduler's holdFor in the tests that wait until a hold lapses.
	holdFor = 10 * time.Second
	// lapseSlack is how much later than holdFor the last waiting pod may be bound.
	lapseSlack = 5 * time.Second

	cpuHeld = "cpu held for DaemonSet pods"
	device  = "example.com/dev"
)

// shortHolds lets holds lapse soon.
func shortHolds(o *localcluster.Options) {
	o.PluginArgs = map[string]map[string]any{"DaemonSetHeadroom": {"holdFor": holdFor.String()}}
}

// inNamespace puts the object of a manifest made by daemonSet into a namespace.
func inNamespace(manifest, namespace string) string {
	return strings.Replace(manifest, "metadata: {name: ", "metadata: {namespace: "+namespace+", name: ", 1)
}

// passed waits until so much time has passed: kwok lets a pod turn Ready that late.
func (c *cluster) passed(d time.Duration) {
	c.t.Helper()
	c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: clock, labels: {app: clock}, annotations: {localcluster.everynode.dev/ready-delay: %s}}
spec: {nodeName: node-1, containers: [{name: main, image: "example/clock:1.0"}]}
`, d))
	c.eventually(d+30*time.Second, fmt.Sprintf("%s have passed", d), c.running("clock", 1))
}

// boundBy checks that the last pod of web was bound before the limit. The API server's
// timestamps are whole seconds, rounded down.
func (c *cluster) boundBy(limit time.Time) {
	c.t.Helper()
	pods, err := c.pods(c.t.Context(), app("web"))
	if err != nil {
		c.t.Fatal(err)
	}
	var last time.Time
	for i := range pods {
		for _, condition := range pods[i].Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionTrue && condition.LastTransitionTime.After(last) {
				last = condition.LastTransitionTime.Time
			}
		}
	}
	if late := last.Sub(limit); late > 0 {
		c.t.Errorf("the last pod was bound %s too late", late.Round(time.Second/10))
	}
}

// events returns the events about an object with that reason.
func (c *cluster) events(ctx context.Context, kind, namespace, name, reason string) ([]eventsv1.Event, error) {
	list, err := c.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(event eventsv1.Event) bool {
		return event.Reason != reason || event.Regarding.Kind != kind || event.Regarding.Namespace != namespace || event.Regarding.Name != name
	}), nil
}

// warned checks that there is one event about an object with that reason, a warning
// whose note matches the expression.
func (c *cluster) warned(kind, namespace, name, reason, expression string) func(context.Context) error {
	return func(ctx context.Context) error {
		events, err := c.events(ctx, kind, namespace, name, reason)
		if err != nil {
			return err
		}
		if len(events) != 1 {
			return fmt.Errorf("%d events %s of %s %s, want 1", len(events), reason, kind, name)
		}
		if event := &events[0]; event.Type != corev1.EventTypeWarning || !regexp.MustCompile(expression).MatchString(event.Note) {
			return fmt.Errorf("event of type %s says %q, want a warning that matches %q", event.Type, event.Note, expression)
		}
		return nil
	}
}

// noEvictions checks that no pod was evicted.
func (c *cluster) noEvictions() {
	c.t.Helper()
	if evicted := c.evictions(); len(evicted) > 0 {
		c.t.Errorf("evicted: %v", evicted)
	}
}

// onlyEvicted checks that no pods but those of these apps were evicted.
func (c *cluster) onlyEvicted(apps ...string) {
	c.t.Helper()
	for _, evicted := range c.evictions() {
		if !slices.ContainsFunc(apps, func(app string) bool { return strings.HasPrefix(evicted, app+"-") }) {
			c.t.Errorf("%s was evicted", evicted)
		}
	}
}

// F1, https://github.com/kubernetes/kubernetes/issues/100683: the hold of a DaemonSet whose
// pods the API server refuses lapses after holdFor. No hold lapses while the DaemonSet
// controller is away (A6).
func TestF1HoldsOfRefusedPodsLapse(t *testing.T) {
	t.Parallel()
	quota := func(pods int) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: v1
kind: ResourceQuota
metadata: {namespace: tenant, name: pods}
spec: {hard: {pods: "%d"}}
`, pods)
	}
	level := func(level string) string {
		return `
apiVersion: v1
kind: Namespace
metadata: {name: tenant, labels: {pod-security.kubernetes.io/enforce: ` + level + `}}
`
	}
	// Each pod has a controller of its own: only one pod of a controller is evicted at a time.
	var web strings.Builder
	for i := range 12 {
		web.WriteString(strings.ReplaceAll(deployment("web", 1, "cpu: 500m"), "{app: web}", fmt.Sprintf("{app: web, part: p%d}", i)))
	}
	parts := 0
	webs := regexp.MustCompile(`metadata: \{name: web\}`).ReplaceAllStringFunc(web.String(), func(string) string {
		parts++
		return fmt.Sprintf("metadata: {name: web-%d}", parts)
	})
	forms := map[string]struct{ refuses, allows, fragment string }{
		"quota":        {quota(0), quota(10), ""},
		"pod security": {level("restricted"), level("privileged"), "volumes: [{name: logs, hostPath: {path: /var/log}}]"},
	}
	for name, tc := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, shortHolds)
			c.addNodes(localcluster.Nodes(1, 3)...)
			world := c.watchPods()
			c.apply(tc.refuses)
			agent := inNamespace(daemonSet("agent", "cpu: 3500m", tc.fragment), "tenant")
			c.apply(agent)
			created := time.Now()
			c.apply(webs)
			c.eventually(holdFor+30*time.Second, "all ordinary pods run", c.running("web", 12))
			c.boundBy(created.Add(holdFor + lapseSlack))
			world.wasHeldBack(t)
			c.eventually(10*time.Second, "an event says why no room is held", c.warned("DaemonSet", "tenant", "agent", "HoldLapsed", `\b3 node.*\d+m?s`))
			c.eventually(10*time.Second, "so does a metric", c.serves(`everynode_scheduler_lapsed_holds{daemonset="agent",namespace="tenant"} 3`))

			c.apply(tc.allows)
			// The DaemonSet controller waits longer after each failure.
			c.eventually(2*time.Minute, "the daemon pods run", func(ctx context.Context) error { return c.complete(ctx, "tenant", "agent", 3) })
			c.eventually(30*time.Second, "the others have what is left", c.allTried("web", 12, 3, ""))
			c.onlyEvicted("web")
		})
	}
	t.Run("no controller", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, shortHolds)
		c.apply(daemonSet("agent", "cpu: 3500m", "") + deployment("web", 12, "cpu: 500m"))
		c.eventually(20*time.Second, "the ordinary pods wait", c.allTried("web", 12, 0, "no nodes available"))
		resume := c.openNodesWithoutControllers(localcluster.Nodes(1, 3)...)
		c.eventually(20*time.Second, "room is held", c.allTried("web", 12, 3, cpuHeld))
		c.passed(3 * holdFor)
		c.apply(barePod("late", "cpu: 500m", ""))
		c.eventually(20*time.Second, "room is still held", c.allTried("late", 1, 0, cpuHeld))
		if err := c.allTried("web", 12, 3, cpuHeld)(t.Context()); err != nil {
			t.Error(err)
		}
		resume()
		c.eventually(30*time.Second, "the daemon pods run", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 3) })
		c.noEvictions()
	})
}

// barePod returns the manifest of a pod without a controller. fragment is YAML in its spec.
func barePod(name, requests, fragment string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "example/%[1]s:1.0", resources: {requests: {%[2]s}}}]
  %[3]s
---
`, name, requests, fragment)
}

// serves checks that the scheduler serves a line at /metrics.
func (c *cluster) serves(line string) func(context.Context) error {
	return func(ctx context.Context) error {
		metrics, err := c.Get(ctx, schedulerProcess(), "/metrics")
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Split(metrics, "\n"), line) {
			return fmt.Errorf("no line %s", line)
		}
		return nil
	}
}

// F2: a DaemonSet with a request near the largest int64 does not change what is held for
// another DaemonSet that asks for the same resource.
func TestF2AbsurdRequests(t *testing.T) {
	t.Parallel()
	devices := func(n string) string { return fmt.Sprintf("%[1]s: '%[2]s'}, limits: {%[1]s: '%[2]s'", device, n) }
	forms := map[string]struct {
		giant, agent, web string
		held              string
		wantBound         int
	}{
		"8Ei of memory": {"memory: 8Ei", "memory: 12Gi", "memory: 1Gi", "memory", 4},
		"1Ei of memory": {"memory: 1Ei", "memory: 12Gi", "memory: 1Gi", "memory", 4},
		"all devices":   {devices("9223372036854775807"), devices("3"), devices("1"), device, 1},
	}
	for name, tc := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			c.apply(daemonSet("giant", tc.giant, "") + daemonSet("agent", tc.agent, "") + deployment("web", 6, tc.web))
			c.eventually(20*time.Second, "the ordinary pods wait", c.allTried("web", 6, 0, "no nodes available"))
			node := localcluster.Nodes(1, 1)[0]
			node.Capacity = corev1.ResourceList{device: resource.MustParse("4")}
			resume := c.openNodesWithoutControllers(node)
			c.eventually(20*time.Second, "room is held for the other DaemonSet", c.allTried("web", 6, tc.wantBound, tc.held+" held for DaemonSet pods"))
			resume()
			c.eventually(30*time.Second, "its pod runs", c.running("agent", 1))
			c.noEvictions()
		})
	}
}

// F3: the growth of an update is held while the update makes progress, and no longer.
func TestF3GrowthOfAStuckUpdate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, shortHolds)
	c.addNodes(localcluster.Nodes(1, 3)...)
	c.apply(daemonSet("agent", "cpu: 500m", ""))
	c.eventually(30*time.Second, "the DaemonSet runs", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 3) })
	larger := strings.Replace(daemonSet("agent", "cpu: '2'", ""), "metadata: {labels: {app: agent}}",
		"metadata: {labels: {app: agent}, annotations: {localcluster.everynode.dev/ready-delay: 2s}}", 1)
	c.apply(strings.Replace(larger, "agent:1.0", "agent:non-existent", 1))
	c.eventually(20*time.Second, "the update is stuck at its first node", func(ctx context.Context) error {
		pods, err := c.pods(ctx, app("agent"))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(bound(pods), func(pod corev1.Pod) bool { return strings.HasSuffix(pod.Spec.Containers[0].Image, ":non-existent") }) {
			return fmt.Errorf("pods are %s", summary(pods))
		}
		return nil
	})

	// Four pods on each node beside the larger agent, three more beside the smaller one.
	world, began := c.watchPods(), time.Now()
	c.apply(deployment("web", 18, "cpu: 500m"))
	c.eventually(holdFor+30*time.Second, "what the update does not use is used", c.running("web", 18))
	c.boundBy(began.Add(holdFor + lapseSlack))
	world.wasHeldBack(t)
	c.kubectl("delete", "deployment", "web")
	c.eventually(30*time.Second, "the nodes are empty", c.allTried("web", 0, 0, ""))

	c.apply(larger + deployment("backlog", 40, "cpu: 500m"))
	c.eventually(60*time.Second, "the repaired update is complete", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 3) })
	c.eventually(30*time.Second, "the backlog has what is left", c.allTried("backlog", 40, 12, ""))
	c.noEvictions()
}

// F4, https://github.com/kubernetes/kubernetes/issues/111590: the overhead of a RuntimeClass
// is held too, and only on the nodes that its node selector matches.
func TestF4RuntimeClass(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(`
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: sandbox}
handler: sandbox
overhead: {podFixed: {cpu: 500m}}
scheduling: {nodeSelector: {kubernetes.io/hostname: node-1}}
---
` + daemonSet("agent", "cpu: '1'", "runtimeClassName: sandbox") +
		restrict(deployment("beside", 8, "cpu: 500m"), onNode("node-1")) + restrict(deployment("apart", 8, "cpu: 500m"), onNode("node-2")))
	for _, name := range []string{"beside", "apart"} {
		c.eventually(20*time.Second, "the ordinary pods wait", c.allTried(name, 8, 0, "no nodes available"))
	}
	resume := c.openNodesWithoutControllers(localcluster.Nodes(1, 2)...)
	c.eventually(20*time.Second, "request and overhead are held where the class leads", c.allTried("beside", 8, 5, cpuHeld))
	c.eventually(20*time.Second, "nothing is held elsewhere", c.running("apart", 8))
	resume()
	c.eventually(30*time.Second, "the daemon pod runs", c.running("agent", 1))
	c.noEvictions()
}

// F5: the default requests of a LimitRange are held for a template without requests.
func TestF5LimitRange(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]string{"default request": "defaultRequest: {cpu: '1'}", "default limit": "default: {cpu: '1'}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			c.apply(`
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, ` + limits + `}]}
---
` + daemonSet("agent", "", "") + deployment("web", 8, "cpu: 500m"))
			c.eventually(20*time.Second, "the ordinary pods wait", c.allTried("web", 8, 0, "no nodes available"))
			resume := c.openNodeWithoutControllers()
			c.eventually(20*time.Second, "room is held", c.allTried("web", 8, 6, cpuHeld))
			resume()
			c.eventually(30*time.Second, "the daemon pod runs", c.running("agent", 1))
			c.noEvictions()
		})
	}
}

// setDevices has a node list so many devices, as a device plugin does.
func (c *cluster) setDevices(node string, n int) {
	c.t.Helper()
	c.kubectl("patch", "node", node, "--subresource=status", "--type=merge",
		"-p", fmt.Sprintf(`{"status": {"capacity": {%[1]q: "%[2]d"}, "allocatable": {%[1]q: "%[2]d"}}}`, device, n))
}

// F6, https://github.com/kubernetes/kubernetes/issues/133382: the node does not list the
// devices that a daemon pod asks for. The other resources of the pod are held.
func TestF6DevicesThatComeLater(t *testing.T) {
	t.Parallel()
	agent := daemonSet("agent", "cpu: '2', "+device+": 1}, limits: {"+device+": 1", "")
	forms := map[string]func(c *cluster){
		"none for a moment": func(c *cluster) {
			node := localcluster.Nodes(1, 1)[0]
			node.Capacity = corev1.ResourceList{device: resource.MustParse("4")}
			c.addNodes(node)
			c.apply(agent)
			c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
			c.setDevices("node-1", 0)
			c.kubectl("delete", "pod", "-l", "app=agent", "--wait=false")
		},
		"never any": func(c *cluster) {
			c.addNodes(localcluster.Nodes(1, 1)...)
			c.apply(agent)
		},
	}
	for name, prepare := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			prepare(c)
			c.eventually(20*time.Second, "the daemon pod waits for devices", c.allTried("agent", 1, 0, "Insufficient "+device))
			c.apply(deployment("web", 8, "cpu: 500m"))
			c.eventually(20*time.Second, "its CPU is held", c.allTried("web", 8, 4, cpuHeld))
			c.setDevices("node-1", 4)
			c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
			if got := len(c.boundUIDs("web")); got != 4 {
				t.Errorf("%d ordinary pods run, want 4", got)
			}
			c.noEvictions()
		})
	}
}

// F7: room is held for the additional pods of a surging update.
func TestF7Surge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 3)...)
	agent := strings.Replace(daemonSet("agent", "cpu: '1'", ""), "spec:", "spec:\n  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", 1)
	c.apply(agent)
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		c.apply(restrict(deployment("beside-"+node, 2, "cpu: '1'"), onNode(node)))
		c.eventually(20*time.Second, "each node has room for one more", c.running("beside-"+node, 2))
	}
	c.eventually(20*time.Second, "the DaemonSet runs", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 3) })

	c.apply(strings.Replace(agent, "agent:1.0", "agent:2.0", 1) + deployment("backlog", 12, "cpu: '1'"))
	c.eventually(60*time.Second, "the update is complete", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 3) })
	c.eventually(30*time.Second, "the backlog has the room that is left", c.allTried("backlog", 12, 3, ""))
	c.noEvictions()
}

// F8: room is held on a node that wears a start-up taint, for as long as it counts as one.
func TestF8StartupTaints(t *testing.T) {
	t.Parallel()
	agent := daemonSet("agent", "cpu: '3'", "")
	// Its pods need not wait until the taint has gone.
	web := restrict(deployment("web", 8, "cpu: 500m"), "tolerations: [{operator: Exists}]")
	taints := map[string]corev1.Taint{
		"known by name": {Key: "s3.csi.aws.com/agent-not-ready", Effect: corev1.TaintEffectNoExecute},
		"of any agent":  {Key: "example.com/agent-not-ready", Effect: corev1.TaintEffectNoSchedule},
	}
	for name, taint := range taints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			node := localcluster.Nodes(1, 1)[0]
			node.Taints = []corev1.Taint{taint}
			c.addNodes(node)
			c.apply(agent)
			c.apply(web)
			c.eventually(20*time.Second, "room is held", c.allTried("web", 8, 2, cpuHeld))
			c.kubectl("taint", "node", "node-1", taint.Key+"-")
			c.eventually(20*time.Second, "the daemon pod runs", c.running("agent", 1))
			if got := len(c.boundUIDs("web")); got != 2 {
				t.Errorf("%d ordinary pods run, want 2", got)
			}
			c.noEvictions()
		})
	}
	t.Run("stays", func(t *testing.T) {
		t.Parallel()
		const startupFor = 10 * time.Second
		c := newCluster(t, func(o *localcluster.Options) {
			o.PluginArgs = map[string]map[string]any{"DaemonSetHeadroom": {"startupFor": startupFor.String()}}
		})
		world := c.watchPods()
		c.apply(agent)
		c.apply(web)
		node := localcluster.Nodes(1, 1)[0]
		node.Taints = []corev1.Taint{taints["known by name"]}
		c.addNodes(node)
		ready := time.Now()
		c.eventually(startupFor+30*time.Second, "all ordinary pods run", c.running("web", 8))
		c.boundBy(ready.Add(startupFor + lapseSlack))
		world.wasHeldBack(t)
		c.eventually(10*time.Second, "an event says why", c.warned("Node", "", "node-1", "StartupTaintStays", `s3\.csi\.aws\.com/agent-not-ready`))
	})
}
