// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
)

// operation is one operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// mutation is what is to be done to a pod. Patches name single fields, never
// whole objects: a pod can have fields that this program has not heard of.
type mutation struct {
	Patch []operation
	// Audit says what was done, for the API server's audit log.
	Audit map[string]string
	// Warnings are shown to whoever created the pod.
	Warnings []string
}

func (m *mutation) add(path string, value any) {
	m.Patch = append(m.Patch, operation{Op: "add", Path: path, Value: value})
}

func (m *mutation) audit(key, value string) {
	if m.Audit == nil {
		m.Audit = make(map[string]string)
	}
	m.Audit[key] = value
}

// mutatePod decides what to change in a new pod of a DaemonSet with those
// annotations. To apply the result and decide again changes nothing more.
//
// Whatever it does, the DaemonSet controller goes on to see the pod on the same
// node (GetTargetNodeName in k8s.io/kubernetes/pkg/controller/daemon/util). If it
// did not, it would take the node for empty and create another pod at every sync.
func mutatePod(pod *corev1.Pod, annotations map[string]string) mutation {
	var m mutation
	switch mode := annotations[daemonset.SchedulingAnnotation]; mode {
	case daemonset.SchedulingDirect:
		m.bind(pod)
	case daemonset.SchedulingScheduler, "":
		m.pin(pod)
	default:
		m.Warnings = append(m.Warnings, fmt.Sprintf("annotation %s of the DaemonSet is %q, must be %q or %q; %[4]q is assumed",
			daemonset.SchedulingAnnotation, mode, daemonset.SchedulingDirect, daemonset.SchedulingScheduler))
		m.pin(pod)
	}
	m.tolerate(pod)
	return m
}

// bind gives a pinned pod to its node's kubelet without asking a scheduler.
func (m *mutation) bind(pod *corev1.Pod) {
	if pod.Spec.NodeName != "" {
		return
	}
	node, pinned := daemonset.PinnedNode(pod)
	if target, ok := daemonset.TargetNode(pod); !pinned || !ok || target != node {
		m.Warnings = append(m.Warnings, fmt.Sprintf("annotation %s of the DaemonSet is %q, but the pod is not limited to one node: it is left to the scheduler",
			daemonset.SchedulingAnnotation, daemonset.SchedulingDirect))
		return
	}
	m.add("/spec/nodeName", node)
	m.audit("bound", node)
}

// pin has a scheduler place a pod that its creator has bound to a node: the
// binding becomes a node affinity that only that node meets.
func (m *mutation) pin(pod *corev1.Pod) {
	node := pod.Spec.NodeName
	if node == "" {
		return
	}
	patch, err := pinPatch(pod, node)
	if err != nil {
		m.Warnings = append(m.Warnings, fmt.Sprintf("the pod stays bound to node %s: %v", node, err))
		return
	}
	m.Patch = append(m.Patch, patch...)
	m.Patch = append(m.Patch, operation{Op: "remove", Path: "/spec/nodeName"})
	m.audit("pinned", node)
}

// pinPatch limits the pod's required node affinity to node. Terms are ORed, so
// each of them gets the limit; none is removed, reordered or widened.
func pinPatch(pod *corev1.Pod, node string) ([]operation, error) {
	pin := corev1.NodeSelectorRequirement{
		Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
	}
	required := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
		{MatchFields: []corev1.NodeSelectorRequirement{pin}},
	}}
	add := func(path string, value any) []operation {
		return []operation{{Op: "add", Path: path, Value: value}}
	}
	affinity := pod.Spec.Affinity
	switch {
	case affinity == nil:
		return add("/spec/affinity", corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}), nil
	case affinity.NodeAffinity == nil:
		return add("/spec/affinity/nodeAffinity", corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}), nil
	case affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil:
		return add("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution", required), nil
	}

	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	const path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms"
	var patch []operation
	matchable := false
	for i := range terms {
		term := &terms[i]
		if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
			// It matches no node. With the pin in it, it would match one.
			continue
		}
		matchable = true
		named, err := namesOnly(term, node)
		switch {
		case err != nil:
			return nil, err
		case named:
			// The pin is there already.
		case len(term.MatchFields) == 0:
			patch = append(patch, add(fmt.Sprintf("%s/%d/matchFields", path, i), []corev1.NodeSelectorRequirement{pin})...)
		default:
			// At the front: the controller believes the first name it finds.
			patch = append(patch, add(fmt.Sprintf("%s/%d/matchFields/0", path, i), pin)...)
		}
	}
	if !matchable {
		return nil, errors.New("its required node affinity matches no node")
	}
	return patch, nil
}

// namesOnly says whether term is limited to node already. It is an error if it is
// limited to another node.
func namesOnly(term *corev1.NodeSelectorTerm, node string) (bool, error) {
	named := false
	for i := range term.MatchFields {
		field := &term.MatchFields[i]
		if field.Key != metav1.ObjectNameField || field.Operator != corev1.NodeSelectorOpIn {
			continue
		}
		if len(field.Values) != 1 || field.Values[0] != node {
			return false, fmt.Errorf("its required node affinity names %s", strings.Join(field.Values, ", "))
		}
		named = true
	}
	return named, nil
}

// tolerate gives the pod the DaemonSet controller's tolerations, which it lacks if
// another controller has created it. Like the controller it lets no time limit
// stand: the DefaultTolerationSeconds admission has set one by now on pods that
// had none.
func (m *mutation) tolerate(pod *corev1.Pod) {
	var missing []corev1.Toleration
	var changed []string
	for _, toleration := range daemonset.DefaultTolerations(pod.Spec.HostNetwork) {
		i := slices.IndexFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&toleration) })
		switch {
		case i < 0:
			missing = append(missing, toleration)
		case pod.Spec.Tolerations[i].TolerationSeconds != nil:
			m.Patch = append(m.Patch, operation{Op: "remove", Path: fmt.Sprintf("/spec/tolerations/%d/tolerationSeconds", i)})
		default:
			continue
		}
		changed = append(changed, toleration.Key+":"+string(toleration.Effect))
	}
	if len(changed) == 0 {
		return
	}
	if len(pod.Spec.Tolerations) == 0 {
		m.add("/spec/tolerations", missing)
	} else {
		for _, toleration := range missing {
			m.add("/spec/tolerations/-", toleration)
		}
	}
	m.audit("tolerations", strings.Join(changed, ","))
}
