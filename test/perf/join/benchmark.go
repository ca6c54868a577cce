// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"everynode.dev/everynode/test/localcluster"
)

// result is what one run has measured.
type result struct {
	size
	Round     int    `json:"round"`
	Contender string `json:"contender"`
	// DaemonPods and OrdinaryPods are the numbers of pods that are bound in the end.
	DaemonPods   int `json:"daemonPods"`
	OrdinaryPods int `json:"ordinaryPods"`
	// Evicted is the number of ordinary pods that were bound and deleted.
	Evicted int `json:"evicted"`
	// FromCreation and FromNode say when daemon pods were bound after their own creation, and after their
	// node's, in nanoseconds.
	FromCreation quantiles `json:"fromCreation"`
	FromNode     quantiles `json:"fromNode"`
	// Settled is the time from the first node to the last pod that was created, bound or deleted.
	Settled time.Duration `json:"settled"`
	// Writes are the requests that change something, of everybody, by verb and resource.
	Writes map[string]int `json:"writes"`
	// CPU is the processor time of the scheduler after the first node, and Memory what it held in memory at
	// most, in bytes.
	CPU    time.Duration `json:"cpu"`
	Memory int64         `json:"memory"`
}

type quantiles struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

func quantilesOf(durations []time.Duration) quantiles {
	if len(durations) == 0 {
		return quantiles{}
	}
	slices.Sort(durations)
	return quantiles{P50: durations[len(durations)/2], P99: durations[len(durations)*99/100]}
}

func (r *result) writes() int {
	sum := 0
	for _, n := range r.Writes {
		sum += n
	}
	return sum
}

func (r *result) String() string {
	return fmt.Sprintf("%s: %d daemon and %d ordinary pods bound, %d evicted, from creation %.1f / %.1f s, from the node %.1f / %.1f s, settled %.1f s, %d writes, %.1f s CPU, %d MiB",
		r.Contender, r.DaemonPods, r.OrdinaryPods, r.Evicted, r.FromCreation.P50.Seconds(), r.FromCreation.P99.Seconds(),
		r.FromNode.P50.Seconds(), r.FromNode.P99.Seconds(), r.Settled.Seconds(), r.writes(), r.CPU.Seconds(), r.Memory>>20)
}

// Requests of the pods. A node has room for one pod of each DaemonSet and for perNode ordinary pods.
const (
	daemonCPU   = 20 // m
	ordinaryCPU = 100
	perNode     = 30
	namespace   = "default"
)

// benchmark is one run of one contender.
type benchmark struct {
	size
	contender
	// config is the scheduler's configuration, nil for the default.
	config            []byte
	binDir, artifacts string

	cluster *localcluster.Cluster

	mu      sync.Mutex // protects the rest
	pods    map[types.UID]*seen
	nodes   map[string]time.Time
	changed time.Time
}

// seen is when a pod was seen first, and bound.
type seen struct {
	daemon         bool
	node           string
	created, bound time.Time
	tried, deleted bool
}

func (b *benchmark) run(ctx context.Context) (_ *result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	options := localcluster.Options{BinDir: b.binDir, Scheduler: b.scheduler, Webhook: b.scheduler == localcluster.Everynode, SchedulerConfig: b.config}
	b.cluster, err = localcluster.Start(ctx, options)
	defer b.cluster.Stop()
	if err != nil {
		return nil, err
	}
	if err := b.watch(ctx); err != nil {
		return nil, err
	}
	if err := b.createWorkloads(ctx); err != nil {
		return nil, err
	}
	before, err := b.measureProcesses(ctx)
	if err != nil {
		return nil, err
	}

	began := time.Now()
	if err := b.cluster.AddNodes(ctx, b.newNodes()...); err != nil {
		return nil, err
	}
	profiled := b.profile(ctx)
	if err := b.waitUntil(ctx, "pods to be bound", b.settled); err != nil {
		return nil, err
	}
	after, err := b.measureProcesses(ctx)
	if err != nil {
		return nil, err
	}
	r := b.count(began)
	r.CPU, r.Memory = after.cpu-before.cpu, after.memory
	r.Writes = make(map[string]int)
	for kind, n := range after.writes {
		if n -= before.writes[kind]; n > 0 {
			r.Writes[kind] = n
		}
	}
	return r, <-profiled
}

// profile writes a profile of the scheduler's first twenty seconds.
func (b *benchmark) profile(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	if b.artifacts == "" {
		done <- nil
		return done
	}
	go func() {
		content, err := b.cluster.Get(ctx, b.component(), "/debug/pprof/profile?seconds=20")
		if err == nil {
			err = os.MkdirAll(b.artifacts, 0o750)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(b.artifacts, strings.ReplaceAll(b.name, " ", "-")+".pprof"), []byte(content), 0o600)
		}
		done <- err
	}()
	return done
}

func (b *benchmark) component() string {
	if b.scheduler == localcluster.Stock {
		return localcluster.KubeScheduler
	}
	return localcluster.EverynodeScheduler
}

// watch keeps when pods and nodes were seen.
func (b *benchmark) watch(ctx context.Context) error {
	b.pods, b.nodes = make(map[types.UID]*seen), make(map[string]time.Time)
	factory := informers.NewSharedInformerFactory(b.cluster.Client, 0)
	pods, nodes := factory.Core().V1().Pods().Informer(), factory.Core().V1().Nodes().Informer()
	_, errPods := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { b.podSeen(object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { b.podSeen(object.(*corev1.Pod)) },
		DeleteFunc: func(object any) {
			if pod, ok := object.(*corev1.Pod); ok {
				b.podSeen(pod)
			}
		},
	})
	_, errNodes := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.nodes[object.(*corev1.Node).Name] = time.Now()
	}})
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	return errors.Join(errPods, errNodes, ctx.Err())
}

