// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/localcluster"
)

var rounds = flag.Int("leader-changes", 3, "how often the leading scheduler is told to end, and is killed, in TestReplace")

// Two schedulers run in place of kube-scheduler, with the arguments of the static pod and
// the rights of its user. The leader is told to end again and again, as in a rolling update: the next pod is placed
// within two seconds. And it is killed again and again: the next pod is placed within the time that its lease lasts,
// and two seconds.
func TestReplace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, localcluster.None)
	running := make(map[string]*process)
	for _, name := range []string{"one", "two"} {
		running[name] = c.staticPod(name)
	}
	for round := range *rounds {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			leader := c.leading(running)
			allowed := 2 * time.Second
			if signal == syscall.SIGKILL {
				lease, err := c.Client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				allowed += time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
			}
			began := time.Now()
			if err := running[leader].command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			c.place(fmt.Sprintf("after-%d-%d", signal, round))
			took := time.Since(began)
			t.Logf("after signal %q to the leader the next pod had its node after %.1fs, which may take %s", signal, took.Seconds(), allowed)
			if took > allowed {
				t.Error("that is too late")
			}
			<-running[leader].ended
			running[leader] = c.staticPod(leader)
		}
	}
}

// leading returns which of two schedulers leads, once the other one stands by.
func (c *cluster) leading(running map[string]*process) (leader string) {
	c.Helper()
	c.eventually("one leads and the other one stands by", func(context.Context) error {
		standby := false
		for name, p := range running {
			switch said := p.said(c.T); {
			case strings.Contains(said, "uccessfully acquired lease"):
				leader = name
			case strings.Contains(said, "ttempting to acquire leader lease"):
				standby = true
			}
		}
		if leader == "" || !standby {
			return errors.New("they do not say so")
		}
		return nil
	})
	return leader
}

// staticPod runs the scheduler with the arguments of the static pod, as its user.
func (c *cluster) staticPod(name string) *process {
	c.Helper()
	var pod corev1.Pod
	manifest, err := os.ReadFile("../../deploy/static-pod/everynode-scheduler.yaml")
	if err != nil {
		c.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(manifest, &pod); err != nil {
		c.Fatal(err)
	}
	dir := c.TempDir()
	kubeconfig, config := filepath.Join(dir, "scheduler.conf"), filepath.Join(dir, "scheduler.yaml")
	credentials, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		c.Fatal(err)
	}
	for _, user := range credentials.AuthInfos {
		user.Impersonate = "system:kube-scheduler"
	}
	if err := clientcmd.WriteToFile(*credentials, kubeconfig); err != nil {
		c.Fatal(err)
	}
	// As its README says.
	if err := os.WriteFile(config, localcluster.WithKubeconfig(deploy.ReplaceConfig, kubeconfig), 0o600); err != nil {
		c.Fatal(err)
	}
	port, err := c.ReservePort()
	if err != nil {
		c.Fatal(err)
	}
	paths := strings.NewReplacer("/etc/kubernetes/scheduler.conf", kubeconfig, "/etc/everynode/scheduler.yaml", config)
	args := []string{fmt.Sprintf("--secure-port=%d", port), "--permit-port-sharing"}
	for _, arg := range pod.Spec.Containers[0].Args {
		args = append(args, paths.Replace(arg))
	}
	p, err := c.start(name, filepath.Join(*binDir, localcluster.EverynodeScheduler), args)
	if err != nil {
		c.Fatal(err)
	}
	return p
}

// place makes a pod that names no scheduler, and waits until it has a node.
func (c *cluster) place(name string) {
	c.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/main:1.0"}}}}
	if _, err := c.Client.CoreV1().Pods("default").Create(c.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	c.eventually(name+" has a node", func(ctx context.Context) error {
		pod, err := c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil && pod.Spec.NodeName == "" {
			err = errors.New("it waits")
		}
		return err
	})
}
