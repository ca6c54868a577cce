// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

func checkNodeAffinityImpossible(m *manifest) {
	if dead := m.deadTerms(); len(dead) > 0 && len(dead) == len(m.nodeTerms()) {
		m.report(nodeTermsPath(), "no node can match, so no pod is created: in term 0, %s", dead[0].why)
	}
}

func checkDeadAffinityTerm(m *manifest) {
	dead := m.deadTerms()
	if len(dead) == len(m.nodeTerms()) {
		return
	}
	for _, term := range dead {
		m.report(nodeTermsPath().Index(term.index), "this alternative adds no node: %s", term.why)
	}
}

// deadTerm is a term of the required node affinity that matches no node.
type deadTerm struct {
	index int
	why   string
}

func (m *manifest) deadTerms() []deadTerm {
	var dead []deadTerm
	for i := range m.nodeTerms() {
		if why := contradiction(&m.nodeTerms()[i], m.pod); why != "" {
			dead = append(dead, deadTerm{i, why})
		}
	}
	return dead
}

// nodeTerms returns the terms of the required node affinity.
func (m *manifest) nodeTerms() []corev1.NodeSelectorTerm {
	if m.pod.Affinity == nil || m.pod.Affinity.NodeAffinity == nil ||
		m.pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return m.pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

func nodeTermsPath() *field.Path {
	return podPath().Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
}

func checkNodeNameSet(m *manifest) {
	if m.pod.NodeName != "" {
		m.report(podPath().Child("nodeName"), "no other node gets a pod, and stock Kubernetes binds it there without looking for room")
	}
}

func checkPreferenceWithoutChoice(m *manifest) {
	const message = "it has no effect: every pod of a DaemonSet has one node to go to, and a preference excludes none"
	if m.pod.Affinity != nil && m.pod.Affinity.NodeAffinity != nil && len(m.pod.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		m.report(podPath().Child("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), message)
	}
	for i := range m.pod.TopologySpreadConstraints {
		if m.pod.TopologySpreadConstraints[i].WhenUnsatisfiable == corev1.ScheduleAnyway {
			m.report(podPath().Child("topologySpreadConstraints").Index(i), message)
		}
	}
}

func checkTopologySpread(m *manifest) {
	for i := range m.pod.TopologySpreadConstraints {
		if m.scheduled() && m.pod.TopologySpreadConstraints[i].WhenUnsatisfiable == corev1.DoNotSchedule {
			m.report(podPath().Child("topologySpreadConstraints").Index(i), "there is nothing to spread with one pod per node: all it can do is to keep a pod Pending")
		}
	}
}

// scheduled says whether pods go through a scheduler. Only a scheduler looks at pod affinity and
// topology spread.
func (m *manifest) scheduled() bool {
	return m.pod.NodeName == "" && m.ds.Annotations[daemonset.SchedulingAnnotation] != daemonset.SchedulingDirect
}

func checkPodAffinity(m *manifest) {
	if m.pod.Affinity == nil || !m.scheduled() {
		return
	}
	const message = "the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending"
	if affinity := m.pod.Affinity.PodAffinity; affinity != nil {
		for i := range affinity.RequiredDuringSchedulingIgnoredDuringExecution {
			if !m.waitsOnNode(&affinity.RequiredDuringSchedulingIgnoredDuringExecution[i]) {
				m.report(podPath().Child("affinity", "podAffinity", "requiredDuringSchedulingIgnoredDuringExecution").Index(i), message)
			}
		}
	}
	for i := range m.antiAffinity() {
		if term := &m.antiAffinity()[i]; selectsEverything(term.LabelSelector) || !m.keepsOwnPodsApart(term) && !m.waitsOnNode(term) {
			m.report(antiAffinityPath().Index(i), message)
		}
	}
}

// waitsOnNode says whether term has one part of a node wait for another one to come,
// or to go, which is meant: cilium-envoy starts where cilium is.
func (m *manifest) waitsOnNode(term *corev1.PodAffinityTerm) bool {
	return term.TopologyKey == corev1.LabelHostname && m.runsTheNode()
}

func checkWildcardToleration(m *manifest) {
	// Who watches the node itself or its hardware has work on all of them, and who chooses
	// nodes by label means those, whatever else taints them.
	if m.runsTheNode() || m.pod.HostPID || m.watchesTheNode() || m.mountsWhole("/dev", "/sys") || m.choosesNodes() {
		return
	}
	for i := range m.pod.Tolerations {
		toleration := &m.pod.Tolerations[i]
		if toleration.Key != "" || toleration.Operator != corev1.TolerationOpExists || toleration.TolerationSeconds != nil {
			continue
		}
		switch path := podPath().Child("tolerations").Index(i); toleration.Effect {
		case corev1.TaintEffectNoSchedule:
			m.report(path, "no taint keeps the pods off a node, not even where nothing is meant to start yet or any more")
		case "", corev1.TaintEffectNoExecute:
			m.report(path, "no taint drives the pods off a node, not even where nothing is meant to run")
		case corev1.TaintEffectPreferNoSchedule:
			// It has no effect on a pod that can go to one node only.
		}
	}
}

// nodeFolders are where the kubelet and its plugins for networks and storage live.
var nodeFolders = []string{"/etc/cni", "/opt/cni", "/var/lib/cni", "/var/lib/kubelet"}

// kernelLog is read by agents that report faults of nodes. They run on broken nodes, too.
var kernelLog = []string{"/dev/kmsg"}

// runsTheNode says whether the pods look like a part of the node that has to be
// there before anything else.
func (m *manifest) runsTheNode() bool {
	return m.pod.HostNetwork || m.mountsHost(kernelLog) || strings.HasPrefix(m.pod.PriorityClassName, "system-") || m.mountsHost(nodeFolders)
}

// watchesTheNode says whether the pods look at the whole node: its files or its processes.
func (m *manifest) watchesTheNode() bool {
	return m.mountsWhole("/", "/proc")
}

// pluginFolders are where the kubelet and its plugins for volumes and devices meet.
var pluginFolders = []string{"/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/device-plugins"}

// servesPods says whether the pods give volumes or devices to others, which keep them
// while the pods are away. On the host network, networks pass mounts on as well.
func (m *manifest) servesPods() bool {
	return m.mountsHost(pluginFolders) || !m.pod.HostNetwork && slices.ContainsFunc(m.running, container.passesMountsOn)
}

func checkNoTolerations(m *manifest) {
	// What is in a folder of its own below /var/log is an agent's own log.
	looksAfterNodes := m.watchesTheNode() || m.mountsWhole("/var/log", "/var/log/pods", "/var/log/containers", "/var/log/journal", "/var/lib/docker/containers")
	if looksAfterNodes && len(m.pod.Tolerations) == 0 && !m.choosesNodes() && !m.mountsHost(nodeFolders) && !m.servesPods() {
		m.report(podPath().Child("tolerations"), "the pods look after what every node has, but tolerate no taint: nodes with one, such as those of the control plane, get none")
	}
}

// choosesNodes says whether pods are wanted on some nodes only. An image for one
// operating system or architecture does not choose.
func (m *manifest) choosesNodes() bool {
	for label := range m.pod.NodeSelector {
		if label != corev1.LabelOSStable && label != corev1.LabelArchStable {
			return true
		}
	}
	return m.pod.NodeName != "" || len(m.nodeTerms()) > 0
}

func checkTolerationSeconds(m *manifest) {
	for i := range m.pod.Tolerations {
		toleration := &m.pod.Tolerations[i]
		if toleration.TolerationSeconds == nil {
			continue
		}
		if slices.ContainsFunc(daemonset.DefaultTolerations(m.pod.HostNetwork), func(ours corev1.Toleration) bool { return ours.MatchToleration(toleration) }) {
			m.report(podPath().Child("tolerations").Index(i).Child("tolerationSeconds"),
				"the controller tolerates %s without a limit and removes this one: the pod stays", toleration.Key)
		}
	}
}

// The taints of the control plane, the first of which is gone since Kubernetes 1.25.
// The API server warns of selectors with the old name itself.
const (
	oldRole = "node-role.kubernetes.io/master"
	newRole = "node-role.kubernetes.io/control-plane"
)

// checkOldRole looks for the old name where the new one is not beside it.
func checkOldRole(m *manifest) {
	tolerates := func(key string) int {
		return slices.IndexFunc(m.pod.Tolerations, func(t corev1.Toleration) bool { return t.Key == key || key != oldRole && t.Key == "" })
	}
	if n := tolerates(oldRole); n >= 0 && tolerates(newRole) < 0 {
		m.report(podPath().Child("tolerations").Index(n), "no node has this taint since Kubernetes 1.25: nodes of the control plane get no pod")
	}
}
