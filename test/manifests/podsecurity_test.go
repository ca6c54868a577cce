// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// The pods are allowed in namespaces that enforce the strictest standard.
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for name, values := range variants(t) {
		for key, object := range chart(t, values...) {
			if object.GetKind() != "Deployment" {
				continue
			}
			deployment, ok := typed(t, object.Object, object.GroupVersionKind()).(*appsv1.Deployment)
			if !ok {
				t.Fatalf("%s is no Deployment", key)
			}
			template := deployment.Spec.Template
			if template.Spec.HostNetwork {
				// What it is for is not allowed by any standard but privileged; the rest of it is.
				template.Spec.HostNetwork = false
			}
			for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s: %s", name, key, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			if root := template.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem; root == nil || !*root {
				t.Errorf("%s: %s can write to its root file system", name, key)
			}
		}
	}
}
