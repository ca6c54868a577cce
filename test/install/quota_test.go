// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// limitedClasses has an API server refuse pods of the system's priority classes where no
// ResourceQuota is for them, as GKE's does.
const limitedClasses = `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes: [{scopeName: PriorityClass, operator: In, values: [system-cluster-critical, system-node-critical]}]
`

// quota lets the pods of a namespace have these classes. Kube-system has such a quota on GKE.
const quota = `
apiVersion: v1
kind: ResourceQuota
metadata: {namespace: %s, name: critical-pods}
spec:
  hard: {pods: 1G}
  scopeSelector:
    matchExpressions: [{scopeName: PriorityClass, operator: In, values: [system-cluster-critical, system-node-critical]}]
---
`

// G1: where the system's priority classes are limited, the chart installs and its pods run,
// and a policy with such a class keeps no pod of a DaemonSet away.
func TestG1LimitedPriorityClasses(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(config, []byte(limitedClasses), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, localcluster.Stock, "--admission-control-config-file="+config)
	c.kubectl("create", "namespace", "logging")
	c.apply(fmt.Sprintf(quota, metav1.NamespaceSystem) + fmt.Sprintf(quota, "logging"))

	r := c.startNode().install("blue", chart, "--create-namespace",
		"--set", "webhook.policies[0].name=all,webhook.policies[0].pod.priorityClassName=system-node-critical")
	for namespace, want := range map[string]string{"default": "", "logging": "system-node-critical", metav1.NamespaceSystem: "system-node-critical"} {
		r.kubectl("apply", "--namespace", namespace, "-f", r.file(r.daemonSet("agent")))
		r.eventually("the DaemonSet in "+namespace+" is complete", r.completeIn(namespace, "agent"))
		r.eventually("its pods have the class that they may have", func(ctx context.Context) error {
			pods, err := r.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=agent"})
			if err != nil {
				return err
			}
			for i := range pods.Items {
				if got := pods.Items[i].Spec.PriorityClassName; got != want {
					return fmt.Errorf("%s has class %q, want %q", pods.Items[i].Name, got, want)
				}
			}
			return nil
		})
	}
}

// file writes manifests into a file and returns its path.
func (c *cluster) file(manifests string) string {
	c.Helper()
	path := filepath.Join(c.TempDir(), "manifests.yaml")
	if err := os.WriteFile(path, []byte(manifests), 0o600); err != nil {
		c.Fatal(err)
	}
	return path
}
