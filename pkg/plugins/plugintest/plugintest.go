// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plugintest runs a scheduler plugin for tests, on informers that are
// filled from a fake client.
package plugintest

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

// Scheduler stands for the scheduler that a plugin runs in.
type Scheduler struct {
	Client *fake.Clientset
	Handle fwk.Handle
	// Activated receives what plugins ask the scheduling queue to try again.
	Activated chan map[string]*corev1.Pod
	// Events receives what plugins report.
	Events  *events.FakeRecorder
	factory informers.SharedInformerFactory
}

// NewScheduler returns a scheduler for a cluster that holds objects.
func NewScheduler(tb testing.TB, objects ...runtime.Object) *Scheduler {
	tb.Helper()
	client := fake.NewClientset(objects...)
	s := &Scheduler{
		Client:    client,
		Activated: make(chan map[string]*corev1.Pod, 100),
		Events:    events.NewFakeRecorder(100),
		factory:   informers.NewSharedInformerFactory(client, 0),
	}
	var pods []*corev1.Pod
	var nodes []*corev1.Node
	for _, object := range objects {
		switch object := object.(type) {
		case *corev1.Pod:
			pods = append(pods, object)
		case *corev1.Node:
			nodes = append(nodes, object)
		}
	}
	framework, err := frameworkruntime.NewFramework(tb.Context(), nil, nil,
		frameworkruntime.WithClientSet(client), frameworkruntime.WithInformerFactory(s.factory),
		frameworkruntime.WithSnapshotSharedLister(schedulercache.NewSnapshot(pods, nodes)),
		frameworkruntime.WithPodActivator(s), frameworkruntime.WithEventRecorder(s.Events))
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
	// A change between an informer's list and its watch would be lost.
	informers := len(s.factory.WaitForCacheSync(ctx.Done()))
	if err := wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) {
		watches := 0
		for _, action := range s.Client.Actions() {
			if action.GetVerb() == "watch" {
				watches++
			}
		}
		return watches >= informers, nil
	}); err != nil {
		tb.Fatal(err)
	}
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

// Hint asks the plugin's queueing hint for event about pod, which the plugin has
// refused. A hint that returns an error has to return Queue with it.
func Hint(tb testing.TB, plugin fwk.EnqueueExtensions, event fwk.ClusterEvent, pod *corev1.Pod, oldObj, newObj any) fwk.QueueingHint {
	tb.Helper()
	events, err := plugin.EventsToRegister(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	i := slices.IndexFunc(events, func(registered fwk.ClusterEventWithHint) bool {
		return registered.Event.Resource == event.Resource && registered.Event.ActionType&event.ActionType == event.ActionType
	})
	if i < 0 {
		tb.Fatalf("%v is not registered", event)
	}
	hint, err := events[i].QueueingHintFn(klog.Background(), pod, oldObj, newObj)
	if err != nil && hint != fwk.Queue {
		tb.Errorf("an error has to queue the pod, not %v", hint)
	}
	return hint
}
