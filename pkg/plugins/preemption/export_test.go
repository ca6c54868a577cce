// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

// NewFactoryWithClock is NewFactory with a clock of the test.
var NewFactoryWithClock = newFactory

// Times of the pacing, for tests.
const (
	TerminationAhead = terminationAhead
	TerminationSlack = terminationSlack
	RefusalPeriod    = refusalPeriod
	JobRefusalPeriod = jobRefusalPeriod
)
