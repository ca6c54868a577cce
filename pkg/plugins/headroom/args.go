// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/scheduling"

	"everynode.dev/everynode/pkg/daemonset"
)

// Args configures the plugin.
type Args struct {
	// HoldAgainst says which ordinary pods have to leave room. Default SameOrLower.
	HoldAgainst HoldAgainst `json:"holdAgainst,omitempty"`
	// ExemptPriority is the priority from which on nothing is held against a pod:
	// what a cluster cannot do without must not wait for a DaemonSet. Default
	// 2000000000, the priority of system-cluster-critical.
	ExemptPriority *int32 `json:"exemptPriority,omitempty"`
	// StartupTaints are the keys of taints that a node wears until it is ready for
	// work; room is held on it before it loses them. A key that ends in "/" stands
	// for all keys with that prefix. A list replaces the default one.
	StartupTaints daemonset.StartupTaints `json:"startupTaints,omitempty"`
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
	exempt := scheduling.SystemCriticalPriority
	return Args{
		HoldAgainst:    HoldAgainstSameOrLower,
		ExemptPriority: &exempt,
		StartupTaints:  daemonset.DefaultStartupTaints(),
	}
}

func (a *Args) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if supported := []HoldAgainst{HoldAgainstSameOrLower, HoldAgainstAll}; !slices.Contains(supported, a.HoldAgainst) {
		errs = append(errs, field.NotSupported(path.Child("holdAgainst"), a.HoldAgainst, supported))
	}
	if a.ExemptPriority == nil {
		errs = append(errs, field.Required(path.Child("exemptPriority"), "leave it out for the default, or give a number"))
	}
	for i, key := range a.StartupTaints {
		for _, problem := range validation.IsQualifiedName(strings.TrimSuffix(key, "/")) {
			errs = append(errs, field.Invalid(path.Child("startupTaints").Index(i), key, problem))
		}
	}
	return errs
}
