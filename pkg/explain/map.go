// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Map is a verdict for each of many DaemonSets on each node.
type Map struct {
	// GroupBy is the label that nodes are grouped by.
	GroupBy    string      `json:"groupBy,omitempty"`
	DaemonSets []MapColumn `json:"daemonSets"`
	// Verdicts are those that occur. Cells are their numbers, from 0.
	Verdicts []MapVerdict `json:"verdicts"`
	Nodes    []MapRow     `json:"nodes"`
}

// MapColumn is a DaemonSet of a Map.
type MapColumn struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Desired are the nodes that it belongs on, and Ready those with a Ready pod.
	Desired int `json:"desired"`
	Ready   int `json:"ready"`
	// Lapsed is on how many nodes everynode-scheduler holds room for it no longer.
	Lapsed int `json:"lapsed,omitempty"`
	// Top is the most frequent reason for gaps, if there is one. The cells tell it too.
	Top *TopReason `json:"-"`
}

// MapVerdict is what is said of one node or of many.
type MapVerdict struct {
	State   State  `json:"state"`
	Step    Step   `json:"step"`
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
}

// MapRow is a node of a Map.
type MapRow struct {
	Name string `json:"name"`
	// Group is the value of its label GroupBy, "" if it has none.
	Group string `json:"group,omitempty"`
	// Cells are its verdicts, in the order of the DaemonSets.
	Cells []int `json:"cells"`
}

// State returns the state of a DaemonSet on a node.
func (m *Map) State(row *MapRow, daemonSet int) State {
	return m.Verdicts[row.Cells[daemonSet]].State
}

// Map returns the verdicts for daemonSets on all nodes, which are in the order of their
// values of the label groupBy, and then of their names.
func (e *Engine) Map(ctx context.Context, daemonSets []*appsv1.DaemonSet, groupBy string) (*Map, error) {
	nodes := e.Nodes()
	if groupBy != "" {
		slices.SortStableFunc(nodes, func(a, b *corev1.Node) int { return compareGroups(a.Labels[groupBy], b.Labels[groupBy]) })
	}
	m := &Map{GroupBy: groupBy, DaemonSets: make([]MapColumn, 0, len(daemonSets)), Verdicts: []MapVerdict{}, Nodes: make([]MapRow, len(nodes))}
	for n, node := range nodes {
		m.Nodes[n] = MapRow{Name: node.Name, Group: node.Labels[groupBy], Cells: make([]int, 0, len(daemonSets))}
	}
	numbers, lapsed := make(map[MapVerdict]int), e.lapsed()
	for _, ds := range daemonSets {
		verdicts, err := e.verdicts(ctx, ds, nodes, false)
		if err != nil {
			return nil, err
		}
		for n := range verdicts {
			v := &verdicts[n]
			verdict := MapVerdict{State: v.Outcome, Step: v.Step, Reason: v.Reason, Message: v.Message}
			number, known := numbers[verdict]
			if !known {
				number = len(m.Verdicts)
				numbers[verdict] = number
				m.Verdicts = append(m.Verdicts, verdict)
			}
			m.Nodes[n].Cells = append(m.Nodes[n].Cells, number)
		}
		status := e.status(ds, verdicts)
		if status.Top != nil {
			slices.SortFunc(status.Top.Nodes, CompareNames)
		}
		m.DaemonSets = append(m.DaemonSets, MapColumn{
			Namespace: ds.Namespace, Name: ds.Name, Desired: status.Desired, Ready: status.Ready, Top: status.Top,
			Lapsed: len(lapsed[ds.UID]),
		})
	}
	return m, nil
}

// compareGroups puts nodes without a value last.
func compareGroups(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return CompareNames(a, b)
}
