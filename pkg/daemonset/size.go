// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kjson "sigs.k8s.io/json"
)

// Sizes are the sizes of containers, by name: what [ResourcesAnnotation] says, in
// JSON, of containers, init containers and sidecars:
//
//	{"agent": {"cpu": "2%", "memory": "1.5%", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "step": {"memory": "64Mi"}}}
type Sizes map[string]Size

// Size says how much a container requests of its node's allocatable resources.
type Size struct {
	// CPU, Memory and EphemeralStorage are shares of what the node has, such as
	// "1.5%". Without one the container requests what the template says.
	CPU              Percent `json:"cpu,omitempty"`
	Memory           Percent `json:"memory,omitempty"`
	EphemeralStorage Percent `json:"ephemeral-storage,omitempty"`
	// Min and Max limit what is requested.
	Min corev1.ResourceList `json:"min,omitempty"`
	Max corev1.ResourceList `json:"max,omitempty"`
	// Step is what requests are rounded up to a multiple of, so that nodes that are
	// nearly alike get pods that are alike. Default 10m of CPU, 16Mi of the others.
	Step corev1.ResourceList `json:"step,omitempty"`
}

// Percent is a share in thousandths of a percent, from 1 to 100000. 0 is none.
type Percent int64

// whole is 100 %.
const whole Percent = 100_000

// UnmarshalJSON parses "1.5%": more than 0, at most 100, up to three decimals.
func (p *Percent) UnmarshalJSON(data []byte) error {
	text, err := strconv.Unquote(string(data))
	if err != nil {
		return fmt.Errorf("%s is not a percentage in quotes, such as \"1.5%%\"", data)
	}
	number, ok := strings.CutSuffix(text, "%")
	units, decimals, _ := strings.Cut(number, ".")
	thousandths, err := strconv.ParseUint(units+(decimals + "000")[:max(3, len(decimals))], 10, 32)
	if !ok || err != nil || len(decimals) > 3 || thousandths == 0 || Percent(thousandths) > whole {
		return fmt.Errorf("%q is not a percentage from 0.001%% to 100%%, such as \"1.5%%\"", text)
	}
	*p = Percent(thousandths)
	return nil
}

// MarshalJSON is the reverse of UnmarshalJSON.
func (p Percent) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatFloat(float64(p)/1000, 'f', -1, 64)+"%"), nil
}

// ParseSizes parses the value of [ResourcesAnnotation]. The error is for its author.
func ParseSizes(value string) (Sizes, error) {
	var sizes Sizes
	strict, err := kjson.UnmarshalStrict([]byte(value), &sizes)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", value, err)
	}
	if len(sizes) == 0 {
		return nil, errors.New(`no container is named, as in {"agent": {"cpu": "2%"}}`)
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if err := sizes[name].validate(); err != nil {
			return nil, fmt.Errorf("container %s: %w", name, err)
		}
	}
	return sizes, nil
}

func (s Size) validate() error {
	percents := s.percents()
	if len(percents) == 0 {
		return errors.New(`nothing is sized: give a percentage of cpu, memory or ephemeral-storage`)
	}
	lists := []struct {
		name string
		list corev1.ResourceList
	}{{"min", s.Min}, {"max", s.Max}, {"step", s.Step}}
	for _, limit := range lists {
		for _, name := range slices.Sorted(maps.Keys(limit.list)) {
			quantity := limit.list[name]
			if _, ok := percents[name]; !ok {
				return fmt.Errorf("%[1]s.%[2]s has no percentage of %[2]s to limit", limit.name, name)
			}
			if quantity.Sign() <= 0 {
				return fmt.Errorf("%s.%s is %s, has to be more than 0", limit.name, name, quantity.String())
			}
		}
	}
	for name, least := range s.Min {
		if most, ok := s.Max[name]; ok && least.Cmp(most) > 0 {
			return fmt.Errorf("min.%[1]s is %[2]s, more than max.%[1]s, which is %[3]s", name, least.String(), most.String())
		}
	}
	return nil
}

// SizedResources are the resources that can be shared by percent.
func SizedResources() []corev1.ResourceName {
	return []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
}

// percents returns the shares by resource.
func (s Size) percents() map[corev1.ResourceName]Percent {
	percents := map[corev1.ResourceName]Percent{
		corev1.ResourceCPU: s.CPU, corev1.ResourceMemory: s.Memory, corev1.ResourceEphemeralStorage: s.EphemeralStorage,
	}
	maps.DeleteFunc(percents, func(_ corev1.ResourceName, percent Percent) bool { return percent == 0 })
	return percents
}

