// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/test/localcluster"
)

// everynode runs kubectl everynode and returns what it prints.
func (c *cluster) everynode(args ...string) (string, error) {
	return c.run(exec.CommandContext(c.t.Context(), filepath.Join(*binDir, "kubectl"), append([]string{"everynode"}, args...)...))
}

// run runs a command with the cluster's kubeconfig, kubectl and its plugin on its path.
func (c *cluster) run(command *exec.Cmd) (string, error) {
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "PATH="+*binDir+string(os.PathListSeparator)+os.Getenv("PATH"))
	output, err := command.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, exit.Stderr)
	}
	return string(output), err
}

// mend runs the command that a verdict gives to mend its cause: first as it is, which
// changes nothing, then for good. Where no command is safe to give, it runs kubectl with
// otherwise.
func (c *cluster) mend(v explain.Verdict, otherwise ...string) {
	c.t.Helper()
	if _, err := c.run(exec.CommandContext(c.t.Context(), "bash", "-euc", v.Next)); err != nil {
		c.t.Error(err)
	}
	if v.Fix == nil || v.Fix.Command == "" {
		if len(otherwise) == 0 {
			c.t.Fatalf("there is no command to mend %s: %+v", v.Reason, v.Fix)
		}
		c.kubectl(otherwise...)
		return
	}
	const dryRun = " --dry-run=server"
	if !strings.Contains(v.Fix.Command, dryRun) {
		c.t.Errorf("the command to mend %s is not safe to paste: %s", v.Reason, v.Fix.Command)
	}
	for _, command := range []string{v.Fix.Command, strings.ReplaceAll(v.Fix.Command, dryRun, "")} {
		if _, err := c.run(exec.CommandContext(c.t.Context(), "bash", "-euc", command)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// explained returns what explain says of a DaemonSet.
func (c *cluster) explained(name string) (*explain.Explanation, error) {
	output, err := c.everynode("explain", "ds/"+name, "-o", "json")
	if err != nil {
		return nil, err
	}
	x := &explain.Explanation{}
	return x, json.Unmarshal([]byte(output), x)
}

// statusOf returns what status says of a DaemonSet.
func (c *cluster) statusOf(name string) (explain.Status, error) {
	output, err := c.everynode("status", "ds/"+name, "-o", "json")
	if err != nil {
		return explain.Status{}, err
	}
	var list struct{ Items []explain.Status }
	if err := json.Unmarshal([]byte(output), &list); err != nil {
		return explain.Status{}, err
	}
	return list.Items[0], nil
}

// says checks the reason on each node, by its name.
func (c *cluster) says(name string, want map[string]explain.Reason) func(context.Context) error {
	return func(context.Context) error {
		x, err := c.explained(name)
		if err != nil {
			return err
		}
		for n := range x.Verdicts {
			if v := &x.Verdicts[n]; v.Reason != want[v.Node] {
				return fmt.Errorf("%s: %s (%s), want %s", v.Node, v.Reason, v.Message, want[v.Node])
			}
		}
		return nil
	}
}

// verdict returns what is said of one node.
func (c *cluster) verdict(name, node string) explain.Verdict {
	c.t.Helper()
	x, err := c.explained(name)
	if err != nil {
		c.t.Fatal(err)
	}
	i := slices.IndexFunc(x.Verdicts, func(v explain.Verdict) bool { return v.Node == node })
	if i < 0 {
		c.t.Fatalf("nothing is said of %s: %+v", node, x.Verdicts)
	}
	return x.Verdicts[i]
}

// wantText fails unless text has all those parts.
func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	// Text is folded where a line ends.
	flat := strings.Join(strings.Fields(text), " ")
	for _, part := range parts {
		if !strings.Contains(flat, part) {
			t.Errorf("this lacks %q:\n%s", part, text)
		}
	}
}

// T8: the three usual causes are each named for the node they hold for, and the command
// that the verdict names makes it good.
func TestT8ExplainNamesTheCause(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 4)
	for n := range 3 {
		nodes[n].Labels["disktype"] = "ssd"
	}
	nodes[1].Taints = []corev1.Taint{{Key: "node-role", Value: "compute", Effect: corev1.TaintEffectNoSchedule}}
	c.addNodes(nodes...)
	// Neither scheduler evicts these for a pod of the same priority.
	filler := strings.Replace(restrict(deployment("filler", 1, "cpu: 3800m"), onNode("node-3")), "template:\n    metadata: {",
		"template:\n    metadata: {annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\"}, ", 1)
	c.apply(filler)
	c.eventually(20*time.Second, "the node is full", c.running("filler", 1))
	c.apply(daemonSet("agent", "cpu: 500m", "nodeSelector: {disktype: ssd}"))
	c.eventually(20*time.Second, "each cause is named", c.says("agent", map[string]explain.Reason{
		"node-1": explain.ReasonReady,
		"node-2": explain.ReasonTaint,
		"node-3": explain.ReasonNoRoom,
		"node-4": explain.ReasonNodeSelector,
	}))

	text, err := c.everynode("explain", "ds/agent")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, text, "Ready on 1 of 2 nodes that it belongs on",
		"TAINT NOT TOLERATED on node-2", "node-role=compute:NoSchedule",
		"NO ROOM on node-3", "not enough cpu left", "It needs cpu 500m; free: 200m of 4.", "Deployment default/filler",
		"NOT SELECTED on node-4", "wants disktype=ssd, the node has no label disktype")
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > 80 && !strings.Contains(line, "  Next") && !strings.Contains(line, "priority") {
			t.Errorf("this line is longer than 80 characters: %s", line)
		}
	}

	for _, repair := range []struct {
		node      string
		otherwise []string
	}{
		{"node-4", []string{"label", "node", "node-4", "disktype=ssd"}},
		{"node-2", nil},
		{"node-3", []string{"scale", "deployment", "filler", "--replicas=0"}},
	} {
		node := repair.node
		c.mend(c.verdict("agent", node), repair.otherwise...)
		c.eventually(30*time.Second, "the node is repaired", func(context.Context) error {
			if v := c.verdict("agent", node); !v.Ready {
				return fmt.Errorf("%s: %s", v.Reason, v.Message)
			}
			return nil
		})
	}
}

