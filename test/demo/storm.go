// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"everynode.dev/everynode/test/joinstorm"
	"everynode.dev/everynode/test/localcluster"
)

func storm(ctx context.Context, s *stage) error {
	s.title("the join storm")
	s.say("%d nodes of 4 cores join while %d pods of %s wait for room. Three DaemonSets want %s", joinstorm.Nodes,
		joinstorm.OrdinaryPods, joinstorm.OrdinaryCPU, joinstorm.DaemonCPU)
	s.say("of every node. The same storm in two clusters; all priorities are equal.\n")

	board := &board{stage: s, results: make(map[localcluster.Scheduler]*joinstorm.Result)}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, scheduler := range []localcluster.Scheduler{localcluster.Stock, localcluster.Everynode} {
		group.Go(func() error {
			cluster, err := localcluster.Start(ctx, joinstorm.Options(scheduler))
			defer cluster.Stop()
			if err != nil {
				return fmt.Errorf("%s: %w", scheduler, err)
			}
			result, err := joinstorm.Run(ctx, cluster, func(now *joinstorm.Result) { board.update(scheduler, now) })
			if err != nil {
				return fmt.Errorf("%s: %w", scheduler, err)
			}
			board.update(scheduler, result)
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

// board shows two storms side by side.
type board struct {
	*stage
	mu      sync.Mutex
	results map[localcluster.Scheduler]*joinstorm.Result
}

func (b *board) update(scheduler localcluster.Scheduler, result *joinstorm.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[scheduler] = result
}

func (b *board) get(scheduler localcluster.Scheduler) *joinstorm.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if result := b.results[scheduler]; result != nil {
		return result
	}
	return joinstorm.NoNodes()
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
	stock, ours := b.get(localcluster.Stock).Picture(), b.get(localcluster.Everynode).Picture()
	lines := []string{fmt.Sprintf("  %-38s%s", "kube-scheduler", "everynode")}
	for i := range stock {
		lines = append(lines, fmt.Sprintf("  %-38s%s", stock[i], ours[i]))
	}
	return append(lines, note)
}

// judge compares the ends of the storms with what was promised.
func (b *board) judge() error {
	stock, ours := b.get(localcluster.Stock), b.get(localcluster.Everynode)
	stockRunning, _ := stock.Daemons()
	running, wanted := ours.Daemons()
	row := func(what string, stock, ours any) { b.say("  %-24s%14v%14v", what, stock, ours) }
	row("", "kube-scheduler", "everynode")
	row("daemon pods running", fmt.Sprintf("%d of %d", stockRunning, wanted), fmt.Sprintf("%d of %d", running, wanted))
	row("ordinary pods running", stock.Ordinary, ours.Ordinary)
	row("pods evicted", stock.Evicted, ours.Evicted)
	if stockRunning < wanted {
		b.say("\n%d daemon pods will wait for ever under kube-scheduler: ordinary pods have their room,", wanted-stockRunning)
		b.say("and a pod cannot preempt pods of its own priority. everynode held the room for them.")
	}
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
