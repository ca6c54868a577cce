// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conformance runs Kubernetes' own end-to-end tests of DaemonSets
// (k8s.io/kubernetes/test/e2e/apps) on a local cluster whose pods everynode
// places and whose DaemonSet pods pass through its webhook. Run it with
// make conformance.
package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/e2e/apps"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"

	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir            = flag.String("bin", "../../bin", "folder with the programs that make build makes")
	scheduler         = flag.String("scheduler", "everynode", "scheduler to test: everynode or stock")
	kubernetesVersion = flag.String("kubernetes", "", "minor version of the control plane: one of localcluster.Versions; default: the newest")
	artifacts         = flag.String("artifacts", "", "folder that receives the logs of the cluster; default: none are kept")
)

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	for name, value := range map[string]string{
		"ginkgo.focus":    "Daemon set",
		"ginkgo.no-color": "true",
		"ginkgo.v":        "true",
		// There is no cloud to ask for nodes, and nothing to collect from them.
		"provider":                "skeleton",
		"node-os-distro":          "custom",
		"dump-logs-on-failure":    "false",
		"allowed-not-ready-nodes": "0",
	} {
		if err := flag.Set(name, value); err != nil {
			panic(fmt.Sprintf("flag %s: %v", name, err))
		}
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run runs the tests on a cluster of their own.
func run(m *testing.M) (int, error) {
	dir, err := filepath.Abs(*binDir)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	cluster, err := localcluster.Start(ctx, localcluster.Options{
		BinDir: dir, Dir: *artifacts, Kubernetes: *kubernetesVersion, Scheduler: localcluster.Scheduler(*scheduler), Webhook: true,
		// The DaemonSet controller may drop its alarm for minReadySeconds, and looks again when anything moves. In this
		// cluster nothing does.
		Args: map[string][]string{localcluster.ControllerManager: {"--min-resync-period=10s"}},
	})
	defer cluster.Stop()
	if err != nil {
		return 0, err
	}
	if err := cluster.AddNodes(ctx, localcluster.Nodes(1, 4)...); err != nil {
		return 0, err
	}
	if err := cluster.WaitNodesReady(ctx); err != nil {
		return 0, err
	}
	framework.TestContext.KubeConfig = cluster.Kubeconfig
	framework.TestContext.KubectlPath = filepath.Join(dir, localcluster.Kubectl)
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	return m.Run(), nil
}

func TestConformance(t *testing.T) {
	e2e.RunE2ETests(t)
}
