// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// demo tells in five acts what everynode does, on real control planes. It fails
// if anything that it shows is not so.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"everynode.dev/everynode/test/localcluster"
)

func main() {
	pause := flag.Bool("pause", false, "wait for Enter after every act")
	flag.Parse()
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	began := time.Now()
	stage := newStage(os.Stdout, *pause)
	if err := play(ctx, stage); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
	stage.say("\nAll of it was checked, in %d seconds. `make up` starts such a cluster for you to play with.", int(time.Since(began).Seconds()))
}

func play(ctx context.Context, s *stage) error {
	s.title("A Kubernetes control plane, and everynode in place of its scheduler")
	cluster, err := localcluster.Start(ctx, localcluster.Options{
		Webhook:  true,
		Progress: func(component string, took time.Duration) { s.ready(component, took) },
	})
	defer cluster.Stop()
	if err != nil {
		return err
	}
	s.cluster = cluster
	for _, act := range []func(context.Context, *stage) error{everyNode, joinAndLeave, labels, rollout} {
		if err := act(ctx, s); err != nil {
			return err
		}
	}
	// The last act has clusters of its own, and needs the machine for them.
	cluster.Stop()
	return storm(ctx, s)
}
