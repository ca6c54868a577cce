// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package preemption makes room for DaemonSet pods on the only node that they can
// run on.
//
// The files follow a preemption: preemption.go has the plugin, in the order of the
// scheduling cycle, victims.go the choice of victims, nodes.go where a pod could run
// instead, pacing.go how many pods a controller may lose at a time, evict.go the
// eviction, and jobs.go whether a Job survives it.
package preemption

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/cache"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corelisters "k8s.io/client-go/listers/core/v1"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Preemption is DefaultPreemption with two changes: a pinned DaemonSet pod may take
// the room of pods of its own priority, and pods that can run on one node only are
// spared before pods that can run elsewhere.
//
// Candidates, nominations, asynchronous evictions and pod groups are upstream's.
type Preemption struct {
	*defaultpreemption.DefaultPreemption
	*shared

	args    Args
	handle  fwk.Handle
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	// requests says how NodeResourcesFit sums up what a pod requests.
	requests noderesources.ResourceRequestsOptions
	// refused holds when pods may be tried again that could not be evicted, by their UID.
	refused *cache.Expiring
	// lowest is nil if nodes cannot be left out for the priorities of their pods.
	lowest *lowestPriorities
	// attempt is set while PostFilter runs. Scheduling cycles run one after another.
	attempt *attempt
}

var (
	_ fwk.PreEnqueuePlugin         = &Preemption{}
	_ fwk.EnqueueExtensions        = &Preemption{}
	_ fwk.PostFilterPlugin         = &Preemption{}
	_ fwk.PodGroupPostFilterPlugin = &Preemption{}
	_ preemption.Interface         = &Preemption{}
)

// Name is the name of the plugin in scheduler configurations.
const Name = "DaemonSetPreemption"

// Name returns the name of the plugin.
func (pl *Preemption) Name() string {
	return Name
}

// PostFilter makes room for pod by preemption.
func (pl *Preemption) PostFilter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, statuses fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	pl.abandon(pl.plans.take(pod.UID))
	pl.attempt = newAttempt(false)
	defer func() { pl.attempt = nil }()
	if pl.lowest != nil && pl.mayPreemptEqual(pod) == nil {
		statuses = withVictims{statuses, pl.lowest, corev1helper.PodPriority(pod)}
	}
	result, status := pl.DefaultPreemption.PostFilter(ctx, state, pod, statuses)
	if !status.IsSuccess() {
		pl.abandon(pl.plans.take(pod.UID))
		if pl.attempt.postponed {
			// No result keeps the nomination, and so the room made so far.
			return nil, status
		}
	}
	return result, status
}

// attempt is what one run of PostFilter has found out.
type attempt struct {
	// dryRun is for callers that only ask who would be evicted.
	dryRun bool

	mu sync.Mutex
	// bound says of pods whether they could run nowhere else.
	bound map[alike]bool
	// postponed says that the pod will get its room later.
	postponed bool
}

func newAttempt(dryRun bool) *attempt {
	return &attempt{dryRun: dryRun, bound: make(map[alike]bool)}
}

// isDryRun says whether nothing will be evicted, so that nothing is recorded.
func (a *attempt) isDryRun() bool {
	return a == nil || a.dryRun
}

