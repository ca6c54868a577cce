// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package queuesort has DaemonSet pods scheduled before ordinary pods of the same
// priority.
package queuesort

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Sort orders the scheduling queue by priority, then pinned DaemonSet pods first,
// then by time. It replaces PrioritySort.
type Sort struct{}

var _ fwk.QueueSortPlugin = &Sort{}

// Name is the name of the plugin in scheduler configurations.
const Name = "DaemonSetSort"

// Name returns the name of the plugin.
func (pl *Sort) Name() string {
	return Name
}

// Less says whether a is scheduled before b. It compares three keys one after the
// other, each of which is ordered totally, so that it is a strict weak order: a
// heap needs one.
func (pl *Sort) Less(a, b fwk.QueuedEntityInfo) bool {
	if a.GetPriority() != b.GetPriority() {
		return a.GetPriority() > b.GetPriority()
	}
	if first := pinnedDaemon(a); first != pinnedDaemon(b) {
		return first
	}
	return a.GetTimestamp().Before(b.GetTimestamp())
}

// pinnedDaemon says whether entity is a pinned DaemonSet pod. A pod group is none.
func pinnedDaemon(entity fwk.QueuedEntityInfo) bool {
	queued, ok := entity.(*framework.QueuedPodInfo)
	return ok && daemonset.IsPinnedDaemon(queued.GetPod())
}

// New is the factory of the plugin, which takes no args.
func New(_ context.Context, rawArgs runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	if err := pluginargs.Load(Name, rawArgs, &pluginargs.None{}); err != nil {
		return nil, err
	}
	return &Sort{}, nil
}

var _ frameworkruntime.PluginFactory = New
