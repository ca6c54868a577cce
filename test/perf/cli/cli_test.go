// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli measures kubectl everynode on a cluster of the largest size that
// Kubernetes is made for: the command itself, and a real API server with all objects.
package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"everynode.dev/everynode/pkg/snapshot"
	"everynode.dev/everynode/pkg/snapshot/snapshottest"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir     = flag.String("bin", "../../../bin", "folder with the programs that make build makes")
	runs       = flag.Int("runs", 5, "how often each command is measured")
	nodes      = flag.Int("nodes", 5_000, "how many nodes there are")
	daemonSets = flag.Int("daemonsets", 50, "how many DaemonSets there are")
	pods       = flag.Int("pods", 100_000, "how many pods there are")
)

// mostMemory fits a laptop beside everything else.
const mostMemory = 400 << 20

func TestLargestCluster(t *testing.T) {
	cluster, err := localcluster.Start(t.Context(), localcluster.Options{BinDir: *binDir, Scheduler: localcluster.None, Webhook: true})
	t.Cleanup(cluster.Stop)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody may change what is created now.
	for _, name := range []string{localcluster.Kwok, localcluster.ControllerManager} {
		if err := cluster.Process(name).Pause(); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	fill(t, cluster.Client, snapshottest.Cluster(*nodes, *daemonSets, *pods))
	t.Logf("%d nodes, %d DaemonSets and %d pods were created in %s", *nodes, *daemonSets, *pods, time.Since(begun).Round(time.Second))

	server := newProxy(t, cluster.Config)
	beside := measure(t, server, "kubectl", "get", "pods", "-A", "-o", "json")
	for _, args := range [][]string{
		{"status", "-A"},
		{"explain", "ds/daemons-0"},
		{"map", "-A"},
		{"map", "-A", "--html=-"},
		{"map", "-A", "-o", "json"},
	} {
		took := measure(t, server, "kubectl-everynode", args...)
		t.Logf("%s takes %.2f of the time of kubectl get pods", strings.Join(args, " "), took.Seconds()/beside.Seconds())
	}
	measureServers(t, cluster)
}

// measure runs a command again and again, and returns the median of the time it takes.
func measure(t *testing.T, server *proxy, program string, args ...string) time.Duration {
	t.Helper()
	var whole, after, processor []time.Duration
	var memory, size int64
	for range *runs {
		command := exec.CommandContext(t.Context(), filepath.Join(*binDir, program), append(slices.Clone(args), "--kubeconfig="+server.kubeconfig)...)
		var out counter
		var errOut bytes.Buffer
		command.Stdout, command.Stderr = &out, &errOut
		begun := time.Now()
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		peak := watchMemory(command.Process.Pid)
		if err := command.Wait(); err != nil {
			t.Fatalf("%s: %v: %s", args, err, &errOut)
		}
		ended := time.Now()
		whole, after = append(whole, ended.Sub(begun)), append(after, ended.Sub(server.lastByte()))
		processor = append(processor, command.ProcessState.UserTime()+command.ProcessState.SystemTime())
		memory, size = max(memory, <-peak), int64(out)
	}
	t.Logf("%-28s %s in all (%s to %s), %s after the last byte, %s of processor time, %d MiB at most, prints %d kB",
		strings.Join(args, " "), median(whole), slices.Min(whole).Round(time.Millisecond), slices.Max(whole).Round(time.Millisecond),
		median(after), median(processor), memory>>20, size/1000)
	if program != "kubectl" && memory > mostMemory {
		t.Errorf("%s took more than %d MiB", args, mostMemory>>20)
	}
	return median(whole)
}

// watchMemory sends the most resident memory that a process has had, in bytes, when it has
// ended. Its ru_maxrss would be no less than that of the process that has started it.
func watchMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		var most int64
		for range time.Tick(5 * time.Millisecond) {
			now, err := peakMemory(pid)
			if err != nil {
				break
			}
			most = max(most, now)
		}
		peak <- most
	}()
	return peak
}

// peakMemory returns the most resident memory that a process has had, in bytes.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kibibytes int64
	// A process that has ended and is not waited for has no memory.
	_, err = fmt.Sscan(string(line), &kibibytes)
	return kibibytes << 10, err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// measureServers has the scheduler place some pods, and tells what it and the webhook, which
