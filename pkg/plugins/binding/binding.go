// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package binding keeps the bindings of ordinary pods from delaying those of DaemonSet pods.
package binding

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultbinder"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/pluginargs"
)

// Binding binds pods as DefaultBinder does, which it replaces. At most Args.MaxInFlight requests for ordinary
// pods are under way at a time. Requests for DaemonSet pods never wait here, and at the client and the API server
// they find no long queue in front of them.
type Binding struct {
	fwk.BindPlugin // DefaultBinder

	inFlight chan struct{}
}

var _ fwk.BindPlugin = &Binding{}

// Name is the name of the plugin in scheduler configurations.
const Name = "DaemonSetBinding"

// Args are the arguments of the plugin.
type Args struct {
	// MaxInFlight is how many ordinary pods are bound at a time, at least 1. Default: 16.
	MaxInFlight int `json:"maxInFlight"`
}

// Validate returns what is wrong with the args.
func (a *Args) Validate(path *field.Path) error {
	if a.MaxInFlight < 1 {
		return field.Invalid(path.Child("maxInFlight"), a.MaxInFlight, "must be at least 1")
	}
	return nil
}

// Name returns the name of the plugin.
func (pl *Binding) Name() string {
	return Name
}

// Bind binds pod to the node. It returns when the API server has answered, or with an error when ctx ends.
func (pl *Binding) Bind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodeName string) *fwk.Status {
	if !daemonset.IsPinnedDaemon(pod) {
		select {
		case pl.inFlight <- struct{}{}:
			defer func() { <-pl.inFlight }()
		case <-ctx.Done():
			return fwk.AsStatus(context.Cause(ctx))
		}
	}
	return pl.BindPlugin.Bind(ctx, state, pod, nodeName)
}

// New is the factory of the plugin.
func New(ctx context.Context, rawArgs runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	args := Args{MaxInFlight: 16}
	if err := pluginargs.Load(Name, rawArgs, &args); err != nil {
		return nil, err
	}
	binder, err := defaultbinder.New(ctx, nil, handle)
	if err != nil {
		return nil, err
	}
	return &Binding{BindPlugin: binder.(fwk.BindPlugin), inFlight: make(chan struct{}, args.MaxInFlight)}, nil
}

var _ frameworkruntime.PluginFactory = New
