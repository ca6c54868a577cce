// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// A22: ordinary pods start on a node only once the pod of a gating DaemonSet is Ready
// there; when it is no longer Ready, no new ones do, and running ones stay.
func TestA22Gate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	// Images of that name never turn Ready in the local cluster.
	broken := strings.Replace(daemonSet("cni", "cpu: 100m", ""), "example/cni:1.0", "example/cni:non-existent", 1)
	broken = strings.Replace(broken, "{name: cni}", `{name: cni, annotations: {everynode.dev/gate: "true"}}`, 1)
	works := strings.Replace(broken, ":non-existent", ":1.0", 1)
	c.apply(broken)
	c.apply(deployment("web", 4, "cpu: 100m") + restrict(deployment("critical", 1, "cpu: 100m"), "priorityClassName: system-cluster-critical"))
	c.eventually(20*time.Second, "the web pods wait, and it says for whom",
		c.allTried("web", 4, 0, "2 node(s) waited for DaemonSet default/cni to be Ready"))
	c.eventually(20*time.Second, "a critical pod passes", c.running("critical", 1))

	c.apply(works)
	c.eventually(30*time.Second, "the web pods run", c.running("web", 4))
	running := c.boundUIDs("web")

	c.apply(broken)
	c.eventually(30*time.Second, "one node is no longer Ready", c.running("cni", 1))
	c.kubectl("scale", "deployment", "web", "--replicas=12")
	c.eventually(20*time.Second, "new web pods run on the other node only", c.running("web", 12))
	cni, err := c.pods(t.Context(), app("cni"))
	if err != nil {
		t.Fatal(err)
	}
	open := ""
	for i := range cni {
		if clustertest.IsReady(&cni[i]) {
			open = cni[i].Spec.NodeName
		}
	}
	pods, err := c.pods(t.Context(), app("web"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range bound(pods) {
		if _, old := running[string(pod.UID)]; !old && pod.Spec.NodeName != open {
			t.Errorf("pod %s has come to node %s, which waits for cni", pod.Name, pod.Spec.NodeName)
		}
		delete(running, string(pod.UID))
	}
	if len(running) > 0 {
		t.Errorf("these have gone: %v", running)
	}

	// Without the gate nobody waits.
	c.kubectl("cordon", open)
	c.kubectl("scale", "deployment", "web", "--replicas=13")
	c.eventually(20*time.Second, "a pod waits", c.allTried("web", 13, 12, "waited for DaemonSet default/cni to be Ready"))
	c.kubectl("annotate", "daemonset", "cni", "everynode.dev/gate-")
	c.eventually(20*time.Second, "it runs", c.running("web", 13))
}

// An ordinary pod can name the DaemonSets that it needs.
func TestRequiredDaemonSets(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 1)...)
	needy := func(name, requires string) string {
		return strings.Replace(deployment(name, 1, "cpu: 100m"), "metadata: {labels: {app: "+name+"}}",
			"metadata: {labels: {app: "+name+`}, annotations: {everynode.dev/requires: "`+requires+`"}}`, 1)
	}
	c.apply(needy("web", "default/logs, default/metrics") + needy("typo", "logs"))
	c.eventually(20*time.Second, "it waits for a DaemonSet that does not exist",
		c.allTried("web", 1, 0, "annotation everynode.dev/requires: there is no DaemonSet default/logs"))
	c.eventually(20*time.Second, "a mistake is named",
		c.allTried("typo", 1, 0, `"logs" is not the namespace/name of a DaemonSet`))
	c.apply(daemonSet("logs", "", ""))
	c.eventually(20*time.Second, "it waits for the other", c.allTried("web", 1, 0, "there is no DaemonSet default/metrics"))
	c.apply(daemonSet("metrics", "", "nodeSelector: {metrics: wanted}"))
	c.kubectl("annotate", "pod", "-l", "app=typo", "--overwrite", "everynode.dev/requires=default/logs")
	c.eventually(20*time.Second, "the mistake is mended", c.running("typo", 1))
	c.kubectl("label", "node", "node-1", "metrics=wanted")
	c.eventually(20*time.Second, "it runs", c.running("web", 1))
}
