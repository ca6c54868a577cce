// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"

	"k8s.io/klog/v2"
)

// bodiesLevel is the verbosity from which on client-go logs what it sends and
// receives (rest/request.go, logBody). With a Secret, that would be private keys.
const bodiesLevel = 8

// withoutBodies returns a context for the requests of which client-go logs no
// bodies, however verbose the program is.
func withoutBodies(ctx context.Context) context.Context {
	logger := klog.FromContext(ctx)
	return klog.NewContext(ctx, logger.WithSink(limited{logger.GetSink()}))
}

// limited is a sink that drops what is more verbose.
type limited struct{ klog.LogSink }

// Enabled implements klog.LogSink.
func (l limited) Enabled(level int) bool { return level < bodiesLevel && l.LogSink.Enabled(level) }

// WithValues implements klog.LogSink.
func (l limited) WithValues(keysAndValues ...any) klog.LogSink {
	return limited{l.LogSink.WithValues(keysAndValues...)}
}

// WithName implements klog.LogSink.
func (l limited) WithName(name string) klog.LogSink { return limited{l.LogSink.WithName(name)} }
