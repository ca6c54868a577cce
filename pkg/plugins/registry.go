// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plugins lists the scheduler plugins of everynode-scheduler.
package plugins

import (
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	// The args of the scheduler-plugins are decoded by the scheduler's scheme.
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme"
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"
	"sigs.k8s.io/scheduler-plugins/pkg/noderesources"
	"sigs.k8s.io/scheduler-plugins/pkg/noderesourcetopology"
	"sigs.k8s.io/scheduler-plugins/pkg/podstate"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/loadvariationriskbalancing"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/lowriskovercommitment"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/peaks"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/targetloadpacking"

	"everynode.dev/everynode/pkg/plugins/binding"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/headroom"
	"everynode.dev/everynode/pkg/plugins/placement"
	"everynode.dev/everynode/pkg/plugins/preemption"
	"everynode.dev/everynode/pkg/plugins/queuesort"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

// Registry returns our own plugins.
func Registry() frameworkruntime.Registry {
	clusters := cluster.NewPool()
	return frameworkruntime.Registry{
		binding.Name:    binding.New,
		headroom.Name:   headroom.NewFactory(clusters),
		placement.Name:  placement.NewFactory(clusters),
		preemption.Name: preemption.NewFactory(clusters),
		queuesort.Name:  queuesort.New,
		readiness.Name:  readiness.NewFactory(clusters),
	}
}

// Community returns the plugins of sigs.k8s.io/scheduler-plugins that work with
// this version of Kubernetes, so that a cluster that uses one of them needs one
// scheduler, not two. docs/scheduler-plugins.md says what is left out and why.
func Community() frameworkruntime.Registry {
	return frameworkruntime.Registry{
		loadvariationriskbalancing.Name: loadvariationriskbalancing.New,
		lowriskovercommitment.Name:      lowriskovercommitment.New,
		networkoverhead.Name:            networkoverhead.New,
		noderesources.AllocatableName:   noderesources.NewAllocatable,
		noderesourcetopology.Name:       noderesourcetopology.New,
		peaks.Name:                      peaks.New,
		podstate.Name:                   podstate.New,
		targetloadpacking.Name:          targetloadpacking.New,
	}
}
