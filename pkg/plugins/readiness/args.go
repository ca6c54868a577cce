// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package readiness

import (
	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Args configures the plugin.
type Args struct {
	pluginargs.Scope
}
