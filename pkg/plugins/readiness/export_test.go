// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness

// Refused returns the number of pods that are remembered.
func (pl *Readiness) Refused() int {
	return pl.refused.Len()
}

// Forget tells of a change of obj, as an informer does.
func (pl *Readiness) Forget(obj any) {
	pl.shares.forget(obj)
}
