// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources is an amount of everything that a node counts. The units are the
// scheduler's own (NodeInfo's Resource), so that the two can be compared without
// converting quantities.
type Resources struct {
	// MilliCPU is in thousandths of a core.
	MilliCPU int64
	// Memory is in bytes.
	Memory int64
	// EphemeralStorage is in bytes.
	EphemeralStorage int64
	// Pods is a number of pod slots.
	Pods int64
	// Scalar holds every other resource (extended resources, huge pages) in
	// whole units. Nil is empty.
	Scalar map[corev1.ResourceName]int64
}

// NewResources converts list; fractions round up, as they do in the scheduler.
func NewResources(list corev1.ResourceList) Resources {
	var r Resources
	for name, quantity := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = quantity.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = quantity.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = quantity.Value()
		case corev1.ResourcePods:
			r.Pods = quantity.Value()
		default:
			r.addScalar(name, quantity.Value())
		}
	}
	return r
}

// List converts r back; what r has none of is left out.
func (r Resources) List() corev1.ResourceList {
	list := corev1.ResourceList{}
	add := func(name corev1.ResourceName, quantity *resource.Quantity) {
		if !quantity.IsZero() {
			list[name] = *quantity
		}
	}
	add(corev1.ResourceCPU, resource.NewMilliQuantity(r.MilliCPU, resource.DecimalSI))
	add(corev1.ResourceMemory, resource.NewQuantity(r.Memory, resource.BinarySI))
	add(corev1.ResourceEphemeralStorage, resource.NewQuantity(r.EphemeralStorage, resource.BinarySI))
	add(corev1.ResourcePods, resource.NewQuantity(r.Pods, resource.DecimalSI))
	for name, amount := range r.Scalar {
		add(name, resource.NewQuantity(amount, resource.DecimalSI))
	}
	return list
}

// Amount returns how much r has of the named resource, in the unit of its field.
func (r Resources) Amount(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.EphemeralStorage
	case corev1.ResourcePods:
		return r.Pods
	default:
		return r.Scalar[name]
	}
}

// Plus returns r + other. It shares no memory with either.
func (r Resources) Plus(other Resources) Resources {
	return r.combine(other, 1)
}

// Minus returns r - other, which may be negative. It shares no memory with either.
func (r Resources) Minus(other Resources) Resources {
	return r.combine(other, -1)
}

func (r Resources) combine(other Resources, sign int64) Resources {
	sum := Resources{
		MilliCPU:         r.MilliCPU + sign*other.MilliCPU,
		Memory:           r.Memory + sign*other.Memory,
		EphemeralStorage: r.EphemeralStorage + sign*other.EphemeralStorage,
		Pods:             r.Pods + sign*other.Pods,
	}
	for name, amount := range r.Scalar {
		sum.addScalar(name, amount)
	}
	for name, amount := range other.Scalar {
		sum.addScalar(name, sign*amount)
	}
	return sum
}

// AtLeastZero returns r with every negative amount replaced by 0.
func (r Resources) AtLeastZero() Resources {
	positive := Resources{
		MilliCPU:         max(r.MilliCPU, 0),
		Memory:           max(r.Memory, 0),
		EphemeralStorage: max(r.EphemeralStorage, 0),
		Pods:             max(r.Pods, 0),
	}
	for name, amount := range r.Scalar {
		if amount > 0 {
			positive.addScalar(name, amount)
		}
	}
	return positive
}

// FitsIn says whether room has enough of everything that r asks for. What r does
// not ask for does not count, even where room is overdrawn: that is how the
// scheduler's NodeResourcesFit decides.
func (r Resources) FitsIn(room Resources) bool {
	if r.MilliCPU > 0 && r.MilliCPU > room.MilliCPU ||
		r.Memory > 0 && r.Memory > room.Memory ||
		r.EphemeralStorage > 0 && r.EphemeralStorage > room.EphemeralStorage ||
		r.Pods > 0 && r.Pods > room.Pods {
		return false
	}
	for name, amount := range r.Scalar {
		if amount > 0 && amount > room.Scalar[name] {
			return false
		}
	}
	return true
}

// IsZero says whether r asks for nothing.
func (r Resources) IsZero() bool {
	for _, amount := range r.Scalar {
		if amount != 0 {
			return false
		}
	}
	return r.MilliCPU == 0 && r.Memory == 0 && r.EphemeralStorage == 0 && r.Pods == 0
}

func (r *Resources) addScalar(name corev1.ResourceName, amount int64) {
	if r.Scalar == nil {
		r.Scalar = make(map[corev1.ResourceName]int64)
	}
	r.Scalar[name] += amount
}
