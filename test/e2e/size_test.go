// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// The plugin stays smaller than kubectl itself, which has 62 MB: krew loads it on each laptop.
func TestPluginIsSmall(t *testing.T) {
	t.Parallel()
	const most = 50_000_000
	info, err := os.Stat(filepath.Join(*binDir, "kubectl-everynode"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most {
		t.Errorf("kubectl-everynode has %d bytes, more than %d", info.Size(), most)
	}
}
