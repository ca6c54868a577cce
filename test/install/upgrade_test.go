// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"testing"

	"everynode.dev/everynode/test/localcluster"
)

// A release of an earlier chart, with fixed users and another port, is upgraded while pods
// are created all the time: each of them is sent to a webhook, and the certificates stay.
//
// testdata/everynode-before.tgz is the chart as it was before it worked on 1.35. The old
// images are not here: today's webhook runs in their place, with the rights that it needs more.
func TestUpgradeFromAnEarlierChart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, localcluster.Stock)
	c.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: team-blue}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: important}
value: 1000
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent-blue}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: main, image: "example/main:1.0"}]}
`)
	c.kubectl("create", "clusterrole", "later-rights", "--verb=list,watch", "--resource=limitranges,resourcequotas")
	c.kubectl("create", "clusterrolebinding", "later-rights", "--clusterrole=later-rights", "--serviceaccount=team-blue:blue-everynode-webhook")
	r := c.startNode().install("blue", "testdata/everynode-before.tgz", "--set", "scheduler.enabled=false")
	r.upgradeUnderLoad()
}
