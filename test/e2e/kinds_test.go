// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// advancedDaemonSet is a DaemonSet of OpenKruise, whose controller does not run here:
// the API server only has to know that it exists.
const advancedDaemonSet = `
apiVersion: apps.kruise.io/v1alpha1
kind: DaemonSet
metadata: {name: advanced}
`

const advancedDaemonSets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: daemonsets.apps.kruise.io}
spec:
  group: apps.kruise.io
  names: {kind: DaemonSet, listKind: DaemonSetList, plural: daemonsets, singular: daemonset}
  scope: Namespaced
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// Pods of other DaemonSet controllers are daemon pods: nothing is held back from
// them, and they don't make room for those of apps/v1 DaemonSets.
func TestOtherDaemonSets(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(advancedDaemonSets)
	c.kubectl("wait", "--for=condition=Established", "crd/daemonsets.apps.kruise.io", "--timeout=20s")
	c.apply(advancedDaemonSet)
	uid := strings.TrimSpace(c.kubectl("get", "daemonsets.apps.kruise.io", "advanced", "-o", "jsonpath={.metadata.uid}"))
	c.apply(daemonSet("agent", "cpu: '1'", "") + deployment("web", 4, "cpu: '1'"))
	c.eventually(20*time.Second, "the web pods wait for a node", c.allTried("web", 4, 0, "no nodes available"))

	resume := c.openNodeWithoutControllers()
	c.eventually(20*time.Second, "three web pods run, one would take the room of the daemon pod",
		c.allTried("web", 4, 3, "node(s) had cpu held for DaemonSet pods"))
	c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: advanced-1
  labels: {app: advanced}
  ownerReferences: [{apiVersion: apps.kruise.io/v1alpha1, kind: DaemonSet, name: advanced, uid: %s, controller: true}]
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]
  containers: [{name: main, image: "example/advanced:1.0", resources: {requests: {cpu: '1'}}}]
`, uid))
	c.eventually(20*time.Second, "a pod of the other DaemonSet takes the room", c.running("advanced", 1))
	advanced := c.boundUIDs("advanced")

	resume()
	c.eventually(30*time.Second, "the daemon pod takes the place of a web pod", c.running("agent", 1))
	c.eventually(30*time.Second, "two web pods are left", c.running("web", 2))
	if gone := c.gone("advanced", advanced); len(gone) > 0 {
		t.Errorf("the youngest pod was evicted although it belongs to a DaemonSet: %v", gone)
	}
}
