// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package karpenter

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// K2: all pods go and come back, and with them all nodes; then most pods go, and Karpenter consolidates what is left.
// Every node that stays has its daemon pods, none of them has to go, and Karpenter comes to rest.
func TestK2ScaleAndConsolidate(t *testing.T) {
	t.Parallel()
	const pods, left = 100, 35
	c := newCluster(t, nil)
	names := []string{network, logs, metrics, profiler}
	c.apply(daemonSets(""))
	c.apply(nodePool(`"4", "8"`, "1000", "15s"))
	scale := func(to int) {
		large, medium, small := backlog(to)
		c.apply(large + medium + small)
	}
	scale(pods)
	c.eventually("all pods run", c.allRun(pods, names...))
	t.Log(c.story())

	scale(0)
	c.eventually("all nodes go", func(context.Context) error {
		if bought, gone := c.moves(); gone < bought {
			return fmt.Errorf("%d of %d nodes have gone", gone, bought)
		}
		return nil
	})
	scale(pods)
	c.eventually("all pods run again", c.allRun(pods, names...))
	t.Log(c.story())

	before, _ := c.moves()
	size := len(c.nodes())
	scale(left)
	began := time.Now()
	// Karpenter may find nothing to consolidate before the last pods have gone, and looks again after five minutes at the
	// latest (ConsolidationState in sigs.k8s.io/karpenter/pkg/controllers/state/cluster.go).
	c.eventually("nodes are consolidated", func(context.Context) error {
		if now := len(c.nodes()); now >= size {
			return fmt.Errorf("%d nodes are left of %d", now, size)
		}
		return nil
	})
	rest := c.settle(time.Minute, "Karpenter comes to rest", c.allRun(left, names...))
	t.Logf("%s; the last change was %s after most pods had gone", c.story(), rest.Sub(began).Round(time.Second))
	bought, gone := c.moves()
	c.during(*watch, func() {
		if nowBought, nowGone := c.moves(); nowBought != bought || nowGone != gone {
			t.Fatalf("Karpenter had come to rest, and goes on: %s", c.story())
		}
	})
	if err := c.allRun(left, names...)(t.Context()); err != nil {
		t.Error(err)
	}
	// Each step of a consolidation buys one node at most, and removes one at least.
	if bought-before >= size {
		t.Errorf("%d nodes were bought to consolidate %d", bought-before, size)
	}
	if _, lost := c.victims(); len(lost) > 0 {
		t.Errorf("daemon pods had to go from nodes that stay: %q", lost)
	}
}

// story says in a line what has been bought and what runs.
func (c *cluster) story() string {
	bought, gone := c.moves()
	ready, waiting := c.ordinary()
	return fmt.Sprintf("%d nodes were bought and %d have gone; %d ordinary pods run and %d wait", bought, gone, ready, waiting)
}
