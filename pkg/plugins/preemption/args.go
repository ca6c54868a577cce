// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
)

// Args configures the plugin.
type Args struct {
	// EqualPriority says whether pinned DaemonSet pods may evict pods of their own
	// priority. Default true.
	EqualPriority *bool `json:"equalPriority,omitempty"`
	// MinCandidateNodesPercentage is the share of nodes that are examined at least
	// when a pod looks for a node to preempt on, in percent. Default 10, as in
	// DefaultPreemption.
	MinCandidateNodesPercentage int32 `json:"minCandidateNodesPercentage,omitempty"`
	// MinCandidateNodesAbsolute is the number of nodes that are examined at least.
	// Default 100, as in DefaultPreemption.
	MinCandidateNodesAbsolute int32 `json:"minCandidateNodesAbsolute,omitempty"`
}

func defaultArgs() Args {
	equalPriority := true
	return Args{EqualPriority: &equalPriority, MinCandidateNodesPercentage: 10, MinCandidateNodesAbsolute: 100}
}

// upstream returns the args of the plugin that this one builds on.
func (a *Args) upstream() *config.DefaultPreemptionArgs {
	return &config.DefaultPreemptionArgs{
		MinCandidateNodesPercentage: a.MinCandidateNodesPercentage,
		MinCandidateNodesAbsolute:   a.MinCandidateNodesAbsolute,
	}
}

// Validate returns all that is wrong with a.
func (a *Args) Validate(path *field.Path) error {
	if a.EqualPriority == nil {
		return field.Required(path.Child("equalPriority"), "leave it out for the default, or give true or false")
	}
	return validation.ValidateDefaultPreemptionArgs(path, a.upstream())
}
