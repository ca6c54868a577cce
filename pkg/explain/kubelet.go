// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodeutil "k8s.io/component-helpers/node/util"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubenode "k8s.io/kubernetes/pkg/util/node"
)

// ready is for Ready pods, which may still be of an earlier template, or be between two
// crashes.
func (i *inquiry) ready(pod *corev1.Pod) {
	if statuses := lasting(pod); slices.ContainsFunc(statuses, i.flaps) {
		i.containers(pod, statuses, false)
		return
	}
	switch {
	case !i.updated(pod):
		i.end(ReasonOutdated, nil)
	case !i.available(pod, i.ds):
		i.end(ReasonNotAvailable, Args{"seconds": strconv.Itoa(int(i.ds.Spec.MinReadySeconds))})
	default:
		i.end(ReasonReady, nil)
	}
}

// terminating is for nodes where the only pod is on its way out.
func (i *inquiry) terminating(pod *corev1.Pod) {
	i.about(pod)
	i.v.Since = deletedAt(pod)
	args := Args{"what": "is ending", "note": ""}
	if len(pod.Finalizers) > 0 {
		args["what"] = "is held by the finalizers " + strings.Join(pod.Finalizers, ", ")
	}
	if !kubenode.IsNodeReady(i.node) {
		args["note"] = " The node is not Ready, so no kubelet says that it has ended."
	}
	i.end(ReasonTerminating, args)
}

// rejected is for pods that failed: the kubelet did not take them, or ended them.
func (i *inquiry) rejected(pod *corev1.Pod) {
	args := Args{"what": "failed"}
	if pod.Status.Phase == corev1.PodSucceeded {
		args["what"] = "has ended, which a daemon pod never should: the controller deletes it and creates another one"
	}
	i.end(ReasonRejected, args.saying(pod.Status.Reason, pod.Status.Message))
	for _, condition := range i.node.Status.Conditions {
		if condition.Type != corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			i.fact(fmt.Sprintf("The node reports %s%s: %s.", condition.Type, i.span(" for ", condition.LastTransitionTime, ""), strings.TrimSuffix(condition.Message, ".")))
		}
	}
	if node, err := i.schedulers.Node(i.node.Name); err == nil && i.detail && strings.HasPrefix(pod.Status.Reason, outOf) {
		i.resourcesRefusal(pod, node)
		i.findBlockers(pod, nil)
	}
}

// started is for pods that are bound to the node and not Ready. A kubelet that reports a
// node that is not ready still tells of its pods.
func (i *inquiry) started(ctx context.Context, pod *corev1.Pod) {
	_, node := nodeutil.GetNodeCondition(&i.node.Status, corev1.NodeReady)
	if node == nil || node.Status == corev1.ConditionUnknown {
		i.nodeNotReady(node)
		return
	}
	statuses := pod.Status.ContainerStatuses
	pending := len(statuses) == 0 || slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.State.Waiting != nil })
	root := ""
	if pending && !pod.Spec.HostNetwork {
		root = i.networkRoot(ctx)
	}
	switch {
	case i.containers(pod, pod.Status.InitContainerStatuses, true) && (i.v.Reason != ReasonInit || root == ""):
	case i.v.Reason == "" && i.containers(pod, statuses, false):
	case root != "":
		i.end(ReasonNoNetwork, Args{"root": root})
	default:
		i.containersWait(pod, node, pending)
	}
	if i.v.Reason != ReasonNodeNotReady && node.Status != corev1.ConditionTrue {
		i.fact("The node is not Ready: " + strings.TrimSuffix(node.Message, ".") + ".")
	}
}

// containersWait is for pods whose containers have no trouble of their own.
func (i *inquiry) containersWait(pod *corev1.Pod, node *corev1.NodeCondition, pending bool) {
	statuses := pod.Status.ContainerStatuses
	allReady := !slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return !s.Ready })
	switch {
	case i.notPrepared(pod, pending):
	case node.Status != corev1.ConditionTrue && (pending || allReady):
		i.nodeNotReady(node)
	case pod.Status.StartTime == nil && len(statuses) == 0:
		i.notStarted(pod)
	case pending:
		i.end(ReasonNotStarted, Args{"what": "The kubelet is starting the pod's containers."})
	default:
		i.notReady(pod)
	}
}

