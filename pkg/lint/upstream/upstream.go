// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package upstream asks the API server's own code what it has against a DaemonSet. It
// is apart from package lint because it links all of Kubernetes, which the webhook does
// without.
package upstream

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // into legacyscheme
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // into legacyscheme
	"k8s.io/kubernetes/pkg/capabilities"

	"everynode.dev/everynode/pkg/lint"
)

// Check returns why the API server would refuse ds, and else what it would warn of.
func Check(ctx context.Context, ds *appsv1.DaemonSet) []lint.Finding {
	// The API server's flag --allow-privileged, which agents need.
	capabilities.Setup(true, 0)
	ds = ds.DeepCopy()
	if ds.Namespace == "" {
		ds.Namespace = metav1.NamespaceDefault
	}
	legacyscheme.Scheme.Default(ds)
	var internal apps.DaemonSet
	// Only an annotation is converted, to spec.templateGeneration.
	if err := legacyscheme.Scheme.Convert(ds, &internal, nil); err != nil {
		return []lint.Finding{Refusal(field.NewPath("metadata", "annotations").Key(appsv1.DeprecatedTemplateGeneration).String(), err.Error())}
	}
	// What BeforeCreate of k8s.io/apiserver/pkg/registry/rest, and PrepareForCreate of
	// k8s.io/kubernetes/pkg/registry/apps/daemonset do before the validation.
	if internal.Name == "" && internal.GenerateName != "" {
		internal.Name = "generated" // generateName is validated itself
	}
	internal.Spec.TemplateGeneration = max(1, internal.Spec.TemplateGeneration)
	podutil.DropDisabledTemplateFields(&internal.Spec.Template, nil)
	template := field.NewPath("spec", "template")
	var findings []lint.Finding
	for _, err := range appsvalidation.ValidateDaemonSet(&internal, podutil.GetValidationOptionsFromPodTemplate(&internal.Spec.Template, nil)) {
		findings = append(findings, Refusal(err.Field, err.ErrorBody()))
	}
	if len(findings) > 0 {
		return findings
	}
	for _, warning := range podutil.GetWarningsForPodTemplate(ctx, template, &internal.Spec.Template, nil) {
		at, message, ok := strings.Cut(warning, ": ")
		if !ok {
			at, message = template.String(), warning
		}
		findings = append(findings, finding(lint.Find("api-warns"), at, message))
	}
	return findings
}

// finding is one of the API server's, on one line.
func finding(rule *lint.Rule, at, message string) lint.Finding {
	return lint.Finding{
		Rule: rule.ID, Severity: rule.Severity, Field: at, Message: strings.Join(strings.Fields(message), " "), Fix: rule.Fix,
	}
}
