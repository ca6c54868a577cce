// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"everynode.dev/everynode/pkg/daemonset"
)

// FormatAmount writes an amount of a resource, in the unit of [Shortage], with its name:
// "cpu 500m", "memory 1.5Gi", "3 pod slots".
func FormatAmount(name string, amount int64) string {
	if name == string(corev1.ResourcePods) {
		return Count(int(amount), "pod slot")
	}
	return name + " " + FormatQuantity(name, amount)
}

// FormatQuantity writes an amount of a resource without its name.
func FormatQuantity(name string, amount int64) string {
	switch corev1.ResourceName(name) {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return formatBytes(amount)
	default:
		return strconv.FormatInt(amount, 10)
	}
}

// formatBytes writes bytes in the largest unit in which they have at most one decimal,
// or else in Mi.
func formatBytes(amount int64) string {
	if amount < 0 {
		return "-" + formatBytes(-amount)
	}
	for n, unit := range []string{"Ti", "Gi", "Mi", "Ki"} {
		size := int64(1) << (10 * (4 - n))
		if amount >= size && amount*10%size == 0 && amount/size < 10_000 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(amount)/float64(size)), ".0") + unit
		}
	}
	if amount >= 1<<20 {
		return fmt.Sprintf("%.1fMi", float64(amount)/(1<<20))
	}
	return strconv.FormatInt(amount, 10)
}

// describeResources writes all that is in resources, the usual ones first.
func describeResources(resources daemonset.Resources) string {
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	names = append(names, slices.Sorted(maps.Keys(resources.Scalar))...)
	names = append(names, corev1.ResourcePods)
	text := ""
	for _, name := range names {
		text = withAmount(text, string(name), resources.Amount(name))
	}
	return text
}

// withAmount adds an amount of a resource to a list of them, unless it is 0.
func withAmount(list, resource string, amount int64) string {
	switch {
	case amount == 0:
		return list
	case list == "":
		return FormatAmount(resource, amount)
	default:
		return list + ", " + FormatAmount(resource, amount)
	}
}

// Count writes a number with its noun: "1 node", "2 nodes".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// CompareNames orders names with numbers in them as people do: node-2 before node-10.
func CompareNames(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		digitsX, digitsY := leadingDigits(x), leadingDigits(y)
		numberX, numberY := strings.TrimLeft(digitsX, "0"), strings.TrimLeft(digitsY, "0")
		if digitsX == "" || digitsY == "" {
			digitsX, digitsY, numberX, numberY = x[:1], y[:1], x[:1], y[:1]
		}
		if order := cmp.Or(cmp.Compare(len(numberX), len(numberY)), cmp.Compare(numberX, numberY)); order != 0 {
			return order
		}
		x, y = x[len(digitsX):], y[len(digitsY):]
	}
	// Names that differ in leading zeros only still have an order.
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// NodeList writes names, which have to be in order: all of them if they are few, or
// else the first, the last and their number.
func NodeList(names []string) string {
	if len(names) <= fewNodes {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s ... %s (%d nodes)", names[0], names[len(names)-1], len(names))
}

// fewNodes is how many nodes are named one by one.
const fewNodes = 3
