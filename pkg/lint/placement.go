// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

var nodeAffinityImpossible = Rule{
	ID:       "node-affinity-impossible",
	Severity: Error,
	Title:    "Required node affinity that no node can meet",
	Reason: "The terms are alternatives, and each of them contradicts itself, the nodeSelector or the nodeName, or is empty: an empty term matches nothing, not everything. " +
		"The controller creates no pod at all, and no event says so.",
	Fix: "Write alternatives as terms or as values of one requirement: the requirements within a term must all hold at once.",
	Example: `nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: topology.kubernetes.io/zone, operator: In, values: [us-east-1a, us-east-1b]}`,
	check: func(m *manifest) {
		if dead := m.deadTerms(); len(dead) > 0 && len(dead) == len(m.nodeTerms()) {
			m.report(nodeTermsPath(), "no node can match, so no pod is created: in term 0, "+dead[0].why)
		}
	},
}

var deadAffinityTerm = Rule{
	ID:       "dead-affinity-term",
	Severity: Warning,
	Title:    "Term of the required node affinity that no node can meet",
	Reason: "The terms are alternatives. This one contradicts itself, the nodeSelector or the nodeName, or is empty, so it adds no node; the others decide alone. " +
		"Nodes that it was meant to add get no pod.",
	Fix: "Correct the term or remove it.",
	check: func(m *manifest) {
		dead := m.deadTerms()
		if len(dead) == len(m.nodeTerms()) {
			return
		}
		for _, term := range dead {
			m.report(nodeTermsPath().Index(term.index), "this alternative adds no node: "+term.why)
		}
	},
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

var nodeNameSet = Rule{
	ID:       "node-name",
	Severity: Warning,
	Title:    "nodeName in the template",
	Reason: "It limits the DaemonSet to one node and, unless everynode-webhook sees to it, binds the pod there without a scheduler: nobody looks for room, " +
		"and a pod that does not fit is refused by the kubelet and made again, over and over.",
	Fix:     "Choose nodes by label.",
	Example: "nodeSelector:\n  kubernetes.io/hostname: node-1",
	check: func(m *manifest) {
		if m.pod.NodeName != "" {
			m.report(podPath().Child("nodeName"), "no other node gets a pod, and stock Kubernetes binds it there without looking for room")
		}
	},
}

var preferenceWithoutChoice = Rule{
	ID:       "preference-without-choice",
	Severity: Warning,
	Title:    "Preference among nodes",
	Reason: "The controller creates each pod for one node. A preference among nodes, by node affinity or by a spread of ScheduleAnyway, has nothing to choose from " +
		"and excludes no node. (Preferred pod affinity is another matter: it also attracts or repels other pods.)",
	Fix: "Remove it. If it was meant to limit the DaemonSet to some nodes, require it.",
	Example: `nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: node.kubernetes.io/instance-type, operator: In, values: [t3.medium]}`,
	check: checkPreferenceWithoutChoice,
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

var topologySpread = Rule{
	ID:       "topology-spread",
	Severity: Warning,
	Title:    "Topology spread that can refuse a node",
	Reason: "A DaemonSet has one pod per node, so there is nothing to spread. The controller creates the pod without looking at the constraint. Where the constraint refuses the node, " +
		"for example because the node lacks the topology label, the pod stays Pending, counts as scheduled and holds up updates.",
	Fix: "Remove the constraint.",
	check: func(m *manifest) {
		for i := range m.pod.TopologySpreadConstraints {
			if m.scheduled() && m.pod.TopologySpreadConstraints[i].WhenUnsatisfiable == corev1.DoNotSchedule {
				m.report(podPath().Child("topologySpreadConstraints").Index(i), "there is nothing to spread with one pod per node: all it can do is to keep a pod Pending")
			}
		}
	},
}

// scheduled says whether pods go through a scheduler, which is the one who cares
// for pod affinity and topology spread.
func (m *manifest) scheduled() bool {
	return m.pod.NodeName == "" && m.ds.Annotations[daemonset.SchedulingAnnotation] != daemonset.SchedulingDirect
}

var podAffinity = Rule{
	ID:       "pod-affinity",
	Severity: Warning,
	Title:    "Required pod affinity or anti-affinity",
	Reason: "The controller creates a pod for every node that the node selectors and tolerations allow, without looking at pod affinity. Where it does not hold, the pod stays Pending: " +
		"it counts as scheduled, takes from maxUnavailable and holds up updates. (An anti-affinity on the node's host name to the DaemonSet's own pods is always met, and stays unmentioned.)",
	Fix: "Choose nodes by label; with everynode, let pods wait for another DaemonSet by the annotation everynode.dev/requires.",
	Example: `template:
  metadata:
    annotations:
      everynode.dev/requires: kube-system/cilium`,
	check: checkPodAffinity,
}

func checkPodAffinity(m *manifest) {
	if m.pod.Affinity == nil || !m.scheduled() {
		return
	}
	const message = "the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending"
	if affinity := m.pod.Affinity.PodAffinity; affinity != nil {
		for i := range affinity.RequiredDuringSchedulingIgnoredDuringExecution {
			m.report(podPath().Child("affinity", "podAffinity", "requiredDuringSchedulingIgnoredDuringExecution").Index(i), message)
		}
	}
	for i := range m.antiAffinity() {
		if term := &m.antiAffinity()[i]; !m.keepsOwnPodsApart(term) || selectsEverything(term.LabelSelector) {
			m.report(antiAffinityPath().Index(i), message)
		}
	}
}

var wildcardToleration = Rule{
	ID:       "wildcard-toleration",
	Severity: Warning,
	Title:    "Toleration of every taint",
	Reason: "A toleration without a key matches every taint, those included that nobody has thought of yet: nodes that are kept empty, that are not ready for pods, " +
		"or that an autoscaler is about to remove. With the effect NoExecute, or without an effect, no taint can drive the pod off a node either. " +
		"The network and storage of a node need that, and are not reported: pods on the host network, with the kubelet's, CNI's or CSI's folders, or of a system-critical priority class.",
	Fix: "Name the taints. The controller adds those of nodes in trouble itself: not-ready and unreachable (NoExecute), pressure and unschedulable (NoSchedule).",
	Example: `tolerations:
  - key: node-role.kubernetes.io/control-plane
    operator: Exists
    effect: NoSchedule`,
	check: checkWildcardToleration,
}

func checkWildcardToleration(m *manifest) {
	if m.runsTheNode() {
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
			// It means nothing to a pod that has one node to go to.
		}
	}
}

// nodeFolders are where the kubelet and its plugins for networks and storage live.
var nodeFolders = []string{"/etc/cni", "/opt/cni", "/var/lib/cni", "/var/lib/kubelet"}

// runsTheNode says whether the pods look like a part of the node that has to be
// there before anything else.
func (m *manifest) runsTheNode() bool {
	return m.pod.HostNetwork || strings.HasPrefix(m.pod.PriorityClassName, "system-") || m.mountsHost(nodeFolders)
}

var noTolerations = Rule{
	ID:       "no-tolerations",
	Severity: Warning,
	Title:    "Agent of every node without a toleration",
	Reason: "The pods read logs, processes or files that every node has, and are not limited to some nodes. But they tolerate no taint, so the nodes of the control plane, and others with a taint, " +
		"go without. (The controller adds tolerations for nodes in trouble itself.)",
	Fix: "Tolerate the taints of the nodes that are to be looked after; ignore this rule if none of them has one, or if they are meant to go without.",
	Example: `tolerations:
  - key: node-role.kubernetes.io/control-plane
    operator: Exists
    effect: NoSchedule`,
	check: func(m *manifest) {
		if len(m.pod.Tolerations) == 0 && !m.choosesNodes() && m.mountsHost(everyNodes) {
			m.report(podPath().Child("tolerations"), "the pods look after what every node has, but tolerate no taint: nodes of the control plane get none")
		}
	},
}

// everyNodes are folders that agents read on each node.
var everyNodes = []string{"/", "/proc", "/sys", "/var/log", "/var/lib/docker/containers"}

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

var tolerationSeconds = Rule{
	ID:       "toleration-seconds",
	Severity: Warning,
	Title:    "tolerationSeconds that the controller removes",
	Reason: "The controller gives every pod tolerations for node.kubernetes.io/not-ready and unreachable that have no time limit, and overwrites equal ones of the template. " +
		"The pod stays on a node that is not ready for as long as it takes.",
	Fix: "Leave the toleration out.",
	check: func(m *manifest) {
		for i := range m.pod.Tolerations {
			toleration := &m.pod.Tolerations[i]
			if toleration.TolerationSeconds == nil {
				continue
			}
			if slices.ContainsFunc(daemonset.DefaultTolerations(m.pod.HostNetwork), func(ours corev1.Toleration) bool { return ours.MatchToleration(toleration) }) {
				m.report(podPath().Child("tolerations").Index(i).Child("tolerationSeconds"),
					fmt.Sprintf("the controller tolerates %s without a limit and removes this one: the pod stays", toleration.Key))
			}
		}
	},
}
