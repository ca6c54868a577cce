// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
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

// No more than maxEventBacklog events wait to be written.
func TestEventBacklogIsLimited(t *testing.T) {
	written := events.NewFakeRecorder(2 * maxEventBacklog)
	var recorder events.EventRecorderLogger = &limitedRecorder{written, newEventLimit(0.001)}
	for range maxEventBacklog {
		recorder.Eventf(&corev1.Pod{}, nil, corev1.EventTypeNormal, "Scheduled", "Binding", "to %s", "node-1")
	}
	if got := len(written.Events); got != maxEventBacklog {
		t.Fatalf("%d events wait, want %d", got, maxEventBacklog)
	}
	recorder.WithLogger(klog.Background()).Eventf(&corev1.Pod{}, nil, corev1.EventTypeNormal, "Scheduled", "Binding", "to %s", "node-1")
	if got := len(written.Events); got != maxEventBacklog {
		t.Errorf("%d events wait, want no more than %d", got, maxEventBacklog)
	}
}
