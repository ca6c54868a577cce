// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/pkg/daemonset"
)

// reference is a name that a pod gives of something in its namespace.
type reference struct {
	kind, name string
	at         *field.Path
}

// CheckReferences returns what ds refers to and is not among objects, which come with it.
// Only a name that is nearly one of theirs is a mistake: other projects, people and
// controllers make the rest.
func CheckReferences(ds *appsv1.DaemonSet, objects []runtime.Object) []Finding {
	rule := Find("absent-reference")
	if slices.Contains(ignoredRules(ds), rule.ID) {
		return nil
	}
	// These are in every cluster.
	names := map[string][]string{"PriorityClass": {"system-node-critical", "system-cluster-critical"}}
	for _, object := range objects {
		if o, kind := kindOf(object); kind != "" && (o.GetNamespace() == "" || o.GetNamespace() == ds.Namespace) {
			names[kind] = append(names[kind], o.GetName())
		}
	}
	m := &manifest{rule: rule}
	for _, r := range references(&ds.Spec.Template.Spec) {
		known := names[r.kind]
		// A letter may be wrong in names of four letters, two in those of eight.
		if likely := nearest(r.name, known, min(2, len(r.name)/4)); likely != "" && likely != r.name {
			m.report(r.at, "the files have no %s %s, and there is %s", r.kind, r.name, likely)
		}
	}
	return m.findings
}

// CheckNodes reports a DaemonSet that belongs on nodes of more than one operating system.
func CheckNodes(ds *appsv1.DaemonSet, nodes []corev1.Node) []Finding {
	rule, systems := Find("mixed-systems"), make(map[string]bool)
	if slices.Contains(ignoredRules(ds), rule.ID) {
		return nil
	}
	compiled := daemonset.New(ds, daemonset.Options{Priority: func(string) int32 { return 0 }})
	for n := range nodes {
		if system, known := nodes[n].Labels[corev1.LabelOSStable]; known {
			if run, _ := compiled.ShouldRun(&nodes[n]); run {
				systems[system] = true
			}
		}
	}
	m := &manifest{rule: rule}
	if len(systems) > 1 {
		m.report(podPath().Child("nodeSelector"), "it belongs on nodes of %s, and no container runs on all of them", strings.Join(slices.Sorted(maps.Keys(systems)), " and "))
	}
	return m.findings
}

// CheckNeighbours returns which host ports of ds one of others has as well, if both may belong on a node.
func CheckNeighbours(ds *appsv1.DaemonSet, others []*appsv1.DaemonSet) []Finding {
	m := newManifest(ds)
	if m.rule = Find("host-port-clash"); slices.Contains(m.ignored, m.rule.ID) {
		return nil
	}
	for _, other := range others {
		taken := daemonset.HostPortsOf(&other.Spec.Template.Spec)
		if !shareNodes(m.pod, &other.Spec.Template.Spec) || other.Namespace == ds.Namespace && other.Name == ds.Name {
			continue
		}
		for _, c := range m.running {
			for i := range c.Ports {
				alone := &corev1.PodSpec{HostNetwork: m.pod.HostNetwork, Containers: []corev1.Container{{Ports: c.Ports[i : i+1]}}}
				if daemonset.AnyConflict(daemonset.HostPortsOf(alone), taken) {
					m.report(c.path().Child("ports").Index(i), "DaemonSet %s has host port %d as well: on a node with both, the pod that comes later stays Pending", other.Name, hostPort(m.pod, &c.Ports[i]))
				}
			}
		}
	}
	return m.findings
}

// kindOf returns the kind of an object that pods refer to, "" for other objects.
func kindOf(object runtime.Object) (metav1.Object, string) {
	switch object := object.(type) {
	case *corev1.ServiceAccount:
		return object, "ServiceAccount"
	case *corev1.ConfigMap:
		return object, "ConfigMap"
	case *corev1.Secret:
		return object, "Secret"
	case *corev1.PersistentVolumeClaim:
		return object, "PersistentVolumeClaim"
	case *schedulingv1.PriorityClass:
		return object, "PriorityClass"
	case *nodev1.RuntimeClass:
		return object, "RuntimeClass"
	default:
		return nil, ""
	}
}

// references returns what a pod cannot start without.
func references(pod *corev1.PodSpec) []reference {
	var all []reference
	add := referenceFunc(func(kind, name string, optional *bool, at *field.Path) {
		if name != "" && !isSet(optional, true) {
			all = append(all, reference{kind, name, at})
		}
	})
	if pod.ServiceAccountName != "default" {
		add("ServiceAccount", pod.ServiceAccountName, nil, podPath().Child("serviceAccountName"))
	}
	add("PriorityClass", pod.PriorityClassName, nil, podPath().Child("priorityClassName"))
	add("RuntimeClass", ptr.Deref(pod.RuntimeClassName, ""), nil, podPath().Child("runtimeClassName"))
	for n, volume := range pod.Volumes {
		at := podPath().Child("volumes").Index(n)
		switch {
		case volume.ConfigMap != nil:
			add("ConfigMap", volume.ConfigMap.Name, volume.ConfigMap.Optional, at.Child("configMap", "name"))
		case volume.Secret != nil:
			add("Secret", volume.Secret.SecretName, volume.Secret.Optional, at.Child("secret", "secretName"))
		case volume.PersistentVolumeClaim != nil:
			add("PersistentVolumeClaim", volume.PersistentVolumeClaim.ClaimName, nil, at.Child("persistentVolumeClaim", "claimName"))
		}
	}
	for n := range pod.InitContainers {
		add.environment(&pod.InitContainers[n], podPath().Child("initContainers").Index(n))
	}
	for n := range pod.Containers {
		add.environment(&pod.Containers[n], podPath().Child("containers").Index(n))
	}
	return all
}

// referenceFunc adds a reference, unless it is optional or names nothing.
type referenceFunc func(kind, name string, optional *bool, at *field.Path)

// environment adds what the environment of a container comes from.
func (add referenceFunc) environment(c *corev1.Container, path *field.Path) {
	for n, from := range c.EnvFrom {
		at := path.Child("envFrom").Index(n)
		if from.ConfigMapRef != nil {
			add("ConfigMap", from.ConfigMapRef.Name, from.ConfigMapRef.Optional, at.Child("configMapRef", "name"))
		}
		if from.SecretRef != nil {
			add("Secret", from.SecretRef.Name, from.SecretRef.Optional, at.Child("secretRef", "name"))
		}
	}
	for n := range c.Env {
		from, at := c.Env[n].ValueFrom, path.Child("env").Index(n).Child("valueFrom")
		if from != nil && from.ConfigMapKeyRef != nil {
			add("ConfigMap", from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Optional, at.Child("configMapKeyRef", "name"))
		}
		if from != nil && from.SecretKeyRef != nil {
			add("Secret", from.SecretKeyRef.Name, from.SecretKeyRef.Optional, at.Child("secretKeyRef", "name"))
		}
	}
}
