// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

// Remembered returns the number of nodes whose view is kept.
func (pl *Headroom) Remembered() int {
	return pl.views.Len()
}
