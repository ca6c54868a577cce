// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	testingclock "k8s.io/utils/clock/testing"
)

func TestStale(t *testing.T) {
	// A step lasts for so long, the lease is read every two seconds, and then the state has to be so.
	type step struct {
		lasts time.Duration
		// renews says whether the lease is renewed, exists whether it can be read, and away whether it is not read.
		renews, missing, away bool
		want                  leaseState
	}
	const second = time.Second
	tests := map[string]struct {
		duration int32
		steps    []step
	}{
		"renewed": {15, []step{{lasts: 60 * second, renews: true, want: leaseRenewed}}},
		"not yet": {15, []step{{lasts: 60 * second, renews: true, want: leaseRenewed}, {lasts: 28 * second, want: leaseRenewed}}},
		"stale, and back at the first renewal": {15, []step{
			{lasts: 10 * second, renews: true, want: leaseRenewed}, {lasts: 30 * second, want: leaseStale}, {lasts: 2 * second, renews: true, want: leaseRenewed},
		}},
		"another leader after the longest change of leaders": {15, []step{
			{lasts: 10 * second, renews: true, want: leaseRenewed}, {lasts: 20 * second, want: leaseRenewed}, {lasts: 60 * second, renews: true, want: leaseRenewed},
		}},
		"never renewed since the start": {15, []step{{lasts: 28 * second, want: leaseRenewed}, {lasts: 4 * second, want: leaseStale}}},
		"a lease that lasts longer":     {60, []step{{lasts: 116 * second, want: leaseRenewed}, {lasts: 6 * second, want: leaseStale}}},
		"given up by a leader that ended": {1, []step{
			{lasts: 10 * second, renews: true, want: leaseRenewed}, {lasts: 28 * second, want: leaseRenewed}, {lasts: 4 * second, want: leaseStale},
		}},
		"a lease that cannot be read": {15, []step{{lasts: 60 * second, missing: true, want: leaseUnreadable}}},
		"an API server that was away for a moment": {15, []step{
			{lasts: 40 * second, want: leaseStale}, {lasts: 4 * second, missing: true, want: leaseUnreadable}, {lasts: 2 * second, want: leaseStale},
		}},
		"an API server that was away, so that nobody could renew": {15, []step{
			{lasts: 40 * second, want: leaseStale}, {lasts: 60 * second, missing: true, want: leaseUnreadable},
			{lasts: 28 * second, want: leaseRenewed}, {lasts: 4 * second, want: leaseStale},
		}},
		"a reader that was stopped": {15, []step{
			{lasts: 10 * second, renews: true, want: leaseRenewed}, {lasts: 60 * second, away: true, want: leaseRenewed}, {lasts: 28 * second, want: leaseRenewed},
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			clock := testingclock.NewFakePassiveClock(time.Unix(1000, 0))
			lease := &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-scheduler"},
				// Its writer's clock is an hour ahead.
				Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: &tc.duration, RenewTime: new(metav1.NewMicroTime(clock.Now().Add(time.Hour)))},
			}
			client := fake.NewClientset(lease)
			l := &leases{client: client.CoordinationV1(), clock: clock, seen: make(map[string]*observation)}
			for i, step := range tc.steps {
				stored := client.CoordinationV1().Leases("kube-system")
				if step.missing {
					if err := stored.Delete(t.Context(), lease.Name, metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				got := false
				for range step.lasts / period {
					clock.SetTime(clock.Now().Add(period))
					if step.renews {
						lease.Spec.RenewTime = new(metav1.NewMicroTime(lease.Spec.RenewTime.Add(period)))
						if _, err := stored.Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					if !step.away {
						got = l.stale(t.Context(), "kube-system/kube-scheduler")
					}
				}
				if state := l.seen["kube-system/kube-scheduler"].state; state != step.want || got != (step.want == leaseStale) {
					t.Fatalf("after step %d the lease is %s (stale: %t), want %s", i, state, got, step.want)
				}
				if step.missing {
					if _, err := stored.Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
