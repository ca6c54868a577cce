// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"everynode.dev/everynode/test/clustertest"
)

var binDir = flag.String("bin", "../../bin", "folder with helm, kustomize and promtool")

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "helm", "verify-chart") }

// run runs a tool and returns what it prints.
func run(t *testing.T, tool string, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(*binDir, tool), args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", tool, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.Bytes()
}

// objects are manifests by their kind, namespace and name.
type objects map[string]*unstructured.Unstructured

func key(object *unstructured.Unstructured) string {
	return object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName()
}

func parse(t *testing.T, manifests []byte) objects {
	t.Helper()
	all := make(objects)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if all[key(&object)] != nil {
			t.Errorf("%s is there twice", key(&object))
		}
		all[key(&object)] = &object
	}
}

// chart renders the chart as the release everynode in everynode-system, with values that are
// set or in files.
func chart(t *testing.T, set ...string) objects {
	t.Helper()
	args := []string{"template", "everynode", "../../charts/everynode", "--namespace", "everynode-system"}
	for _, value := range set {
		if strings.HasSuffix(value, ".yaml") {
			args = append(args, "--values", value)
			continue
		}
		args = append(args, "--set", value)
	}
	return parse(t, run(t, "helm", args...))
}

// everything turns on what is off by default.
var everything = []string{"networkPolicy.enabled=true", "serviceMonitor.enabled=true", "prometheusRule.enabled=true", "grafanaDashboard.enabled=true"}

// overlay builds an overlay with further components.
func overlay(t *testing.T, name string, components ...string) objects {
	t.Helper()
	dir := "../../deploy/overlays/" + name
	if len(components) > 0 {
		dir = t.TempDir()
		// kustomize takes no absolute paths.
		from, err := filepath.EvalSymlinks(dir)
		if err != nil {
			t.Fatal(err)
		}
		deploy, err := filepath.Abs("../../deploy")
		if err != nil {
			t.Fatal(err)
		}
		if deploy, err = filepath.Rel(from, deploy); err != nil {
			t.Fatal(err)
		}
		var content strings.Builder
		fmt.Fprintf(&content, "resources: [%s/overlays/%s]\ncomponents:\n", deploy, name)
		for _, component := range components {
			fmt.Fprintf(&content, "  - %s/components/%s\n", deploy, component)
		}
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return parse(t, run(t, "kustomize", "build", dir))
}
