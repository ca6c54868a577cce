// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// variants are values for which the chart renders different objects, and the examples.
func variants(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{
		"default":           nil,
		"everything":        everything,
		"replace":           {"mode=replace"},
		"cert-manager":      {"webhook.certificates.mode=certManager"},
		"own certificates":  {"webhook.certificates.mode=secret", "webhook.certificates.secretName=mine"},
		"scheduler alone":   {"webhook.enabled=false"},
		"webhook alone":     {"scheduler.enabled=false"},
		"others' rights":    {"rbac.create=false"},
		"a name of its own": {"fullnameOverride=blue"},
		"adopt":             {`adopt.namespaceSelector.matchLabels.everynode\.dev/adopt=enabled`},
		"fail":              {"webhook.failurePolicy=Fail"},
	}
	for _, path := range examples(t) {
		all[filepath.Base(path)] = []string{path}
	}
	return all
}

// Every object is one that a real API server takes, with no field that it does not know.
func TestAPIServerTakesObjects(t *testing.T) {
	c, err := localcluster.Start(t.Context(), localcluster.Options{BinDir: *binDir, Scheduler: localcluster.Stock})
	t.Cleanup(c.Stop)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.Apply(t, c, string(deploy.NamespaceManifest))
	for name, values := range variants(t) {
		var manifests bytes.Buffer
		for key, object := range chart(t, values...) {
			if !scheme.Scheme.Recognizes(object.GroupVersionKind()) {
				// Those of the Prometheus operator and of cert-manager.
				if !slices.Contains([]string{"monitoring.coreos.com", "cert-manager.io"}, object.GroupVersionKind().Group) {
					t.Errorf("%s: %s is of an unknown kind", name, key)
				}
				continue
			}
			manifest, err := yaml.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			manifests.WriteString("---\n")
			manifests.Write(manifest)
		}
		if _, err := c.Kubectl(t.Context(), manifests.Bytes(), "apply", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// typed decodes an object and fails if it has fields that its type does not have.
func typed(t *testing.T, object map[string]any, kind schema.GroupVersionKind) runtime.Object {
	t.Helper()
	into, err := scheme.Scheme.New(kind)
	if err != nil {
		t.Fatal(err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object, into, true); err != nil {
		t.Errorf("%s: %v", kind.Kind, err)
	}
	return into
}

// No right is unlimited, and each one has its reason in a comment above it.
func TestRightsAreLimited(t *testing.T) {
	for name, values := range variants(t) {
		for key, object := range chart(t, values...) {
			var rules []rbacv1.PolicyRule
			if kind := object.GroupVersionKind(); kind.Group == rbacv1.GroupName && strings.HasSuffix(kind.Kind, "Role") {
				switch role := typed(t, object.Object, kind).(type) {
				case *rbacv1.ClusterRole:
					rules = role.Rules
				case *rbacv1.Role:
					rules = role.Rules
				}
			}
			for _, rule := range rules {
				for _, part := range slices.Concat(rule.Verbs, rule.APIGroups, rule.Resources, rule.NonResourceURLs) {
					if strings.Contains(part, "*") {
						t.Errorf("%s: %s allows %s", name, key, rule.String())
					}
				}
			}
		}
	}
	for _, path := range []string{"scheduler/rbac.yaml", "scheduler/lease.yaml", "webhook/rbac.yaml"} {
		lines := strings.Split(string(read(t, chartDir+"templates/"+path)), "\n")
		for i, line := range lines {
			if strings.Contains(line, "- apiGroups:") && !strings.Contains(lines[i-1], "#") && !explained(lines[:i]) {
				t.Errorf("%s:%d: %s has no reason", path, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// explained says whether a rule follows one that has a comment, in the same group of
// rules, for which the comment speaks too.
func explained(before []string) bool {
	for _, line := range slices.Backward(before) {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "#"):
			return true
		case trimmed == "rules:":
			return false
		}
	}
	return false
}

// A change of a configuration replaces the pods that read it, and no others.
func TestChangesReplacePods(t *testing.T) {
	checksums := func(set ...string) map[string]string {
		sums := make(map[string]string)
		for key, object := range chart(t, set...) {
			if object.GetKind() == "Deployment" {
				deployment, ok := typed(t, object.Object, object.GroupVersionKind()).(*appsv1.Deployment)
				if !ok {
					t.Fatalf("%s is no Deployment", key)
				}
				sums[object.GetName()] = deployment.Spec.Template.Annotations["checksum/config"]
			}
		}
		return sums
	}
	before := checksums()
	for change, replaced := range map[string]string{
		"scheduler.pluginConfig[0].name=DaemonSetHeadroom": "everynode-scheduler",
		"scheduler.leaderElection.retryPeriod=3s":          "everynode-scheduler",
		"webhook.policies[0].name=agents":                  "everynode-webhook",
	} {
		for name, sum := range checksums(change) {
			if changed := sum != before[name]; changed != (name == replaced) {
				t.Errorf("%s: pods of %s are replaced: %t", change, name, changed)
			}
		}
	}
}