func (i *inquiry) nodeNotReady(condition *corev1.NodeCondition) {
	args := Args{"what": "but the node is not Ready"}
	if condition == nil {
		args["what"] = "whose kubelet has never reported"
	} else {
		i.v.Since, args = &condition.LastTransitionTime, args.saying("", condition.Message)
	}
	i.end(ReasonNodeNotReady, args)
}

// Reasons why containers wait (k8s.io/kubernetes/pkg/kubelet: images/types.go,
// container/sync_result.go, kuberuntime).
var (
	imageReasons = []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
		"RegistryUnavailable", "SignatureValidationFailed"}
	createReasons = []string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError",
		"PreStartHookError", "PostStartHookError"}
)

// containers looks for a container that has trouble, and says whether there is one.
func (i *inquiry) containers(pod *corev1.Pod, statuses []corev1.ContainerStatus, init bool) bool {
	kind := "container"
	if init {
		kind = "init container"
	}
	for n := range statuses {
		status := &statuses[n]
		if i.containerTrouble(status, kind) {
			return true
		}
		if init && !initialized(pod, status) {
			i.end(ReasonInit, Args{"container": status.Name})
			return true
		}
	}
	return false
}

// initialized says whether an init container lets the next one start: it has finished,
// or is a sidecar that has started.
func initialized(pod *corev1.Pod, status *corev1.ContainerStatus) bool {
	if isSidecar(pod, status) {
		return status.Started != nil && *status.Started
	}
	return status.State.Terminated != nil && status.State.Terminated.ExitCode == 0 || status.State.Waiting != nil && status.LastTerminationState.Terminated == nil &&
		status.State.Waiting.Reason == "PodInitializing"
}

func isSidecar(pod *corev1.Pod, status *corev1.ContainerStatus) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(container corev1.Container) bool {
		return container.Name == status.Name && podutil.IsRestartableInitContainer(&container)
	})
}

// lasting returns the states of the containers that run as long as the pod, sidecars first.
func lasting(pod *corev1.Pod) []corev1.ContainerStatus {
	sidecars := slices.DeleteFunc(slices.Clone(pod.Status.InitContainerStatuses), func(status corev1.ContainerStatus) bool { return !isSidecar(pod, &status) })
	return append(sidecars, pod.Status.ContainerStatuses...)
}

func (i *inquiry) containerTrouble(status *corev1.ContainerStatus, kind string) bool {
	waiting, ended := status.State.Waiting, status.State.Terminated
	args := Args{"kind": kind, "container": status.Name}
	switch {
	case waiting == nil && ended != nil && ended.ExitCode != 0 && status.RestartCount > 0:
		i.crashing(status, args, ended)
	case i.flaps(*status), waiting != nil && waiting.Reason == "CrashLoopBackOff":
		i.crashing(status, args, status.LastTerminationState.Terminated)
	case waiting == nil:
		return false
	case slices.Contains(imageReasons, waiting.Reason):
		args["image"], args["why"] = status.Image, waiting.Reason
		i.end(ReasonImage, args)
		i.factOf(waiting.Message)
	case slices.Contains(createReasons, waiting.Reason):
		args["why"] = waiting.Reason
		i.end(ReasonContainer, args)
		i.factOf(waiting.Message)
	default:
		return false
	}
	if waiting != nil {
		i.said = waiting.Message
	}
	return true
}

// A container that runs counts as crashing after fewRestarts, until it has run for soundAfter. A kubelet
// forgets the crashes of a container that has run for ten minutes (backOffPeriod and MaxContainerBackOff in
// k8s.io/kubernetes/pkg/kubelet).
const (
	fewRestarts = 3
	soundAfter  = 10 * time.Minute
)

// flaps says whether a container that runs has ended soon after its start before, and
// may again.
func (i *inquiry) flaps(status corev1.ContainerStatus) bool {
	running, last := status.State.Running, status.LastTerminationState.Terminated
	return running != nil && last != nil && status.RestartCount >= fewRestarts &&
		i.now.Sub(running.StartedAt.Time) < soundAfter && last.FinishedAt.Sub(last.StartedAt.Time) < soundAfter
}

