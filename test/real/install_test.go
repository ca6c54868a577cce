// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package real

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// namespace is where everynode is installed.
const namespace = "everynode-system"

// install installs the chart as docs/install.md says, into a namespace that admits only
// pods without any right.
func (c *cluster) install() {
	c.Helper()
	c.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: ` + namespace + `, labels: {pod-security.kubernetes.io/enforce: restricted}}
`)
	c.helm("install", "everynode", "../../charts/everynode", "--namespace", namespace, "--wait", "--timeout", patience.String(),
		"--set", "image.registry="+registry+",image.tag="+tag+",webhook.failurePolicy=Fail")
	c.webhookIsReached()
}

// webhookIsReached waits until the API server admits a DaemonSet, which it does only with
// the webhook's answer.
func (c *cluster) webhookIsReached() {
	c.Helper()
	c.eventually("the API server reaches the webhook", func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, []byte(daemonSet("nothing", "", "", "")), "create", "--dry-run=server", "-f", "-")
		return err
	})
}

// helm runs helm as the administrator.
func (c *cluster) helm(args ...string) {
	c.Helper()
	output, err := c.Helm(c.Context(), args...)
	if err != nil {
		c.Fatal(err)
	}
	c.Log(output)
}

// everynodePods returns the pods of one of everynode's programs.
func (c *cluster) everynodePods(ctx context.Context, program string) ([]corev1.Pod, error) {
	component := strings.TrimPrefix(program, "everynode-")
	list, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// scaleScheduler has a number of schedulers run, and waits until these are ready and
// others have gone.
func (c *cluster) scaleScheduler(replicas int) {
	c.Helper()
	c.kubectl("scale", "deployment", localcluster.EverynodeScheduler, "--namespace", namespace, fmt.Sprintf("--replicas=%d", replicas))
	c.eventually(fmt.Sprintf("%d schedulers are ready", replicas), func(ctx context.Context) error {
		pods, err := c.everynodePods(ctx, localcluster.EverynodeScheduler)
		if err != nil {
			return err
		}
		if len(pods) != replicas {
			return fmt.Errorf("there are %d", len(pods))
		}
		for i := range pods {
			if !clustertest.IsReady(&pods[i]) {
				return fmt.Errorf("%s is not: %s", pods[i].Name, whyNot(&pods[i]))
			}
		}
		return nil
	})
}

// The kernel lets everynode's programs do nothing that they have no need for.
func everynodeRunsWithoutRights(c *cluster) { c.runsWithoutRightsAs("65532") }

// The images run as any user and group, as OpenShift gives one to each namespace.
func everynodeRunsAsAnyUser(c *cluster) {
	c.upgrade(`
