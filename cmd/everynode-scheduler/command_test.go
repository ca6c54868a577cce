// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"k8s.io/client-go/rest"
)

func TestEventsAreSlow(t *testing.T) {
	for name, tc := range map[string]struct{ config, want rest.Config }{
		"faster":         {rest.Config{QPS: 1000, Burst: 2000}, rest.Config{QPS: 50, Burst: 100}},
		"without limit":  {rest.Config{QPS: -1}, rest.Config{QPS: 50, Burst: 100}},
		"the default":    {rest.Config{QPS: 50, Burst: 100}, rest.Config{QPS: 50, Burst: 100}},
		"slower already": {rest.Config{QPS: 10, Burst: 20}, rest.Config{QPS: 10, Burst: 20}},
	} {
		got := eventConfig(&tc.config)
		if got.QPS != tc.want.QPS || got.Burst != tc.want.Burst {
			t.Errorf("%s: %v requests a second and bursts of %d, want %v and %d", name, got.QPS, got.Burst, tc.want.QPS, tc.want.Burst)
		}
	}
}