func (i *inquiry) crashing(status *corev1.ContainerStatus, args Args, ended *corev1.ContainerStateTerminated) {
	args["restarts"], args["how"] = strconv.Itoa(int(status.RestartCount)), ""
	if ended != nil {
		args["how"] = fmt.Sprintf(", with exit code %d", ended.ExitCode)
		if ended.Reason != "" && ended.Reason != "Error" {
			args["how"] += " (" + ended.Reason + ")"
		}
		if said := strings.TrimSpace(ended.Message); said != "" {
			i.fact("Its last words: " + said)
		}
	}
	i.end(ReasonCrash, args)
	if running := status.State.Running; running != nil {
		i.fact("It runs at the moment" + i.span(", for ", running.StartedAt, "") + ".")
	}
}

// factOf adds what the kubelet says, if it says anything.
func (i *inquiry) factOf(message string) {
	if message != "" {
		i.fact("The kubelet says: " + strings.TrimSuffix(strings.TrimSpace(message), ".") + ".")
	}
}

// notStarted is for pods that the kubelet has done nothing with.
func (i *inquiry) notStarted(pod *corev1.Pod) {
	bound, what := pod.CreationTimestamp.Time, "The pod is bound to the node, and the kubelet has not begun with it."
	if scheduled := scheduledCondition(pod); scheduled != nil {
		bound = scheduled.LastTransitionTime.Time
	}
	if i.now.Sub(bound) <= quickly {
		what = "The pod has just been given to the node."
	}
	i.end(ReasonNotStarted, Args{"what": what})
}

// The kubelet's events of what it waits for before it starts containers.
var (
	volumeEvents  = []string{"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
	sandboxEvents = []string{"FailedCreatePodSandBox", "NetworkNotReady"}
)

// notPrepared says whether the kubelet has warned of something that the pod's containers
// wait for.
func (i *inquiry) notPrepared(pod *corev1.Pod, pending bool) bool {
	warning := i.latestWarning(pod, slices.Concat(volumeEvents, sandboxEvents)...)
	if !pending || warning == nil {
		return false
	}
	if slices.Contains(volumeEvents, warning.Reason) {
		i.end(ReasonVolume, Args{"event": warning.Reason})
	} else {
		i.end(ReasonNotStarted, Args{"what": "The kubelet cannot start the pod's containers (" + warning.Reason + ")."})
	}
	first, last, _ := eventTimes(warning)
	i.warnedFor = last.Sub(first.Time)
	i.factOf(warning.Message)
	return true
}

// notReady is for pods whose containers run.
func (i *inquiry) notReady(pod *corev1.Pod) {
	statuses := lasting(pod)
	for n := range statuses {
		status := &statuses[n]
		if status.Ready {
			continue
		}
		i.end(ReasonNotReady, Args{"container": status.Name, "what": fmt.Sprintf("The container %s %s.", status.Name, waitsFor(pod, status))})
		if warning := i.latestWarning(pod, "Unhealthy", "ProbeWarning"); warning != nil {
			i.factOf(warning.Message)
		}
		return
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if _, condition := podutil.GetPodCondition(&pod.Status, gate.ConditionType); condition == nil || condition.Status != corev1.ConditionTrue {
			i.end(ReasonNotReady, Args{"what": fmt.Sprintf("All containers are ready, but the readiness gate %s is not open.", gate.ConditionType)})
			return
		}
	}
	i.end(ReasonNotReady, Args{"what": "The containers run, and the pod is not Ready yet."})
}

// waitsFor says which step a container has not reached.
func waitsFor(pod *corev1.Pod, status *corev1.ContainerStatus) string {
	if ended := status.State.Terminated; ended != nil {
		return fmt.Sprintf("has ended with exit code %d, and is about to be started again", ended.ExitCode)
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		switch {
		case container.Name != status.Name:
		case container.StartupProbe != nil && status.Started != nil && !*status.Started:
			return "runs, but its startup probe has not succeeded"
		case container.ReadinessProbe != nil:
			return "runs, but its readiness probe does not succeed"
		}
	}
	return "runs and is not ready"
}

// latestWarning returns the latest event of pod with one of those reasons, or nil.
func (e *Engine) latestWarning(pod *corev1.Pod, reasons ...string) *corev1.Event {
	return latestEvent(e.events[pod.UID], func(event *corev1.Event) bool { return slices.Contains(reasons, event.Reason) })
}
