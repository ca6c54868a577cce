// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// everynode-scheduler is kube-scheduler with plugins that know DaemonSets.
package main

import (
	"maps"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info

	"everynode.dev/everynode/pkg/plugins"
)

func main() {
	registry := plugins.Registry()
	maps.Copy(registry, plugins.Community())
	os.Exit(cli.Run(newCommand(registry)))
}
