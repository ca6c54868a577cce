// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
)

// Args configures the plugin.
type Args struct {
	// EqualPriority says whether pinned DaemonSet pods may evict pods of their own
	// priority. Default true.
	EqualPriority *bool `json:"equalPriority,omitempty"`
	// MaxEvictionsPerController is how many evictions for equal priority may be under
	// way at a time for one controller (for example a ReplicaSet) whose pods no
	// PodDisruptionBudget covers. At least 1, default 1.
	MaxEvictionsPerController int32 `json:"maxEvictionsPerController,omitempty"`
	// EvictionTimeout is how long such an eviction counts as under way if no
	// replacement of the evicted pod becomes Ready. More than 0, default 30s.
	EvictionTimeout metav1.Duration `json:"evictionTimeout,omitzero"`
	// MinCandidateNodesPercentage is the minimum share, in percent, of the nodes that
	// have possible victims to examine for a preemption. 0 to 100, default 10, as in
	// DefaultPreemption.
	MinCandidateNodesPercentage int32 `json:"minCandidateNodesPercentage,omitempty"`
	// MinCandidateNodesAbsolute is the minimum number of these nodes to examine. At
	// least 0, default 100, as in DefaultPreemption.
	MinCandidateNodesAbsolute int32 `json:"minCandidateNodesAbsolute,omitempty"`
}

func defaultArgs() Args {
	equalPriority := true
	return Args{
		EqualPriority:               &equalPriority,
		MaxEvictionsPerController:   1,
		EvictionTimeout:             metav1.Duration{Duration: 30 * time.Second},
		MinCandidateNodesPercentage: 10,
		MinCandidateNodesAbsolute:   100,
	}
}

// upstream returns the args of DefaultPreemption, which this plugin builds on.
func (a *Args) upstream() *config.DefaultPreemptionArgs {
	return &config.DefaultPreemptionArgs{
		MinCandidateNodesPercentage: a.MinCandidateNodesPercentage,
		MinCandidateNodesAbsolute:   a.MinCandidateNodesAbsolute,
	}
}

// Validate returns every error in a. Each names the field under path and the remedy.
func (a *Args) Validate(path *field.Path) error {
	var errs []error
	if a.EqualPriority == nil {
		errs = append(errs, field.Required(path.Child("equalPriority"), "leave it out for the default, or give true or false"))
	}
	if a.MaxEvictionsPerController < 1 {
		errs = append(errs, field.Invalid(path.Child("maxEvictionsPerController"), a.MaxEvictionsPerController,
			"give at least 1; equalPriority: false turns these evictions off"))
	}
	if a.EvictionTimeout.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("evictionTimeout"), a.EvictionTimeout.Duration.String(), "give more than 0s, for example 30s"))
	}
	return errors.Join(append(errs, validation.ValidateDefaultPreemptionArgs(path, a.upstream()))...)
}
