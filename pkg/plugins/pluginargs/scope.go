// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package pluginargs

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/kubernetes/pkg/apis/scheduling"

	"everynode.dev/everynode/pkg/daemonset"
)

// Scope is the part of the args in which a plugin learns whom it concerns.
type Scope struct {
	// ExemptPriority is the priority from which on a pod waits for no DaemonSet:
	// what a cluster cannot do without comes first. Default 2000000000, the priority
	// of system-cluster-critical.
	ExemptPriority *int32 `json:"exemptPriority,omitempty"`
	// DaemonKinds are owners, other than apps/v1 DaemonSets, whose pods are daemon
	// pods too, each as Kind.group. A list replaces the default one.
	DaemonKinds daemonset.Kinds `json:"daemonKinds,omitempty"`
	// StartupTaints are patterns for the keys of taints that a node wears until it is
	// ready for work: DaemonSets are expected there before it loses them. "domain/" stands
	// for all keys of a domain, "*/name" for a name in any domain. A list replaces the
	// default one. All profiles of a scheduler need the same.
	StartupTaints daemonset.StartupTaints `json:"startupTaints,omitempty"`
}

// DefaultScope returns the scope of plugins without args.
func DefaultScope() Scope {
	exempt := scheduling.SystemCriticalPriority
	return Scope{
		ExemptPriority: &exempt,
		DaemonKinds:    daemonset.DefaultKinds(),
		StartupTaints:  daemonset.DefaultStartupTaints(),
	}
}

// Validate returns all that is wrong with s.
func (s *Scope) Validate(path *field.Path) error {
	var errs field.ErrorList
	if s.ExemptPriority == nil {
		errs = append(errs, field.Required(path.Child("exemptPriority"), "leave it out for the default, or give a number"))
	}
	for i, kind := range s.DaemonKinds {
		if parsed := schema.ParseGroupKind(kind); parsed.Kind == "" || len(validation.IsDNS1123Subdomain(parsed.Group)) > 0 {
			errs = append(errs, field.Invalid(path.Child("daemonKinds").Index(i), kind, "has to be Kind.group, for example DaemonSet.apps.kruise.io"))
		}
	}
	for i, key := range s.StartupTaints {
		name := strings.TrimPrefix(strings.TrimSuffix(key, "/"), "*/")
		for _, problem := range validation.IsQualifiedName(name) {
			errs = append(errs, field.Invalid(path.Child("startupTaints").Index(i), key, problem))
		}
	}
	return errs.ToAggregate()
}

// Daemons returns the part that says what counts as a daemon pod and as a start-up taint.
func (s *Scope) Daemons() daemonset.Scope {
	return daemonset.Scope{Startup: s.StartupTaints, Kinds: s.DaemonKinds}
}

// Ordinary says whether pod has to take second place to DaemonSets: it belongs to
// none and has no exempt priority.
func (s *Scope) Ordinary(set *daemonset.Set, pod *corev1.Pod) bool {
	return corev1helper.PodPriority(pod) < *s.ExemptPriority && set.OwnerOf(pod) == nil && !s.DaemonKinds.Own(pod)
}
