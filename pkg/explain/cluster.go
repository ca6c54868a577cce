// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
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

	// Unread says what of the cluster could not be read, a sentence each.
	Unread []string
}
