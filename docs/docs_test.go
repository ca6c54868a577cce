// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docs_test keeps what is written true.
package docs_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/preemption"
	"everynode.dev/everynode/pkg/plugins/readiness"
	"everynode.dev/everynode/pkg/webhook"
	"everynode.dev/everynode/pkg/webhook/policy"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "../Makefile")
	target := regexp.MustCompile("`make ([a-z0-9-]+)|(?m)^make ([a-z0-9-]+)")
	for path, page := range pages(t) {
		for _, match := range target.FindAllStringSubmatch(page, -1) {
			if name := match[1] + match[2]; !strings.Contains(makefile, "\n"+name+":") {
				t.Errorf("%s: make %s does not exist", path, name)
			}
		}
	}
}

func TestFilesExist(t *testing.T) {
	file := regexp.MustCompile("`((?:cmd|deploy|docs|examples|hack|pkg|test)/[A-Za-z0-9_./-]+)[ `]")
	for path, page := range pages(t) {
		for _, match := range file.FindAllStringSubmatch(page, -1) {
			if _, err := os.Stat(filepath.Join("..", match[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func TestConfigurationIsComplete(t *testing.T) {
	page := read(t, "configuration.md")
	row := func(name string) {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("configuration.md has no row for %s", name)
		}
	}
	for _, args := range []reflect.Type{reflect.TypeFor[headroom.Args](), reflect.TypeFor[preemption.Args](), reflect.TypeFor[readiness.Args]()} {
		for _, field := range reflect.VisibleFields(args) {
			if !field.Anonymous {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				row(name)
			}
		}
	}
	groups := webhook.NewOptions().Flags()
	for _, name := range []string{"API server", "Policies", "Serving"} {
		groups.FlagSet(name).VisitAll(func(flag *pflag.Flag) { row("--" + flag.Name) })
	}
	for _, annotation := range []string{daemonset.GateAnnotation, daemonset.HoldAnnotation, daemonset.PreemptAnnotation,
		daemonset.ResourcesAnnotation, daemonset.SchedulingAnnotation, readiness.RequiresAnnotation} {
		row(annotation)
	}
	for _, taint := range daemonset.DefaultStartupTaints() {
		if !strings.Contains(page, "`"+taint+"`") {
			t.Errorf("configuration.md does not mention the start-up taint %s", taint)
		}
	}
	for _, kind := range daemonset.DefaultKinds() {
		if !strings.Contains(page, "`"+kind+"`") {
			t.Errorf("configuration.md does not mention the kind %s", kind)
		}
	}
	for name := range plugins.Registry() {
		if !strings.Contains(page, "### "+name) {
			t.Errorf("configuration.md has no section on %s", name)
		}
	}
}

func TestPoliciesAreDescribed(t *testing.T) {
	page := read(t, "configuration.md")
	snippet := regexp.MustCompile("(?s)```yaml\n(apiVersion: config.everynode.dev.*?)```").FindStringSubmatch(page)
	if snippet == nil {
		t.Fatal("configuration.md shows no policies")
	}
	if _, err := policy.Parse([]byte(snippet[1])); err != nil {
		t.Error(err)
	}
	var describe func(of reflect.Type, prefix string)
	describe = func(of reflect.Type, prefix string) {
		for field := range of.Fields() {
			name := prefix + strings.Split(field.Tag.Get("json"), ",")[0]
			if field.Type.Kind() == reflect.Struct {
				describe(field.Type, name+".")
			} else if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("configuration.md does not describe %s", name)
			}
		}
	}
	describe(reflect.TypeFor[policy.Policy](), "")
	sizes := regexp.MustCompile(`(?m)^ +(\{"fluentd.*\})$`).FindStringSubmatch(page)
	if sizes == nil {
		t.Fatal("configuration.md shows no sizes")
	}
	if _, err := daemonset.ParseSizes(sizes[1]); err != nil {
		t.Error(err)
	}
}

func TestCommunityPluginsAreListed(t *testing.T) {
	page := read(t, "scheduler-plugins.md")
	for name := range plugins.Community() {
		if !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("scheduler-plugins.md does not list %s", name)
		}
	}
}

func TestScenariosAreTests(t *testing.T) {
	var tests strings.Builder
	files, err := filepath.Glob("../test/[eik]*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tests.WriteString(read(t, file))
	}
	numbers := regexp.MustCompile(`(?m)^\| ([AEFGKMTW]\d+) \|`).FindAllStringSubmatch(read(t, "scenarios.md"), -1)
	if len(numbers) == 0 {
		t.Fatal("no scenarios found")
	}
	for _, match := range numbers {
		if match[1] != "A19" && !regexp.MustCompile(`func Test`+match[1]+`[A-Z]`).MatchString(tests.String()) {
			t.Errorf("scenario %s has no test", match[1])
		}
	}
}
