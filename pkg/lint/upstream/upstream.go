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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // into legacyscheme
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // into legacyscheme
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/capabilities"

	"everynode.dev/everynode/pkg/lint"
)

// Check returns why the API server would refuse ds, or else all of its pods, or else what it
// would warn of.
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
	if findings = refusedPods(ds); len(findings) > 0 {
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

// refusedPods returns why the API server, which takes ds, would refuse the pods that the controller
// creates: podStrategy in k8s.io/kubernetes/pkg/registry/core/pod, and GetPodFromTemplate in
// k8s.io/kubernetes/pkg/controller.
func refusedPods(ds *appsv1.DaemonSet) (findings []lint.Finding) {
	template := ds.Spec.Template.DeepCopy()
	pod := &corev1.Pod{Spec: template.Spec, ObjectMeta: metav1.ObjectMeta{
		Namespace: ds.Namespace, Name: "generated", Labels: template.Labels, Annotations: template.Annotations, Finalizers: template.Finalizers,
	}}
	legacyscheme.Scheme.Default(pod)
	var internal core.Pod
	if err := legacyscheme.Scheme.Convert(pod, &internal, nil); err != nil {
		return []lint.Finding{Refusal("spec.template", err.Error())}
	}
	podutil.DropDisabledPodFields(&internal, nil)
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)
	for _, err := range corevalidation.ValidatePodCreate(&internal, options) {
		// Only a host port can be there twice, which host-port-twice says.
		if err.Type != field.ErrorTypeDuplicate {
			findings = append(findings, Refusal("spec.template."+err.Field, "it refuses every pod: "+err.ErrorBody()))
		}
	}
	return findings
}

// finding is one of the API server's, on one line.
func finding(rule *lint.Rule, at, message string) lint.Finding {
	return lint.Finding{
		Rule: rule.ID, Severity: rule.Severity, Field: at, Message: strings.Join(strings.Fields(message), " "), Fix: rule.Fix,
	}
}
