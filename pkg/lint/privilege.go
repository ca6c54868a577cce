// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func checkNoPriorityClass(m *manifest) {
	if m.pod.PriorityClassName == "" {
		m.report(podPath().Child("priorityClassName"), "pods are as important as any application: they preempt nobody, and are evicted like any other")
	}
}

// priorities are those of the classes that every cluster has, and without a class.
var priorities = map[string]int32{"": 0, "system-node-critical": 2000001000, "system-cluster-critical": 2000000000}

// checkSetByAdmission looks for what the admission plugins Priority and RuntimeClass of
// k8s.io/kubernetes/plugin/pkg/admission set, and refuse to be told otherwise.
func checkSetByAdmission(m *manifest) {
	priority, known := priorities[m.pod.PriorityClassName]
	if m.pod.Priority != nil && known && *m.pod.Priority != priority {
		m.report(podPath().Child("priority"), "the API server refuses every pod: its class makes %d of the priority", priority)
	}
	if m.pod.Overhead != nil && m.pod.RuntimeClassName == nil {
		m.report(podPath().Child("overhead"), "the API server refuses every pod: only a RuntimeClass has an overhead")
	}
}

func checkDefaultServiceAccount(m *manifest) {
	name := cmp.Or(m.pod.ServiceAccountName, m.pod.DeprecatedServiceAccount, "default")
	if name == "default" && !isSet(m.pod.AutomountServiceAccountToken, false) {
		m.report(podPath().Child("serviceAccountName"), "every node gets a token of the default service account, whoever else uses that account")
	}
}

// privilegedFolders are those whose users may well have to be privileged.
var privilegedFolders = append([]string{"/", "/dev", "/sys", "/proc", "/run", "/var/run", "/boot", "/lib/modules", "/usr/lib/modules", "/usr/src"}, nodeFolders...)

func checkPrivileged(m *manifest) {
	if m.pod.HostNetwork || m.pod.HostPID || m.pod.HostIPC || m.mountsHost(privilegedFolders) {
		return
	}
	for _, c := range m.running {
		privileged := c.SecurityContext != nil && isSet(c.SecurityContext.Privileged, true)
		if privileged && len(c.VolumeDevices)+len(c.Resources.Claims) == 0 && !c.passesMountsOn() {
			m.report(c.path().Child("securityContext", "privileged"), "container %s is root on every node, and nothing in the manifest shows a need for it", c.Name)
		}
	}
}

// passesMountsOn says whether what c mounts becomes mounted on the host, which only
// privileged containers may have.
func (c container) passesMountsOn() bool {
	return slices.ContainsFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool {
		return isSet(v.MountPropagation, corev1.MountPropagationBidirectional)
	})
}

// mountsWhole says whether the pod has a volume of one of folders as a whole.
func (m *manifest) mountsWhole(folders ...string) bool {
	return slices.ContainsFunc(m.pod.Volumes, func(volume corev1.Volume) bool { return slices.Contains(folders, hostPath(&volume)) })
}

// mountsHost says whether the pod has a volume of one of folders, or of a part of one.
func (m *manifest) mountsHost(folders []string) bool {
	return slices.ContainsFunc(m.pod.Volumes, func(volume corev1.Volume) bool { return within(hostPath(&volume), folders) })
}

// hostPath returns the host's path of volume, or "". Those of Windows, with or without
// a drive, are written as on Linux.
func hostPath(volume *corev1.Volume) string {
	if volume.HostPath == nil || volume.HostPath.Path == "" {
		return ""
	}
	host := volume.HostPath.Path
	if len(host) > 1 && host[1] == ':' {
		host = host[2:]
	}
	return path.Clean(strings.ReplaceAll(host, `\`, "/"))
}

// within says whether name is one of folders or in one.
func within(name string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") })
}

// hostsOwn are files that nobody but the kubelet, the container runtime and the
// system writes.
var hostsOwn = []string{"/var/log/containers", "/var/log/pods", "/var/lib/docker/containers", "/etc/machine-id", "/etc/os-release", "/etc/localtime"}

func checkWritableHostPath(m *manifest) {
	for _, c := range m.containers() {
		for i, mount := range c.VolumeMounts {
			volume := slices.IndexFunc(m.pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
			if mount.ReadOnly || volume < 0 {
				continue
			}
			if host := hostPath(&m.pod.Volumes[volume]); within(host, hostsOwn) {
				m.report(c.path().Child("volumeMounts").Index(i).Child("readOnly"), "container %s can write %s of the host, which only the host itself should", c.Name, host)
			}
		}
	}
}

func checkSharedVolumeClaim(m *manifest) {
	for i := range m.pod.Volumes {
		if claim := m.pod.Volumes[i].PersistentVolumeClaim; claim != nil && !claim.ReadOnly && !m.onManyNodes(claim.ClaimName) {
			m.report(podPath().Child("volumes").Index(i).Child("persistentVolumeClaim"),
				"all pods share claim %s: unless its volume can be on many nodes at once, one pod starts and no others", claim.ClaimName)
		}
	}
}

// onManyNodes says whether a claim that comes with the DaemonSet asks for a volume that many nodes
// can have at once.
func (m *manifest) onManyNodes(name string) bool {
	return slices.ContainsFunc(m.objects, func(object runtime.Object) bool {
		claim, ok := object.(*corev1.PersistentVolumeClaim)
		return ok && claim.Name == name && (claim.Namespace == "" || claim.Namespace == m.ds.Namespace) &&
			(slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany) || slices.Contains(claim.Spec.AccessModes, corev1.ReadOnlyMany))
	})
}

// dockerSockets are where Docker listens.
var dockerSockets = []string{"/var/run/docker.sock", "/run/docker.sock", "/var/run/dockershim.sock", "/run/dockershim.sock"}

// otherRuntimes are where runtimes listen that kubelets use.
var otherRuntimes = []string{"/run/containerd", "/var/run/containerd", "/run/crio", "/var/run/crio"}

func checkDockerSocket(m *manifest) {
	// Who asks another runtime as well is prepared for nodes without Docker.
	if m.mountsHost(otherRuntimes) || m.mountsWhole("/", "/run", "/var/run") {
		return
	}
	for i := range m.pod.Volumes {
		if socket := hostPath(&m.pod.Volumes[i]); within(socket, dockerSockets) {
			m.report(podPath().Child("volumes").Index(i).Child("hostPath"), "%s is not there on nodes of today, whose kubelets do without Docker since Kubernetes 1.24", socket)
		}
	}
}