// has seen all pods, have needed of memory. The chart's limits follow from it.
func measureServers(t *testing.T, cluster *localcluster.Cluster) {
	t.Helper()
	begun := time.Now()
	if err := cluster.StartScheduler(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := cluster.Client.CoreV1().Pods(metav1.NamespaceDefault)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "last"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/main:1.0"}}}}
	if _, err := client.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		found, err := client.Get(ctx, pod.Name, metav1.GetOptions{})
		return err == nil && found.Spec.NodeName != "", err
	}); err != nil {
		t.Fatalf("the scheduler places no pod: %v", err)
	}
	t.Logf("the scheduler has placed a pod %s after its start", time.Since(begun).Round(time.Second))
	for _, name := range []string{localcluster.EverynodeScheduler, localcluster.EverynodeWebhook} {
		memory, err := peakMemory(cluster.Process(name).Pid())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d MiB at most", name, memory>>20)
	}
}

func median(durations []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(durations))[len(durations)/2].Round(time.Millisecond)
}

// proxy stands before the API server and notes when the last byte of an answer has gone.
type proxy struct {
	kubeconfig string
	last       atomic.Int64
}

func (p *proxy) lastByte() time.Time { return time.Unix(0, p.last.Load()) }

func newProxy(t *testing.T, config *rest.Config) *proxy {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(response *http.Response) error {
			response.Body = &watched{response.Body, p}
			return nil
		},
	})
	t.Cleanup(server.Close)
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"large": {Server: server.URL}},
		Contexts:       map[string]*clientcmdapi.Context{"large": {Cluster: "large"}},
		CurrentContext: "large",
	}, p.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

type watched struct {
	io.ReadCloser
	proxy *proxy
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.proxy.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// fill creates all objects as they are.
func fill(t *testing.T, client kubernetes.Interface, cluster *snapshot.Cluster) {
	t.Helper()
	each(t, cluster.Nodes, func(ctx context.Context, node *corev1.Node) error {
		created, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// Admission taints nodes that are new.
		created.Spec.Taints = node.Spec.Taints
		_, err = client.CoreV1().Nodes().Update(ctx, created, metav1.UpdateOptions{})
		return err
	})
	uids := make(map[string]types.UID)
	for _, ds := range cluster.DaemonSets {
		ds.UID, ds.ResourceVersion = "", ""
		status := ds.Status
		created, err := client.AppsV1().DaemonSets(ds.Namespace).Create(t.Context(), valid(ds), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		created.Status = status
		created.Status.ObservedGeneration = created.Generation
		created.Status.CurrentNumberScheduled = status.DesiredNumberScheduled
		if _, err := client.AppsV1().DaemonSets(ds.Namespace).UpdateStatus(t.Context(), created, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		uids[ds.Name] = created.UID
	}
	each(t, cluster.Pods, func(ctx context.Context, pod *corev1.Pod) error {
		if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "DaemonSet" {
			pod.OwnerReferences[0].UID = uids[owner.Name]
		}
		pod.UID, pod.ResourceVersion = "", ""
		status := pod.Status
		created, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, runnable(pod), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// The webhook leaves no pod of a DaemonSet on a node that no scheduler has chosen.
		if created.Spec.NodeName != pod.Spec.NodeName {
			binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: pod.Spec.NodeName}}
			if err := client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
				return err
			}
			// The binding has made a newer version.
			created.ResourceVersion = ""
		}
		created.Status.Phase, created.Status.Conditions, created.Status.ContainerStatuses = status.Phase, status.Conditions, status.ContainerStatuses
		_, err = client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
		return err
	})
}

// valid adds what the API server asks for and tests of the verdicts don't.
func valid(ds *appsv1.DaemonSet) *appsv1.DaemonSet {
	ds.Spec.Template.Labels = ds.Spec.Selector.MatchLabels
	nameContainers(&ds.Spec.Template.Spec)
	return ds
}

// runnable does the same for a pod.
func runnable(pod *corev1.Pod) *corev1.Pod {
	nameContainers(&pod.Spec)
	// Its class has no object.
	pod.Spec.Priority = nil
	return pod
}

func nameContainers(spec *corev1.PodSpec) {
	for n := range spec.Containers {
		c := &spec.Containers[n]
		c.Name, c.Image = fmt.Sprintf("main-%d", n), "example/main:1.0"
	}
}

// each does something with all objects, many at a time.
func each[T any](t *testing.T, objects []T, do func(context.Context, T) error) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for _, object := range objects {
		group.Go(func() error { return do(ctx, object) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "localcluster", "build") }