// memoize returns what find returns for pods that are alike, and calls it once. On a
// nil attempt it always calls it.
func (a *attempt) memoize(key alike, find func() bool) bool {
	if a == nil {
		return find()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.bound[key]
	if !ok {
		known = find()
		a.bound[key] = known
	}
	return known
}

// postpone has the pod keep its nomination, and tried again at the given time if it
// is not zero.
func (pl *Preemption) postpone(ctx context.Context, pod *corev1.Pod, at time.Time) {
	if pl.attempt.isDryRun() {
		return
	}
	pl.attempt.postponed = true
	if !at.IsZero() {
		pl.retryAt(klog.FromContext(ctx), map[string]*corev1.Pod{klog.KObj(pod).String(): pod}, at)
	}
}

// retryAt tries pods again at the given time, for which there is no event.
func (pl *Preemption) retryAt(logger klog.Logger, pods map[string]*corev1.Pod, at time.Time) {
	pl.clock.AfterFunc(at.Sub(pl.clock.Now()), func() { pl.handle.Activate(logger, pods) })
}

// withVictims leaves out the nodes that have no pod of a lower priority than priority.
// A dry run on these costs most of the time and finds nothing.
type withVictims struct {
	fwk.NodeToStatusReader
	lowest   *lowestPriorities
	priority int32
}

// NodesForStatusCode returns the nodes with that status that have possible victims. If
// no node has any, it returns one node: it gives upstream's reason.
func (w withVictims) NodesForStatusCode(lister fwk.NodeInfoLister, code fwk.Code) ([]fwk.NodeInfo, error) {
	nodes, err := w.NodeToStatusReader.NodesForStatusCode(lister, code)
	if err != nil || len(nodes) == 0 {
		return nodes, err
	}
	w.lowest.prune(lister)
	var kept []fwk.NodeInfo
	for _, node := range nodes {
		if w.lowest.of(node) < w.priority {
			kept = append(kept, node)
		}
	}
	if len(kept) == 0 {
		kept = append(kept, nodes[0])
	}
	return kept, nil
}

// lowestPriorities remembers the lowest priority of the pods of each node. A
// generation of a NodeInfo stands for one state of the node.
type lowestPriorities struct {
	nodes map[string]lowestPriority
}

type lowestPriority struct {
	generation int64
	priority   int32
}

// prune drops what is known of nodes once most of them are gone.
func (l *lowestPriorities) prune(lister fwk.NodeInfoLister) {
	if nodes, err := lister.List(); err == nil && len(l.nodes) > 2*len(nodes) {
		clear(l.nodes)
	}
}

func (l *lowestPriorities) of(node fwk.NodeInfo) int32 {
	name, generation := node.Node().Name, node.GetGeneration()
	if known, ok := l.nodes[name]; ok && known.generation == generation {
		return known.priority
	}
	lowest := int32(math.MaxInt32)
	for _, pod := range node.GetPods() {
		lowest = min(lowest, corev1helper.PodPriority(pod.GetPod()))
	}
	l.nodes[name] = lowestPriority{generation, lowest}
	return lowest
}

// PodEligibleToPreemptOthers has a pod wait, as upstream does, while pods that were
// evicted for it are terminating on its nominated node. Those of equal priority have
// another condition than upstream looks for. The wait ends when they are stuck: the
// nomination would keep the room for ever.
func (pl *Preemption) PodEligibleToPreemptOthers(ctx context.Context, pod *corev1.Pod, nominatedNodeStatus *fwk.Status) (eligible bool, reason string) {
	node, err := pl.handle.SnapshotSharedLister().NodeInfos().Get(pod.Status.NominatedNodeName)
	if err != nil || nominatedNodeStatus.Code() == fwk.UnschedulableAndUnresolvable || pod.Spec.SchedulingGroup != nil {
		return pl.DefaultPreemption.PodEligibleToPreemptOthers(ctx, pod, nominatedNodeStatus)
	}
	isAwaited := func(other *corev1.Pod) bool {
		return preemption.PodTerminatingByPreemption(other) && corev1helper.PodPriority(other) < corev1helper.PodPriority(pod)
	}
	if pl.mayPreemptEqual(pod) != nil {
		isAwaited = isEvicted
	}
	var stuck time.Time
	now := pl.clock.Now()
	for _, info := range node.GetPods() {
		if terminating := info.GetPod(); isAwaited(terminating) && now.Before(stuckAt(terminating)) {
			if at := stuckAt(terminating); stuck.IsZero() || at.Before(stuck) {
				stuck = at
			}
		}
	}
	if stuck.IsZero() {
		// This status keeps upstream from looking at the nominated node.
		return pl.DefaultPreemption.PodEligibleToPreemptOthers(ctx, pod, fwk.NewStatus(fwk.UnschedulableAndUnresolvable))
	}
	pl.postpone(ctx, pod, stuck)
	return false, "not eligible due to an evicted pod that is terminating on the nominated node."
}

// isEvicted says whether pod is terminating because it was evicted or preempted.
func isEvicted(pod *corev1.Pod) bool {
	_, evicted := evictedAt(pod)
	return preemption.PodTerminatingByPreemption(pod) || pod.DeletionTimestamp != nil && evicted
}

// evictedAt returns when the eviction API evicted pod, if it did.
func evictedAt(pod *corev1.Pod) (at time.Time, evicted bool) {
	for i := range pod.Status.Conditions {
		condition := &pod.Status.Conditions[i]
		if condition.Type == corev1.DisruptionTarget && condition.Status == corev1.ConditionTrue && condition.Reason == evictionByEvictionAPI {
			return condition.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}

// evictionByEvictionAPI is the reason that the API server gives to evicted pods
// (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
const evictionByEvictionAPI = "EvictionByEvictionAPI"

// mayPreemptEqual returns the DaemonSet of a pod that may evict pods of its own
// priority, or nil if it may not: the DaemonSet has to exist and to allow it, and the
// pod has to be pinned to a node.
func (pl *Preemption) mayPreemptEqual(pod *corev1.Pod) *daemonset.DaemonSet {
	if !*pl.args.EqualPriority {
		return nil
	}
	if _, pinned := daemonset.NamedNode(pod); !pinned {
		return nil
	}
	if ds := pl.cluster.Set().OwnerOf(pod); ds != nil && ds.Preempts {
		return ds
	}
	return nil
}

// SelectVictimsOnNode chooses pods to evict from a node so that preemptor fits: pods
// of lower priority if these are enough, as upstream does, otherwise also pods of
// equal priority if preemptor may evict them.
func (pl *Preemption) SelectVictimsOnNode(ctx context.Context, state fwk.CycleState, preemptor *corev1.Pod, nodeInfo fwk.NodeInfo,
	possible []*preemption.DomainVictim, pdbs []*policyv1.PodDisruptionBudget) (victims []*corev1.Pod, violations int, status *fwk.Status) {
	if pl.mayPreemptEqual(preemptor) == nil {
		possible = slices.DeleteFunc(slices.Clone(possible), pl.isStuck)
		return pl.DefaultPreemption.SelectVictimsOnNode(ctx, state, preemptor, nodeInfo, possible, pdbs)
	}
	if pl.attempt == nil {
		dry := *pl
		dry.attempt = newAttempt(true)
		pl = &dry
	}
	t := &trial{plugin: pl, ctx: ctx, state: state, preemptor: preemptor, nodeInfo: nodeInfo}
	possible, status = t.takeTerminating(possible)
	if !status.IsSuccess() {
		return nil, 0, status
	}
	victims, violations, status = pl.DefaultPreemption.SelectVictimsOnNode(ctx, state.Clone(), preemptor, nodeInfo.Snapshot(), possible, pdbs)
	if node := nodeInfo.Node(); status.IsSuccess() || status.Code() == fwk.Error || isLeaving(node) || daemonset.IsVirtual(node) {
		return victims, violations, status
	}
	victims, status = t.selectVictims(possible)
	return victims, 0, status
}

// isStuck says whether a victim is terminating for longer than that takes. A pod that is
// nominated for its room would wait for ever, and keep free room from others.
func (pl *Preemption) isStuck(victim *preemption.DomainVictim) bool {
	pod := victim.Pods()[0].GetPod()
	return len(victim.Pods()) == 1 && pod.DeletionTimestamp != nil && !pl.clock.Now().Before(stuckAt(pod))
}

// moreImportant is upstream's order of victims, except that of two victims of the
// same priority the one that could run nowhere else is more important:
// https://github.com/kubernetes/kubernetes/issues/141227.
func (pl *Preemption) moreImportant(a, b preemption.Victim) bool {
	if a.Priority() != b.Priority() {
		return a.Priority() > b.Priority()
	}
	bound := func(info fwk.PodInfo) bool { return pl.isBoundToItsNode(info.GetPod()) }
	if first := slices.ContainsFunc(a.Pods(), bound); first != slices.ContainsFunc(b.Pods(), bound) {
		return first
	}
	return preemption.MoreImportantVictim(a, b)
}

// OrderedScoreFuncs is upstream's order of candidate nodes
// (pickOneNodeForPreemption in k8s.io/kubernetes/pkg/scheduler/framework/preemption),
// except that of nodes whose victims have the same highest priority, the one with the
// fewest victims that could run nowhere else is preferred.
func (pl *Preemption) OrderedScoreFuncs(_ context.Context, victims map[string]*extenderv1.Victims) []func(node string) int64 {
	return []func(node string) int64{
		func(node string) int64 { return -victims[node].NumPDBViolations },
		// Victims are in the order of their importance.
		func(node string) int64 { return -int64(corev1helper.PodPriority(victims[node].Pods[0])) },
		func(node string) int64 {
			var bound int64
			for _, pod := range victims[node].Pods {
				if pl.isBoundToItsNode(pod) {
					bound++
				}
			}
			return -bound
		},
		func(node string) int64 {
			var sum int64
			for _, pod := range victims[node].Pods {
				// Every victim counts, even one of negative priority.
				sum += int64(corev1helper.PodPriority(pod)) + math.MaxInt32 + 1
			}
			return -sum
		},
		func(node string) int64 { return -int64(len(victims[node].Pods)) },
		func(node string) int64 { return schedutil.GetEarliestPodStartTime(victims[node]).UnixNano() },
	}
}

// NewFactory returns the factory of the plugin.
func NewFactory(clusters *cluster.Pool) frameworkruntime.PluginFactory {
	return newFactory(clusters, clock.RealClock{})
}

func newFactory(clusters *cluster.Pool, clock clock.WithDelayedExecution) frameworkruntime.PluginFactory {
	schedulers := &schedulers{clusters: clusters, clock: clock}
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args := defaultArgs()
		if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
			return nil, err
		}
		gates := utilfeature.DefaultFeatureGate
		upstream, err := defaultpreemption.New(ctx, args.upstream(), handle, feature.NewSchedulerFeaturesFromGates(gates))
		if err != nil {
			return nil, fmt.Errorf("making DefaultPreemption: %w", err)
		}
		shared, err := schedulers.of(ctx, handle, args.EvictionTimeout.Duration)
		if err != nil {
			return nil, err
		}
		core := handle.SharedInformerFactory().Core().V1()
		pl := &Preemption{
			DefaultPreemption: upstream,
			shared:            shared,
			args:              args,
			handle:            handle,
			claims:            core.PersistentVolumeClaims().Lister(),
			volumes:           core.PersistentVolumes().Lister(),
			requests: noderesources.ResourceRequestsOptions{
				EnablePodLevelResources:   gates.Enabled(features.PodLevelResources),
				EnableDRAExtendedResource: gates.Enabled(features.DRAExtendedResource),
			},
			refused: cache.NewExpiringWithClock(clock),
		}
		// With pod groups, a victim may have a lower priority than its pods, and nodes
		// change without a new generation.
		if !gates.Enabled(features.GenericWorkload) {
			pl.lowest = &lowestPriorities{nodes: make(map[string]lowestPriority)}
		}
		upstream.MoreImportantVictim = pl.moreImportant
		upstream.Evaluator = preemption.NewEvaluator(Name, handle, pl, upstream.Executor)
		upstream.Executor.PreemptPod = pl.preemptPod(upstream.Executor.PreemptPod)
		return pl, nil
	}
}
