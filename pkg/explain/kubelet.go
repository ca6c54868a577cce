// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// ready is for Ready pods, which may still be of an earlier template.
func (i *inquiry) ready(pod *corev1.Pod) {
	switch {
	case !i.updated(pod):
		i.end(StepReady, ReasonOutdated, "The pod is Ready, and made from an earlier template.")
	case !podutil.IsPodAvailable(pod, i.ds.Spec.MinReadySeconds, metav1.NewTime(i.now)):
		i.end(StepReady, ReasonNotAvailable, fmt.Sprintf("The pod is Ready, but not for the %d seconds of minReadySeconds.", i.ds.Spec.MinReadySeconds))
	default:
		i.end(StepReady, ReasonReady, "The pod is Ready.")
	}
}

// terminating is for nodes where the only pod is on its way out.
func (i *inquiry) terminating(pod *corev1.Pod) {
	i.about(pod)
	i.v.Since = pod.DeletionTimestamp
	i.end(StepCreation, ReasonTerminating, "The old pod is ending, and the controller creates the next one when it has gone.")
	if len(pod.Finalizers) > 0 {
		i.v.Message = "The old pod is held by the finalizers " + strings.Join(pod.Finalizers, ", ") + ", and the controller creates the next one when it has gone."
	}
	if !isNodeReady(i.node) {
		i.v.Message += " The node is not Ready, so nobody says that it has ended."
	}
}

// rejected is for pods that failed: the kubelet did not take them, or ended them.
func (i *inquiry) rejected(pod *corev1.Pod) {
	message := "The pod failed"
	if pod.Status.Reason != "" {
		message += " (" + pod.Status.Reason + ")"
	}
	if pod.Status.Message != "" {
		message += ": " + strings.TrimSuffix(pod.Status.Message, ".")
	}
	i.end(StepKubelet, ReasonRejected, message+".")
	if failures := i.creation.failures[i.node.Name]; failures != nil {
		i.fact(fmt.Sprintf("%d pods have failed on the node. The controller deletes them and waits longer each time, up to %s.",
			failures.count, shortDuration(longestBackOff)))
	}
}

// started is for pods that are bound to the node and not Ready.
func (i *inquiry) started(pod *corev1.Pod) {
	switch {
	case !isNodeReady(i.node):
		i.nodeNotReady()
	case pod.Status.Phase == corev1.PodSucceeded:
		i.end(StepKubelet, ReasonRejected, "The pod's containers have ended. The controller deletes it and creates another one.")
	case i.containers(pod, pod.Status.InitContainerStatuses, true):
	case i.containers(pod, pod.Status.ContainerStatuses, false):
	case pod.Status.StartTime == nil && len(pod.Status.ContainerStatuses) == 0:
		i.notStarted(pod)
	case len(pod.Status.ContainerStatuses) == 0 || slices.ContainsFunc(pod.Status.ContainerStatuses, isWaiting):
		i.starting(pod)
	default:
		i.notReady(pod)
	}
}

func nodeReady(node *corev1.Node) *corev1.NodeCondition {
	for n := range node.Status.Conditions {
		if node.Status.Conditions[n].Type == corev1.NodeReady {
			return &node.Status.Conditions[n]
		}
	}
	return nil
}

func isNodeReady(node *corev1.Node) bool {
	condition := nodeReady(node)
	return condition != nil && condition.Status == corev1.ConditionTrue
}

func (i *inquiry) nodeNotReady() {
	condition := nodeReady(i.node)
	if condition == nil {
		i.end(StepKubelet, ReasonNodeNotReady, "The pod is on the node, whose kubelet has never reported.")
		return
	}
	message := "The pod is on the node, but the node is not Ready"
	if condition.Message != "" {
		message += ": " + strings.TrimSuffix(condition.Message, ".")
	}
	i.end(StepKubelet, ReasonNodeNotReady, message+".")
	i.v.Since = &condition.LastTransitionTime
}

func isWaiting(status corev1.ContainerStatus) bool {
	return status.State.Waiting != nil
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
			i.cause.container = status.Name
			return true
		}
		if init && !initialized(pod, status) {
			i.cause.container = status.Name
			i.end(StepKubelet, ReasonInit, fmt.Sprintf("The init container %s has not finished; the containers start after it.", status.Name))
			return true
		}
	}
	return false
}

// initialized says whether an init container lets the next one start: it has finished,
// or is a sidecar that has started.
func initialized(pod *corev1.Pod, status *corev1.ContainerStatus) bool {
	sidecar := slices.ContainsFunc(pod.Spec.InitContainers, func(container corev1.Container) bool {
		return container.Name == status.Name && podutil.IsRestartableInitContainer(&container)
	})
	if sidecar {
		return status.Started != nil && *status.Started
	}
	return status.State.Terminated != nil && status.State.Terminated.ExitCode == 0 || status.State.Waiting != nil && status.LastTerminationState.Terminated == nil &&
		status.State.Waiting.Reason == "PodInitializing"
}