func (b *benchmark) podSeen(pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, now := b.pods[pod.UID], time.Now()
	if s == nil {
		owner := metav1.GetControllerOf(pod)
		s = &seen{created: now, daemon: owner != nil && owner.Kind == "DaemonSet"}
		b.pods[pod.UID], b.changed = s, now
	}
	if s.bound.IsZero() && pod.Spec.NodeName != "" {
		s.bound, s.node, b.changed = now, pod.Spec.NodeName, now
	}
	if !s.deleted && pod.DeletionTimestamp != nil {
		s.deleted, b.changed = true, now
	}
	s.tried = s.tried || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
}

// createWorkloads creates the DaemonSets and the ordinary pods, and waits until each of these was tried.
func (b *benchmark) createWorkloads(ctx context.Context) error {
	apps := b.cluster.Client.AppsV1()
	for i := range b.DaemonSets {
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("agent-%d", i)}}
		ds.Spec.Selector, ds.Spec.Template = template(ds.Name, daemonCPU)
		ds.Spec.Template.Spec.PriorityClassName = b.class
		if _, err := apps.DaemonSets(namespace).Create(ctx, ds, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if b.alone {
		return nil
	}
	web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	web.Spec.Replicas = new(int32(b.Pods))
	web.Spec.Selector, web.Spec.Template = template(web.Name, ordinaryCPU)
	if _, err := apps.Deployments(namespace).Create(ctx, web, metav1.CreateOptions{}); err != nil {
		return err
	}
	return b.waitUntil(ctx, "ordinary pods to be tried", func() bool {
		tried := 0
		for _, s := range b.pods {
			if s.tried {
				tried++
			}
		}
		return tried == b.Pods
	})
}

func template(name string, milliCPU int64) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": name}
	return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "example/" + name + ":1.0",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
			}},
		}}},
	}
}

func (b *benchmark) newNodes() []localcluster.Node {
	nodes := localcluster.Nodes(1, b.Nodes)
	for i := range nodes {
		nodes[i].Capacity = corev1.ResourceList{
			corev1.ResourceCPU: *resource.NewMilliQuantity(int64(perNode*ordinaryCPU+b.DaemonSets*daemonCPU), resource.DecimalSI),
		}
	}
	return nodes
}

// calm is how long nothing may change before the run is over. A pod that failed waits ten seconds at most until
// it is tried again.
const calm = 12 * time.Second

// settled says whether all daemon pods exist and nothing has changed for a while.
func (b *benchmark) settled() bool {
	daemonPods := 0
	for _, s := range b.pods {
		if s.daemon && !s.deleted {
			daemonPods++
		}
	}
	return daemonPods >= b.Nodes*b.DaemonSets && time.Since(b.changed) > calm
}

// waitUntil polls done, which is called with the lock held.
func (b *benchmark) waitUntil(ctx context.Context, what string, done func() bool) error {
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return done(), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}

func (b *benchmark) count(began time.Time) *result {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &result{size: b.size, Contender: b.name, Settled: b.changed.Sub(began)}
	var fromCreation, fromNode []time.Duration
	for _, s := range b.pods {
		switch bound := !s.bound.IsZero(); {
		case bound && s.daemon && !s.deleted:
			r.DaemonPods++
			fromCreation = append(fromCreation, s.bound.Sub(s.created))
			fromNode = append(fromNode, s.bound.Sub(b.nodes[s.node]))
		case bound && !s.daemon && s.deleted:
			r.Evicted++
		case bound && !s.daemon:
			r.OrdinaryPods++
		}
	}
	r.FromCreation, r.FromNode = quantilesOf(fromCreation), quantilesOf(fromNode)
	return r
}

// usage is what the processes say of themselves.
type usage struct {
	cpu    time.Duration
	memory int64
	writes map[string]int
}

func (b *benchmark) measureProcesses(ctx context.Context) (*usage, error) {
	scheduler, err := b.cluster.Get(ctx, b.component(), "/metrics")
	if err != nil {
		return nil, err
	}
	u := &usage{writes: make(map[string]int)}
	families, err := parse(scheduler)
	if err != nil {
		return nil, err
	}
	for _, m := range families["process_cpu_seconds_total"].GetMetric() {
		u.cpu = time.Duration(m.GetCounter().GetValue() * float64(time.Second))
	}
	if u.memory, err = peakMemory(b.cluster.Process(b.component()).Pid()); err != nil {
		return nil, err
	}
	apiServer, err := b.cluster.Client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	if families, err = parse(string(apiServer)); err != nil {
		return nil, err
	}
	for _, m := range families["apiserver_request_total"].GetMetric() {
		labels := make(map[string]string)
		for _, label := range m.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		if !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, labels["verb"]) || labels["resource"] == "leases" {
			continue
		}
		u.writes[strings.TrimSuffix(labels["verb"]+" "+labels["resource"]+"/"+labels["subresource"], "/")] += int(m.GetCounter().GetValue())
	}
	return u, nil
}

func parse(metrics string) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(metrics))
}

// peakMemory returns what a process held in memory at most, in bytes (proc_pid_status(5), VmHWM). Only Linux says it.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kibibytes int64
	if _, err := fmt.Sscanf(line, "%d kB", &kibibytes); err != nil {
		return 0, fmt.Errorf("VmHWM of process %d: %w", pid, err)
	}
	return kibibytes << 10, nil
}
