// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources is an amount of everything that a node counts. The units are the
// scheduler's own (NodeInfo's Resource), so that the two can be compared without
// converting quantities.
//
// Arithmetic saturates: a sum that an int64 cannot hold is the nearest int64. One
// DaemonSet may ask for 8Ei of memory; the sum with another must not be negative.
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
			r.MilliCPU = saturated(&quantity, resource.Milli)
		case corev1.ResourceMemory:
			r.Memory = saturated(&quantity, 0)
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = saturated(&quantity, 0)
		case corev1.ResourcePods:
			r.Pods = saturated(&quantity, 0)
		default:
			r.addScalar(name, saturated(&quantity, 0))
		}
	}
	return r
}

// saturated returns quantity in units of 10^scale, rounded up. Quantity's own
// ScaledValue returns the lowest 64 bits of a larger value.
func saturated(quantity *resource.Quantity, scale resource.Scale) int64 {
	if quantity.AsApproximateFloat64() >= math.MaxInt64*math.Pow10(int(scale)) {
		return math.MaxInt64
	}
	return quantity.ScaledValue(scale)
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
	return r.combine(other, add)
}

// Minus returns r - other, which may be negative. It shares no memory with either.
func (r Resources) Minus(other Resources) Resources {
	return r.combine(other, subtract)
}

// Max returns the greater amount of each resource. It shares no memory with either.
func (r Resources) Max(other Resources) Resources {
	return r.combine(other, func(a, b int64) int64 { return max(a, b) })
}

// WhereAtMost returns r without the resources of which r has more than limit has.
func (r Resources) WhereAtMost(limit Resources) Resources {
	return r.combine(limit, func(amount, limit int64) int64 {
		if amount > limit {
			return 0
		}
		return amount
	})
}

// ListedBy returns r without the resources of which allocatable has none: a node
// that does not list a device yet, or lists 0, still has CPU and memory to hold.
func (r Resources) ListedBy(allocatable Resources) Resources {
	return r.combine(allocatable, func(amount, listed int64) int64 {
		if listed <= 0 {
			return 0
		}
		return amount
	})
}

// combine applies operation to the amounts of each resource.
func (r Resources) combine(other Resources, operation func(a, b int64) int64) Resources {
	combined := Resources{
		MilliCPU:         operation(r.MilliCPU, other.MilliCPU),
		Memory:           operation(r.Memory, other.Memory),
		EphemeralStorage: operation(r.EphemeralStorage, other.EphemeralStorage),
		Pods:             operation(r.Pods, other.Pods),
	}
	for name, amount := range r.Scalar {
		combined.addScalar(name, operation(amount, other.Scalar[name]))
	}
	for name, amount := range other.Scalar {
		if _, both := r.Scalar[name]; !both {
			combined.addScalar(name, operation(0, amount))
		}
	}
	return combined
}

// add returns a + b, or the nearest int64 if that overflows.
func add(a, b int64) int64 {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

// subtract returns a - b, or the nearest int64 if that overflows.
func subtract(a, b int64) int64 {
	difference := a - b
	switch {
	case a >= 0 && b < 0 && difference < 0:
		return math.MaxInt64
	case a < 0 && b > 0 && difference >= 0:
		return math.MinInt64
	}
	return difference
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
	if amount == 0 {
		return
	}
	if r.Scalar == nil {
		r.Scalar = make(map[corev1.ResourceName]int64)
	}
	r.Scalar[name] = add(r.Scalar[name], amount)
}
