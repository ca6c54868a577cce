// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package snapshot has the objects of a cluster at one moment, and informers that serve them to scheduler plugins.
package snapshot

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"everynode.dev/everynode/pkg/daemonset"
)

// Cluster is the objects of a cluster at one moment. They must not change afterwards. Nodes, DaemonSets and pods
// are required. Lists of other kinds may be empty where they could not be read: Unread then says so.
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

	// The rest is needed for pods with PersistentVolumeClaims.

	Claims            []*corev1.PersistentVolumeClaim
	Volumes           []*corev1.PersistentVolume
	StorageClasses    []*storagev1.StorageClass
	CSINodes          []*storagev1.CSINode
	CSIDrivers        []*storagev1.CSIDriver
	StorageCapacities []*storagev1.CSIStorageCapacity
	Attachments       []*storagev1.VolumeAttachment

	// DeviceClasses are needed for pods that ask for extended resources, and DeviceClassesRead says whether they
	// could be read: they tell which of these Dynamic Resource Allocation serves.
	DeviceClasses     []*resourcev1.DeviceClass
	DeviceClassesRead bool

	// ClaimsUnread says whether the cluster may have claims that could not be read.
	ClaimsUnread bool
	// LabelManagers are the programs and people that have set a label on nodes, by its key,
	// as managedFields name them ([Cluster.NoteManagers]).
	LabelManagers map[string][]string

	// Partial says whether there may be more nodes and pods than those that could be read.
	// Then filters and preemption are not asked.
	Partial bool
	// NodesUnread says whether nodes could not be read. They are then made up from pods, and a
	// DaemonSet belongs where it has a pod.
	NodesUnread bool
	// Unread says what of the cluster could not be read, a sentence each.
	Unread []string
}

// MakeUpNodes adds a node for every pod, where nodes cannot be read. The nodes are Ready, because
// nothing tells that they are not.
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

// Add adds an object to the list of its kind. Objects of other kinds are left out.
func (c *Cluster) Add(object runtime.Object) {
	kind := reflect.SliceOf(reflect.TypeOf(object))
	for _, list := range reflect.ValueOf(c).Elem().Fields() {
		if list.Type() == kind {
			list.Set(reflect.Append(list, reflect.ValueOf(object)))
		}
	}
}

// NoteManagers notes which programs and people have set the labels of node.
func (c *Cluster) NoteManagers(node *corev1.Node) {
	if c.LabelManagers == nil {
		c.LabelManagers = make(map[string][]string)
	}
	for n := range node.ManagedFields {
		entry := &node.ManagedFields[n]
		if entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Metadata struct {
				Labels map[string]json.RawMessage `json:"f:labels"`
			} `json:"f:metadata"`
		}
		// What cannot be read tells nothing.
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		for field := range fields.Metadata.Labels {
			if key, ok := strings.CutPrefix(field, "f:"); ok && !slices.Contains(c.LabelManagers[key], entry.Manager) {
				c.LabelManagers[key] = append(c.LabelManagers[key], entry.Manager)
			}
		}
	}
}

// PlannedPrefix begins the UIDs of what does not exist yet.
const PlannedPrefix = "planned/"

// With returns a copy of c in which ds and the objects that come with it are as given. A
// DaemonSet that is new gets a UID; of one that is not, its present state is returned.
func (c *Cluster) With(ds *appsv1.DaemonSet, others ...runtime.Object) (_ *Cluster, old *appsv1.DaemonSet) {
	changed := *c
	old = put(&changed.DaemonSets, ds)
	ds.UID = types.UID(PlannedPrefix + ds.Namespace + "/" + ds.Name)
	if old != nil {
		ds.UID, ds.CreationTimestamp, ds.Status, ds.Generation = old.UID, old.CreationTimestamp, old.Status, old.Generation
	}
	for _, other := range others {
		switch other := other.(type) {
		case *schedulingv1.PriorityClass:
			put(&changed.PriorityClasses, other)
		case *corev1.Namespace:
			put(&changed.Namespaces, other)
		case *nodev1.RuntimeClass:
			put(&changed.RuntimeClasses, other)
		case *corev1.LimitRange:
			put(&changed.LimitRanges, other)
		case *corev1.ResourceQuota:
			if before := put(&changed.Quotas, other); before != nil {
				other.Status = before.Status
			}
			other.Status.Hard = other.Spec.Hard
		}
	}
	return &changed, old
}

// put puts object into a copy of list, in place of the one of its name, which is returned.
func put[T metav1.Object](list *[]T, object T) (old T) {
	*list = slices.Clone(*list)
	for n, other := range *list {
		if other.GetName() == object.GetName() && other.GetNamespace() == object.GetNamespace() {
			(*list)[n] = object
			return other
		}
	}
	*list = append(*list, object)
	return old
}

// LimitRangesIn returns those of a namespace.
func (c *Cluster) LimitRangesIn(namespace string) []*corev1.LimitRange {
	return slices.DeleteFunc(slices.Clone(c.LimitRanges), func(l *corev1.LimitRange) bool { return l.Namespace != namespace })
}

// RuntimeClass returns the one of that name, or nil.
func (c *Cluster) RuntimeClass(name string) *nodev1.RuntimeClass {
	for _, class := range c.RuntimeClasses {
		if class.Name == name {
			return class
		}
	}
	return nil
}
