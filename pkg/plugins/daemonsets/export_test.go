// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonsets

// Owners returns how many DaemonSets, existing or not, have pods that are remembered.
func (d *DaemonSets) Owners() int {
	d.newest.mu.Lock()
	defer d.newest.mu.Unlock()
	return len(d.newest.byOwner)
}
