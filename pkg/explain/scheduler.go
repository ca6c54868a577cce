// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
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
)

// schedulers are kube-scheduler and everynode-scheduler with their own plugins, which
// are asked what they would do with a pod. They do nothing.
type schedulers struct {
	snapshot         *cache.Snapshot
	stock, everynode *scheduler
	devices          devices
}

// scheduler is one of them.
type scheduler struct {
	framework framework.Framework
	preempt   *preemption.Evaluator
}

// newSchedulers prepares both schedulers for cluster. on are the live pods by node.
// What they run in the background, which is nothing to wait for, ends with ctx.
func newSchedulers(ctx context.Context, cluster *Cluster, on map[string][]*corev1.Pod) (*schedulers, error) {
	// Plugins observe durations, and panic if the metrics are not registered.
	metrics.Register()
	factory, err := newInformers(*cluster)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, node := range cluster.Nodes {
		pods = append(pods, on[node.Name]...)
	}
	s := &schedulers{snapshot: cache.NewSnapshot(pods, cluster.Nodes), devices: newDevices(cluster.DeviceClasses)}
	options := []frameworkruntime.Option{
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSnapshotSharedLister(s.snapshot),
		frameworkruntime.WithMutableSnapshotLister(s.snapshot),
		frameworkruntime.WithPodNominator(nominator{nominations: newNominations(cluster.Pods)}),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithSharedDRAManager(deviceManager{devices: s.devices}),
		frameworkruntime.WithParallelism(1),
	}
	if s.stock, err = newScheduler(ctx, stockConfig, options); err != nil {
		return nil, fmt.Errorf("preparing kube-scheduler's plugins: %w", err)
	}
	if s.everynode, err = newScheduler(ctx, deploy.ReplaceConfig, options); err != nil {
		return nil, fmt.Errorf("preparing everynode-scheduler's plugins: %w", err)
	}
	return s, nil
}

// stockConfig is the configuration of a kube-scheduler that was given none.
var stockConfig = []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n")

func newScheduler(ctx context.Context, config []byte, options []frameworkruntime.Option) (*scheduler, error) {
	profile, err := decodeProfile(config)
	if err != nil {
		return nil, err
	}
	s := &scheduler{}
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
func (s *scheduler) keepPreemption(factory frameworkruntime.PluginFactory) frameworkruntime.PluginFactory {
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

// refusal is what one plugin of a scheduler has against a node.
type refusal struct {
	plugin  string
	reasons []string
	// final: to evict pods cannot help.
	final bool
}

// attempt is the outcome of offering a node to a pod.
type attempt struct {
	state    fwk.CycleState
	node     fwk.NodeInfo
	refusals []refusal
}

// fits says whether the pod could be bound.
func (a *attempt) fits() bool {
	return len(a.refusals) == 0
}

// final says whether to evict pods cannot help.
func (a *attempt) final() bool {
	return slices.ContainsFunc(a.refusals, func(r refusal) bool { return r.final })
}

// try offers node to pod. gone are pods on node that are taken to have left.
func (s *scheduler) try(ctx context.Context, pod *corev1.Pod, node fwk.NodeInfo, gone ...*corev1.Pod) (*attempt, error) {
	a, err := s.prepare(ctx, pod)
	if err != nil || !a.fits() {
		a.node = node
		return a, err
	}
	return s.filter(ctx, pod, a, node, gone...)
}

// prepare computes what is the same for all nodes. It fits unless no node can take pod.
func (s *scheduler) prepare(ctx context.Context, pod *corev1.Pod) (*attempt, error) {
	a := &attempt{state: framework.NewCycleState()}
	_, status, _ := s.framework.RunPreFilterPlugins(quiet(ctx), a.state, pod)
	if status.IsRejected() {
		a.add(status)
		return a, nil
	}
	return a, status.AsError()
}

// filter offers node to a pod that has been prepared.
func (s *scheduler) filter(ctx context.Context, pod *corev1.Pod, prepared *attempt, node fwk.NodeInfo, gone ...*corev1.Pod) (*attempt, error) {
	ctx = quiet(ctx)
	a := &attempt{state: prepared.state, node: node}
	if err := s.remove(ctx, pod, a, gone); err != nil {
		return nil, err
	}
	// A framework stops at the first plugin that refuses. To hear all of them, those
	// that have spoken are skipped.
	probe := a.state.Clone()
	spoken := probe.GetSkipFilterPlugins().Clone()
	for {
		status := s.framework.RunFilterPluginsWithNominatedPods(ctx, probe, pod, a.node)
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
func (a *attempt) add(status *fwk.Status) {
	if status.Plugin() == placement.Name && !slices.Contains([]string{placement.ErrReasonPresent, placement.ErrReasonShutdown}, status.Reasons()[0]) {
		return
	}
	a.refusals = append(a.refusals, refusal{
		plugin:  status.Plugin(),
		reasons: status.Reasons(),
		final:   status.Code() == fwk.UnschedulableAndUnresolvable,
	})
}

// remove takes pods out of a copy of the node, as preemption does.
func (s *scheduler) remove(ctx context.Context, pod *corev1.Pod, a *attempt, gone []*corev1.Pod) error {
	if len(gone) == 0 {
		return nil
	}
	a.node = a.node.Snapshot()
	for _, old := range gone {
		info, err := framework.NewPodInfo(old)
		if err != nil {
			return err
		}
		if err := a.node.RemovePod(klog.Logger{}, old); err != nil {
			return err
		}
		if err := s.framework.RunPreFilterExtensionRemovePod(ctx, a.state, pod, info, a.node).AsError(); err != nil {
			return err
		}
	}
	return nil
}

// nominations are the pods that wait for room on a node that was made for them.
type nominations map[string][]fwk.PodInfo

func newNominations(pods []*corev1.Pod) nominations {
	n := make(nominations)
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

// of returns the pods that are nominated to a node.
func (n nominations) of(node string) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, info := range n[node] {
		pods = append(pods, info.GetPod())
	}
	return pods
}

// nominator tells plugins of nominations. The rest of a [fwk.PodNominator] is for schedulers that nominate pods.
type nominator struct {
	fwk.PodNominator
	nominations nominations
}

// NominatedPodsForNode implements [fwk.PodNominator].
func (n nominator) NominatedPodsForNode(node string) []fwk.PodInfo {
	return n.nominations[node]
}
