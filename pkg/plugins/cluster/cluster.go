// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster gives the plugins of one scheduler what they know in common.
package cluster

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/plugins/daemonsets"
	"everynode.dev/everynode/pkg/plugins/holds"
	"everynode.dev/everynode/pkg/plugins/metrics"
	"everynode.dev/everynode/pkg/plugins/views"
)

// Pool holds one Cluster per scheduler, so that the plugins of all its profiles
// share it.
type Pool struct {
	mu       sync.Mutex
	clusters map[informers.SharedInformerFactory]*Cluster
}

// NewPool returns an empty Pool.
func NewPool() *Pool {
	return &Pool{clusters: make(map[informers.SharedInformerFactory]*Cluster)}
}

// Get returns the Cluster of the scheduler that handle belongs to. Call it while
// plugins are being made: the scheduler starts its informers afterwards, and ends
// with ctx.
func (p *Pool) Get(ctx context.Context, handle fwk.Handle) (*Cluster, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	factory := handle.SharedInformerFactory()
	if known, ok := p.clusters[factory]; ok {
		return known, nil
	}
	all, err := daemonsets.New(ctx, factory, handle.ClientSet())
	if err != nil {
		return nil, fmt.Errorf("watching DaemonSets: %w", err)
	}
	pods := factory.Core().V1().Pods().Informer()
	if _, indexed := pods.GetIndexer().GetIndexers()[byNode]; !indexed {
		if err := pods.AddIndexers(cache.Indexers{byNode: nodeOf}); err != nil {
			return nil, fmt.Errorf("indexing pods by node: %w", err)
		}
	}
	c := &Cluster{DaemonSets: all, ctx: ctx, handle: handle, pods: pods.GetIndexer()}
	if handle.ClientSet() != nil {
		go all.ReportUntilSynced(ctx)
	}
	p.clusters[factory] = c
	metrics.Serve(c)
	return c, nil
}

// Cluster is what the plugins of one scheduler know in common.
type Cluster struct {
	*daemonsets.DaemonSets

	ctx    context.Context //nolint:containedctx // the scheduler's: goroutines that are started later end with it
	handle fwk.Handle
	pods   cache.Indexer

	mu    sync.Mutex
	views []*views.Views
	holds *holds.Holds
}

// byNode indexes pods by the node that they are bound or pinned to.
const byNode = "everynode.dev/node"

// nodeOf returns no node for pods that have ended: they take nothing.
func nodeOf(obj any) ([]string, error) {
	pod := obj.(*corev1.Pod)
	node, ok := daemonset.PinnedNode(pod)
	if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil, nil
	}
	return []string{node}, nil
}

// PodsOn returns the pods that are bound to the named node, or pinned to it, as the API
// server has told last. The scheduler's snapshot may be older, and has the pods in
// addition that are about to be bound.
func (c *Cluster) PodsOn(node string) []*corev1.Pod {
	// The index exists, so there is no error.
	objects, _ := c.pods.ByIndex(byNode, node)
	pods := make([]*corev1.Pod, len(objects))
	for i, obj := range objects {
		pods[i] = obj.(*corev1.Pod)
	}
	return pods
}

// Views returns the views of nodes in that scope. Plugins with the same scope share
// what one of them has computed.
func (c *Cluster) Views(scope daemonset.Scope) (*views.Views, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.views {
		if reflect.DeepEqual(known.Scope, scope) {
			return known, nil
		}
	}
	made, err := views.New(scope, c.handle.SharedInformerFactory().Core().V1().Nodes().Informer())
	if err != nil {
		return nil, fmt.Errorf("watching nodes: %w", err)
	}
	c.views = append(c.views, made)
	return made, nil
}

// Hold has holds end as options say. All profiles of a scheduler share the nodes, so
// they have to say the same.
func (c *Cluster) Hold(options holds.Options) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds != nil {
		if !reflect.DeepEqual(c.holds.Options, options) {
			return fmt.Errorf("the profiles of a scheduler need the same holdFor, startupFor and startupTaints: "+
				"one has %s, %s and %q, another %s, %s and %q",
				c.holds.HoldFor, c.holds.StartupFor, c.holds.Startup, options.HoldFor, options.StartupFor, options.Startup)
		}
		return nil
	}
	if c.handle.ClientSet() == nil {
		// A scheduler that only tries pods on objects that it was given: no time passes.
		return nil
	}
	made, err := holds.New(options, holds.Sources{
		DaemonSets: c.DaemonSets,
		Informers:  c.handle.SharedInformerFactory(),
		Client:     c.handle.ClientSet(),
		Recorder:   c.handle.EventRecorder(),
		PodsOn:     c.PodsOn,
		Clock:      clock.RealClock{},
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	c.holds = made
	go made.Run(c.ctx)
	return nil
}
