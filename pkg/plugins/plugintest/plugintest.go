// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plugintest runs a scheduler plugin for tests, on informers that are
// filled from a fake client.
package plugintest

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

// Scheduler stands for the scheduler that a plugin runs in.
type Scheduler struct {
	Client *fake.Clientset
	Handle fwk.Handle
	// Activated receives what plugins ask the scheduling queue to try again.
	Activated chan map[string]*corev1.Pod
	factory   informers.SharedInformerFactory
}

// NewScheduler returns a scheduler for a cluster that holds objects.
func NewScheduler(tb testing.TB, objects ...runtime.Object) *Scheduler {
	tb.Helper()
	client := fake.NewClientset(objects...)
	s := &Scheduler{
		Client:    client,
		Activated: make(chan map[string]*corev1.Pod, 100),
		factory:   informers.NewSharedInformerFactory(client, 0),
	}
	framework, err := frameworkruntime.NewFramework(tb.Context(), nil, nil,
		frameworkruntime.WithClientSet(client), frameworkruntime.WithInformerFactory(s.factory), frameworkruntime.WithPodActivator(s))
	if err != nil {
		tb.Fatal(err)
	}
	s.Handle = framework
	return s
}

// Start fills the informers. Make the plugins before.
func (s *Scheduler) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	s.factory.Start(ctx.Done())
	tb.Cleanup(func() {
		cancel()
		s.factory.Shutdown()
	})
	s.factory.WaitForCacheSync(ctx.Done())
}

// Plugin makes a plugin and starts the scheduler. args are JSON, or "" for none.
func (s *Scheduler) Plugin(tb testing.TB, factory frameworkruntime.PluginFactory, args string) fwk.Plugin {
	tb.Helper()
	plugin, err := factory(tb.Context(), Args(args), s.Handle)
	if err != nil {
		tb.Fatal(err)
	}
	s.Start(tb)
	return plugin
}

// Args returns args as the scheduler hands them to a plugin.
func Args(args string) runtime.Object {
	if args == "" {
		return nil
	}
	return &runtime.Unknown{Raw: []byte(args), ContentType: runtime.ContentTypeJSON}
}

// Activate implements [fwk.PodActivator].
func (s *Scheduler) Activate(_ klog.Logger, pods map[string]*corev1.Pod) {
	s.Activated <- pods
}
