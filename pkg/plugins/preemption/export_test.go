// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"everynode.dev/everynode/pkg/daemonset"
)

// NewFactoryWithClock is NewFactory with a clock of the test.
var NewFactoryWithClock = newFactory

// Times of the pacing, for tests.
const (
	TerminationAhead = terminationAhead
	TerminationSlack = terminationSlack
	RefusalPeriod    = refusalPeriod
	JobRefusalPeriod = jobRefusalPeriod
)

// Waits says whether pod waits for an eviction.
func (pl *Preemption) Waits(pod *corev1.Pod) bool {
	pl.pacer.mu.Lock()
	defer pl.pacer.mu.Unlock()
	return pl.pacer.waitsFor[pod.UID].Len() > 0
}

// Away returns how many pods of a controller are away.
func (pl *Preemption) Away(controller types.UID) int {
	pl.pacer.mu.Lock()
	defer pl.pacer.mu.Unlock()
	away, _ := pl.pacer.away(controller)
	return away
}

// MayPreemptEqual is mayPreemptEqual.
func (pl *Preemption) MayPreemptEqual(pod *corev1.Pod) *daemonset.DaemonSet {
	return pl.mayPreemptEqual(pod)
}
