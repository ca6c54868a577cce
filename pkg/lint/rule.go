// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import "slices"

// Rule is something that Check looks for.
type Rule struct {
	// ID is its name, in lower case with dashes.
	ID       string
	Severity Severity
	// Title says in a few words what is found.
	Title string
	// Reason says why it hurts, in sentences.
	Reason string
	// Fix says what to write instead, in sentences.
	Fix string
	// Example is a piece of a DaemonSet in YAML that does it right. It may be empty.
	Example string

	check func(*manifest)
}

// Doc returns where the rule is explained, from the root of the repository.
func (r Rule) Doc() string {
	return "docs/lint.md#" + r.ID
}

// Rules returns all rules, errors first.
func Rules() []Rule {
	return slices.Clone(rules)
}

// rules is in the order of findings.
var rules = []Rule{
	surgeHostPort,
	surgeAntiAffinity,
	hostPortTwice,
	nodeAffinityImpossible,
	selectorOnRevision,
	annotationValue,

	annotationUnknown,
	annotationMisplaced,
	ignoredUnknown,
	sizeWithoutEffect,

	noRequests,
	noMemoryLimit,
	noReadinessProbe,
	gateWithoutReadinessProbe,
	eagerLivenessProbe,
	floatingImage,

	noPriorityClass,
	defaultServiceAccount,
	privileged,
	writableHostPath,
	sharedVolumeClaim,

	onDelete,
	allUnavailable,
	noGracePeriod,
	looseSelector,

	noTolerations,
	wildcardToleration,
	tolerationSeconds,
	nodeNameSet,
	deadAffinityTerm,
	preferenceWithoutChoice,
	podAffinity,
	topologySpread,
}
