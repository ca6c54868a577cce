// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"everynode.dev/everynode/test/joinstorm"
	"everynode.dev/everynode/test/localcluster"
)

// contestants are who place the pods of the storm.
var contestants = []struct {
	name          string
	scheduler     localcluster.Scheduler
	priorityClass string
}{
	{"kube-scheduler", localcluster.Stock, ""},
	{"with PriorityClass", localcluster.Stock, joinstorm.PriorityClass},
	{"everynode", localcluster.Everynode, ""},
}

func storm(ctx context.Context, s *stage) error {
	s.title("the join storm")
	s.say("%d nodes of 4 cores join while %d pods of %s wait for room. Three DaemonSets want %s", joinstorm.Nodes,
		joinstorm.OrdinaryPods, joinstorm.OrdinaryCPU, joinstorm.DaemonCPU)
	s.say("of every node. The same storm in three clusters. All priorities are equal, but for the")
	s.say("second cluster: its DaemonSets are %s there.\n", joinstorm.PriorityClass)

	board := &board{stage: s, results: make([]*joinstorm.Result, len(contestants))}
	for i := range contestants {
		board.update(i, joinstorm.NoNodes())
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for i, contestant := range contestants {
		group.Go(func() error {
			cluster, err := localcluster.Start(ctx, joinstorm.Options(contestant.scheduler))
			defer cluster.Stop()
			if err != nil {
				return fmt.Errorf("%s: %w", contestant.name, err)
			}
			result, err := joinstorm.Run(ctx, cluster, contestant.priorityClass, func(now *joinstorm.Result) { board.update(i, now) })
			if err != nil {
				return fmt.Errorf("%s: %w", contestant.name, err)
			}
			board.update(i, result)
			return nil
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	if err := board.show(ended); err != nil {
		return err
	}
	return board.judge()
}

// board shows the storms of all contestants.
type board struct {
	*stage
	mu      sync.Mutex
	results []*joinstorm.Result
}

func (b *board) update(contestant int, result *joinstorm.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[contestant] = result
}

func (b *board) all() []*joinstorm.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.results)
}

// show draws until the storms have ended. In a terminal the picture moves;
// elsewhere it is drawn once, at the end.
func (b *board) show(ended <-chan error) error {
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	lines := 0
	draw := func(note string) {
		if lines > 0 {
			fmt.Fprintf(b.out, "\x1b[%dA", lines)
		}
		picture := b.picture(note)
		lines = len(picture)
		for _, line := range picture {
			fmt.Fprintf(b.out, "%s\x1b[K\n", line)
		}
	}
	if !b.live {
		fmt.Fprintln(b.out, "  (about a minute)")
	}
	for {
		select {
		case err := <-ended:
			switch {
			case b.live:
				draw("")
			default:
				for _, line := range b.picture("") {
					fmt.Fprintln(b.out, line)
				}
			}
			return err
		case <-tick.C:
			if b.live {
				draw(fmt.Sprintf("  %d s", int(time.Since(began).Seconds())))
			}
		}
	}
}

func (b *board) picture(note string) []string {
	var lines []string
	for i, result := range b.all() {
		lines = append(lines, "  "+contestants[i].name)
		for _, line := range result.Picture() {
			lines = append(lines, "    "+line)
		}
	}
	return append(lines, note)
}

// judge compares the ends of the storms, and that of everynode with what was promised.
func (b *board) judge() error {
	results := b.all()
	row := func(what string, value func(contestant int) any) {
		var cells strings.Builder
		for i := range contestants {
			fmt.Fprintf(&cells, "%19v", value(i))
		}
		b.say("  %-22s%s", what, cells.String())
	}
	row("", func(i int) any { return contestants[i].name })
	row("daemon pods running", func(i int) any {
		running, wanted := results[i].Daemons()
		return fmt.Sprintf("%d of %d", running, wanted)
	})
	row("ordinary pods running", func(i int) any { return results[i].Ordinary })
	row("pods evicted", func(i int) any { return results[i].Evicted })
	if running, wanted := results[0].Daemons(); running < wanted {
		b.say("\n%d daemon pods will wait for ever under kube-scheduler: ordinary pods have their room,", wanted-running)
		b.say("and a pod cannot preempt pods of its own priority. everynode held the room for them.")
	}
	if evicted := results[1].Evicted; evicted > 0 {
		b.say("With a PriorityClass they evicted %d ordinary pods that had just started.", evicted)
	}
	ours := results[len(results)-1]
	running, wanted := ours.Daemons()
	var wrong []string
	if running != wanted {
		wrong = append(wrong, fmt.Sprintf("%d daemon pods are missing", wanted-running))
	}
	if ours.Ordinary != 180 {
		wrong = append(wrong, fmt.Sprintf("%d ordinary pods run, not 180", ours.Ordinary))
	}
	if ours.Evicted > 0 || ours.BoundTwice > 0 {
		wrong = append(wrong, fmt.Sprintf("%d pods were evicted, %d bound twice", ours.Evicted, ours.BoundTwice))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("under everynode %s", strings.Join(wrong, ", "))
	}
	return nil
}
