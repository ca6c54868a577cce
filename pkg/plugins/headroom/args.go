// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"slices"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Args configures the plugin.
type Args struct {
	// HoldAgainst says which ordinary pods have to leave room. Default SameOrLower.
	HoldAgainst HoldAgainst `json:"holdAgainst,omitempty"`
	pluginargs.Scope
}

// HoldAgainst says which ordinary pods have to leave room.
type HoldAgainst string

const (
	// HoldAgainstSameOrLower holds room against pods whose priority is not higher
	// than the DaemonSet's: a pod of higher priority may take it, as it might
	// evict the daemon pod anyway.
	HoldAgainstSameOrLower HoldAgainst = "SameOrLower"
	// HoldAgainstAll holds room against all pods below ExemptPriority.
	HoldAgainstAll HoldAgainst = "All"
)

func defaultArgs() Args {
	return Args{HoldAgainst: HoldAgainstSameOrLower, Scope: pluginargs.DefaultScope()}
}

// Validate returns all that is wrong with a.
func (a *Args) Validate(path *field.Path) error {
	if supported := []HoldAgainst{HoldAgainstSameOrLower, HoldAgainstAll}; !slices.Contains(supported, a.HoldAgainst) {
		return utilerrors.NewAggregate([]error{field.NotSupported(path.Child("holdAgainst"), a.HoldAgainst, supported), a.Scope.Validate(path)})
	}
	return a.Scope.Validate(path)
}
