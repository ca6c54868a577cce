// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Args configures the plugin.
type Args struct {
	// HoldAgainst says which ordinary pods have to leave room. Default SameOrLower.
	HoldAgainst HoldAgainst `json:"holdAgainst,omitempty"`
	// HoldFor is how long room is held for a pod that does not appear although its node
	// is open: one second at least. Default 2m. All profiles of a scheduler need the same.
	HoldFor metav1.Duration `json:"holdFor,omitzero"`
	// StartupFor is how long a start-up taint on a Ready node counts as one: one second at
	// least. Default 10m. All profiles of a scheduler need the same.
	StartupFor metav1.Duration `json:"startupFor,omitzero"`
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
	return Args{
		HoldAgainst: HoldAgainstSameOrLower,
		HoldFor:     metav1.Duration{Duration: 2 * time.Minute},
		StartupFor:  metav1.Duration{Duration: 10 * time.Minute},
		Scope:       pluginargs.DefaultScope(),
	}
}

// Validate returns all that is wrong with a.
func (a *Args) Validate(path *field.Path) error {
	var errs field.ErrorList
	if supported := []HoldAgainst{HoldAgainstSameOrLower, HoldAgainstAll}; !slices.Contains(supported, a.HoldAgainst) {
		errs = append(errs, field.NotSupported(path.Child("holdAgainst"), a.HoldAgainst, supported))
	}
	if a.HoldFor.Duration < time.Second {
		errs = append(errs, field.Invalid(path.Child("holdFor"), a.HoldFor.Duration.String(), "has to be one second at least, for example 2m"))
	}
	if a.StartupFor.Duration < time.Second {
		errs = append(errs, field.Invalid(path.Child("startupFor"), a.StartupFor.Duration.String(), "has to be one second at least, for example 10m"))
	}
	return utilerrors.NewAggregate([]error{errs.ToAggregate(), a.Scope.Validate(path)})
}
