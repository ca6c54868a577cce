// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package placement keeps DaemonSets to one pod a node, and has pinned pods wait for their own node only.
package placement

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedutil "k8s.io/kubernetes/pkg/scheduler/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
	"everynode.dev/everynode/pkg/plugins/refused"
)

// Placement lets a DaemonSet pod onto a node only if that has no pod of its DaemonSet
// yet and is not shutting down. That a pinned pod runs on its own node only is the
// business of NodeAffinity.
//
// It also refuses a pinned pod for which its node has too little CPU, memory, ephemeral
// storage or pod slots. NodeResourcesFit would do so too, but its queueing hints do not
// know that the pod is pinned: each pod that goes, anywhere in the cluster, has every
// pending DaemonSet pod tried again. For this, Placement's Filter has to run first.
type Placement struct {
	cluster *cluster.Cluster
	// refused has pods with the UID of their DaemonSet. Pods that wait for room are not
	// among them: hints wake those.
	refused *refused.Pods[types.UID]
	// requests says how NodeResourcesFit sums up what a pod requests.
	requests noderesources.ResourceRequestsOptions
}

var (
	_ fwk.EnqueueExtensions = &Placement{}
	_ fwk.FilterPlugin      = &Placement{}
	_ fwk.SignPlugin        = &Placement{}
)

const (
	// Name is the name of the plugin in scheduler configurations.
	Name = "DaemonSetPlacement"

	// ErrReasonPresent is the reason why a second pod of a DaemonSet is refused.
	ErrReasonPresent = "node(s) already had a pod of the same DaemonSet"
	// ErrReasonShutdown is the reason why a node that is going down is refused.
	ErrReasonShutdown = "node(s) were shutting down"
)

// Name returns the name of the plugin.
func (pl *Placement) Name() string {
	return Name
}

// EventsToRegister returns the events that can make a pod schedulable that this
// plugin has refused. Changes of DaemonSets are not among them: see package daemonsets.
func (pl *Placement) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete | fwk.UpdatePodScaleDown}, QueueingHintFn: pl.isSchedulableAfterPodChange},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodScaleDown}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeCondition},
			QueueingHintFn: pl.isSchedulableAfterNodeChange},
	}, nil
}

// isSchedulableAfterPodChange: a pod that goes or shrinks leaves room on the pod's own
// node. For a pod that is not pinned, only one of the same DaemonSet was in the way.
func (pl *Placement) isSchedulableAfterPodChange(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, _, err := schedutil.As[*corev1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	pinned, isPinned := daemonset.PinnedNode(pod)
	// A pod that was not bound held the room of the node that it was nominated for.
	onNode := isPinned && pinned == cmp.Or(before.Spec.NodeName, before.Status.NominatedNodeName)
	if !onNode && !sameDaemonSet(pod, before) {
		return fwk.QueueSkip, nil
	}
	logger.V(5).Info("A pod that was in the way has gone or shrunk", "pod", klog.KObj(pod), "otherPod", klog.KObj(before))
	return fwk.Queue, nil
}

// isSchedulableAfterNodeChange: the pod's node has come, has grown, has given up shutting
// down, or is open to other pods than before. The pods in the way of a pod that may evict
// them may be able to run on another node now.
func (pl *Placement) isSchedulableAfterNodeChange(logger klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := schedutil.As[*corev1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	opens := before == nil || before.Spec.Unschedulable != after.Spec.Unschedulable ||
		!maps.Equal(before.Labels, after.Labels) || !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints)
	if pinned, ok := daemonset.PinnedNode(pod); ok && pinned != after.Name {
		ds := pl.cluster.Set().OwnerOf(pod)
		opens = opens && ds != nil && ds.Preempts
	} else {
		opens = opens || isShuttingDown(before) || hasGrown(before, after)
	}
	if !opens || isShuttingDown(after) {
		return fwk.QueueSkip, nil
	}
	logger.V(5).Info("A node has opened", "pod", klog.KObj(pod), "node", klog.KObj(after))
	return fwk.Queue, nil
}

// hasGrown says whether node has more of anything than before.
func hasGrown(before, after *corev1.Node) bool {
	for name, quantity := range after.Status.Allocatable {
		if quantity.Cmp(before.Status.Allocatable[name]) > 0 {
			return true
		}
	}
	return false
}

// Filter refuses nodes that a DaemonSet pod has no business on, for which evicting pods
// never helps: the pods of one DaemonSet don't make room for one another. A pinned pod
// it also refuses the node that has too little room, with NodeResourcesFit's own words.
func (pl *Placement) Filter(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, nodeInfo fwk.NodeInfo) *fwk.Status {
	if daemonset.OwnerOf(pod) == nil {
		return nil
	}
	node := nodeInfo.Node()
	// The kubelet would refuse the pod and the controller make another one, over
	// and over: https://github.com/kubernetes/kubernetes/issues/122912.
	if isShuttingDown(node) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ErrReasonShutdown)
	}
	for _, info := range nodeInfo.GetPods() {
		present := info.GetPod()
		if present.DeletionTimestamp != nil || present.UID == pod.UID || !sameDaemonSet(pod, present) || pl.surges(pod, present) {
			continue
		}
		// The DaemonSet may have begun to surge after the look above. Add comes first, or the
		// change would be lost.
		pl.refused.Add(pod, daemonset.OwnerOf(pod).UID)
		if !pl.surges(pod, present) {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ErrReasonPresent)
		}
	}
	if _, pinned := daemonset.NamedNode(pod); !pinned || pod.Spec.NodeName != "" {
		return nil
	}
	// A node that is closed to the DaemonSet is left to the plugin that says why.
	if ds := pl.cluster.Set().OwnerOf(pod); ds != nil {
		if open, _ := ds.ShouldRun(node); open {
			return pl.fits(pod, nodeInfo)
		}
	}
	return nil
}

