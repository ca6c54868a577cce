// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reference is a name that a pod gives of something in its namespace.
type reference struct {
	kind, name string
	at         *field.Path
}

// CheckReferences returns what ds refers to and is not among objects, which come with it.
// Kinds that they have none of come from elsewhere.
func CheckReferences(ds *appsv1.DaemonSet, objects []runtime.Object) []Finding {
	rule := Find("absent-reference")
	if slices.Contains(ignoredRules(ds), rule.ID) {
		return nil
	}
	names := make(map[string][]string)
	for _, object := range objects {
		// What has no metadata is no object that pods refer to.
		accessor, err := meta.Accessor(object)
		if kind := kindOf(object); err == nil && kind != "" && (accessor.GetNamespace() == "" || accessor.GetNamespace() == ds.Namespace) {
			names[kind] = append(names[kind], accessor.GetName())
		}
	}
	m := &manifest{rule: rule}
	for _, r := range references(&ds.Spec.Template.Spec) {
		if known := names[r.kind]; len(known) > 0 && !slices.Contains(known, r.name) {
			m.report(r.at, fmt.Sprintf("the files have no %s %s, and they have %s", r.kind, r.name, known[0]))
		}
	}
	return m.findings
}

func kindOf(object runtime.Object) string {
	switch object.(type) {
	case *corev1.ServiceAccount:
		return "ServiceAccount"
	case *corev1.ConfigMap:
		return "ConfigMap"
	case *corev1.Secret:
		return "Secret"
	case *corev1.PersistentVolumeClaim:
		return "PersistentVolumeClaim"
	default:
		return ""
	}
}

// references returns what a pod cannot start without.
func references(pod *corev1.PodSpec) []reference {
	var all referenceList
	if pod.ServiceAccountName != "default" {
		all.add("ServiceAccount", pod.ServiceAccountName, nil, podPath().Child("serviceAccountName"))
	}
	for n := range pod.Volumes {
		volume, at := &pod.Volumes[n], podPath().Child("volumes").Index(n)
		switch {
		case volume.ConfigMap != nil:
			all.add("ConfigMap", volume.ConfigMap.Name, volume.ConfigMap.Optional, at.Child("configMap", "name"))
		case volume.Secret != nil:
			all.add("Secret", volume.Secret.SecretName, volume.Secret.Optional, at.Child("secret", "secretName"))
		case volume.PersistentVolumeClaim != nil:
			all.add("PersistentVolumeClaim", volume.PersistentVolumeClaim.ClaimName, nil, at.Child("persistentVolumeClaim", "claimName"))
		}
	}
	for n := range pod.InitContainers {
		all.addEnvironment(&pod.InitContainers[n], podPath().Child("initContainers").Index(n))
	}
	for n := range pod.Containers {
		all.addEnvironment(&pod.Containers[n], podPath().Child("containers").Index(n))
	}
	return all
}

type referenceList []reference

func (l *referenceList) add(kind, name string, optional *bool, at *field.Path) {
	if name != "" && (optional == nil || !*optional) {
		*l = append(*l, reference{kind, name, at})
	}
}

// addEnvironment adds what a container's environment comes from.
func (l *referenceList) addEnvironment(c *corev1.Container, path *field.Path) {
	for n := range c.EnvFrom {
		from, at := &c.EnvFrom[n], path.Child("envFrom").Index(n)
		if from.ConfigMapRef != nil {
			l.add("ConfigMap", from.ConfigMapRef.Name, from.ConfigMapRef.Optional, at.Child("configMapRef", "name"))
		}
		if from.SecretRef != nil {
			l.add("Secret", from.SecretRef.Name, from.SecretRef.Optional, at.Child("secretRef", "name"))
		}
	}
	for n := range c.Env {
		from, at := c.Env[n].ValueFrom, path.Child("env").Index(n).Child("valueFrom")
		if from != nil && from.ConfigMapKeyRef != nil {
			l.add("ConfigMap", from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Optional, at.Child("configMapKeyRef", "name"))
		}
		if from != nil && from.SecretKeyRef != nil {
			l.add("Secret", from.SecretKeyRef.Name, from.SecretKeyRef.Optional, at.Child("secretKeyRef", "name"))
		}
	}
}
