// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

// checkHostPortTwice repeats checkHostPortConflicts of
// k8s.io/kubernetes/pkg/apis/core/validation for host ports that are set by default. That function
// compares all containers with one another, and each init container with itself.
func checkHostPortTwice(m *manifest) {
	if !m.pod.HostNetwork {
		return
	}
	type port struct {
		ip       string
		protocol corev1.Protocol
		number   int32
	}
	seen := map[port]*corev1.ContainerPort{}
	check := func(c container) {
		for i := range c.Ports {
			p := &c.Ports[i]
			key := port{p.HostIP, cmp.Or(p.Protocol, corev1.ProtocolTCP), hostPort(m.pod, p)}
			switch first := seen[key]; {
			case key.number == 0:
			case first == nil:
				seen[key] = p
			case first.HostPort == 0 || p.HostPort == 0:
				m.report(c.path().Child("ports").Index(i), "on the host network port %d/%s can be declared once only: the API server refuses every pod", key.number, key.protocol)
			}
		}
	}
	for i := range m.pod.Containers {
		check(container{&m.pod.Containers[i], "containers", i})
	}
	for i := range m.pod.InitContainers {
		clear(seen)
		check(container{&m.pod.InitContainers[i], "initContainers", i})
	}
}

func checkNoRequests(m *manifest) {
	for _, c := range m.running {
		cpu, memory := m.requests(c, corev1.ResourceCPU), m.requests(c, corev1.ResourceMemory)
		switch at := c.path().Child("resources", "requests"); {
		case !cpu && !memory:
			m.report(at, "container %s requests neither CPU nor memory: no room is kept for it, and it gets the CPU that others leave", c.Name)
		case !cpu:
			m.report(at.Child("cpu"), "container %s requests no CPU: on a busy node it gets what others leave", c.Name)
		case !memory:
			m.report(at.Child("memory"), "container %s requests no memory: no room is kept for it, and the node can run out", c.Name)
		}
	}
}

// requests says whether something of a resource will be requested for c. Limits become
// requests in pods (SetDefaults_Pod in k8s.io/kubernetes/pkg/apis/core/v1), and
// everynode-webhook sets those that are sized after the node.
func (m *manifest) requests(c container, name corev1.ResourceName) bool {
	list := c.Resources.Requests
	if _, ok := list[name]; !ok {
		list = c.Resources.Limits
	}
	if whole := m.pod.Resources; whole != nil {
		return has(list, name) || has(whole.Requests, name) || has(whole.Limits, name)
	}
	size := m.sizes[c.Name]
	return has(list, name) || name == corev1.ResourceCPU && size.CPU > 0 || name == corev1.ResourceMemory && size.Memory > 0
}

func has(list corev1.ResourceList, name corev1.ResourceName) bool {
	quantity, ok := list[name]
	return ok && !quantity.IsZero()
}

func checkNoMemoryLimit(m *manifest) {
	if m.pod.Resources != nil && has(m.pod.Resources.Limits, corev1.ResourceMemory) {
		return
	}
	for _, c := range m.running {
		if !has(c.Resources.Limits, corev1.ResourceMemory) {
			m.report(c.path().Child("resources", "limits", "memory"), "a leak in container %s takes the memory of every node", c.Name)
		}
	}
}

func checkNoReadinessProbe(m *manifest) {
	if !m.probed() && !m.gates() {
		m.report(m.readinessPath(), "pods are Ready as soon as they run: a rolling update carries a broken agent to every node")
	}
}

func checkGateWithoutReadinessProbe(m *manifest) {
	if !m.probed() && m.gates() {
		m.report(m.readinessPath(), "pods are Ready as soon as they run, so the gate opens before the agent works")
	}
}

// probed says whether something decides that a pod is Ready.
func (m *manifest) probed() bool {
	return len(m.pod.ReadinessGates) > 0 || slices.ContainsFunc(m.running, func(c container) bool { return c.ReadinessProbe != nil })
}

// gates says whether ordinary pods wait for the DaemonSet.
func (m *manifest) gates() bool {
	return m.ds.Annotations[daemonset.GateAnnotation] == "true"
}

// readinessPath returns where a readiness probe would be. With several containers it is not known in
// which.
func (m *manifest) readinessPath() *field.Path {
	if len(m.running) == 1 {
		return m.running[0].path().Child("readinessProbe")
	}
	return podPath().Child("containers")
}

// patience is how many seconds a container should have to start. When a node starts, all of its
// daemons pull images and read files at the same time. The default period and threshold leave 20 s.
const patience = 15

func checkEagerLivenessProbe(m *manifest) {
	for _, c := range m.running {
		probe := c.LivenessProbe
		if probe == nil || c.StartupProbe != nil {
			continue
		}
		// The first probe comes at once, the last one that may fail a period before the end.
		// The defaults are those of SetDefaults_Probe in k8s.io/kubernetes/pkg/apis/core/v1.
		failures, period := int64(cmp.Or(probe.FailureThreshold, 3)), int64(cmp.Or(probe.PeriodSeconds, 10))
		if seconds := int64(probe.InitialDelaySeconds) + (failures-1)*period; seconds < patience {
			m.report(c.path().Child("livenessProbe", "initialDelaySeconds"), "container %s is restarted if it does not answer %d s after its start", c.Name, seconds)
		}
	}
}

func checkFloatingImage(m *manifest) {
	for _, c := range m.containers() {
		// Text that is no image is a placeholder.
		if c.Image != "" && !strings.ContainsAny(c.Image, " \t${}<>") && floats(c.Image) {
			m.report(c.path().Child("image"), "%s is another image on another day: nodes differ, and no update can be undone", c.Image)
		}
	}
}

// floats says whether image, NAME[:TAG][@DIGEST], has neither a digest nor a tag other than latest.
func floats(image string) bool {
	if strings.Contains(image, "@") {
		return false
	}
	// A colon before the last slash is that of the registry's port.
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag == "" || tag == "latest"
}

// checkProbePort looks for names of ports that their container does not have: the
// kubelet looks for them there alone (ResolveContainerPort in k8s.io/kubernetes/pkg/probe).
func checkProbePort(m *manifest) {
	for _, c := range m.running {
		check := func(at *field.Path, port intstr.IntOrString, effect string) {
			if port.Type == intstr.String && !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal }) {
				m.report(at.Child("port"), "container %s has no port of the name %q, so %s", c.Name, port.StrVal, effect)
			}
		}
		for _, probe := range []struct {
			name string
			*corev1.Probe
		}{{"startupProbe", c.StartupProbe}, {"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}} {
			switch at := c.path().Child(probe.name); {
			case probe.Probe == nil:
			case probe.HTTPGet != nil:
				check(at.Child("httpGet"), probe.HTTPGet.Port, "the probe can only fail")
			case probe.TCPSocket != nil:
				check(at.Child("tcpSocket"), probe.TCPSocket.Port, "the probe can only fail")
			}
		}
		// With a hook preStop that fails the container runs, and ends.
		if c.Lifecycle != nil && c.Lifecycle.PostStart != nil && c.Lifecycle.PostStart.HTTPGet != nil {
			check(c.path().Child("lifecycle", "postStart", "httpGet"), c.Lifecycle.PostStart.HTTPGet.Port, "the hook fails and the container is killed, again and again")
		}
	}
}

func checkImagePullAlways(m *manifest) {
	for _, c := range m.containers() {
		if c.ImagePullPolicy == corev1.PullAlways && !floats(c.Image) {
			m.report(c.path().Child("imagePullPolicy"), "container %s does not start while the registry is away, though its image has a fixed name", c.Name)
		}
	}
}
