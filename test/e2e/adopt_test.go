// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/test/joinstorm"
	"everynode.dev/everynode/test/localcluster"
)

// M1: kube-scheduler and everynode side by side. everynode adopts the namespace of the join
// storm, which ends as if it had replaced kube-scheduler. The pods of kube-system, those that
// name a scheduler and those that stay out of it are not touched.
func TestM1AdoptedJoinStorm(t *testing.T) {
	if *kubernetesVersion == "1.35" {
		t.Skip("MutatingAdmissionPolicy is not GA before 1.36, and the chart refuses adopt there")
	}
	c := newCluster(t, func(o *localcluster.Options) {
		bin := o.BinDir
		*o = joinstorm.Options(localcluster.Stock)
		o.BinDir, o.Webhook = bin, true
	})
	if localcluster.Scheduler(*scheduler) == localcluster.Everynode {
		c.startSecondScheduler()
		c.adoptDefault()
	}
	c.kubectl("apply", "--namespace", "kube-system", "-f", c.file("system.yaml", daemonSet("system", "", "")))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	result, err := joinstorm.Run(ctx, c.Cluster, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	running, wanted := result.Daemons()
	t.Logf("%d/%d daemon pods, %d ordinary pods, %d evictions, settled in %s", running, wanted, result.Ordinary, result.Evicted, result.Took.Round(100*time.Millisecond))
	if running != 60 || wanted != 60 || result.Ordinary != 180 || result.Evicted != 0 || result.BoundTwice != 0 {
		t.Errorf("%d of %d daemon pods and %d ordinary pods run, %d were evicted, %d bound twice; want 60 of 60, 180, none and none",
			running, wanted, result.Ordinary, result.Evicted, result.BoundTwice)
	}
	c.eventually(30*time.Second, "kube-scheduler has placed the pods of kube-system", func(ctx context.Context) error {
		return c.complete(ctx, "kube-system", "system", joinstorm.Nodes)
	})
	for namespace, want := range map[string]string{"default": localcluster.EverynodeScheduler, "kube-system": corev1.DefaultSchedulerName} {
		pods, err := c.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range pods.Items {
			if got := pods.Items[i].Spec.SchedulerName; got != want {
				t.Errorf("pod %s/%s has scheduler %s, want %s", namespace, pods.Items[i].Name, got, want)
			}
		}
	}
}

// startSecondScheduler starts everynode beside the cluster's scheduler.
func (c *cluster) startSecondScheduler() {
	c.t.Helper()
	shipped, err := os.ReadFile("../../deploy/scheduler-config/second.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	config := c.file("second.yaml", string(localcluster.WithKubeconfig(shipped, c.Kubeconfig)))
	port, err := c.ReservePort()
	if err != nil {
		c.t.Fatal(err)
	}
	command := exec.CommandContext(c.t.Context(), filepath.Join(*binDir, localcluster.EverynodeScheduler), "--config="+config,
		"--authentication-kubeconfig="+c.Kubeconfig, "--authorization-kubeconfig="+c.Kubeconfig,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--permit-port-sharing")
	if *kubernetesVersion != "" {
		command.Args = append(command.Args, "--emulated-version="+*kubernetesVersion)
	}
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		// The test's context has ended it.
		_ = command.Wait()
		if c.t.Failed() {
			c.t.Logf("everynode-scheduler:\n%s", &log)
		}
	})
	c.eventually(30*time.Second, "everynode leads", func(ctx context.Context) error {
		lease, err := c.Client.CoordinationV1().Leases("everynode-system").Get(ctx, localcluster.EverynodeScheduler, metav1.GetOptions{})
		if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "") {
			err = errors.New("nobody does")
		}
		return err
	})
}

// adoptDefault has new pods of the namespace default given to everynode, and checks which.
func (c *cluster) adoptDefault() {
	c.t.Helper()
	c.kubectl("apply", "-f", "../../deploy/components/adopt/policy.yaml")
	c.kubectl("label", "namespace", "default", "kube-system", "everynode.dev/adopt=enabled")
	pod := func(namespace string) *st.PodWrapper {
		return st.MakePod().Namespace(namespace).Name("new").Container("example/main:1.0")
	}
	schedulerOf := func(ctx context.Context, pod *corev1.Pod) (string, error) {
		admitted, err := c.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return "", err
		}
		return admitted.Spec.SchedulerName, nil
	}
	c.eventually(30*time.Second, "a new pod is adopted", func(ctx context.Context) error {
		got, err := schedulerOf(ctx, pod("default").Obj())
		if err == nil && got != localcluster.EverynodeScheduler {
			err = fmt.Errorf("its scheduler is %s", got)
		}
		return err
	})
	c.apply(daemonSet("agent", "", ""))
	owner, err := c.Client.AppsV1().DaemonSets("default").Get(c.t.Context(), "agent", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	ofDaemonSet := pod("default").Node("node-1").Obj()
	ofDaemonSet.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}
	system := pod("default").Obj()
	system.Spec.PriorityClassName = "system-node-critical"
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"in kube-system":                       {pod("kube-system").Obj(), corev1.DefaultSchedulerName},
		"of a system class":                    {system, corev1.DefaultSchedulerName},
		"that stays out":                       {pod("default").Annotation("everynode.dev/adopt", "false").Obj(), corev1.DefaultSchedulerName},
		"with a node":                          {pod("default").Node("node-1").Obj(), corev1.DefaultSchedulerName},
		"that the webhook takes from its node": {ofDaemonSet, localcluster.EverynodeScheduler},
		"that names another scheduler":         {pod("default").SchedulerName("other").Obj(), "other"},
		"with another annotation":              {pod("default").Annotation("team", "blue").Obj(), localcluster.EverynodeScheduler},
		"that does not stay out by mistake":    {pod("default").Annotation("everynode.dev/adopt", "true").Obj(), localcluster.EverynodeScheduler},
	} {
		if got, err := schedulerOf(c.t.Context(), tc.pod); err != nil || got != tc.want {
			c.t.Errorf("a pod %s has scheduler %q, want %q (%v)", name, got, tc.want, err)
		}
	}
	c.kubectl("delete", "daemonset", "agent")
}

// file writes a file and returns its path.
func (c *cluster) file(name, content string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.TrimLeft(content, "\n")), 0o600); err != nil { //nolint:gosec // the tests name the files
		c.t.Fatal(err)
	}
	return path
}