// A20: a DaemonSet that asks for more than a node has can never fit, and is told how
// much it may ask for.
func TestA20ExplainNeverFits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	c.apply(daemonSet("small", "cpu: 500m", "") + daemonSet("huge", "cpu: '8', memory: 1Gi", ""))
	c.eventually(20*time.Second, "the small one runs", c.running("small", 2))
	c.eventually(20*time.Second, "the huge one never fits", c.says("huge", map[string]explain.Reason{
		"node-1": explain.ReasonNeverFits, "node-2": explain.ReasonNeverFits,
	}))
	v := c.verdict("huge", "node-1")
	wantText(t, v.Message, "can never fit", "asks for cpu 8", "has cpu 4 in all")
	status, err := c.statusOf("huge")
	if err != nil {
		t.Fatal(err)
	}
	if len(status.Held) > 0 || status.Missing != 2 || status.Top == nil || status.Top.Reason != explain.ReasonNeverFits {
		t.Errorf("status: %+v", status)
	}
	c.mend(v, "set", "resources", "daemonset/huge", "--requests=cpu=3,memory=1Gi")
	c.eventually(30*time.Second, "it fits now", c.running("huge", 2))
}

// A9, https://github.com/kubernetes/kubernetes/issues/61886: a node selector of the
// namespace narrows the pods to no node.
func TestA9ExplainNamespaceSelector(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(options *localcluster.Options) {
				options.Args = map[string][]string{localcluster.APIServer: {"--enable-admission-plugins=PodNodeSelector"}}
			})
			c.addNodes(localcluster.Nodes(1, 3)...)
			c.kubectl("annotate", "namespace", "default", "scheduler.alpha.kubernetes.io/node-selector=env=prod")
			c.apply(daemonSet("agent", "cpu: 100m", ""))
			narrowed := map[string]explain.Reason{"node-1": explain.ReasonNarrowed, "node-2": explain.ReasonNarrowed, "node-3": explain.ReasonNarrowed}
			c.eventually(20*time.Second, "admission is named", c.says("agent", narrowed))
			before := c.podUIDs("agent")

			text, err := c.everynode("explain", "ds/agent")
			if err != nil {
				t.Fatal(err)
			}
			wantText(t, text, "Ready on 0 of 3 nodes that it belongs on", "NARROWED BY ADMISSION on node-1 node-2 node-3",
				"wants env=prod, the node has no label env", "scheduler.alpha.kubernetes.io/node-selector of namespace default")
			// Nothing makes the controller create other pods.
			if after := c.podUIDs("agent"); len(after) != 3 || !slices.Equal(before, after) {
				t.Errorf("pods were %v and are %v", before, after)
			}
			c.mend(c.verdict("agent", "node-1"), "annotate", "namespace", "default", "scheduler.alpha.kubernetes.io/node-selector-")
			c.kubectl("delete", "pod", "-l", "app=agent")
			c.eventually(30*time.Second, "it runs", c.running("agent", 3))
		})
	}
}