scheduler: {podSecurityContext: {runAsUser: 1000690000, runAsGroup: 1000690000}}
webhook: {podSecurityContext: {runAsUser: 1000690000, runAsGroup: 1000690000}}
`)
	c.runsWithoutRightsAs("1000690000")
	c.webhookIsReached()
}

// The webhook is reached on the nodes' own addresses, beside the kubelets, where the control
// plane cannot reach pods.
func webhookOnHostNetwork(c *cluster) {
	c.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
	c.upgrade("webhook: {hostNetwork: true, port: 10260}\n")
	pods, err := c.everynodePods(c.Context(), localcluster.EverynodeWebhook)
	if err != nil {
		c.Fatal(err)
	}
	for i := range pods {
		if pods[i].Status.PodIP != pods[i].Status.HostIP {
			c.Errorf("%s has address %s, want %s of its node", pods[i].Name, pods[i].Status.PodIP, pods[i].Status.HostIP)
		}
	}
	c.webhookIsReached()
}

// upgrade changes values of the release and waits until the pods before have gone.
func (c *cluster) upgrade(values string) {
	c.Helper()
	file := filepath.Join(c.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		c.Fatal(err)
	}
	c.helm("upgrade", "everynode", "../../charts/everynode", "--namespace", namespace, "--reuse-values", "--values", file, "--wait", "--timeout", patience.String())
	c.eventually("two pods of each program are left", func(ctx context.Context) error {
		for _, program := range []string{localcluster.EverynodeScheduler, localcluster.EverynodeWebhook} {
			pods, err := c.everynodePods(ctx, program)
			if err != nil {
				return err
			}
			if len(pods) != 2 {
				return fmt.Errorf("%s has %d pods", program, len(pods))
			}
		}
		return nil
	})
}

func (c *cluster) runsWithoutRightsAs(user string) {
	c.Helper()
	ids := strings.TrimSpace(strings.Repeat(user+" ", 4))
	for _, program := range []string{localcluster.EverynodeScheduler, localcluster.EverynodeWebhook} {
		pods, err := c.everynodePods(c.Context(), program)
		if err != nil {
			c.Fatal(err)
		}
		if len(pods) != 2 {
			c.Errorf("%s has %d pods, want 2", program, len(pods))
		}
		for i := range pods {
			running := processesOfPod(&pods[i])
			if len(running) != 1 {
				c.Errorf("%s has %d processes, want 1", pods[i].Name, len(running))
				continue
			}
			want := map[string]string{
				"Uid": ids, "Gid": ids, "CapEff": "0000000000000000", "CapBnd": "0000000000000000",
				"NoNewPrivs": "1", "Seccomp": "2", "root": "ro",
			}
			if diff := cmp.Diff(want, rightsOf(running[0], slices.Collect(maps.Keys(want)))); diff != "" {
				c.Errorf("%s (-want, +got):\n%s", pods[i].Name, diff)
			}
		}
	}
}

// rightsOf returns what the kernel says of a process, by the names in its status file,
// and how its root is mounted.
func rightsOf(pid int, names []string) map[string]string {
	rights := make(map[string]string)
	for line := range strings.Lines(string(readProc(pid, "status"))) {
		if name, value, _ := strings.Cut(line, ":"); slices.Contains(names, name) {
			rights[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	for line := range strings.Lines(string(readProc(pid, "mountinfo"))) {
		// Its id, its parent's, a device, the root in it, the mount point, options.
		if fields := strings.Fields(line); len(fields) > 5 && fields[4] == "/" {
			rights["root"], _, _ = strings.Cut(fields[5], ",")
		}
	}
	return rights
}

// The pods of the agent were placed by the scheduler that the chart installs.
func everynodePlacesAgent(c *cluster) {
	for _, node := range everyNode {
		pod, err := c.podOn(c.Context(), "agent", node)
		if err != nil {
			c.Fatal(err)
		}
		c.eventually("an event says who placed "+pod.Name, func(ctx context.Context) error {
			by, err := c.Kubectl(ctx, nil, "get", "events", "--field-selector=reason=Scheduled,involvedObject.name="+pod.Name, "-o", "jsonpath={.items[*].reportingComponent}")
			if err == nil && by != localcluster.EverynodeScheduler {
				err = fmt.Errorf("it was placed by %q", by)
			}
			return err
		})
	}
}

// What everynode has placed and changed goes on when it has gone, and what comes then is
// as if it had never been there.
func uninstallsCleanly(c *cluster, before []string) {
	c.helm("uninstall", "everynode", "--namespace", namespace, "--wait", "--timeout", patience.String())
	c.kubectl("delete", "namespace", namespace)
	c.apply(strings.ReplaceAll(daemonSet("stock", "", "cpu: 10m", ""), localcluster.EverynodeScheduler, corev1.DefaultSchedulerName))
	for _, app := range []string{"stock", "agent"} {
		c.eventually(app+" is ready on every node", func(ctx context.Context) error { return c.readyOn(ctx, app, everyNode...) })
	}
	c.kubectl("delete", "daemonset", "agent", "stock")
	c.eventually("nothing more is there than before", func(context.Context) error {
		if diff := cmp.Diff(before, clustertest.Objects(c, c.Cluster)); diff != "" {
			return fmt.Errorf("(-before, +after):\n%s", diff)
		}
		return nil
	})
}
