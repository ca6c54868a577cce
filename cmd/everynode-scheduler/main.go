// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// everynode-scheduler is kube-scheduler with plugins that know DaemonSets.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	"everynode.dev/everynode/pkg/plugins"
)

func main() {
	var options []app.Option
	for name, factory := range plugins.Registry() {
		options = append(options, app.WithPlugin(name, factory))
	}
	for name, factory := range plugins.Community() {
		options = append(options, app.WithPlugin(name, factory))
	}
	command := app.NewSchedulerCommand(options...)
	command.Use = "everynode-scheduler"
	os.Exit(cli.Run(command))
}
