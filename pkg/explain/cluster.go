// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"everynode.dev/everynode/pkg/daemonset"
)

// Cluster is what an [Engine] looks at: the objects of a cluster at one moment.
// Nobody changes them afterwards. Without nodes, DaemonSets and pods nothing can be
// said; of the other kinds, those may be left out that the cluster has none of, or
// that could not be read, which Unread then says.
type Cluster struct {
	Nodes      []*corev1.Node
	DaemonSets []*appsv1.DaemonSet
	Pods       []*corev1.Pod

	Namespaces      []*corev1.Namespace
	PriorityClasses []*schedulingv1.PriorityClass
	Budgets         []*policyv1.PodDisruptionBudget
	// Quotas, LimitRanges and RuntimeClasses are looked at for plans.
	Quotas         []*corev1.ResourceQuota
	LimitRanges    []*corev1.LimitRange
	RuntimeClasses []*nodev1.RuntimeClass
	// Revisions are the ControllerRevisions of DaemonSets.
	Revisions []*appsv1.ControllerRevision
	// Events are those of DaemonSets and of their pods.
	Events []*corev1.Event

	// The rest is looked at for pods with volumes that are claimed.

	Claims            []*corev1.PersistentVolumeClaim
	Volumes           []*corev1.PersistentVolume
	StorageClasses    []*storagev1.StorageClass
	CSINodes          []*storagev1.CSINode
	CSIDrivers        []*storagev1.CSIDriver
	StorageCapacities []*storagev1.CSIStorageCapacity
	Attachments       []*storagev1.VolumeAttachment

	// ClaimsUnread says whether the cluster may have claims that could not be read.
	ClaimsUnread bool
	// LabelManagers are the programs and people that have set a label on nodes, by its key,
	// as managedFields name them ([Cluster.NoteManagers]).
	LabelManagers map[string][]string

	// Partial says whether there may be more nodes and pods than those that could be read.
	// Then filters and preemption are not asked.
	Partial bool
	// NodesUnread says whether nodes could not be read: then they are made up from pods, and
	// the DaemonSet belongs where it has one.
	NodesUnread bool
	// Unread says what of the cluster could not be read, a sentence each.
	Unread []string
}

// MakeUpNodes makes the nodes that pods are for, where nodes cannot be read. They are Ready:
// that they are not is not known.
func (c *Cluster) MakeUpNodes() {
	names := sets.New[string]()
	for _, pod := range c.Pods {
		if name, ok := daemonset.TargetNode(pod); ok && !names.Has(name) {
			names.Insert(name)
			c.Nodes = append(c.Nodes, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
			})
		}
	}
}
