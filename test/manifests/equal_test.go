// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"sigs.k8s.io/yaml"
)

// The chart and the kustomizations are two ways to the same objects.
func TestChartAndKustomizeAreEqual(t *testing.T) {
	for name, tc := range map[string]struct {
		values     []string
		overlay    string
		components []string
	}{
		"second":  {overlay: "second"},
		"replace": {values: []string{"mode=replace"}, overlay: "replace"},
		"cert-manager": {
			values:  []string{"webhook.certificates.mode=certManager"},
			overlay: "second", components: []string{"cert-manager"},
		},
		"monitoring": {
			values:  []string{"serviceMonitor.enabled=true", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true"},
			overlay: "second", components: []string{"monitoring"},
		},
		"monitoring and cert-manager": {
			values:  []string{"serviceMonitor.enabled=true", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true", "webhook.certificates.mode=certManager"},
			overlay: "second", components: []string{"monitoring", "cert-manager"},
		},
		"adopt": {
			values:  []string{`adopt.namespaceSelector.matchLabels.everynode\.dev/adopt=enabled`},
			overlay: "second", components: []string{"adopt"},
		},
		"Kubernetes 1.36": {
			values:  []string{"scheduler.emulatedVersion=1.36"},
			overlay: "second", components: []string{"kubernetes-1.36"},
		},
		"Kubernetes 1.35": {
			values:  []string{"mode=replace", "scheduler.emulatedVersion=1.35"},
			overlay: "replace", components: []string{"kubernetes-1.35"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fromChart, fromKustomize := chart(t, tc.values...), overlay(t, tc.overlay, tc.components...)
			// Helm makes the namespace itself, and kustomize has no tests.
			delete(fromKustomize, "Namespace /everynode-system")
			delete(fromChart, "Pod everynode-system/everynode-check")
			if diff := cmp.Diff(comparison(t, fromKustomize, tc.overlay), comparison(t, fromChart, tc.overlay)); diff != "" {
				t.Errorf("they differ (-kustomize, +chart):\n%s", diff)
			}
		})
	}
}

// hash is what kustomize appends to the name of a ConfigMap.
var hash = regexp.MustCompile(`^(everynode-(?:scheduler|webhook))-[a-z0-9]{10}$`)

// comparison takes away what only one of the two has, and does not matter: Helm's own
// labels, how each of them has pods replaced when a configuration changes, and that
// kustomize's ConfigMap has the configurations of both modes.
func comparison(t *testing.T, all objects, mode string) map[string]any {
	t.Helper()
	result := make(map[string]any)
	for _, object := range all {
		labels := object.GetLabels()
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"} {
			delete(labels, label)
		}
		object.SetLabels(labels)
		unstructured.RemoveNestedField(object.Object, "spec", "template", "metadata", "annotations")
		walk(object.Object, func(text string) string { return hash.ReplaceAllString(text, "$1") })
		if volumes, ok, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "volumes"); ok {
			unstructured.RemoveNestedField(volumes[0].(map[string]any), "configMap", "items")
			_ = unstructured.SetNestedSlice(object.Object, volumes, "spec", "template", "spec", "volumes")
		}
		if object.GetKind() == "ConfigMap" {
			object.Object["data"] = decode(t, object, mode)
		}
		result[key(object)] = object.Object
	}
	return result
}

// walk changes every string in a value.
func walk(value any, change func(string) string) any {
	switch value := value.(type) {
	case map[string]any:
		for name := range value {
			value[name] = walk(value[name], change)
		}
	case []any:
		for i := range value {
			value[i] = walk(value[i], change)
		}
	case string:
		return change(value)
	}
	return value
}

// decode returns what programs read in the files of a ConfigMap, with their defaults.
func decode(t *testing.T, configMap *unstructured.Unstructured, mode string) map[string]any {
	t.Helper()
	data, _, err := unstructured.NestedStringMap(configMap.Object, "data")
	if err != nil {
		t.Fatal(err)
	}
	decoded := make(map[string]any)
	for name, content := range data {
		switch name {
		case "scheduler.yaml", mode + ".yaml":
			decoded["scheduler.yaml"], _, err = schedulerscheme.Codecs.UniversalDecoder().Decode([]byte(content), nil, nil)
		case "second.yaml", "replace.yaml":
		default:
			var value any
			err = yaml.UnmarshalStrict([]byte(content), &value)
			decoded[name] = value
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return decoded
}
