// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane is the control plane of Kubernetes in one program: etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler. It compiles with every
// version of Kubernetes that everynode runs on; kubernetes-*.mod beside this folder say
// which these are.
package controlplane

import (
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// The names under which the program starts itself again.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Run runs the component that args[1] names, with the further arguments, and returns its
// exit code. ok is false if args[1] names none.
func Run(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	os.Args = args[1:]
	switch args[1] {
	case Etcd:
		return runEtcd(args[2:]), true
	case APIServer:
		return cli.Run(apiserver.NewAPIServerCommand()), true
	case ControllerManager:
		return cli.Run(controllermanager.NewControllerManagerCommand()), true
	case Scheduler:
		return cli.Run(scheduler.NewSchedulerCommand()), true
	}
	os.Args = args
	return 0, false
}

// runEtcd serves clients on a socket: no port, and only this user can open it.
func runEtcd(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: etcd DATA-DIR SOCKET")
		return 2
	}
	config := embed.NewConfig()
	config.Dir = args[0]
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: args[1]}}
	// It has no peers. What it advertises has to be an address, which is not used.
	config.ListenPeerUrls = nil
	advertised := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.AdvertiseClientUrls, config.AdvertisePeerUrls = advertised, advertised
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// A cluster that lives as long as its process has nothing to save from a power cut.
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, <-etcd.Err())
	return 1
}
