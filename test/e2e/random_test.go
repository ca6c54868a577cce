// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"everynode.dev/everynode/test/localcluster"
)

var (
	seeds    = flag.Int("seeds", 20, "how many random clusters to test")
	onlySeed = flag.Int("seed", 0, "test the random cluster of this seed only")
)

// randomEvictionTimeout is short because many evictions wait for it.
const randomEvictionTimeout = 3 * time.Second

// Random clusters: whatever nodes, DaemonSets and other pods there are, in the end no
// daemon pod is missing that could run, no pod waits that would fit beside all that is
// rightly held, and no pod was evicted that should not have been.
//
// What the scheduler should have done is worked out in random_check_test.go from the
// objects alone, in another way than the scheduler does it. What comes is drawn in
// random_draw_test.go.
func TestRandomClusters(t *testing.T) {
	t.Parallel()
	for seed := 1; seed <= *seeds || seed <= *onlySeed; seed++ {
		if *onlySeed != 0 && seed != *onlySeed {
			continue
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // nothing secret
			c := newCluster(t, randomArgs)
			check := newChecker(c)
			c.apply(inEveryRandomCluster + localVolumes())
			for _, step := range c.drawSteps(random) {
				step()
			}
			c.eventually(2*time.Minute, "the cluster is as it should be", check.everyPodIsWhereItShouldBe)

			check.rememberNodes()
			what, change := c.drawChange(random)
			change()
			c.eventually(2*time.Minute, "the cluster is as it should be after "+what, check.everyPodIsWhereItShouldBe)
			for _, problem := range check.wrongEvictions(t.Context()) {
				t.Error(problem)
			}
		})
	}
}

// randomArgs shorten what the scheduler waits for.
func randomArgs(o *localcluster.Options) {
	o.PluginArgs = map[string]map[string]any{"DaemonSetHeadroom": {"holdFor": holdFor.String()}, "DaemonSetPreemption": {"evictionTimeout": randomEvictionTimeout.String()}}
}
