// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/config"
)

// The rate of events, in requests a second: client-go's default, which events have in kube-scheduler.
const (
	eventQPS   = 50
	eventBurst = 100
)

// slowEvents has events written at no more than a rate of their own. When nodes join a cluster in which many pods
// wait, there are several events for each pod. At the rate of clientConnection, which bindings need, they fill
// the queues in which the bindings wait too.
func slowEvents(ctx context.Context, c *config.Config) error {
	client, err := kubernetes.NewForConfig(eventConfig(c.KubeConfig))
	if err != nil {
		return err
	}
	c.EventBroadcaster.Shutdown()
	c.EventBroadcaster = events.NewEventBroadcasterAdapterWithContext(ctx, client)
	if c.LeaderElection == nil {
		return nil
	}
	lock, ok := c.LeaderElection.Lock.(*resourcelock.LeaseLock)
	if !ok {
		return fmt.Errorf("leaderElection.resourceLock: only leases are supported, not %s", c.ComponentConfig.LeaderElection.ResourceLock)
	}
	lock.LockConfig.EventRecorder = c.EventBroadcaster.DeprecatedNewLegacyRecorder(c.ComponentConfig.Profiles[0].SchedulerName)
	return nil
}

// eventConfig returns the configuration of the client that writes events. A negative QPS of config means no limit.
func eventConfig(config *rest.Config) *rest.Config {
	slow := rest.CopyConfig(config)
	if slow.QPS < 0 || slow.QPS > eventQPS {
		slow.QPS, slow.Burst = eventQPS, eventBurst
	}
	return slow
}

// maxEventBacklog is how many events may wait to be written. Each of them takes about 5 kB.
const maxEventBacklog = 5000

// eventLimit drops events while maxEventBacklog of them wait. client-go keeps each event in a goroutine until it is
// written, however many there are. At thousands of nodes that would be more memory than all else.
type eventLimit struct {
	// room has a token for each event that may be added. It fills as fast as events are written.
	room flowcontrol.RateLimiter
	// report has a token a minute.
	report flowcontrol.RateLimiter
}

// newEventLimit returns the limit for a client that writes qps events a second.
func newEventLimit(qps float32) *eventLimit {
	return &eventLimit{
		room:   flowcontrol.NewTokenBucketRateLimiter(qps, maxEventBacklog),
		report: flowcontrol.NewTokenBucketRateLimiter(1.0/60, 1),
	}
}

// limitedRecorder records the events that the limit lets pass.
type limitedRecorder struct {
	events.EventRecorderLogger

	limit *eventLimit
}

// Eventf implements [events.EventRecorder].
func (r *limitedRecorder) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	if r.limit.room.TryAccept() {
		r.EventRecorderLogger.Eventf(regarding, related, eventtype, reason, action, note, args...)
		return
	}
	if r.limit.report.TryAccept() {
		klog.InfoS("Events are dropped while too many wait to be written", "waiting", maxEventBacklog)
	}
}

// WithLogger implements [events.EventRecorderLogger].
func (r *limitedRecorder) WithLogger(logger klog.Logger) events.EventRecorderLogger {
	return &limitedRecorder{r.EventRecorderLogger.WithLogger(logger), r.limit}
}
