// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

func TestBodiesAreNotLogged(t *testing.T) {
	var logged ktesting.BufferTL
	log := func(ctx context.Context) {
		logger := klog.LoggerWithName(klog.LoggerWithValues(klog.FromContext(ctx), "a", 1), "name")
		logger.V(7).Info("a request")
		logger.V(8).Info("its body")
	}
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(&logged, ktesting.NewConfig(ktesting.Verbosity(10))))
	log(ctx)
	if !strings.Contains(logged.String(), "its body") {
		t.Fatal("the logger is not verbose enough to try")
	}
	logged = ktesting.BufferTL{}
	log(withoutBodies(ctx))
	if got := logged.String(); !strings.Contains(got, "a request") || strings.Contains(got, "its body") {
		t.Errorf("logged is %s", got)
	}
}
