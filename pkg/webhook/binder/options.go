// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binder

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/cache"
)

// Options are the flags of the binder.
type Options struct {
	// SchedulerLeases are the leases of schedulers, as namespace/name, by the names of the
	// schedulers. Pods of other schedulers are never bound. Empty: nothing is.
	SchedulerLeases map[string]string
	// Lease is the lease, as namespace/name, by which the replicas choose the one that binds.
	Lease string
}

// NewOptions returns the defaults.
func NewOptions() Options {
	return Options{
		SchedulerLeases: map[string]string{"default-scheduler": "kube-system/kube-scheduler"},
		Lease:           "everynode-system/everynode-webhook",
	}
}

// AddFlags adds the flags to a set.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringToStringVar(&o.SchedulerLeases, "scheduler-leases", o.SchedulerLeases, "The lease of each scheduler, as scheduler=namespace/name. "+
		"While it is stale, pods of DaemonSets annotated everynode.dev/scheduling=auto are bound without the scheduler. Empty: they never are.")
	flags.StringVar(&o.Lease, "binder-lease", o.Lease, "Lease, as namespace/name, by which replicas choose the one that binds. Made if it is not there.")
}

// Validate returns all that is wrong, each named by its flag.
func (o *Options) Validate() []error {
	var errs []error
	check := func(flag, lease string) {
		if namespace, name, err := cache.SplitMetaNamespaceKey(lease); err != nil || namespace == "" || name == "" {
			errs = append(errs, fmt.Errorf("%s is %q, must be namespace/name", flag, lease))
		}
	}
	for _, scheduler := range slices.Sorted(maps.Keys(o.SchedulerLeases)) {
		check("--scheduler-leases: the lease of "+scheduler, o.SchedulerLeases[scheduler])
	}
	check("--binder-lease", o.Lease)
	return errs
}
