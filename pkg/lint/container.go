// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
)

var hostPortTwice = Rule{
	ID:       "host-port-twice",
	Severity: Error,
	Title:    "A port twice on the host network",
	Reason: "On the host network every container port is a host port, and no two of a pod's may be the same. The API server fills that in for pods, not for templates: " +
		"it takes the DaemonSet, and refuses every one of its pods.",
	Fix: "Give each container a port of its own, or declare it once: a port need not be declared to be used.",
	Example: `hostNetwork: true
containers:
  - name: agent
    ports: [{containerPort: 9100}]
  - name: proxy
    ports: [{containerPort: 9101}]`,
	check: checkHostPortTwice,
}

// checkHostPortTwice repeats checkHostPortConflicts of
// k8s.io/kubernetes/pkg/apis/core/validation for what the template leaves out: it
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
			key := port{p.HostIP, p.Protocol, hostPort(m.pod, p)}
			if key.protocol == "" {
				key.protocol = corev1.ProtocolTCP
			}
			switch first := seen[key]; {
			case key.number == 0:
			case first == nil:
				seen[key] = p
			case first.HostPort == 0 || p.HostPort == 0:
				m.report(c.path().Child("ports").Index(i), fmt.Sprintf("on the host network port %d/%s can be declared once only: the API server refuses every pod", key.number, key.protocol))
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

var noRequests = Rule{
	ID:       "no-requests",
	Severity: Warning,
	Title:    "Container without a CPU or memory request",
	Reason: "The scheduler fills nodes by requests. A daemon pod without them is placed on any node, however full, gets next to no CPU when the node is busy and, unless it is critical, is among " +
		"the first to be killed or evicted when memory is short. No room is held for it either. (A limit counts as a request where there is none, and so does a size by everynode.dev/resources.)",
	Fix: "Request what it uses on a busy node.",
	Example: `resources:
  requests:
    cpu: 50m
    memory: 64Mi`,
	check: checkNoRequests,
}

func checkNoRequests(m *manifest) {
	for _, c := range m.running {
		cpu, memory := m.requests(c, corev1.ResourceCPU), m.requests(c, corev1.ResourceMemory)
		switch {
		case !cpu && !memory:
			m.report(c.path().Child("resources", "requests"), fmt.Sprintf("container %s requests neither CPU nor memory: no room is kept for it, and it gets the CPU that others leave", c.Name))
		case !cpu:
			m.report(c.path().Child("resources", "requests", "cpu"), fmt.Sprintf("container %s requests no CPU: on a busy node it gets what others leave", c.Name))
		case !memory:
			m.report(c.path().Child("resources", "requests", "memory"), fmt.Sprintf("container %s requests no memory: no room is kept for it, and the node can run out", c.Name))
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
	return has(list, name) || m.podLevel(name) || m.sized(c, name)
}

func (m *manifest) sized(c container, name corev1.ResourceName) bool {
	if m.pod.Resources != nil {
		return false
	}
	size := m.sizes[c.Name]
	return name == corev1.ResourceCPU && size.CPU > 0 || name == corev1.ResourceMemory && size.Memory > 0
}

// podLevel says whether the pod as a whole requests something of a resource.
func (m *manifest) podLevel(name corev1.ResourceName) bool {
	return m.pod.Resources != nil && (has(m.pod.Resources.Requests, name) || has(m.pod.Resources.Limits, name))
}

func has(list corev1.ResourceList, name corev1.ResourceName) bool {
	quantity, ok := list[name]
	return ok && !quantity.IsZero()
}

var noMemoryLimit = Rule{
	ID:       "no-memory-limit",
	Severity: Warning,
	Title:    "Container without a memory limit",
	Reason: "A leak in a container without a limit takes the node's memory, on every node at about the same time, and others there are killed for it. " +
		"A CPU limit is a matter of taste, and not asked for: requests share the CPU already, and a limit slows the agent down when its node needs it most.",
	Fix: "Limit memory well above what the container uses.",
	Example: `resources:
  limits:
    memory: 256Mi`,
	check: func(m *manifest) {
		for _, c := range m.running {
			podLimit := m.pod.Resources != nil && has(m.pod.Resources.Limits, corev1.ResourceMemory)
			if !podLimit && !has(c.Resources.Limits, corev1.ResourceMemory) {
				m.report(c.path().Child("resources", "limits", "memory"), fmt.Sprintf("a leak in container %s takes the memory of every node", c.Name))
			}
		}
	},
}

var noReadinessProbe = Rule{
	ID:       "no-readiness-probe",
	Severity: Warning,
	Title:    "No readiness probe",
	Reason: "Without a probe in any container, a pod is Ready as soon as its processes run. A rolling update then goes from node to node with an agent that starts and does not work, " +
		"and `kubectl get daemonset` says that all is well.",
	Fix: "Add a readiness probe to the container that does the work.",
	Example: `readinessProbe:
  httpGet:
    path: /ready
    port: 8080`,
	check: func(m *manifest) {
		if !m.probed() && !m.gates() {
			m.report(m.readinessPath(), "pods are Ready as soon as they run: a rolling update carries a broken agent to every node")
		}
	},
}

var gateWithoutReadinessProbe = Rule{
	ID:       "gate-without-readiness-probe",
	Severity: Warning,
	Title:    "Gate without a readiness probe",
	Reason: "With everynode.dev/gate, ordinary pods wait on each node until the DaemonSet's pod there is Ready. Without a readiness probe it is Ready as soon as its processes run, " +
		"so the gate opens before the agent does its work, and a rolling update carries a broken one to every node.",
	Fix: "Add a readiness probe to the container that others wait for.",
	Example: `readinessProbe:
  httpGet:
    path: /ready
    port: 8080`,
	check: func(m *manifest) {
		if !m.probed() && m.gates() {
			m.report(m.readinessPath(), "pods are Ready as soon as they run, so the gate opens before the agent works")
		}
	},
}

// probed says whether something decides that a pod is Ready.
func (m *manifest) probed() bool {
	for _, c := range m.running {
		if c.ReadinessProbe != nil {
			return true
		}
	}
	return len(m.pod.ReadinessGates) > 0
}

// gates says whether ordinary pods wait for the DaemonSet.
func (m *manifest) gates() bool {
	return m.ds.Annotations[daemonset.GateAnnotation] == "true"
}

// readinessPath returns where a readiness probe would be; with several containers,
// who knows in which.
func (m *manifest) readinessPath() *field.Path {
	if len(m.running) == 1 {
		return m.running[0].path().Child("readinessProbe")
	}
	return podPath().Child("containers")
}

// patience is how many seconds every container should have to start: at the start of a
// node, all of its daemons pull images and read files at once.
const patience = 30

var eagerLivenessProbe = Rule{
	ID:       "eager-liveness-probe",
	Severity: Warning,
	Title:    "Liveness probe from the first second",
	Reason: "Without initialDelaySeconds or a startup probe, failures count while the process still starts; with the default period and threshold it is restarted after 20 seconds. " +
		"When a node boots, all of its daemons start at once, slowly: the restarts make it slower. Reported if less than half a minute is left to start.",
	Fix: "Add a startup probe, or initialDelaySeconds.",
	Example: `livenessProbe:
  httpGet:
    path: /healthz
    port: 10249
  initialDelaySeconds: 10`,
	check: checkEagerLivenessProbe,
}

func checkEagerLivenessProbe(m *manifest) {
	for _, c := range m.running {
		probe := c.LivenessProbe
		if probe == nil || probe.InitialDelaySeconds > 0 || c.StartupProbe != nil {
			continue
		}
		// The first probe comes at once, the last one that may fail a period before the end.
		if seconds := (orDefault(probe.FailureThreshold, 3) - 1) * orDefault(probe.PeriodSeconds, 10); seconds < patience {
			m.report(c.path().Child("livenessProbe", "initialDelaySeconds"), fmt.Sprintf("container %s is restarted if it does not answer %d s after its start", c.Name, seconds))
		}
	}
}

// orDefault returns value, or what the API server makes of 0 (SetDefaults_Probe in
// k8s.io/kubernetes/pkg/apis/core/v1).
func orDefault(value int32, byDefault int64) int64 {
	if value == 0 {
		return byDefault
	}
	return int64(value)
}

var floatingImage = Rule{
	ID:       "floating-image",
	Severity: Warning,
	Title:    "Image without a tag, or with latest",
	Reason:   "What runs on a node depends on the day when its pod was started: nodes differ, an update cannot be undone and, by default, no pod starts while the registry is down.",
	Fix:      "Name a version, or a digest.",
	Example: `containers:
  - name: fluentd
    image: fluent/fluentd:v1.16-1`,
	check: func(m *manifest) {
		for _, containers := range [][]container{m.starting, m.running} {
			for _, c := range containers {
				if c.Image != "" && floats(c.Image) {
					m.report(c.path().Child("image"), c.Image+" is another image on another day: nodes differ, and no update can be undone")
				}
			}
		}
	},
}

// floats says whether image, NAME[:TAG][@DIGEST], has neither a digest nor a tag
// that says something.
func floats(image string) bool {
	if strings.Contains(image, "@") {
		return false
	}
	// A colon before the last slash is that of the registry's port.
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag == "" || tag == "latest"
}
