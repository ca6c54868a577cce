// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package daemonsettest builds DaemonSets and their pods for tests, in the
// manner of k8s.io/kubernetes/pkg/scheduler/testing, which has neither.
package daemonsettest

import (
	"iter"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"everynode.dev/everynode/pkg/daemonset"
)

// Wrapper builds a DaemonSet.
type Wrapper struct{ ds appsv1.DaemonSet }

// Make starts a DaemonSet in namespace "default" whose UID is its name, with
// one container that asks for nothing.
func Make(name string) *Wrapper {
	w := &Wrapper{}
	w.ds.Namespace, w.ds.Name, w.ds.UID = metav1.NamespaceDefault, name, types.UID(name)
	w.ds.Spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	w.ds.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}}
	return w.Generation(1)
}

// Obj returns the DaemonSet.
func (w *Wrapper) Obj() *appsv1.DaemonSet { return &w.ds }

// Generation says how often the template was written.
func (w *Wrapper) Generation(generation int64) *Wrapper {
	w.ds.Generation = generation
	return w.Annotation(appsv1.DeprecatedTemplateGeneration, strconv.FormatInt(generation, 10))
}

// Annotation sets one annotation.
func (w *Wrapper) Annotation(key, value string) *Wrapper {
	metav1.SetMetaDataAnnotation(&w.ds.ObjectMeta, key, value)
	return w
}

// PodAnnotation sets one annotation of the pods.
func (w *Wrapper) PodAnnotation(key, value string) *Wrapper {
	metav1.SetMetaDataAnnotation(&w.ds.Spec.Template.ObjectMeta, key, value)
	return w
}

// Requests sets what the container asks for.
func (w *Wrapper) Requests(requests map[corev1.ResourceName]string) *Wrapper {
	list := corev1.ResourceList{}
	for name, amount := range requests {
		list[name] = resource.MustParse(amount)
	}
	w.ds.Spec.Template.Spec.Containers[0].Resources.Requests = list
	return w
}

// HostPort adds a TCP host port.
func (w *Wrapper) HostPort(port int32) *Wrapper {
	container := &w.ds.Spec.Template.Spec.Containers[0]
	container.Ports = append(container.Ports, corev1.ContainerPort{ContainerPort: port, HostPort: port, Protocol: corev1.ProtocolTCP})
	return w
}

// PriorityClass sets the class of the pods.
func (w *Wrapper) PriorityClass(name string) *Wrapper {
	w.ds.Spec.Template.Spec.PriorityClassName = name
	return w
}

// NodeSelector limits the DaemonSet to nodes with that label.
func (w *Wrapper) NodeSelector(key, value string) *Wrapper {
	w.ds.Spec.Template.Spec.NodeSelector = map[string]string{key: value}
	return w
}

// MaxSurge makes rolling updates start the new pod before the old one has gone.
func (w *Wrapper) MaxSurge(n int) *Wrapper {
	surge := intstr.FromInt(n)
	w.ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: &surge}
	return w
}

// OnDelete makes new templates apply only to pods that somebody deletes.
func (w *Wrapper) OnDelete() *Wrapper {
	w.ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
	return w
}

// Terminating marks the DaemonSet as being deleted.
func (w *Wrapper) Terminating() *Wrapper {
	now := metav1.Now()
	w.ds.DeletionTimestamp = &now
	return w
}

// Pod returns the pod that the DaemonSet controller would create for ds on node,
// pinned and not yet bound. Its UID is the names of both.
func Pod(ds *appsv1.DaemonSet, node string) *corev1.Pod {
	name := ds.Name + "-" + node
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   ds.Namespace,
			Name:        name,
			UID:         types.UID(name),
			Labels:      map[string]string{"pod-template-generation": ds.Annotations[appsv1.DeprecatedTemplateGeneration]},
			Annotations: maps.Clone(ds.Spec.Template.Annotations),
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet")),
			},
		},
		Spec: *ds.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, daemonset.DefaultTolerations(pod.Spec.HostNetwork)...)
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{
				Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
			}},
		}}},
	}}
	return pod
}

// BoundPod returns the pod of ds that is bound to node.
func BoundPod(ds *appsv1.DaemonSet, node string) *corev1.Pod {
	pod := Pod(ds, node)
	pod.Spec.NodeName = node
	return pod
}

// Live returns pods with what each of them takes, as NewView wants them.
func Live(pods ...*corev1.Pod) iter.Seq2[*corev1.Pod, daemonset.Resources] {
	taken := make([]daemonset.Resources, len(pods))
	for i, pod := range pods {
		taken[i] = daemonset.PodResources(pod)
	}
	return func(yield func(*corev1.Pod, daemonset.Resources) bool) {
		for i, pod := range pods {
			if !yield(pod, taken[i]) {
				return
			}
		}
	}
}