// fits refuses a node by the rule of NodeResourcesFit. What NodeResourcesFit may have
// been told to ignore (ignoredResources are extended resources), and what Dynamic
// Resource Allocation may provide, is left to it.
func (pl *Placement) fits(pod *corev1.Pod, nodeInfo fwk.NodeInfo) *fwk.Status {
	code, reasons := fwk.Unschedulable, []string(nil)
	for _, insufficient := range noderesources.Fits(pod, nodeInfo, nil, pl.requests) {
		if schedutil.IsScalarResourceName(insufficient.ResourceName) {
			continue
		}
		reasons = append(reasons, insufficient.Reason)
		if insufficient.Unresolvable {
			code = fwk.UnschedulableAndUnresolvable
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return fwk.NewStatus(code, reasons...)
}

// surges says whether pod is meant to run beside present for a while: their
// DaemonSet's updates surge and they are of different revisions.
func (pl *Placement) surges(pod, present *corev1.Pod) bool {
	ds := pl.cluster.Set().OwnerOf(pod)
	return ds != nil && ds.Surges && revision(pod) != revision(present)
}

func revision(pod *corev1.Pod) string {
	return pod.Labels["controller-revision-hash"]
}

func sameDaemonSet(a, b *corev1.Pod) bool {
	ownerA, ownerB := daemonset.OwnerOf(a), daemonset.OwnerOf(b)
	return ownerA != nil && ownerB != nil && ownerA.UID == ownerB.UID
}

// isShuttingDown says whether the kubelet has announced a graceful shutdown: it
// turns Ready to False with a message of the shutdown manager
// (ShutdownStatus in k8s.io/kubernetes/pkg/kubelet/nodeshutdown).
func isShuttingDown(node *corev1.Node) bool {
	for i := range node.Status.Conditions {
		if condition := &node.Status.Conditions[i]; condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionFalse && strings.Contains(condition.Message, "node is shutting down")
		}
	}
	return false
}

// SignPod signs nothing for ordinary pods, which the plugin lets pass. DaemonSet
// pods are not signed: each is for another node.
func (pl *Placement) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if daemonset.OwnerOf(pod) != nil {
		return nil, fwk.NewStatus(fwk.Unschedulable, "DaemonSet pods are not batched")
	}
	return nil, nil
}

// NewFactory returns the factory of the plugin, which takes no args.
func NewFactory(clusters *cluster.Pool) frameworkruntime.PluginFactory {
	return func(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		if err := pluginargs.Load(Name, rawArgs, &pluginargs.None{}); err != nil {
			return nil, err
		}
		shared, err := clusters.Get(ctx, handle)
		if err != nil {
			return nil, err
		}
		pl := &Placement{
			cluster: shared,
			requests: noderesources.ResourceRequestsOptions{
				EnablePodLevelResources: utilfeature.DefaultFeatureGate.Enabled(features.PodLevelResources),
			},
		}
		if pl.refused, err = refused.New[types.UID](handle.SharedInformerFactory().Core().V1().Pods().Informer()); err != nil {
			return nil, fmt.Errorf("watching pods: %w", err)
		}
		logger := klog.FromContext(ctx)
		shared.OnChange(func(previous, set *daemonset.Set) {
			if woken := pl.refused.Take(func(_ *corev1.Pod, owner types.UID) bool { return previous.Get(owner) != set.Get(owner) }); len(woken) > 0 {
				handle.Activate(logger, woken)
			}
		})
		return pl, nil
	}
}