// podUIDs returns the UIDs of an app's pods, in order.
func (c *cluster) podUIDs(name string) []types.UID {
	c.t.Helper()
	pods, err := c.pods(c.t.Context(), app(name))
	if err != nil {
		c.t.Fatal(err)
	}
	var uids []types.UID
	for i := range pods {
		uids = append(uids, pods[i].UID)
	}
	slices.Sort(uids)
	return uids
}

// A10, https://github.com/kubernetes/kubernetes/issues/106417: with maxSurge, the new
// pod waits for a host port that the old pod of the same DaemonSet has.
func TestA10ExplainHostPortWithSurge(t *testing.T) {
	t.Parallel()
	// The webhook would not let it come to this.
	c := newCluster(t, func(options *localcluster.Options) { options.Webhook = false })
	c.addNodes(localcluster.Nodes(1, 2)...)
	agent := func(image string) string {
		manifest := strings.Replace(daemonSet("agent", "cpu: 100m", ""), "name: main,", "name: main, ports: [{containerPort: 54323, hostPort: 54323}],", 1)
		manifest = strings.Replace(manifest, "spec:\n  selector", "spec:\n  updateStrategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 0}}\n  selector", 1)
		return strings.Replace(manifest, "agent:1.0", image, 1)
	}
	c.apply(agent("agent:1.0"))
	c.eventually(20*time.Second, "it runs", c.running("agent", 2))
	old := c.boundUIDs("agent")
	c.apply(agent("agent:2.0"))
	c.eventually(20*time.Second, "the port is named", c.says("agent", map[string]explain.Reason{
		"node-1": explain.ReasonPortTaken, "node-2": explain.ReasonPortTaken,
	}))
	v := c.verdict("agent", "node-1")
	wantText(t, v.Message, "old pod of the same DaemonSet has the host port 54323", "maxSurge")
	if len(v.Blockers) != 1 || v.Blockers[0].Owner != "DaemonSet agent" || !v.Ready {
		t.Errorf("verdict: %+v", v)
	}
	if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), v.Blockers[0].Name, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	x, err := c.explained("agent")
	if err != nil {
		t.Fatal(err)
	}
	if x.Rollout == nil || !x.Rollout.Stalled || !slices.Equal(x.Rollout.Unavailable, []string{"node-1", "node-2"}) {
		t.Errorf("rollout: %+v", x.Rollout)
	}
	c.mend(v)
	c.eventually(60*time.Second, "the update completes", func(ctx context.Context) error {
		for uid := range c.boundUIDs("agent") {
			if _, ok := old[uid]; ok {
				return errors.New("an old pod is left")
			}
		}
		return c.complete(ctx, "default", "agent", 2)
	})
}

// A14, https://github.com/kubernetes/kubernetes/issues/132459: a node with a pod that
// does not belong there is deleted and joins again.
func TestA14StatusAgreesWithTheController(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 3)
	c.addNodes(nodes...)
	c.apply(daemonSet("agent", "cpu: 100m", ""))
	agrees := func(want explain.Status) func(context.Context) error {
		return func(context.Context) error {
			have, err := c.statusOf("agent")
			if err != nil {
				return err
			}
			if have.Desired != want.Desired || have.Ready != want.Ready || have.Misscheduled != want.Misscheduled || have.Missing != 0 || len(have.Controller) > 0 {
				return fmt.Errorf("status: %+v, want %+v", have, want)
			}
			return nil
		}
	}
	c.eventually(20*time.Second, "all is well", agrees(explain.Status{Desired: 3, Ready: 3}))
	c.kubectl("taint", "node", "node-2", "maintenance=now:NoSchedule")
	// Such a taint does not wake the controller. The objects tell all the same.
	status, err := c.statusOf("agent")
	if err != nil {
		t.Fatal(err)
	}
	if status.Misscheduled != 1 {
		t.Errorf("status: %+v, want one misscheduled pod", status)
	}
	c.kubectl("annotate", "daemonset", "agent", "wake=up")
	c.eventually(20*time.Second, "one pod is misscheduled", agrees(explain.Status{Desired: 2, Ready: 2, Misscheduled: 1}))
	if err := c.RemoveNode(t.Context(), "node-2"); err != nil {
		t.Fatal(err)
	}
	c.eventually(30*time.Second, "the node is gone", agrees(explain.Status{Desired: 2, Ready: 2}))
	c.addNodes(nodes[1])
	c.eventually(30*time.Second, "the node is back", agrees(explain.Status{Desired: 3, Ready: 3}))
}

