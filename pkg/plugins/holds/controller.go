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
// every few seconds. Only changes of the lease count, so that the clocks of two machines
// need not agree. It asks only while a hold is about to end.
type controller struct {
	leases coordinationclient.LeaseInterface
	// leader and acquired tell one leader, and one start of it, from another.
	leader   string
	acquired metav1.MicroTime
	// renewed is the renewal that was seen first at seenAt.
	renewed metav1.MicroTime
	seenAt  time.Time
	askedAt time.Time
	// known: the fields above are those of a lease that was read.
	known bool
	// warned: a lease that may not be read was reported.
	warned bool
}

// confirm returns the time until which the controller is known to have been at work,
// zero if it is not known to be, and, where another leader has started since the last
// call, the time of it.
func (c *controller) confirm(ctx context.Context, now time.Time) (until, started time.Time) {
	if c.known && now.Sub(c.seenAt) > awayAfter && now.Sub(c.askedAt) < awayPeriod {
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
	return c.observe(lease, now)
}

// A controller whose lease was not renewed for awayAfter, which is how long a lease lasts
// by default, is asked for every awayPeriod.
const (
	awayAfter  = 15 * time.Second
	awayPeriod = 3 * time.Second
)

func (c *controller) observe(lease *coordinationv1.Lease, now time.Time) (until, started time.Time) {
	leader := ptr.Deref(lease.Spec.HolderIdentity, "")
	acquired, renewed := ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{})
	if leader != c.leader || !acquired.Equal(&c.acquired) {
		if started = acquired.Time; started.After(now) {
			started = now
		}
	}
	if c.known && leader == c.leader && !renewed.Equal(&c.renewed) {
		// It was renewed after the last call.
		until = c.seenAt
	}
	if !c.known || leader != c.leader || !renewed.Equal(&c.renewed) {
		c.renewed, c.seenAt = renewed, now
	}
	c.leader, c.acquired, c.known = leader, acquired, true
	return until, started
}