func (i *inquiry) containerTrouble(status *corev1.ContainerStatus, kind string) bool {
	waiting := status.State.Waiting
	switch {
	case waiting == nil:
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			i.crashing(status, kind, ended)
			return true
		}
		return false
	case slices.Contains(imageReasons, waiting.Reason):
		i.end(StepKubelet, ReasonImage, fmt.Sprintf("The image %s of %s %s cannot be had (%s).", status.Image, kind, status.Name, waiting.Reason))
		i.factOf(waiting.Message)
	case slices.Contains(createReasons, waiting.Reason):
		i.end(StepKubelet, ReasonContainer, fmt.Sprintf("The %s %s cannot be created (%s).", kind, status.Name, waiting.Reason))
		i.factOf(waiting.Message)
	case waiting.Reason == "CrashLoopBackOff":
		i.crashing(status, kind, status.LastTerminationState.Terminated)
	default:
		return false
	}
	return true
}

func (i *inquiry) crashing(status *corev1.ContainerStatus, kind string, ended *corev1.ContainerStateTerminated) {
	message := fmt.Sprintf("The %s %s ends again and again", kind, status.Name)
	if ended != nil {
		message += fmt.Sprintf(", with exit code %d", ended.ExitCode)
		if ended.Reason != "" && ended.Reason != "Error" {
			message += " (" + ended.Reason + ")"
		}
		if said := strings.TrimSpace(ended.Message); said != "" {
			i.fact("Its last words: " + said)
		}
	}
	i.end(StepKubelet, ReasonCrash, message+".")
	i.cause.crashed = true
	i.fact(fmt.Sprintf("It was restarted %d times.", status.RestartCount))
}

// factOf adds what the kubelet says, if it says anything.
func (i *inquiry) factOf(message string) {
	if message != "" {
		i.fact("The kubelet says: " + strings.TrimSuffix(message, ".") + ".")
	}
}

// notStarted is for pods that the kubelet has done nothing with.
func (i *inquiry) notStarted(pod *corev1.Pod) {
	bound := pod.CreationTimestamp.Time
	if scheduled := scheduledCondition(pod); scheduled != nil {
		bound = scheduled.LastTransitionTime.Time
	}
	if i.now.Sub(bound) <= patience {
		i.end(StepKubelet, ReasonNotStarted, "The pod has just been given to the node.")
		return
	}
	i.end(StepKubelet, ReasonNotStarted, "The pod is bound to the node, and the kubelet has not begun with it.")
}

// starting is for pods whose containers are being created. The kubelet's events say
// what it waits for.
func (i *inquiry) starting(pod *corev1.Pod) {
	i.end(StepKubelet, ReasonNotStarted, "The kubelet is starting the pod's containers.")
	if warning := i.latestWarning(pod, "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "NetworkNotReady", "FailedMapVolume"); warning != nil {
		i.v.Message = "The kubelet cannot start the pod's containers (" + warning.Reason + ")."
		i.factOf(warning.Message)
	}
}

// notReady is for pods whose containers run.
func (i *inquiry) notReady(pod *corev1.Pod) {
	for n := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[n]
		if status.Ready {
			continue
		}
		i.cause.container = status.Name
		i.end(StepKubelet, ReasonNotReady, fmt.Sprintf("The container %s runs%s.", status.Name, waitsFor(pod, status)))
		if warning := i.latestWarning(pod, "Unhealthy", "ProbeWarning"); warning != nil {
			i.factOf(warning.Message)
		}
		return
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if _, condition := podutil.GetPodCondition(&pod.Status, gate.ConditionType); condition == nil || condition.Status != corev1.ConditionTrue {
			i.end(StepKubelet, ReasonNotReady, fmt.Sprintf("All containers are ready, but the readiness gate %s is not open.", gate.ConditionType))
			return
		}
	}
	i.end(StepKubelet, ReasonNotReady, "The containers run, and the pod is not Ready yet.")
}

// waitsFor says which probe a running container has not passed, if it has one.
func waitsFor(pod *corev1.Pod, status *corev1.ContainerStatus) string {
	for n := range pod.Spec.Containers {
		container := &pod.Spec.Containers[n]
		switch {
		case container.Name != status.Name:
		case container.StartupProbe != nil && status.Started != nil && !*status.Started:
			return ", but its startup probe has not succeeded"
		case container.ReadinessProbe != nil:
			return ", but its readiness probe does not succeed"
		}
	}
	return " and is not ready"
}

// latestWarning returns the latest event of pod with one of those reasons, or nil.
func (e *Engine) latestWarning(pod *corev1.Pod, reasons ...string) *corev1.Event {
	var latest *corev1.Event
	var when metav1.Time
	for _, event := range e.events[pod.UID] {
		if _, last, _ := eventTimes(event); slices.Contains(reasons, event.Reason) && (latest == nil || when.Before(&last)) {
			latest, when = event, last
		}
	}
	return latest
}

func shortDuration(d time.Duration) string {
	return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
}