// Apply sets the requests of the containers of spec, and their limits so that the
// ratio of the two stays the template's. allocatable is what the pod's node has;
// what it does not name stays as it is. To apply it again changes nothing. Lists of
// resources are replaced, not changed: other containers may share them.
//
// Containers that spec does not have are left out, and so is a pod with resources of
// its own, which have to be more than those of its containers.
func (s Sizes) Apply(spec *corev1.PodSpec, allocatable corev1.ResourceList) {
	if spec.Resources != nil {
		return
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			if size, ok := s[containers[i].Name]; ok {
				size.apply(&containers[i].Resources, allocatable)
			}
		}
	}
}

func (s Size) apply(resources *corev1.ResourceRequirements, allocatable corev1.ResourceList) {
	requests, limits := maps.Clone(resources.Requests), maps.Clone(resources.Limits)
	for name, percent := range s.percents() {
		has, ok := allocatable[name]
		if !ok {
			continue
		}
		request := s.request(name, percent, &has)
		if limit, ok := limits[name]; ok {
			before, ok := requests[name]
			if !ok {
				// That is the API server's default.
				before = limit
			}
			limits[name] = inRatio(name, &limit, &before, &request)
		}
		if requests == nil {
			requests = corev1.ResourceList{}
		}
		requests[name] = request
	}
	resources.Requests, resources.Limits = requests, limits
}

// request returns what is requested of a node that has so much.
func (s Size) request(name corev1.ResourceName, percent Percent, has *resource.Quantity) resource.Quantity {
	step := s.Step[name]
	if step.IsZero() {
		step = defaultStep(name)
	}
	// The amount is in the unit of the step: thousandths for CPU.
	amount, unit := amountOf(name, has), amountOf(name, &step)
	amount = divideUp(amount.Mul(amount, big.NewInt(int64(percent))), big.NewInt(int64(whole)))
	amount = divideUp(amount, unit)
	request := quantityOf(name, amount.Mul(amount, unit))
	if least, ok := s.Min[name]; ok && request.Cmp(least) < 0 {
		request = least.DeepCopy()
	}
	if most, ok := s.Max[name]; ok && request.Cmp(most) > 0 {
		request = most.DeepCopy()
	}
	return request
}

func defaultStep(name corev1.ResourceName) resource.Quantity {
	if name == corev1.ResourceCPU {
		return *resource.NewMilliQuantity(10, resource.DecimalSI)
	}
	return *resource.NewQuantity(16<<20, resource.BinarySI)
}

// inRatio returns the limit that is to request what limit was to before.
func inRatio(name corev1.ResourceName, limit, before, request *resource.Quantity) resource.Quantity {
	was, is := amountOf(name, before), amountOf(name, request)
	switch {
	case was.Cmp(is) == 0:
		return limit.DeepCopy()
	case was.Sign() <= 0:
		// There is no ratio, but a limit must not be less than the request.
		if limit.Cmp(*request) < 0 {
			return request.DeepCopy()
		}
		return limit.DeepCopy()
	}
	amount := amountOf(name, limit)
	return quantityOf(name, divideUp(amount.Mul(amount, is), was))
}

// amountOf returns quantity in thousandths for CPU, or else in whole units.
func amountOf(name corev1.ResourceName, quantity *resource.Quantity) *big.Int {
	if name == corev1.ResourceCPU {
		return big.NewInt(quantity.MilliValue())
	}
	return big.NewInt(quantity.Value())
}

func quantityOf(name corev1.ResourceName, amount *big.Int) resource.Quantity {
	value := int64(math.MaxInt64)
	if amount.IsInt64() {
		value = amount.Int64()
	}
	if name == corev1.ResourceCPU {
		return *resource.NewMilliQuantity(value, resource.DecimalSI)
	}
	return *resource.NewQuantity(value, resource.BinarySI)
}

// divideUp returns a / b rounded up; a is not negative, b is positive.
func divideUp(a, b *big.Int) *big.Int {
	quotient, rest := new(big.Int).QuoRem(a, b, new(big.Int))
	if rest.Sign() > 0 {
		quotient.Add(quotient, big.NewInt(1))
	}
	return quotient
}
