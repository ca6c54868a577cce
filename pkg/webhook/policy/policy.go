// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy reads what an operator wants of the DaemonSets of a cluster.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	// APIVersion is the version of the file.
	APIVersion = "config.everynode.dev/v1alpha1"
	// Kind is the kind of the file.
	Kind = "WebhookConfiguration"
)

// Configuration is the file that --config names.
type Configuration struct {
	metav1.TypeMeta `json:",inline"`
	// Policies are looked through in order. The first one that matches a DaemonSet
	// applies to it, and no other.
	Policies []Policy `json:"policies,omitempty"`
	// Validation says what is done about DaemonSets that lint finds fault with.
	Validation Validation `json:"validation,omitzero"`
}

// Validation says what is done about findings of lint.
type Validation struct {
	// Mode is what is done about errors. The default is Deny. Warnings are warnings in
	// any mode but Off.
	Mode ValidationMode `json:"mode,omitempty"`
	// Ignore are the IDs of rules of lint that are not looked at.
	Ignore []string `json:"ignore,omitempty"`
}

// ValidationMode is what is done about errors of lint.
type ValidationMode string

const (
	// ValidationDeny denies the DaemonSet.
	ValidationDeny ValidationMode = "Deny"
	// ValidationWarn admits it with a warning.
	ValidationWarn ValidationMode = "Warn"
	// ValidationOff looks at nothing.
	ValidationOff ValidationMode = "Off"
)

// Policy is what is wanted of some DaemonSets.
type Policy struct {
	// Name identifies the policy in the audit log.
	Name string `json:"name"`
	// Match says which DaemonSets are meant.
	Match Match `json:"match,omitzero"`
	// Annotations are values for the annotations everynode.dev/... of DaemonSets that
	// don't have them. They are written to DaemonSets that are created or updated, and
	// apply to new pods of all others too.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Pod is what new pods get.
	Pod Settings `json:"pod,omitzero"`
	// DaemonSet is what the template of a DaemonSet gets that is created or updated.
	// To change a template rolls the DaemonSet out.
	DaemonSet Settings `json:"daemonSet,omitzero"`
}

// Match says which DaemonSets are meant: those that meet all that it gives. Nothing
// given means all.
type Match struct {
	// Namespaces are names.
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelector selects namespaces by their labels.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// Selector selects DaemonSets by their labels.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Settings are fields of a pod or of a pod template.
type Settings struct {
	// Tolerations are added where they are missing.
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// SchedulerName is set where it is default-scheduler.
	SchedulerName string `json:"schedulerName,omitempty"`
	// PriorityClassName is set where none is given.
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// Policies are the policies of a valid Configuration. They are immutable.
type Policies struct {
	list       []compiled
	validation Validation
}

type compiled struct {
	*Policy
	namespaces, daemonSets labels.Selector
}

// Parse reads a Configuration in YAML or JSON. Unknown and repeated fields are
// errors, and so is everything that Validate finds.
func Parse(content []byte) (*Policies, error) {
	data, err := yaml.YAMLToJSONStrict(content)
	if err != nil {
		return nil, err
	}
	var configuration Configuration
	strict, err := kjson.UnmarshalStrict(data, &configuration)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if configuration.APIVersion != APIVersion || configuration.Kind != Kind {
		return nil, fmt.Errorf("apiVersion is %q and kind is %q, must be %s and %s", configuration.APIVersion, configuration.Kind, APIVersion, Kind)
	}
	if err := configuration.Validate().ToAggregate(); err != nil {
		return nil, err
	}
	policies := &Policies{validation: configuration.Validation}
	for i := range configuration.Policies {
		policy := compiled{Policy: &configuration.Policies[i]}
		if policy.namespaces, err = selector(policy.Match.NamespaceSelector); err != nil {
			return nil, err
		}
		if policy.daemonSets, err = selector(policy.Match.Selector); err != nil {
			return nil, err
		}
		policies.list = append(policies.list, policy)
	}
	return policies, nil
}

// selector compiles a selector; none selects everything.
func selector(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// Validation returns what is done about findings of lint.
func (p *Policies) Validation() Validation { return p.validation }

// Len returns the number of policies.
func (p *Policies) Len() int { return len(p.list) }

// For returns the policy for a DaemonSet with those labels in that namespace, or
// one that wants nothing. Don't change it.
func (p *Policies) For(namespace string, namespaceLabels, daemonSetLabels map[string]string) *Policy {
	for i := range p.list {
		if p.list[i].matches(namespace, namespaceLabels, daemonSetLabels) {
			return p.list[i].Policy
		}
	}
	return &none
}

var none Policy

func (c *compiled) matches(namespace string, namespaceLabels, daemonSetLabels map[string]string) bool {
	return (len(c.Match.Namespaces) == 0 || slices.Contains(c.Match.Namespaces, namespace)) &&
		c.namespaces.Matches(labels.Set(namespaceLabels)) && c.daemonSets.Matches(labels.Set(daemonSetLabels))
}

// Effective returns the annotations of a DaemonSet over those of the policy.
func (p *Policy) Effective(own map[string]string) map[string]string {
	if len(p.Annotations) == 0 {
		return own
	}
	effective := maps.Clone(p.Annotations)
	maps.Copy(effective, own)
	return effective
}