// An update that stands still names the nodes that use up maxUnavailable.
func TestExplainStalledUpdate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 4)...)
	c.apply(daemonSet("agent", "cpu: 100m", ""))
	c.eventually(20*time.Second, "it runs", c.running("agent", 4))
	c.kubectl("set", "image", "daemonset/agent", "main=example/agent:non-existent")
	var stuck string
	c.eventually(30*time.Second, "the update is said to stand still", func(context.Context) error {
		x, err := c.explained("agent")
		if err != nil {
			return err
		}
		if x.Rollout == nil || !x.Rollout.Stalled || len(x.Rollout.Unavailable) != 1 || x.Status.Ready != 3 {
			return fmt.Errorf("rollout: %+v", x.Rollout)
		}
		stuck = x.Rollout.Unavailable[0]
		return nil
	})
	c.eventually(10*time.Second, "the image is named", func(context.Context) error {
		if v := c.verdict("agent", stuck); v.Reason != explain.ReasonImage {
			return fmt.Errorf("%s: %s", v.Reason, v.Message)
		}
		return nil
	})
	text, err := c.everynode("explain", "ds/agent")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, text, "UPDATE STALLED: 1 of 4 nodes have the current template. It goes no further before a pod becomes available on "+stuck+": maxUnavailable is 1.",
		"IMAGE NOT PULLED on "+stuck, "example/agent:non-existent", "READY, TO BE UPDATED on")
	c.mend(c.verdict("agent", stuck), "rollout", "undo", "daemonset/agent")
	c.eventually(60*time.Second, "the earlier template is back", func(ctx context.Context) error { return c.complete(ctx, "default", "agent", 4) })
}

// The map says of every DaemonSet on every node what explain says, and is drawn in every way.
func TestMapSaysWhatExplainSays(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	nodes := localcluster.Nodes(1, 4)
	nodes[3].Taints = []corev1.Taint{{Key: "node-role", Value: "compute", Effect: corev1.TaintEffectNoSchedule}}
	c.addNodes(nodes...)
	c.apply(daemonSet("agent", "cpu: 100m", "") + daemonSet("huge", "cpu: '8'", ""))
	c.eventually(20*time.Second, "it runs", c.running("agent", 3))
	c.eventually(20*time.Second, "the map says what explain says", func(context.Context) error {
		output, err := c.everynode("map", "-o", "json")
		if err != nil {
			return err
		}
		m := &explain.Map{}
		if err := json.Unmarshal([]byte(output), m); err != nil {
			return err
		}
		for column, ds := range m.DaemonSets {
			x, err := c.explained(ds.Name)
			if err != nil {
				return err
			}
			for n := range m.Nodes {
				row := &m.Nodes[n]
				i := slices.IndexFunc(x.Verdicts, func(v explain.Verdict) bool { return v.Node == row.Name })
				if v, cell := &x.Verdicts[i], m.Verdicts[row.Cells[column]]; v.Reason != cell.Reason || v.Message != cell.Message || v.Outcome != cell.State {
					return fmt.Errorf("%s on %s: %+v, but explain: %s (%s)", ds.Name, row.Name, cell, v.Reason, v.Message)
				}
			}
		}
		return nil
	})

	text, err := c.everynode("map")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, text, "agent 3/3", "huge 0/3 can never fit on node-1 node-2 node-3", "■ ✗ node-1", "· · node-4", "Next: kubectl everynode explain ds/huge -n default")
	for _, name := range []string{"map.html", "map.svg"} {
		path := filepath.Join(t.TempDir(), name)
		if _, err := c.everynode("map", "--"+strings.TrimPrefix(filepath.Ext(name), ".")+"="+path); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, string(content), "2 DaemonSets on 4 nodes: 3 of 6 pods are ready", "node-4")
	}
}

// Who has no access is told which, and Tab completes names behind kubectl everynode.
func TestAccessAndCompletion(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(daemonSet("agent", "cpu: 100m", ""))
	const want = "no access: RBAC has to allow you the verb list on daemonsets.apps, pods, in all namespaces or in default"
	for _, verb := range []string{"status", "map", "explain ds/agent"} {
		if _, err := c.everynode(append(strings.Fields(verb), "--as=nobody")...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", verb, err, want)
		}
	}

	// kubectl finds by this name what completes the arguments of its plugin.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl_complete-everynode"), []byte(completeScript(t)), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	output, err := c.run(exec.CommandContext(t.Context(), "bash", "-euc", `PATH=$1:$PATH; kubectl __complete everynode explain ds/`, "-", dir))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(output, "ds/agent\n") {
		t.Errorf("Tab offers %q", output)
	}
}

