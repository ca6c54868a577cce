// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

const (
	// staleAfter is how long a lease is not renewed before it counts as stale. A standby needs up to 19.4 s to take over
	// with kube-scheduler's defaults: 15 s of leaseDuration, and 2.2 times the retryPeriod of 2 s. A longer
	// leaseDuration counts twice.
	staleAfter = 30 * time.Second
	// maxGap is the longest time between two reads of a lease in which it can be said not to have been renewed.
	maxGap = 10 * time.Second
)

// leases says which leases are not renewed. One that cannot be read counts as renewed.
type leases struct {
	client coordinationclient.LeasesGetter
	clock  clock.PassiveClock

	mu sync.Mutex // protects seen
	// seen is what was read of each lease, by namespace/name.
	seen map[string]*observation
}

// observation is what was read of a lease. Renewals are compared with one another only, so the clocks of two machines
// need not agree.
type observation struct {
	// renewed is the last renewal, which was seen first at since.
	renewed metav1.MicroTime
	since   time.Time
	// readAt is when the lease was read last.
	readAt time.Time
	state  leaseState
}

// stale reads a lease, named namespace/name, and says whether it is stale.
func (l *leases) stale(ctx context.Context, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen[key]
	if seen == nil {
		seen = &observation{state: leaseRenewed}
		l.seen[key] = seen
	}
	before := seen.state
	err := l.read(ctx, key, seen)
	if ctx.Err() != nil {
		return false
	}
	observeLease(key, seen.state)
	if seen.state != before {
		logger := klog.FromContext(ctx).WithValues("lease", key)
		switch seen.state {
		case leaseUnreadable:
			logger.Error(err, "Cannot read the lease of a scheduler, which counts as at work: check --scheduler-leases and the Role")
		case leaseStale:
			logger.Info("Nobody renews the lease of a scheduler: DaemonSet pods are bound without it", "notRenewedFor", l.clock.Since(seen.since))
		default:
			logger.Info("The lease of a scheduler is renewed")
		}
	}
	return seen.state == leaseStale
}

// read brings what was seen of a lease up to date.
func (l *leases) read(ctx context.Context, key string, seen *observation) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxGap/2)
	defer cancel()
	lease, err := l.client.Leases(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		seen.state = leaseUnreadable
		return err
	}
	now, renewed := l.clock.Now(), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{})
	// While the API server did not answer, the scheduler could not renew its lease either.
	if gap := now.Sub(seen.readAt); gap > maxGap || !renewed.Equal(&seen.renewed) {
		seen.renewed, seen.since = renewed, now
	}
	seen.readAt, seen.state = now, leaseRenewed
	duration := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	if now.Sub(seen.since) >= max(staleAfter, 2*duration) {
		seen.state = leaseStale
	}
	return nil
}
