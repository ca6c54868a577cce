// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubenode "k8s.io/kubernetes/pkg/util/node"

	"everynode.dev/everynode/pkg/daemonset"
)

// taintKind is what a well-known taint means. No toleration is advised for it.
type taintKind struct {
	// key is the whole key, a prefix if it ends in /, or a suffix if it begins with /.
	key, note string
	// startup: an agent on the node takes it off.
	startup bool
}

// taintKinds are in the order in which they are tried. Start-up taints are also those of
// [daemonset.DefaultStartupTaints].
var taintKinds = []taintKind{
	{key: corev1.TaintNodeNotReady, note: "The taint not-ready goes when the node is Ready."},
	{key: corev1.TaintNodeUnreachable, note: "The taint unreachable goes when the node's kubelet reports again."},
	{key: corev1.TaintNodeNetworkUnavailable, note: "The taint network-unavailable goes when the node has a network."},
	{key: corev1.TaintNodeUnschedulable, note: "The node is cordoned."},
	{key: corev1.TaintNodeMemoryPressure, note: "The node runs out of memory: the taint goes when it has some again."},
	{key: corev1.TaintNodeDiskPressure, note: "The node runs out of disk space: the taint goes when it has some again."},
	{key: corev1.TaintNodePIDPressure, note: "The node runs out of process IDs: the taint goes when it has some again."},
	{key: corev1.TaintNodeOutOfService, note: "The node was declared dead by hand, so that its pods move. Take the taint off when the node is back."},
	{key: "node.cloudprovider.kubernetes.io/uninitialized", note: "The node is coming: its cloud provider has not initialised it yet."},
	{key: "node.cloudprovider.kubernetes.io/shutdown", note: "The node is shut down."},
	{key: "node.cluster.x-k8s.io/uninitialized", note: "The node is coming: Cluster API has not initialised it yet."},
	{key: "karpenter.sh/unregistered", note: "The node is coming: Karpenter has not registered it yet."},
	{key: "karpenter.sh/disrupted", note: "The node is going: Karpenter is about to replace or remove it."},
	{key: "karpenter.sh/disruption", note: "The node is going: Karpenter is about to replace or remove it."},
	{key: "ToBeDeletedByClusterAutoscaler", note: "The node is going: the cluster autoscaler is about to remove it."},
	{key: "DeletionCandidateOfClusterAutoscaler", note: "The node may go: the cluster autoscaler considers to remove it."},
	{key: "cloud.google.com/impending-node-termination", note: "The node is going: its provider is about to end it."},
	{key: "aws-node-termination-handler/", note: "The node is going: its provider is about to end it."},
	{key: "startup-taint.cluster-autoscaler.kubernetes.io/", startup: true},
	{key: "ignore-taint.cluster-autoscaler.kubernetes.io/", startup: true},
	{key: "readiness.k8s.io/", startup: true},
	{key: "/agent-not-ready", startup: true},
}

// taintKindOf returns what is known of a taint, nil if nothing is.
func taintKindOf(key string) *taintKind {
	for n := range taintKinds {
		kind := &taintKinds[n]
		if key == kind.key || strings.HasSuffix(kind.key, "/") && strings.HasPrefix(key, kind.key) ||
			strings.HasPrefix(kind.key, "/") && strings.HasSuffix(key, kind.key) {
			return kind
		}
	}
	if slices.Contains(daemonset.DefaultStartupTaints(), key) {
		return &taintKind{key: key, startup: true}
	}
	return nil
}

