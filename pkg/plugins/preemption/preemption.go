// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package preemption makes room for DaemonSet pods where nothing else can: on the
// one node that a pod belongs on.
package preemption

import (
	"context"
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/cache"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
	"everynode.dev/everynode/pkg/plugins/refused"
)

// Preemption does what DefaultPreemption does, and two things more: a pinned
// DaemonSet pod may take the room of pods of its own priority, and pods that can
// run on one node only are spared before pods that can run elsewhere.
//
// Candidates, nominations, asynchronous evictions and pod groups are upstream's.
type Preemption struct {
	*defaultpreemption.DefaultPreemption

	equalPriority bool
	handle        fwk.Handle
	cluster       *cluster.Cluster
	// blocked are pods that a PodDisruptionBudget keeps from making room.
	blocked *refused.Pods[struct{}]
	// refused holds the UIDs of pods that could not be evicted a moment ago.
	refused *cache.Expiring
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

// PodEligibleToPreemptOthers has a pod wait, as upstream does, while pods that it
// has evicted are terminating on its node. Those of equal priority were evicted
// through the API, which leaves another mark on them.
func (pl *Preemption) PodEligibleToPreemptOthers(ctx context.Context, pod *corev1.Pod, nominatedNodeStatus *fwk.Status) (eligible bool, reason string) {
	eligible, reason = pl.DefaultPreemption.PodEligibleToPreemptOthers(ctx, pod, nominatedNodeStatus)
	if !eligible || nominatedNodeStatus.Code() == fwk.UnschedulableAndUnresolvable || pl.privileged(pod) == nil {
		return eligible, reason
	}
	node, err := pl.handle.SnapshotSharedLister().NodeInfos().Get(pod.Status.NominatedNodeName)
	if err != nil {
		return true, ""
	}
	if slices.ContainsFunc(node.GetPods(), func(info fwk.PodInfo) bool { return isEvicted(info.GetPod()) }) {
		return false, "not eligible due to an evicted pod that is terminating on the nominated node."
	}
	return true, ""
}

func isEvicted(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == corev1.DisruptionTarget && condition.Status == corev1.ConditionTrue && condition.Reason == evictionByEvictionAPI
	})
}

// evictionByEvictionAPI is the reason that the API server gives to evicted pods
// (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
const evictionByEvictionAPI = "EvictionByEvictionAPI"

// privileged returns the DaemonSet of a pod that may evict pods of its own
// priority, or nil: the pod has to belong to a DaemonSet that exists, and to run on
// one node only.
func (pl *Preemption) privileged(pod *corev1.Pod) *daemonset.DaemonSet {
	if !pl.equalPriority {
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

// SelectVictimsOnNode chooses pods to evict from a node so that preemptor fits:
// pods of lower priority if that is enough, as upstream, or else of equal priority
// too where preemptor may.
func (pl *Preemption) SelectVictimsOnNode(ctx context.Context, state fwk.CycleState, preemptor *corev1.Pod, nodeInfo fwk.NodeInfo,
	possible []*preemption.DomainVictim, pdbs []*policyv1.PodDisruptionBudget) (victims []*corev1.Pod, violations int, status *fwk.Status) {
	if pl.privileged(preemptor) == nil {
		return pl.DefaultPreemption.SelectVictimsOnNode(ctx, state, preemptor, nodeInfo, possible, pdbs)
	}
	victims, violations, status = pl.DefaultPreemption.SelectVictimsOnNode(ctx, state.Clone(), preemptor, nodeInfo.Snapshot(), possible, pdbs)
	if status.IsSuccess() || status.Code() == fwk.Error {
		return victims, violations, status
	}
	t := &trial{plugin: pl, ctx: ctx, state: state, preemptor: preemptor, nodeInfo: nodeInfo}
	victims, status = t.selectVictims(possible)
	return victims, 0, status
}

// moreImportant is upstream's order of victims, but that of two with the same
// priority the one that could not run anywhere else is spared:
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

// isBoundToItsNode says whether a successor of pod could run on the same node only.
func (pl *Preemption) isBoundToItsNode(pod *corev1.Pod) bool {
	_, named := daemonset.NamedNode(pod)
	return named || pl.cluster.Set().OwnerOf(pod) != nil
}

// OrderedScoreFuncs is upstream's order of candidate nodes
// (pickOneNodeForPreemption in k8s.io/kubernetes/pkg/scheduler/framework/preemption),
// but that among victims of the same highest priority fewer that could not run
// anywhere else are preferred.
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
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		args := defaultArgs()
		if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
			return nil, err
		}
		upstream, err := defaultpreemption.New(ctx, args.upstream(), handle, feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate))
		if err != nil {
			return nil, fmt.Errorf("making DefaultPreemption: %w", err)
		}
		shared, err := clusters.Get(ctx, handle)
		if err != nil {
			return nil, err
		}
		pl := &Preemption{
			DefaultPreemption: upstream,
			equalPriority:     *args.EqualPriority,
			handle:            handle,
			cluster:           shared,
			refused:           cache.NewExpiring(),
		}
		if pl.blocked, err = refused.New[struct{}](handle.SharedInformerFactory().Core().V1().Pods().Informer()); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		upstream.MoreImportantVictim = pl.moreImportant
		upstream.Evaluator = preemption.NewEvaluator(Name, handle, pl, upstream.Executor)
		upstream.Executor.PreemptPod = pl.preemptPod(upstream.Executor.PreemptPod)
		if err := pl.wakeOnBudget(klog.FromContext(ctx)); err != nil {
			return nil, fmt.Errorf("watching PodDisruptionBudgets: %w", err)
		}
		return pl, nil
	}
}
