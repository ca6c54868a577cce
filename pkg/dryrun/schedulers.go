// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dryrun asks kube-scheduler and everynode-scheduler what they would do with a pod in a cluster as it was
// read. Both run with their own plugins, and do nothing.
package dryrun

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	configscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	inTree "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/pkg/plugins/binding"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/placement"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
	"everynode.dev/everynode/pkg/plugins/queuesort"
	"everynode.dev/everynode/pkg/plugins/readiness"
	"everynode.dev/everynode/pkg/snapshot"
)

// Schedulers are kube-scheduler and everynode-scheduler, with the configurations that are shipped.
type Schedulers struct {
	Stock, Everynode *Scheduler
	Devices          Devices
	// Nominated are the pods that wait for room on a node that was made for them, by the node's name.
	Nominated map[string][]fwk.PodInfo

	nodes *cache.Snapshot
}

// Scheduler is one of them.
type Scheduler struct {
	framework framework.Framework
	preempt   *preemption.Evaluator
}

// New prepares both schedulers for cluster. What they run in the background, which is nothing to
// wait for, ends with ctx.
func New(ctx context.Context, cluster *snapshot.Cluster) (*Schedulers, error) {
	// Plugins observe durations, and panic if the metrics are not registered.
	metrics.Register()
	factory, err := cluster.Informers()
	if err != nil {
		return nil, err
	}
	exists := sets.New[string]()
	for _, node := range cluster.Nodes {
		exists.Insert(node.Name)
	}
	bound := slices.DeleteFunc(slices.Clone(cluster.Pods), func(pod *corev1.Pod) bool {
		return !exists.Has(pod.Spec.NodeName) || podutil.IsPodTerminal(pod)
	})
	s := &Schedulers{
		Devices:   newDevices(cluster.DeviceClasses),
		Nominated: nominated(cluster.Pods),
		nodes:     cache.NewSnapshot(bound, cluster.Nodes),
	}
	options := []frameworkruntime.Option{
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSnapshotSharedLister(s.nodes),
		frameworkruntime.WithMutableSnapshotLister(s.nodes),
		frameworkruntime.WithPodNominator(nominator{pods: s.Nominated}),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithSharedDRAManager(s.Devices.Manager()),
		frameworkruntime.WithParallelism(1),
	}
	if s.Stock, err = newScheduler(ctx, stockConfig, options); err != nil {
		return nil, fmt.Errorf("preparing kube-scheduler's plugins: %w", err)
	}
	if s.Everynode, err = newScheduler(ctx, deploy.ReplaceConfig, options); err != nil {
		return nil, fmt.Errorf("preparing everynode-scheduler's plugins: %w", err)
	}
	return s, nil
}

// Node returns a node with its pods. An error means that the cluster has no node of that name.
func (s *Schedulers) Node(name string) (fwk.NodeInfo, error) {
	return s.nodes.Get(name)
}

// stockConfig is the configuration of a kube-scheduler that was given none.
var stockConfig = []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n")

func newScheduler(ctx context.Context, config []byte, options []frameworkruntime.Option) (*Scheduler, error) {
	profile, err := decodeProfile(config)
	if err != nil {
		return nil, err
	}
	s := &Scheduler{}
	registry := registry()
	for _, name := range []string{names.DefaultPreemption, everynodepreemption.Name} {
		registry[name] = s.keepPreemption(registry[name])
	}
	s.framework, err = frameworkruntime.NewFramework(quiet(ctx), registry, profile, options...)
	return s, err
}

// decodeProfile returns the profile of pods that name no scheduler.
func decodeProfile(config []byte) (*schedulerconfig.KubeSchedulerProfile, error) {
	object, _, err := configscheme.Codecs.UniversalDecoder().Decode(config, nil, nil)
	if err != nil {
		return nil, err
	}
	decoded, ok := object.(*schedulerconfig.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("a %T is no KubeSchedulerConfiguration", object)
	}
	i := slices.IndexFunc(decoded.Profiles, func(profile schedulerconfig.KubeSchedulerProfile) bool {
		return profile.SchedulerName == corev1.DefaultSchedulerName
	})
	if i < 0 {
		return nil, fmt.Errorf("no profile has the name %s", corev1.DefaultSchedulerName)
	}
	profile := &decoded.Profiles[i]
	// Which devices are free is not known here: verdicts say that they were not checked.
	profile.Plugins.MultiPoint.Enabled = slices.DeleteFunc(profile.Plugins.MultiPoint.Enabled, func(plugin schedulerconfig.Plugin) bool {
		return plugin.Name == names.DynamicResources
	})
	return profile, nil
}

// registry returns kube-scheduler's plugins and ours. Those of other people, which
// everynode-scheduler knows too, are in no shipped configuration.
func registry() frameworkruntime.Registry {
	clusters := cluster.NewPool()
	registry := inTree.NewInTreeRegistry()
	maps.Copy(registry, frameworkruntime.Registry{
		headroom.Name:            headroom.NewFactory(clusters),
		placement.Name:           placement.NewFactory(clusters),
		everynodepreemption.Name: everynodepreemption.NewFactory(clusters),
		binding.Name:             binding.New,
		queuesort.Name:           queuesort.New,
		readiness.Name:           readiness.NewFactory(clusters),
	})
	return registry
}