// taintArgs are the arguments of a taint that who does not tolerate.
func (i *inquiry) taintArgs(ctx context.Context, taints []corev1.Taint, who string) Args {
	var texts, keys, notes []string
	for n := range taints {
		taint := &taints[n]
		texts, keys = append(texts, taint.ToString()), append(keys, taint.Key+":"+string(taint.Effect))
		kind := taintKindOf(taint.Key)
		if kind == nil {
			i.taints = append(i.taints, *taint)
			continue
		}
		i.passing = true
		note := kind.note
		if kind.startup {
			note = i.startupNote(ctx, taint)
		}
		if note = " " + note; !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	if root := i.networkRoot(ctx); root != "" && i.passing {
		notes = append(notes, " It has no network: "+root+".")
	}
	plural := "the taint "
	if len(taints) > 1 {
		plural = "the taints "
	}
	return Args{"taints": plural + strings.Join(texts, " and "), "keys": strings.Join(keys, ","), "who": who, "note": strings.Join(notes, "")}
}

// startupNote says what becomes of a taint that an agent is to take off.
func (i *inquiry) startupNote(ctx context.Context, taint *corev1.Taint) string {
	const goes = "It is a start-up taint, which its agent takes off: "
	agent := i.agentOf(taint.Key)
	switch {
	case agent == nil && i.cluster.Partial:
		return goes + "no DaemonSet that could be read looks like its agent."
	case agent == nil:
		// A node that has just come has it, and a controller may be its agent.
		if since := readySince(i.node); since != nil && i.now.Sub(since.Time) > i.patience {
			i.forgotten = taint
		}
		return goes + "no DaemonSet of the cluster looks like its agent."
	}
	if agent == i.subject || i.isRoot {
		return goes + "that is " + agent.compiled.String() + "."
	}
	words, ready := i.trace(ctx, agent)
	if ready != nil && i.now.Sub(ready.Time) > i.patience && kubenode.IsNodeReady(i.node) {
		i.forgotten = taint
		return goes + agent.compiled.String() + " has been Ready there for longer than that takes."
	}
	return goes + words + "."
}

// agentOf returns the DaemonSet that takes a start-up taint off: one that tolerates it by
// its key, or is named like the taint's domain.
func (e *Engine) agentOf(key string) *subject {
	if agent, known := e.agents[key]; known {
		return agent
	}
	var agent *subject
	for _, ds := range e.DaemonSets() {
		s := e.subjects[ds.UID]
		byKey := slices.ContainsFunc(s.template().Tolerations, func(t corev1.Toleration) bool { return t.Key == key })
		if byKey || agent == nil && namedLike(ds.Name, key) {
			agent = s
		}
		if byKey {
			break
		}
	}
	e.agents[key] = agent
	return agent
}

// namedLike says whether a name has a word of the domain of a taint's key: ebs-csi-node
// is named like ebs.csi.aws.com/agent-not-ready.
func namedLike(name, key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	return slices.ContainsFunc(strings.Split(domain, "."), func(word string) bool {
		return !slices.Contains([]string{"node", "csi", "aws", "azure", "google", "cloud", "com", "io", "sh", "dev", "net", "org", "k8s", "x-k8s", "kubernetes"}, word) &&
			slices.Contains(strings.Split(name, "-"), word)
	})
}

// trace says how another DaemonSet fares on the node, and since when it is Ready there.
// Its pod is what to look at next, if it is not.
func (i *inquiry) trace(ctx context.Context, other *subject) (words string, ready *metav1.Time) {
	root := i.newInquiry(other, i.node, i.detail)
	root.isRoot = true
	root.follow(ctx)
	i.fail(root.err)
	if root.v.Step == StepReady {
		ready = &root.pod.CreationTimestamp
		if condition := podutil.GetPodReadyCondition(root.pod.Status); condition != nil {
			ready = &condition.LastTransitionTime
		}
		return other.compiled.String() + " is Ready there", ready
	}
	i.root = root
	return fmt.Sprintf("%s is not Ready there (%s)", other.compiled.String(), root.v.Reason.Words()), nil
}

// networkFolders are where network plugins put their configuration and their programs.
var networkFolders = []string{"/etc/cni", "/opt/cni"}

// providesNetwork says whether pods give their node its network.
func providesNetwork(spec *corev1.PodSpec) bool {
	return spec.HostNetwork && slices.ContainsFunc(spec.Volumes, func(volume corev1.Volume) bool {
		return volume.HostPath != nil && slices.ContainsFunc(networkFolders, func(folder string) bool {
			return volume.HostPath.Path == folder || strings.HasPrefix(volume.HostPath.Path, folder+"/")
		})
	})
}

// lacksNetwork says whether no network plugin has configured the node yet.
func lacksNetwork(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		switch {
		case condition.Type == corev1.NodeNetworkUnavailable && condition.Status == corev1.ConditionTrue:
			return true
		case condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionFalse:
			message := strings.ToLower(condition.Message)
			if strings.Contains(message, "networkready=false") || strings.Contains(message, "cni plugin not initialized") || strings.Contains(message, "cni config uninitialized") {
				return true
			}
		}
	}
	return false
}

// networkRoot says what keeps the node's network from working; nothing if it works, or if
// the DaemonSet gives nodes their network itself.
func (i *inquiry) networkRoot(ctx context.Context) string {
	if i.isRoot || !lacksNetwork(i.node) || slices.Contains(i.networks, i.subject) {
		return ""
	}
	best := "no DaemonSet of a network plugin is known"
	if i.cluster.Partial {
		best = "its network plugin is nowhere where you may look"
	}
	for _, network := range i.networks {
		words, ready := i.trace(ctx, network)
		if best = words; ready == nil {
			break
		}
	}
	return best
}

// deletedAt returns when pod was deleted: its deletion timestamp is when the grace
// period ends.
func deletedAt(pod *corev1.Pod) *metav1.Time {
	at := *pod.DeletionTimestamp
	if pod.DeletionGracePeriodSeconds != nil {
		at = metav1.NewTime(at.Add(-time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second))
	}
	return &at
}