// E12: an ordinary pod is held back for a DaemonSet whose pods a quota refuses. explain names
// both, doctor ends with 1, and status --wait ends with 1 when the time is over, and with 0
// when the DaemonSet is there.
func TestE12ExplainHeldBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	c.kubectl("create", "namespace", "agents")
	c.kubectl("create", "quota", "none", "-n", "agents", "--hard=pods=0")
	c.apply(inNamespace(daemonSet("agent", "cpu: '2'", ""), "agents"))
	c.eventually(30*time.Second, "the quota refuses the pods", func(context.Context) error {
		text, err := c.everynode("doctor", "-n", "agents")
		if err == nil || !strings.Contains(text, "the quota none is used up") {
			return fmt.Errorf("doctor says: %s (%w)", text, err)
		}
		return nil
	})
	c.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, image: 'example/web:1', resources: {requests: {cpu: '3'}}}]}\n")
	c.eventually(30*time.Second, "the pod is held back", func(context.Context) error {
		text, err := c.everynode("explain", "pod/web")
		if flat := strings.Join(strings.Fields(text), " "); err != nil || !strings.Contains(flat, "It is held back on 2 nodes for agents/agent.") ||
			!strings.Contains(flat, "Its scheduler says: 0/2 nodes are available: 2 node(s) had cpu held for DaemonSet pods") {
			return fmt.Errorf("explain says: %s (%w)", text, err)
		}
		return nil
	})
	if _, err := c.everynode("status", "-n", "agents", "--wait", "--timeout=2s"); err == nil || !strings.Contains(err.Error(), "Not ready within 2s.") {
		t.Errorf("status --wait ends with %v", err)
	}
	c.kubectl("delete", "quota", "none", "-n", "agents")
	c.kubectl("rollout", "restart", "ds/agent", "-n", "agents")
	if text, err := c.everynode("status", "-n", "agents", "--wait", "--timeout=60s"); err != nil {
		t.Errorf("status --wait: %v\n%s", err, text)
	}
	if text, err := c.everynode("doctor", "-n", "agents"); err != nil {
		t.Errorf("doctor: %v\n%s", err, text)
	}
}

// Each command that is printed as Fix is taken by the API server as it stands, and neither those nor the ones that
// are printed as Next change anything, whether golden files or pages show them.
func TestPrintedCommandsChangeNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Node{Name: "n"}, localcluster.Node{Name: "node-12"})
	// No pod of a DaemonSet comes, so that nothing changes by itself.
	c.kubectl("taint", "node", "n", "node-12", "efs.csi.aws.com/agent-not-ready:NoSchedule")
	daemonSets := []string{"agent", "filebeat", "node-exporter"}
	for _, name := range daemonSets {
		surging := strings.Replace(daemonSet(name, "cpu: 100m", ""), "spec:", "spec:\n  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", 1)
		c.apply(surging)
		c.apply(strings.ReplaceAll(surging, "cpu: 100m", "cpu: 101m"))
	}
	c.kubectl("run", "agent-n", "--image=example/agent:1")
	c.eventually(60*time.Second, "two revisions of each, so that an update can be undone", func(ctx context.Context) error {
		revisions, err := c.Client.AppsV1().ControllerRevisions("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(revisions.Items) < 2*len(daemonSets) {
			return fmt.Errorf("%d revisions: %w", len(revisions.Items), err)
		}
		return nil
	})
	state := func() string {
		return c.kubectl("get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.labels}{.spec}{end}") +
			c.kubectl("get", "daemonsets,pods,serviceaccounts", "-A", "-o", "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {.spec}{end}")
	}
	before := state()
	fixes := 0
	for _, command := range printedCommands(t) {
		// What is watched is looked at for a moment.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if strings.Contains(command, "--watch") && !strings.Contains(command, "--watch=false") {
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		}
		output, err := c.run(exec.CommandContext(ctx, "bash", "-euc", command))
		cancel()
		if strings.Contains(command, "--dry-run=server") {
			fixes++
			if err != nil {
				t.Errorf("%s: %v\n%s", command, err, output)
			}
		}
	}
	if fixes < 15 {
		t.Errorf("only %d commands are printed as Fix", fixes)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("commands have changed the cluster (-before,+after):\n%s", diff)
	}
}

// printedCommands returns the commands of kubectl that are printed, which a test of pkg/cli collects.
func printedCommands(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile("../../pkg/cli/testdata/commands.list")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// completeScript returns the script that docs/cli.md shows.
func completeScript(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, found := strings.Cut(string(page), "#!/bin/sh\n")
	script, _, ended := strings.Cut(script, "EOF\n")
	if !found || !ended {
		t.Fatal("docs/cli.md has no script for completion")
	}
	return "#!/bin/sh\n" + script
}
