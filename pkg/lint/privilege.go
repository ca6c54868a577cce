// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var noPriorityClass = Rule{
	ID:       "no-priority-class",
	Severity: Warning,
	Title:    "No priorityClassName",
	Reason: "Without a class, and if the cluster has no default one, the pods have the priority of any application: the kubelet evicts them like any other when the node runs out of something, " +
		"and they preempt nobody to get onto their node.",
	Fix:     "Name a class: system-node-critical for what the node cannot do without, a class of your own for the rest.",
	Example: "priorityClassName: system-node-critical",
	check: func(m *manifest) {
		if m.pod.PriorityClassName == "" {
			m.report(podPath().Child("priorityClassName"), "pods are as important as any application: they preempt nobody, and are evicted like any other")
		}
	},
}

var defaultServiceAccount = Rule{
	ID:       "default-service-account",
	Severity: Warning,
	Title:    "Token of the default service account",
	Reason: "Every pod gets a token of the namespace's default service account, on every node. Whoever gets at it can do what anybody ever allowed that account to do, " +
		"and rights for this DaemonSet alone cannot be given.",
	Fix: "Name a service account of its own, or mount no token.",
	Example: `serviceAccountName: fluentd
# or, if it does not talk to the API server:
automountServiceAccountToken: false`,
	check: checkDefaultServiceAccount,
}

func checkDefaultServiceAccount(m *manifest) {
	if m.pod.AutomountServiceAccountToken != nil && !*m.pod.AutomountServiceAccountToken {
		return
	}
	name := m.pod.ServiceAccountName
	if name == "" {
		name = m.pod.DeprecatedServiceAccount
	}
	if name == "" || name == "default" {
		m.report(podPath().Child("serviceAccountName"), "every node gets a token of the default service account, whoever else uses that account")
	}
}

var privileged = Rule{
	ID:       "privileged",
	Severity: Warning,
	Title:    "Privileged without evident need",
	Reason: "A privileged container is root on its node, and a DaemonSet is on all of them. Nothing in the manifest shows a need: no host network, PID or IPC namespace, " +
		"no block device, no mount that is passed on to the host, and no host folder of devices, the kernel, networks, storage or sockets.",
	Fix: "Drop it; add the capability that is missing, or the SELinux type.",
	Example: `securityContext:
  runAsUser: 0
  capabilities:
    drop: [ALL]
    add: [DAC_READ_SEARCH]`,
	check: checkPrivileged,
}

// privilegedFolders are those whose users may well have to be privileged.
var privilegedFolders = append([]string{"/", "/dev", "/sys", "/proc", "/run", "/var/run", "/boot", "/lib/modules", "/usr/lib/modules", "/usr/src"}, nodeFolders...)

func checkPrivileged(m *manifest) {
	if m.pod.HostNetwork || m.pod.HostPID || m.pod.HostIPC || m.mountsHost(privilegedFolders) {
		return
	}
	for _, c := range m.running {
		if c.SecurityContext == nil || c.SecurityContext.Privileged == nil || !*c.SecurityContext.Privileged || len(c.VolumeDevices) > 0 {
			continue
		}
		if !slices.ContainsFunc(c.VolumeMounts, passedOn) {
			m.report(c.path().Child("securityContext", "privileged"), fmt.Sprintf("container %s is root on every node, and nothing in the manifest shows a need for it", c.Name))
		}
	}
}

// passedOn says whether what is mounted in the container becomes mounted on the
// host, which only privileged containers may do.
func passedOn(mount corev1.VolumeMount) bool {
	return mount.MountPropagation != nil && *mount.MountPropagation == corev1.MountPropagationBidirectional
}

// mountsHost says whether the pod has a volume of one of folders, or of a part of one.
func (m *manifest) mountsHost(folders []string) bool {
	for i := range m.pod.Volumes {
		if within(hostPath(&m.pod.Volumes[i]), folders) {
			return true
		}
	}
	return false
}

// hostPath returns the host's path of volume, or "".
func hostPath(volume *corev1.Volume) string {
	if volume.HostPath == nil || volume.HostPath.Path == "" {
		return ""
	}
	return path.Clean(volume.HostPath.Path)
}

// within says whether name is one of folders or in one.
func within(name string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") })
}

var writableHostPath = Rule{
	ID:       "writable-host-path",
	Severity: Warning,
	Title:    "Writable mount of the host's own files",
	Reason: "Container logs, the machine ID, the release and the local time of the host are written by the host alone, and agents only read them. " +
		"A container that can write them can hide its traces or break the node. Other host folders may have to be written to, and are not reported.",
	Fix: "Mount them read-only.",
	Example: `volumeMounts:
  - name: varlogpods
    mountPath: /var/log/pods
    readOnly: true`,
	check: checkWritableHostPath,
}

// hostsOwn are files that nobody but the kubelet, the container runtime and the
// system writes.
var hostsOwn = []string{"/var/log/containers", "/var/log/pods", "/var/lib/docker/containers", "/etc/machine-id", "/etc/os-release", "/etc/localtime"}

func checkWritableHostPath(m *manifest) {
	for _, containers := range [][]container{m.starting, m.running} {
		for _, c := range containers {
			for i := range c.VolumeMounts {
				mount := &c.VolumeMounts[i]
				volume := slices.IndexFunc(m.pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
				if mount.ReadOnly || volume < 0 {
					continue
				}
				if host := hostPath(&m.pod.Volumes[volume]); within(host, hostsOwn) {
					m.report(c.path().Child("volumeMounts").Index(i).Child("readOnly"), fmt.Sprintf("container %s can write %s of the host, which only the host itself should", c.Name, host))
				}
			}
		}
	}
}

var sharedVolumeClaim = Rule{
	ID:       "shared-volume-claim",
	Severity: Warning,
	Title:    "One volume claim for all pods",
	Reason: "The claim in the template is the same for every pod. Unless its volume can be on many nodes at once (ReadWriteMany, ReadOnlyMany), the pod of one node starts, and all others stay Pending " +
		"or in ContainerCreating. (A claim that says readOnly is not reported.)",
	Fix: "Use a hostPath, an emptyDir, or a generic ephemeral volume, which makes a claim for each pod.",
	Example: `volumes:
  - name: buffer
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          resources: {requests: {storage: 1Gi}}`,
	check: func(m *manifest) {
		for i := range m.pod.Volumes {
			if claim := m.pod.Volumes[i].PersistentVolumeClaim; claim != nil && !claim.ReadOnly {
				m.report(podPath().Child("volumes").Index(i).Child("persistentVolumeClaim"),
					fmt.Sprintf("all pods share claim %s: unless its volume can be on many nodes at once, one pod starts and no others", claim.ClaimName))
			}
		}
	},
}
