// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package plugins_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"

	"everynode.dev/everynode/pkg/plugins"
	"everynode.dev/everynode/pkg/plugins/plugintest"
)

// Every shipped configuration is loaded as the scheduler loads it, and each of
// our plugins that it names is made with the args it gives.
func TestShippedConfigurations(t *testing.T) {
	for _, name := range []string{"replace.yaml", "second.yaml"} {
		t.Run(name, func(t *testing.T) {
			file := "../../deploy/scheduler-config/" + name
			config, err := options.LoadConfigFromFile(klog.Background(), file)
			if err != nil {
				t.Fatal(err)
			}
			// The API server's address comes from a flag.
			config.ClientConnection.Kubeconfig = os.DevNull
			if err := validation.ValidateKubeSchedulerConfiguration(config); err != nil {
				t.Error(err)
			}
			for _, profile := range config.Profiles {
				enabled := ours(&profile)
				if len(enabled) != len(plugins.Registry()) {
					t.Errorf("profile %s enables %d of our %d plugins", profile.SchedulerName, len(enabled), len(plugins.Registry()))
				}
				scheduler := plugintest.NewScheduler(t)
				for name := range enabled {
					plugin, err := plugins.Registry()[name](t.Context(), nil, scheduler.Handle)
					if err != nil {
						t.Errorf("profile %s: %v", profile.SchedulerName, err)
						continue
					}
					if plugin.Name() != name {
						t.Errorf("the plugin registered as %s calls itself %s", name, plugin.Name())
					}
				}
			}
		})
	}
}

// The snippet in each plugin's README is one that the scheduler takes.
func TestSnippetsOfReadmes(t *testing.T) {
	files, err := filepath.Glob("*/README.md")
	if err != nil || len(files) != len(plugins.Registry()) {
		t.Fatalf("%d plugins have these READMEs: %v, %v", len(plugins.Registry()), files, err)
	}
	snippet := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	for _, file := range files {
		t.Run(filepath.Dir(file), func(t *testing.T) {
			page, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found := snippet.FindSubmatch(page)
			if found == nil {
				t.Fatal("there is no snippet")
			}
			profile := strings.ReplaceAll(strings.TrimSuffix(string(found[1]), "\n"), "\n", "\n    ")
			path := filepath.Join(t.TempDir(), "config.yaml")
			//nolint:gosec // the path is our own
			if err := os.WriteFile(path, []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n  - schedulerName: test\n    "+profile), 0o600); err != nil {
				t.Fatal(err)
			}
			config, err := options.LoadConfigFromFile(klog.Background(), path)
			if err != nil {
				t.Fatal(err)
			}
			enabled := ours(&config.Profiles[0])
			if len(enabled) != 1 {
				t.Fatalf("the snippet enables %v", enabled)
			}
			for name := range enabled {
				if !strings.HasPrefix(string(page), "# "+name+"\n") {
					t.Errorf("the page of another plugin than %s", name)
				}
				var args runtime.Object
				for _, config := range config.Profiles[0].PluginConfig {
					if config.Name == name {
						args = config.Args
					}
				}
				if _, err := plugins.Registry()[name](t.Context(), args, plugintest.NewScheduler(t).Handle); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// ours returns the plugins of ours that profile enables.
func ours(profile *schedulerapi.KubeSchedulerProfile) map[string]bool {
	enabled := make(map[string]bool)
	for _, plugin := range profile.Plugins.MultiPoint.Enabled {
		if _, ok := plugins.Registry()[plugin.Name]; ok {
			enabled[plugin.Name] = true
		}
	}
	return enabled
}

// One plugin that filters or scores without signing turns batching off for all
// pods of its profile (SignPlugin in k8s.io/kube-scheduler/framework).
func TestEveryPluginOfOursSigns(t *testing.T) {
	for name, factory := range plugins.Registry() {
		plugin, err := factory(t.Context(), nil, plugintest.NewScheduler(t).Handle)
		if err != nil {
			t.Fatal(err)
		}
		_, filters := plugin.(fwk.FilterPlugin)
		_, scores := plugin.(fwk.ScorePlugin)
		if _, signs := plugin.(fwk.SignPlugin); (filters || scores) && !signs {
			t.Errorf("%s does not implement SignPlugin", name)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	for name := range plugins.Community() {
		if _, ok := plugins.Registry()[name]; ok {
			t.Errorf("%s is registered twice", name)
		}
	}
}