// keepPreemption returns a factory that keeps what it makes in s.
func (s *Scheduler) keepPreemption(factory frameworkruntime.PluginFactory) frameworkruntime.PluginFactory {
	return func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		plugin, err := factory(ctx, args, handle)
		switch plugin := plugin.(type) {
		case *defaultpreemption.DefaultPreemption:
			s.preempt = plugin.Evaluator
		case *everynodepreemption.Preemption:
			s.preempt = plugin.Evaluator
		}
		return plugin, err
	}
}

// quiet returns a context in which plugins log nothing: what they have to say is in
// their statuses.
func quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, klog.Logger{})
}

// Refusal is what one plugin of a scheduler has against a node.
type Refusal struct {
	Plugin  string
	Reasons []string
	// Final: to evict pods cannot help.
	Final bool
}

// Attempt is the outcome of offering a node to a pod.
type Attempt struct {
	// Node is the node, without the pods that are taken to have left.
	Node     fwk.NodeInfo
	Refusals []Refusal

	state fwk.CycleState
}

// Fits says whether the pod could be bound.
func (a *Attempt) Fits() bool {
	return len(a.Refusals) == 0
}

// Final says whether to evict pods cannot help.
func (a *Attempt) Final() bool {
	return slices.ContainsFunc(a.Refusals, func(r Refusal) bool { return r.Final })
}

// Try offers node to pod. gone are pods on node that are taken to have left.
func (s *Scheduler) Try(ctx context.Context, pod *corev1.Pod, node fwk.NodeInfo, gone ...*corev1.Pod) (*Attempt, error) {
	a, err := s.Prepare(ctx, pod)
	if err != nil || !a.Fits() {
		a.Node = node
		return a, err
	}
	return s.Filter(ctx, pod, a, node, gone...)
}

// Prepare computes what is the same for all nodes. The attempt fits unless no node can take pod.
func (s *Scheduler) Prepare(ctx context.Context, pod *corev1.Pod) (*Attempt, error) {
	a := &Attempt{state: framework.NewCycleState()}
	_, status, _ := s.framework.RunPreFilterPlugins(quiet(ctx), a.state, pod)
	if status.IsRejected() {
		a.add(status)
		return a, nil
	}
	return a, status.AsError()
}

// Filter offers node to a pod that has been prepared.
func (s *Scheduler) Filter(ctx context.Context, pod *corev1.Pod, prepared *Attempt, node fwk.NodeInfo, gone ...*corev1.Pod) (*Attempt, error) {
	ctx = quiet(ctx)
	a := &Attempt{state: prepared.state, Node: node}
	if err := s.remove(ctx, pod, a, gone); err != nil {
		return nil, err
	}
	// A framework stops at the first plugin that refuses. To hear all of them, those
	// that have spoken are skipped.
	probe := a.state.Clone()
	spoken := probe.GetSkipFilterPlugins().Clone()
	for {
		status := s.framework.RunFilterPluginsWithNominatedPods(ctx, probe, pod, a.Node)
		if status.IsSuccess() {
			return a, nil
		}
		if !status.IsRejected() {
			return nil, status.AsError()
		}
		a.add(status)
		spoken = spoken.Clone().Insert(status.Plugin())
		probe.SetSkipFilterPlugins(spoken)
	}
}

// add notes a refusal, unless NodeResourcesFit gives it in the same words.
func (a *Attempt) add(status *fwk.Status) {
	if status.Plugin() == placement.Name && !slices.Contains([]string{placement.ErrReasonPresent, placement.ErrReasonShutdown}, status.Reasons()[0]) {
		return
	}
	a.Refusals = append(a.Refusals, Refusal{
		Plugin:  status.Plugin(),
		Reasons: status.Reasons(),
		Final:   status.Code() == fwk.UnschedulableAndUnresolvable,
	})
}

// remove takes pods out of a copy of the node, as preemption does.
func (s *Scheduler) remove(ctx context.Context, pod *corev1.Pod, a *Attempt, gone []*corev1.Pod) error {
	if len(gone) == 0 {
		return nil
	}
	a.Node = a.Node.Snapshot()
	for _, old := range gone {
		info, err := framework.NewPodInfo(old)
		if err != nil {
			return err
		}
		if err := a.Node.RemovePod(klog.Logger{}, old); err != nil {
			return err
		}
		if err := s.framework.RunPreFilterExtensionRemovePod(ctx, a.state, pod, info, a.Node).AsError(); err != nil {
			return err
		}
	}
	return nil
}

// nominated returns the pods that wait for room on a node that was made for them, by the node's name.
func nominated(pods []*corev1.Pod) map[string][]fwk.PodInfo {
	n := make(map[string][]fwk.PodInfo)
	for _, pod := range pods {
		if pod.Spec.NodeName != "" || pod.Status.NominatedNodeName == "" || pod.DeletionTimestamp != nil {
			continue
		}
		// A pod whose affinity cannot be parsed is in no scheduler's queue.
		if info, err := framework.NewPodInfo(pod); err == nil {
			n[pod.Status.NominatedNodeName] = append(n[pod.Status.NominatedNodeName], info)
		}
	}
	return n
}

// nominator tells plugins of nominated pods. The rest of a [fwk.PodNominator] is for schedulers that nominate pods.
type nominator struct {
	fwk.PodNominator
	pods map[string][]fwk.PodInfo
}

// NominatedPodsForNode implements [fwk.PodNominator].
func (n nominator) NominatedPodsForNode(node string) []fwk.PodInfo {
	return n.pods[node]
}
