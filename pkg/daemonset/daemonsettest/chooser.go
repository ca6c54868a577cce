// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonsettest

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/pkg/daemonset"
)

// Chooser turns fuzzed bytes into choices; out of bytes, it chooses the first.
type Chooser struct{ data []byte }

// NewChooser returns a Chooser that is driven by data.
func NewChooser(data []byte) *Chooser { return &Chooser{data} }

// Intn returns a number from 0 to n-1.
func (c *Chooser) Intn(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

// Bool returns true or false.
func (c *Chooser) Bool() bool { return c.Intn(2) == 1 }

// Pick returns one of values.
func Pick[T any](c *Chooser, values ...T) T { return values[c.Intn(len(values))] }

func (c *Chooser) key() string {
	return Pick(c, "disktype", "zone", corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeNetworkUnavailable,
		corev1.TaintNodeUnschedulable, "node-role.kubernetes.io/control-plane", "")
}

func (c *Chooser) value() string { return Pick(c, "", "ssd", "hdd", "1", "-5", "not a label value!") }

func (c *Chooser) effect() corev1.TaintEffect {
	return Pick(c, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule, "", "Unheard")
}

// NodeName returns the name of one of two nodes.
func (c *Chooser) NodeName() string { return Pick(c, "node-a", "node-b") }

// Node returns a node with labels and taints, some of which make sense.
func (c *Chooser) Node() *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.NodeName(), Labels: map[string]string{}}}
	for range c.Intn(4) {
		node.Labels[c.key()] = c.value()
	}
	for range c.Intn(4) {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: c.key(), Value: c.value(), Effect: c.effect()})
	}
	node.Spec.Unschedulable = c.Bool()
	return node
}

// Placement returns a pod spec with what decides where it may run.
func (c *Chooser) Placement() corev1.PodSpec {
	spec := corev1.PodSpec{HostNetwork: c.Bool()}
	if c.Intn(8) == 7 {
		spec.NodeName = c.NodeName()
	}
	for range c.Intn(3) {
		if spec.NodeSelector == nil {
			spec.NodeSelector = map[string]string{}
		}
		spec.NodeSelector[c.key()] = c.value()
	}
	if c.Bool() {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: c.Terms()},
		}}
	}
	for range c.Intn(4) {
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
			Key:      c.key(),
			Operator: Pick(c, corev1.TolerationOpEqual, corev1.TolerationOpExists, "", corev1.TolerationOpLt, "Unheard"),
			Value:    c.value(),
			Effect:   c.effect(),
		})
	}
	return spec
}

// Terms returns node selector terms, some of which match.
func (c *Chooser) Terms() []corev1.NodeSelectorTerm {
	var terms []corev1.NodeSelectorTerm
	for range c.Intn(3) {
		var term corev1.NodeSelectorTerm
		for range c.Intn(3) {
			requirement := corev1.NodeSelectorRequirement{
				Key: c.key(),
				Operator: Pick(c, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
					corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, "Unheard"),
			}
			for range c.Intn(3) {
				requirement.Values = append(requirement.Values, c.value())
			}
			term.MatchExpressions = append(term.MatchExpressions, requirement)
		}
		for range c.Intn(3) {
			term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{
				Key:      "metadata.name",
				Operator: Pick(c, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn),
				Values:   []string{c.NodeName()},
			})
		}
		terms = append(terms, term)
	}
	return terms
}

// HostPort returns a port that may conflict with another one.
func (c *Chooser) HostPort() daemonset.HostPort {
	return daemonset.HostPort{
		IP:       Pick(c, "0.0.0.0", "10.0.0.1", "10.0.0.2", "::"),
		Protocol: Pick(c, corev1.ProtocolTCP, corev1.ProtocolUDP),
		Port:     Pick[int32](c, 9100, 9101),
	}
}

// Containers returns a pod spec with everything that decides what a pod takes.
func (c *Chooser) Containers() corev1.PodSpec {
	spec := corev1.PodSpec{HostNetwork: c.Bool()}
	for range 1 + c.Intn(3) {
		spec.Containers = append(spec.Containers, c.container())
	}
	for range c.Intn(3) {
		container := c.container()
		if c.Bool() {
			always := corev1.ContainerRestartPolicyAlways
			container.RestartPolicy = &always
		}
		spec.InitContainers = append(spec.InitContainers, container)
	}
	if c.Bool() {
		spec.Overhead = c.resources()
	}
	if c.Intn(4) == 3 {
		spec.Resources = &corev1.ResourceRequirements{Requests: c.podLevelResources(), Limits: c.podLevelResources()}
	}
	return spec
}

func (c *Chooser) container() corev1.Container {
	container := corev1.Container{Resources: corev1.ResourceRequirements{Requests: c.resources(), Limits: c.resources()}}
	for range c.Intn(3) {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			ContainerPort: Pick[int32](c, 9100, 9101),
			HostPort:      Pick[int32](c, 0, 9100, 9102),
			HostIP:        Pick(c, "", "10.0.0.1"),
			Protocol:      Pick(c, corev1.ProtocolTCP, corev1.ProtocolUDP),
		})
	}
	return container
}

func (c *Chooser) resources() corev1.ResourceList {
	list := corev1.ResourceList{}
	for range c.Intn(4) {
		name := Pick[corev1.ResourceName](c, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/gpu")
		list[name] = resource.MustParse(Pick(c, "0", "1", "3", "1500m"))
	}
	return list
}

func (c *Chooser) podLevelResources() corev1.ResourceList {
	list := corev1.ResourceList{}
	for range c.Intn(3) {
		list[Pick(c, corev1.ResourceCPU, corev1.ResourceMemory)] = resource.MustParse(Pick(c, "0", "2", "7"))
	}
	return list
}

// Seed adds bytes that choose in many ways.
func Seed(f *testing.F) {
	f.Helper()
	for n := range 200 {
		data := make([]byte, 120)
		for i := range data {
			data[i] = byte(n*31 + i*i*7 + n*i)
		}
		f.Add(data)
	}
}
