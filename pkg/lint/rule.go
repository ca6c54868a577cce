// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	_ "embed"
	"slices"
	"sync"

	"sigs.k8s.io/yaml"
)

// Rule is something that Check looks for.
type Rule struct {
	// ID is its name, in lower case with dashes.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Title says in a few words what is found.
	Title string `json:"title"`
	// Reason says why it hurts, in sentences.
	Reason string `json:"reason"`
	// Fix says what to write instead, in sentences.
	Fix string `json:"fix"`
	// Example is a piece of a DaemonSet in YAML that does it right. It may be empty.
	Example string `json:"example,omitempty"`

	check func(*manifest)
}

// Doc returns where the rule is explained, from the root of the repository.
func (r Rule) Doc() string {
	return "docs/lint.md#" + r.ID
}

// Rules returns all rules, errors first. Those that start with "api-" are the API
// server's, which package upstream asks.
func Rules() []Rule {
	return slices.Clone(rules())
}

// Find returns the rule with that ID, nil if there is none.
func Find(id string) *Rule {
	if n := slices.IndexFunc(rules(), func(rule Rule) bool { return rule.ID == id }); n >= 0 {
		return &rules()[n]
	}
	return nil
}

// checks are those of the rules, by their IDs.
var checks = map[string]func(*manifest){
	"surge-host-port":              checkSurgeHostPort,
	"surge-anti-affinity":          checkSurgeAntiAffinity,
	"host-port-twice":              checkHostPortTwice,
	"node-affinity-impossible":     checkNodeAffinityImpossible,
	"selector-on-revision":         checkSelectorOnRevision,
	"annotation-value":             checkAnnotationValue,
	"annotation-unknown":           checkAnnotationUnknown,
	"annotation-misplaced":         checkAnnotationMisplaced,
	"ignored-unknown":              checkIgnoredUnknown,
	"size-without-effect":          checkSizeWithoutEffect,
	"probe-port":                   checkProbePort,
	"old-role":                     checkOldRole,
	"docker-socket":                checkDockerSocket,
	"set-by-admission":             checkSetByAdmission,
	"image-pull-always":            checkImagePullAlways,
	"no-requests":                  checkNoRequests,
	"no-memory-limit":              checkNoMemoryLimit,
	"no-readiness-probe":           checkNoReadinessProbe,
	"gate-without-readiness-probe": checkGateWithoutReadinessProbe,
	"eager-liveness-probe":         checkEagerLivenessProbe,
	"floating-image":               checkFloatingImage,
	"no-priority-class":            checkNoPriorityClass,
	"default-service-account":      checkDefaultServiceAccount,
	"privileged":                   checkPrivileged,
	"writable-host-path":           checkWritableHostPath,
	"shared-volume-claim":          checkSharedVolumeClaim,
	"on-delete":                    checkOnDelete,
	"all-unavailable":              checkAllUnavailable,
	"no-grace-period":              checkNoGracePeriod,
	"loose-selector":               checkLooseSelector,
	"no-tolerations":               checkNoTolerations,
	"wildcard-toleration":          checkWildcardToleration,
	"toleration-seconds":           checkTolerationSeconds,
	"node-name":                    checkNodeNameSet,
	"dead-affinity-term":           checkDeadAffinityTerm,
	"preference-without-choice":    checkPreferenceWithoutChoice,
	"pod-affinity":                 checkPodAffinity,
	"topology-spread":              checkTopologySpread,
}

//go:embed rules.yaml
var rulesFile []byte

// rules are in the order of findings.
var rules = sync.OnceValue(func() []Rule {
	var all []Rule
	// The file is a part of the program, and a test reads it.
	if err := yaml.UnmarshalStrict(rulesFile, &all); err != nil {
		return nil
	}
	for n := range all {
		all[n].check = checks[all[n].ID]
	}
	return all
})
