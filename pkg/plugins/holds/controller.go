// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package holds

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// The lease of the kube-controller-manager, of which the DaemonSet controller is a part
// (k8s.io/kubernetes/cmd/kube-controller-manager/app/options).
const (
	controllerNamespace = "kube-system"
	controllerLease     = "kube-controller-manager"
)

// controller tells whether the DaemonSet controller is at work: its lease is renewed
// every few seconds. It asks only while a hold is about to end. Times of the lease are
// compared with one another only, so the clocks of two machines need not agree.
type controller struct {
	leases coordinationclient.LeaseInterface
	// leader and acquired tell one leader, and one start of it, from another.
	leader   string
	acquired metav1.MicroTime
	// renewed is the latest renewal, which was seen first at seenAt. It is zero where none
	// was seen in this series of calls.
	renewed metav1.MicroTime
	seenAt  time.Time
	askedAt time.Time
	// warned: a lease that may not be read was reported.
	warned bool
	// reported is the renewal after which it was reported that no other has come, and
	// abandoned the renewal of a lease that is taken for abandoned.
	reported, abandoned metav1.MicroTime
}

const (
	// awayAfter is how long the controller does not renew its lease if it is not at work. It
	// does so every two seconds by default.
	awayAfter = 8 * time.Second
	// awayPeriod is how often it is asked for then.
	awayPeriod = 3 * time.Second
	// seriesEnd is after how long without a call a renewal that was seen says nothing.
	seriesEnd = 6 * time.Second
	// abandonedAfter is how long a lease may stay as it is before it says nothing: it may be
	// left over from controllers that elect their leader elsewhere now, or not at all.
	abandonedAfter = time.Hour
)

// confirm returns the time until which the controller is known to have been at work,
// zero if it is not known to be. started is when it began to work, zero unless that was
// after the last call.
func (c *controller) confirm(ctx context.Context, now time.Time) (until, started time.Time) {
	if now.Sub(c.askedAt) > seriesEnd {
		c.renewed = metav1.MicroTime{}
	}
	if !c.renewed.IsZero() && now.Sub(c.seenAt) > awayAfter && now.Sub(c.askedAt) < awayPeriod {
		return time.Time{}, time.Time{}
	}
	c.askedAt = now
	lease, err := c.leases.Get(ctx, controllerLease, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		// A cluster that elects no leader: there is no way to tell.
		return now, time.Time{}
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		if !c.warned {
			klog.FromContext(ctx).Error(err, "Cannot see whether the DaemonSet controller is at work: allow get on the lease", "lease", klog.KRef(controllerNamespace, controllerLease))
			c.warned = true
		}
		return now, time.Time{}
	case err != nil:
		// An API server that does not answer does not create pods either.
		return time.Time{}, time.Time{}
	}
	until, started = c.observe(lease, now)
	if until.IsZero() && started.IsZero() && c.isAbandoned(ctx, now) {
		return now, time.Time{}
	}
	return until, started
}

// isAbandoned says whether the lease is left over, and reports that it is not renewed.
func (c *controller) isAbandoned(ctx context.Context, now time.Time) bool {
	if still := now.Sub(c.seenAt); still > awayAfter {
		c.reportAway(klog.FromContext(ctx))
		if still > abandonedAfter {
			c.abandoned = c.renewed
		}
	}
	return !c.abandoned.IsZero() && c.abandoned.Equal(&c.renewed)
}

// reportAway reports once that the lease is not renewed.
func (c *controller) reportAway(logger klog.Logger) {
	if c.reported.Equal(&c.renewed) {
		return
	}
	c.reported = c.renewed
	logger.Info("The DaemonSet controller is not at work: room stays held for the pods that it would create. If nobody is meant to renew the lease, delete it",
		"lease", klog.KRef(controllerNamespace, controllerLease), "holder", c.leader, "renewed", c.renewed, "holdsEndAfter", abandonedAfter)
}

func (c *controller) observe(lease *coordinationv1.Lease, now time.Time) (until, started time.Time) {
	leader := ptr.Deref(lease.Spec.HolderIdentity, "")
	acquired, renewed := ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{})
	switch gap := renewed.Sub(c.renewed.Time); {
	case leader != c.leader || !acquired.Equal(&c.acquired):
		c.leader, c.acquired = leader, acquired
		started = acquired.Time
	case c.renewed.IsZero() || gap == 0:
	case gap > awayAfter:
		started = now
	default:
		// It was renewed after the renewal before had been seen.
		until = c.seenAt
	}
	if !renewed.Equal(&c.renewed) {
		c.renewed, c.seenAt = renewed, now
	}
	return until, started
}
