// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
)

// cause is what the next command depends on besides the verdict.
type cause struct {
	labels     []mismatch
	taints     []corev1.Taint
	refusal    string
	annotation string
	gates      string
	container  string
	crashed    bool
	ownPort    bool
}

// commands writes commands that can be pasted into a shell.
type commands struct {
	kubectl string
}

// of returns a command of kubectl. What a shell would take for something else is quoted.
func (c commands) of(words ...string) string {
	for n := range words {
		words[n] = Quote(words[n])
	}
	return c.kubectl + " " + strings.Join(words, " ")
}

// inNamespace is of for objects in a namespace.
func (c commands) inNamespace(namespace string, words ...string) string {
	return c.of(append(words, "-n", namespace)...)
}

const harmless = "-_./:=,@%+"

// Quote returns word as a shell takes it for one word.
func Quote(word string) string {
	special := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(harmless, r)
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// next returns the one command to run next.
func (i *inquiry) next() string {
	switch i.v.Step {
	case StepController:
		return i.nextForUnwanted()
	case StepCreation, StepAdmission, StepQueue:
		return i.nextForCreation()
	case StepFilters, StepPreemption:
		return i.nextForFilters()
	case StepKubelet, StepReady:
		return i.nextForStarted()
	default:
		return ""
	}
}

// nextForUnwanted is for nodes that the DaemonSet does not belong on. Whether it
// should is not for us to say: the command brings it there.
func (i *inquiry) nextForUnwanted() string {
	switch i.v.Reason {
	case ReasonNodeSelector:
		if slices.ContainsFunc(i.cause.labels, func(m mismatch) bool { return isNature(m.key) }) {
			return i.editDaemonSet()
		}
		return i.labelNode()
	case ReasonTaint:
		return i.tolerate()
	case ReasonDeleting:
		return i.onDaemonSet("get", "-o", "jsonpath={.metadata.finalizers}")
	default:
		return i.editDaemonSet()
	}
}

// isNature says whether a label tells what a node is: it is set by kubelets and cloud
// providers, and to write another value would be a lie.
func isNature(key string) bool {
	domain, _, found := strings.Cut(key, "/")
	isOf := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	return found && (isOf("kubernetes.io") || isOf("k8s.io")) && domain != "node-role.kubernetes.io"
}

func (i *inquiry) labelNode() string {
	var labels []string
	overwrite := false
	for _, m := range i.cause.labels {
		labels = append(labels, m.label())
		overwrite = overwrite || m.has
	}
	if overwrite {
		labels = append(labels, "--overwrite")
	}
	// The same labels help every node that lacks the same ones.
	i.v.nextFor = func(nodes []string) string {
		return i.commands.of(slices.Concat([]string{"label", "node"}, nodes, labels)...)
	}
	return i.v.nextFor([]string{i.node.Name})
}

// onDaemonSet returns a command about the DaemonSet.
func (i *inquiry) onDaemonSet(verb string, more ...string) string {
	return i.commands.inNamespace(i.ds.Namespace, slices.Concat(strings.Fields(verb), []string{"daemonset/" + i.ds.Name}, more)...)
}

func (i *inquiry) editDaemonSet() string {
	return i.onDaemonSet("edit")
}

func (i *inquiry) describeNode() string {
	return i.commands.of("describe", "node", i.node.Name)
}

// onPod returns a command about the pod that the verdict is about.
func (i *inquiry) onPod(verb string, more ...string) string {
	return i.commands.inNamespace(i.pod.Namespace, append([]string{verb, "pod/" + i.pod.Name}, more...)...)
}

// tolerate adds tolerations to the DaemonSet, unless the taints go by themselves.
func (i *inquiry) tolerate() string {
	if taintHint(i.cause.taints) != "" {
		return i.describeNode()
	}
	var tolerations []corev1.Toleration
	for _, taint := range i.cause.taints {
		toleration := corev1.Toleration{Key: taint.Key, Operator: corev1.TolerationOpExists, Effect: taint.Effect}
		if taint.Value != "" {
			toleration.Operator, toleration.Value = corev1.TolerationOpEqual, taint.Value
		}
		tolerations = append(tolerations, toleration)
	}
	const path = "/spec/template/spec/tolerations"
	if len(i.template().Tolerations) == 0 {
		return i.patch("json", []map[string]any{{"op": "add", "path": path, "value": tolerations}})
	}
	operations := make([]map[string]any, len(tolerations))
	for n := range tolerations {
		operations[n] = map[string]any{"op": "add", "path": path + "/-", "value": tolerations[n]}
	}
	return i.patch("json", operations)
}

// patch returns a command that patches the DaemonSet.
func (i *inquiry) patch(kind string, patch any) string {
	content, err := json.Marshal(patch)
	if err != nil {
		return i.editDaemonSet()
	}
	return i.onDaemonSet("patch", "--type="+kind, "-p", string(content))
}

// patchTemplate returns a command that sets a field of the pods.
func (i *inquiry) patchTemplate(field string, value any) string {
	return i.patch("merge", map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{field: value}}}})
}

