// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/lint"
)

// Validate returns all that is wrong, each named by its field.
func (c *Configuration) Validate() field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range c.Policies {
		policy, path := &c.Policies[i], field.NewPath("policies").Index(i)
		if policy.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "it identifies the policy in the audit log"))
		} else if names.Has(policy.Name) {
			errs = append(errs, field.Duplicate(path.Child("name"), policy.Name))
		}
		names.Insert(policy.Name)
		errs = append(errs, policy.validate(path)...)
	}
	return append(errs, c.Validation.validate(field.NewPath("validation"))...)
}

func (v *Validation) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if modes := []ValidationMode{ValidationDeny, ValidationWarn, ValidationOff}; v.Mode != "" && !slices.Contains(modes, v.Mode) {
		errs = append(errs, field.NotSupported(path.Child("mode"), v.Mode, modes))
	}
	for i, id := range v.Ignore {
		if !slices.ContainsFunc(lint.Rules(), func(rule lint.Rule) bool { return rule.ID == id }) {
			errs = append(errs, field.Invalid(path.Child("ignore").Index(i), id, "there is no such rule: docs/lint.md lists them"))
		}
	}
	return errs
}

func (p *Policy) validate(path *field.Path) field.ErrorList {
	errs := p.Match.validate(path.Child("match"))
	for _, key := range slices.Sorted(maps.Keys(p.Annotations)) {
		if err := daemonset.ValidateAnnotation(key, p.Annotations[key]); err != nil {
			errs = append(errs, field.Invalid(path.Child("annotations").Key(key), p.Annotations[key], err.Error()))
		}
	}
	errs = append(errs, p.Pod.validate(path.Child("pod"))...)
	return append(errs, p.DaemonSet.validate(path.Child("daemonSet"))...)
}

func (m *Match) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range m.Namespaces {
		errs = append(errs, invalid(path.Child("namespaces").Index(i), name, validation.IsDNS1123Label(name))...)
	}
	options := metavalidation.LabelSelectorValidationOptions{}
	errs = append(errs, metavalidation.ValidateLabelSelector(m.NamespaceSelector, options, path.Child("namespaceSelector"))...)
	return append(errs, metavalidation.ValidateLabelSelector(m.Selector, options, path.Child("selector"))...)
}

func (s *Settings) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range s.Tolerations {
		errs = append(errs, validateToleration(&s.Tolerations[i], path.Child("tolerations").Index(i))...)
	}
	if s.SchedulerName != "" {
		errs = append(errs, invalid(path.Child("schedulerName"), s.SchedulerName, validation.IsDNS1123Subdomain(s.SchedulerName))...)
	}
	if s.PriorityClassName != "" {
		errs = append(errs, invalid(path.Child("priorityClassName"), s.PriorityClassName, validation.IsDNS1123Subdomain(s.PriorityClassName))...)
	}
	return errs
}

// validateToleration refuses what the API server would refuse in a pod
// (ValidateTolerations in k8s.io/kubernetes/pkg/apis/core/validation): the pods of all
// DaemonSets that the policy matches could not be created.
func validateToleration(t *corev1.Toleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key == "" {
		errs = append(errs, field.Required(path.Child("key"),
			"without a key all taints are tolerated, also those that drain a node: name the taints, or write it into the DaemonSet itself"))
	} else {
		errs = append(errs, invalid(path.Child("key"), t.Key, validation.IsQualifiedName(t.Key))...)
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		errs = append(errs, invalid(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	case corev1.TolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty if operator is Exists"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
	}
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	if t.Effect != "" && !slices.Contains(effects, t.Effect) {
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects))
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		errs = append(errs, field.Invalid(path.Child("tolerationSeconds"), *t.TolerationSeconds, "needs the effect NoExecute"))
	}
	return errs
}

func invalid(path *field.Path, value string, problems []string) field.ErrorList {
	var errs field.ErrorList
	for _, problem := range problems {
		errs = append(errs, field.Invalid(path, value, problem))
	}
	return errs
}
