// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/klog/v2"
)

// checkAPIServer waits for the API server and returns an error if it is older than the version of Kubernetes that
// this program works as. It would wait for ever for kinds that the API server does not have.
// See https://kubernetes.io/releases/version-skew-policy/#kube-controller-manager-kube-scheduler-and-cloud-controller-manager.
func checkAPIServer(ctx context.Context, client discovery.ServerVersionInterface, emulated *version.Version) error {
	var found *version.Version
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		info, err := client.ServerVersion()
		if err == nil {
			found, err = version.ParseGeneric(info.GitVersion)
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("The API server did not tell its version yet", "err", err)
		}
		return err == nil, nil
	})
	if err != nil {
		return nil //nolint:nilerr // the program ends
	}
	if found.Major() > emulated.Major() || (found.Major() == emulated.Major() && found.Minor() >= emulated.Minor()) {
		return nil
	}
	return fmt.Errorf("the API server is of version %s, and this scheduler works as version %d.%d: start it with --emulated-version=%d.%d",
		found, emulated.Major(), emulated.Minor(), found.Major(), found.Minor())
}