func (i *inquiry) nextForCreation() string {
	switch i.v.Reason {
	case ReasonCreateFailed:
		if i.cause.refusal != "" {
			return i.commands.kubectl + " " + strings.ReplaceAll(i.cause.refusal, "NAMESPACE", i.ds.Namespace)
		}
	case ReasonUnpinned:
		return i.onPod("get", "-o", "yaml")
	case ReasonTerminating:
		if !isNodeReady(i.node) {
			return i.describeNode()
		}
		return i.onPod("get", "-o", "yaml")
	case ReasonNotCreated:
		return i.commands.of("get", "lease", "kube-controller-manager", "-n", metav1.NamespaceSystem)
	case ReasonNarrowed:
		return i.widen()
	case ReasonGated:
		return i.onPod("get", "-o", "jsonpath={.spec.schedulingGates}")
	case ReasonNoScheduler:
		if i.pod.Spec.SchedulerName != corev1.DefaultSchedulerName {
			return i.patchTemplate("schedulerName", corev1.DefaultSchedulerName)
		}
		return i.commands.of("get", "lease", "kube-scheduler", "-n", metav1.NamespaceSystem)
	case ReasonSchedulable:
		return i.onPod("get", "--watch")
	default:
	}
	return i.onDaemonSet("describe")
}

// widen takes the namespace's node selector away, or else gives the node the labels.
// Pods keep what they were created with, so those that wait have to be made anew.
func (i *inquiry) widen() string {
	if i.cause.annotation == "" {
		return i.labelNode()
	}
	return i.commands.of("annotate", "namespace", i.ds.Namespace, i.cause.annotation+"-") + " && " +
		i.commands.inNamespace(i.ds.Namespace, "delete", "pod", "--field-selector=status.phase=Pending", "-l", metav1.FormatLabelSelector(i.ds.Spec.Selector))
}

func (i *inquiry) nextForFilters() string {
	switch i.v.Reason {
	case ReasonNeverFits:
		return i.shrink()
	case ReasonNoRoom:
		return i.nextForNoRoom()
	case ReasonPortTaken:
		if i.cause.ownPort {
			return i.patch("merge", map[string]any{"spec": map[string]any{"updateStrategy": map[string]any{
				"rollingUpdate": map[string]any{"maxSurge": 0, "maxUnavailable": 1}}}})
		}
		if len(i.v.Blockers) > 0 {
			holder := &i.v.Blockers[0]
			return i.commands.inNamespace(holder.Namespace, "get", "pod/"+holder.Name, "-o", "wide")
		}
	case ReasonPreempting, ReasonSchedulable:
		return i.onPod("get", "--watch")
	case ReasonNodeSelector:
		return i.onPod("delete")
	case ReasonTaint:
		return i.tolerate()
	default:
	}
	return i.onPod("describe")
}

