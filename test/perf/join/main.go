// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// join measures how long daemon pods wait on nodes that join while ordinary pods wait for room: without
// ordinary pods, with kube-scheduler, with kube-scheduler and a PriorityClass, and with everynode. Each has a
// control plane of its own, one after the other.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/klog/v2"

	"everynode.dev/everynode/test/localcluster"
)

// A contender is one way to have daemon pods scheduled.
type contender struct {
	name      string
	scheduler localcluster.Scheduler
	// class is the PriorityClass of the daemon pods.
	class string
	// alone says that no ordinary pod waits: what the machine can do at best.
	alone bool
}

var contenders = []contender{
	{name: "nobody else waiting", scheduler: localcluster.Stock, alone: true},
	{name: "kube-scheduler", scheduler: localcluster.Stock},
	{name: "kube-scheduler, system-node-critical", scheduler: localcluster.Stock, class: "system-node-critical"},
	{name: "everynode", scheduler: localcluster.Everynode},
}

// size is what joins and what waits.
type size struct {
	Nodes      int `json:"nodes"`
	Pods       int `json:"pods"`
	DaemonSets int `json:"daemonSets"`
}

func main() {
	klog.LogToStderr(false)
	klog.SetOutput(os.NewFile(0, os.DevNull)) // what informers say when their cluster goes
	var of size
	flag.IntVar(&of.Nodes, "nodes", 40, "how many nodes join at once")
	flag.IntVar(&of.Pods, "pods", 2000, "how many ordinary pods wait")
	flag.IntVar(&of.DaemonSets, "daemonsets", 20, "how many DaemonSets have a pod on every node")
	rounds := flag.Int("rounds", 5, "how often each contender is measured")
	only := flag.String("only", "", "measure the contender of this name only")
	qps := flag.Int("kube-scheduler-qps", 0, "requests a second of kube-scheduler; 0 for its default")
	config := flag.String("everynode-config", "", "file with the configuration of everynode-scheduler; the shipped one by default")
	bin := flag.String("bin", "bin", "folder with the programs that make build makes")
	output := flag.String("json", "", "file that receives all results in JSON")
	artifacts := flag.String("artifacts", "", "folder that receives profiles of the scheduler; none by default")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var everynodeConfig []byte
	if *config != "" {
		var err error
		if everynodeConfig, err = os.ReadFile(*config); err != nil {
			fatal(err)
		}
	}
	var all []*result
	for round := range *rounds {
		for _, contender := range contenders {
			if *only != "" && *only != contender.name {
				continue
			}
			b := &benchmark{size: of, contender: contender, binDir: *bin, artifacts: *artifacts, config: everynodeConfig}
			if contender.scheduler == localcluster.Stock {
				b.config = stockConfig(*qps)
				if contender.alone {
					// The limit is the machine's, not the client's.
					b.config = stockConfig(1000)
				}
			}
			measured, err := b.run(ctx)
			if err != nil {
				fatal(fmt.Errorf("%s: %w", contender.name, err))
			}
			measured.Round = round + 1
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, *rounds, measured)
			all = append(all, measured)
		}
	}
	if err := write(os.Stdout, of, *rounds, all); err != nil {
		fatal(err)
	}
	if *output != "" {
		content, err := json.MarshalIndent(all, "", "  ")
		if err == nil {
			err = os.WriteFile(*output, append(content, '\n'), 0o600)
		}
		if err != nil {
			fatal(err)
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "join:", err)
	os.Exit(1)
}

// stockConfig returns kube-scheduler's configuration, nil for its defaults.
func stockConfig(qps int) []byte {
	if qps == 0 {
		return nil
	}
	return fmt.Appendf(nil, `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {qps: %d, burst: %d}
`, qps, 2*qps)
}

// write writes the medians, and the lowest and highest values, as a table in Markdown.
func write(w io.Writer, of size, rounds int, all []*result) error {
	fmt.Fprintf(w, "%d nodes join, %d ordinary pods wait, %d DaemonSets; medians of %d runs (lowest to highest)\n\n", of.Nodes, of.Pods, of.DaemonSets, rounds)
	byName := make(map[string][]*result)
	var names []string
	for _, r := range all {
		if byName[r.Contender] == nil {
			names = append(names, r.Contender)
		}
		byName[r.Contender] = append(byName[r.Contender], r)
	}
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(title string, cell func([]*result) string) {
		fmt.Fprintf(table, "| %s", title)
		for _, name := range names {
			fmt.Fprintf(table, "\t| %s", cell(byName[name]))
		}
		fmt.Fprintln(table, "\t|")
	}
	row("", func(rs []*result) string { return rs[0].Contender })
	row("---", func([]*result) string { return "---" })
	counts := func(title string, of func(*result) float64, format string) {
		row(title, func(rs []*result) string {
			values := make([]float64, len(rs))
			for i, r := range rs {
				values[i] = of(r)
			}
			slices.Sort(values)
			text := fmt.Sprintf(format, values[len(values)/2])
			if low, high := fmt.Sprintf(format, values[0]), fmt.Sprintf(format, values[len(values)-1]); low != high {
				text += " (" + low + "–" + high + ")"
			}
			return text
		})
	}
	counts("daemon pods bound", func(r *result) float64 { return float64(r.DaemonPods) }, "%.0f")
	counts("ordinary pods bound", func(r *result) float64 { return float64(r.OrdinaryPods) }, "%.0f")
	counts("ordinary pods evicted", func(r *result) float64 { return float64(r.Evicted) }, "%.0f")
	seconds := func(title string, of func(*result) time.Duration) {
		counts(title, func(r *result) float64 { return of(r).Seconds() }, "%.1f s")
	}
	seconds("daemon pod, creation to binding, p50", func(r *result) time.Duration { return r.FromCreation.P50 })
	seconds("daemon pod, creation to binding, p99", func(r *result) time.Duration { return r.FromCreation.P99 })
	seconds("daemon pod, node's creation to binding, p50", func(r *result) time.Duration { return r.FromNode.P50 })
	seconds("daemon pod, node's creation to binding, p99", func(r *result) time.Duration { return r.FromNode.P99 })
	seconds("settled", func(r *result) time.Duration { return r.Settled })
	kinds := make(map[string]bool)
	for _, r := range all {
		for kind := range r.Writes {
			kinds[kind] = true
		}
	}
	counts("API writes", func(r *result) float64 { return float64(r.writes()) }, "%.0f")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		counts("· "+kind, func(r *result) float64 { return float64(r.Writes[kind]) }, "%.0f")
	}
	seconds("the scheduler's CPU time", func(r *result) time.Duration { return r.CPU })
	counts("the scheduler's memory at most", func(r *result) float64 { return float64(r.Memory) / (1 << 20) }, "%.0f MiB")
	return table.Flush()
}
