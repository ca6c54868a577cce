// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package karpenter

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"everynode.dev/everynode/test/localcluster"
)

// result is what one storm has cost.
type result struct {
	Round     int    `json:"round"`
	Contender string `json:"contender"`
	// DaemonPods are those that run in the end, and Missing those that do not.
	DaemonPods int `json:"daemonPods"`
	Missing    int `json:"missing"`
	// Ordinary are the ordinary pods that run in the end, and Evicted those that had to leave a node before.
	Ordinary int `json:"ordinary"`
	Evicted  int `json:"evicted"`
	// Nodes were bought, with CPU cores in sum.
	Nodes int   `json:"nodes"`
	CPU   int64 `json:"cpu"`
	// NodeHours is the sum of the nodes' ages when everything had settled.
	NodeHours float64 `json:"nodeHours"`
	// Seconds is the time from the NodePool to the last change of a pod or node.
	Seconds float64 `json:"seconds"`
}

// contender is one way to have daemon pods scheduled. The webhook sizes pods in all of them.
type contender struct {
	name      string
	scheduler localcluster.Scheduler
	class     string
}

var contenders = []contender{
	{name: "kube-scheduler", scheduler: localcluster.Stock},
	{name: "kube-scheduler, system-node-critical", scheduler: localcluster.Stock, class: "system-node-critical"},
	{name: "everynode", scheduler: localcluster.Everynode},
}

const stormPods = 300

// calm is how long nothing may have changed for a storm to be over: more than a pod waits until it is tried again
// (10 s), and more than Karpenter waits for a pod that it has planned for a node (20 s).
const calm = 30 * time.Second

// K1: 300 pods wait when Karpenter is given its NodePool, and four DaemonSets want to be on every node. With everynode
// no daemon pod is missing, no pod is evicted, and no more nodes are bought than with the others.
func TestK1Storm(t *testing.T) {
	var all []*result
	for round := range *rounds {
		most, ours := 0, 0
		for _, contender := range contenders {
			t.Run(fmt.Sprintf("%d/%s", round+1, contender.name), func(t *testing.T) {
				r := storm(t, contender)
				r.Round = round + 1
				all = append(all, r)
				t.Logf("%+v", *r)
				if r.Ordinary != stormPods {
					t.Errorf("%d ordinary pods run, want %d", r.Ordinary, stormPods)
				}
				if contender.scheduler != localcluster.Everynode {
					most = max(most, r.Nodes)
					return
				}
				ours = r.Nodes
				if r.Missing > 0 || r.Evicted > 0 {
					t.Errorf("%d daemon pods are missing and %d ordinary pods were evicted, want none", r.Missing, r.Evicted)
				}
			})
		}
		if ours > most {
			t.Errorf("%d nodes were bought with everynode, at most %d with the others", ours, most)
		}
	}
	table := markdown(all)
	t.Log("\n" + table)
	if *artifacts == "" {
		return
	}
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(*artifacts, 0o750); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{"karpenter.json": string(content) + "\n", "karpenter.md": table} {
		if err := os.WriteFile(filepath.Join(*artifacts, file), []byte(content), 0o600); err != nil {
			t.Error(err)
		}
	}
}

func storm(t *testing.T, of contender) *result {
	t.Helper()
	c := newCluster(t, func(options *localcluster.Options) { options.Scheduler = of.scheduler })
	c.apply(daemonSets(of.class))
	// Karpenter plans with the largest pods first. If they are placed last, it is luck with any scheduler whether one
	// more node is bought for them: so they are created first.
	large, medium, small := backlog(stormPods)
	c.apply(large)
	c.eventually("the large pods wait", c.waits(stormPods-stormPods/2-stormPods/3))
	c.apply(medium + small)
	c.eventually("all ordinary pods wait", c.waits(stormPods))
	names := []string{network, logs, metrics, profiler}
	began := time.Now()
	// Consolidation is the matter of K2.
	c.apply(nodePool(`"4", "8"`, "1000", "Never"))
	// What kube-scheduler leaves behind is no reason to wait.
	settled := c.settle(calm, "the storm to settle", c.allRun(stormPods))
	missing := len(c.missing(names))
	evicted, lost := c.victims()
	if len(lost) > 0 {
		t.Errorf("daemon pods had to go: %q", lost)
	}
	nodes, cpu, age := c.bought(settled)
	lastOrdinary, lastDaemon := c.placed(began)
	t.Logf("nodes were bought after %v s, the last ordinary pod was placed after %v s, the last daemon pod after %v s", c.purchases(began), lastOrdinary, lastDaemon)
	ready, _ := c.ordinary()
	return &result{
		Contender: of.name, DaemonPods: nodes*len(names) - missing, Missing: missing, Ordinary: ready, Evicted: len(evicted),
		Nodes: nodes, CPU: cpu, NodeHours: age.Hours(), Seconds: settled.Sub(began).Seconds(),
	}
}

// markdown writes the medians as a table, with the lowest and the highest value where these differ.
func markdown(all []*result) string {
	var b strings.Builder
	row := func(title string, cell func(of contender) string) {
		fmt.Fprintf(&b, "| %s |", title)
		for _, of := range contenders {
			fmt.Fprintf(&b, " %s |", cell(of))
		}
		b.WriteString("\n")
	}
	row("", func(of contender) string { return of.name })
	row("---", func(contender) string { return "---" })
	for _, figure := range []struct {
		title, format string
		of            func(*result) float64
	}{
		{"daemon pods missing in the end", "%.0f", func(r *result) float64 { return float64(r.Missing) }},
		{"ordinary pods evicted", "%.0f", func(r *result) float64 { return float64(r.Evicted) }},
		{"nodes bought", "%.0f", func(r *result) float64 { return float64(r.Nodes) }},
		{"CPU bought", "%.0f", func(r *result) float64 { return float64(r.CPU) }},
		{"node hours until settled", "%.2f", func(r *result) float64 { return r.NodeHours }},
		{"settled after", "%.0f s", func(r *result) float64 { return r.Seconds }},
	} {
		row(figure.title, func(of contender) string {
			var values []float64
			for _, r := range all {
				if r.Contender == of.name {
					values = append(values, figure.of(r))
				}
			}
			if len(values) == 0 {
				return "–"
			}
			slices.Sort(values)
			text := fmt.Sprintf(figure.format, values[len(values)/2])
			if low, high := fmt.Sprintf(figure.format, values[0]), fmt.Sprintf(figure.format, values[len(values)-1]); low != high {
				text += " (" + low + "–" + high + ")"
			}
			return text
		})
	}
	return b.String()
}