// nextForNoRoom: if somebody is to be evicted, wait. If not, a higher priority makes room
// where ordinary pods have it.
func (i *inquiry) nextForNoRoom() string {
	p := i.v.Preemption
	if p != nil && (len(p.Stock.Victims) > 0 || p.InForce == Everynode && len(p.Everynode.Victims) > 0) {
		return i.onPod("get", "--watch")
	}
	if class, ok := i.sufficientClass(); ok {
		return i.patchTemplate("priorityClassName", class)
	}
	return i.describeNode()
}

// sufficientClass returns the lowest PriorityClass with which the ordinary pods below
// it leave room enough.
func (i *inquiry) sufficientClass() (name string, ok bool) {
	var ordinary []*Blocker
	for n := range i.v.Blockers {
		if blocker := &i.v.Blockers[n]; i.set.OwnerOf(blocker.holder) == nil && !daemonset.IsMirror(blocker.holder) {
			ordinary = append(ordinary, blocker)
		}
	}
	slices.SortStableFunc(ordinary, func(a, b *Blocker) int { return cmp.Compare(a.Priority, b.Priority) })
	free := make(map[string]int64)
	for _, shortage := range i.v.Shortages {
		free[shortage.Resource] = shortage.Free
	}
	for _, blocker := range ordinary {
		enough := true
		for _, shortage := range i.v.Shortages {
			free[shortage.Resource] += blocker.amounts[shortage.Resource]
			enough = enough && free[shortage.Resource] >= shortage.Needs
		}
		if enough {
			class, ok := i.priorities.above(max(blocker.Priority, i.v.Pod.Priority))
			if class == systemClusterCritical {
				class = systemNodeCritical
			}
			return class, ok
		}
	}
	return "", false
}

// Of the classes that every cluster has, the second one is for what belongs to a node.
const (
	systemClusterCritical = "system-cluster-critical"
	systemNodeCritical    = "system-node-critical"
)

// shrink lowers the requests of the container that asks for most of what the node
// has not got, to what daemon pods and static pods leave of the node.
func (i *inquiry) shrink() string {
	for _, shortage := range i.v.Shortages {
		if shortage.Needs <= shortage.Allocatable {
			continue
		}
		name := corev1.ResourceName(shortage.Resource)
		container, asks := i.greediest(name)
		left := shortage.Allocatable
		for _, pod := range i.on[i.node.Name] {
			if owner := i.set.OwnerOf(pod); owner != nil && owner != i.compiled || daemonset.IsMirror(pod) {
				left -= daemonset.PodResources(pod).Amount(name)
			}
		}
		if left -= shortage.Needs - asks; left > 0 && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			return i.onDaemonSet("set resources", "-c", container, "--requests="+shortage.Resource+"="+roundDown(name, left))
		}
	}
	return i.editDaemonSet()
}

// greediest returns the container of the template that asks for most.
func (i *inquiry) greediest(name corev1.ResourceName) (container string, asks int64) {
	for _, c := range i.template().Containers {
		if amount := daemonset.NewResources(c.Resources.Requests).Amount(name); amount > asks || container == "" {
			container, asks = c.Name, amount
		}
	}
	return container, asks
}

// roundDown writes an amount in a unit that people use.
func roundDown(name corev1.ResourceName, amount int64) string {
	if name == corev1.ResourceCPU {
		return fmt.Sprintf("%dm", amount)
	}
	return fmt.Sprintf("%dMi", amount>>20)
}

func (i *inquiry) nextForStarted() string {
	switch i.v.Reason {
	case ReasonReady, ReasonNotAvailable:
		return ""
	case ReasonOutdated:
		if i.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
			return i.onPod("delete")
		}
		return i.onDaemonSet("rollout status")
	case ReasonNodeNotReady:
		return i.describeNode()
	case ReasonImage:
		if i.updated(i.pod) && i.earlierWorks() {
			return i.onDaemonSet("rollout undo")
		}
	case ReasonCrash:
		return i.onPod("logs", "-c", i.cause.container, "--previous")
	case ReasonInit, ReasonNotReady:
		if i.cause.container != "" {
			return i.onPod("logs", "-c", i.cause.container)
		}
	default:
	}
	return i.onPod("describe")
}
