// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// State is a verdict in one of five kinds, each of which a map has a symbol for.
type State string

// The states.
const (
	// StateReady: the node has a Ready pod that does not crash.
	StateReady State = "ready"
	// StateWaiting: it has none yet, and one may come by itself within [Options.Patience].
	StateWaiting State = "waiting"
	// StateStuck: it has none, and somebody has to do something about it.
	StateStuck State = "stuck"
	// StateStray: it has a pod, and the DaemonSet does not belong there.
	StateStray State = "stray"
	// StateNone: the DaemonSet does not belong there.
	StateNone State = "none"
)

// States returns all states, the best first.
func States() []State {
	return []State{StateReady, StateWaiting, StateStuck, StateStray, StateNone}
}

// Words returns the state as a legend explains it.
func (s State) Words() string {
	switch s {
	case StateReady:
		return "ready"
	case StateWaiting:
		return "on its way"
	case StateStuck:
		return "stuck"
	case StateStray:
		return "should not be here"
	default:
		return "does not belong here"
	}
}

// State returns what the verdict amounts to.
func (v *Verdict) State() State {
	return v.Outcome
}

// warnedFor is for how long a kubelet tries again before its warning is trouble: what a
// node misses while it starts is there by then.
const warnedFor = 2 * time.Minute

// outcome is what reason, age and warnings together amount to. Explain, status and map
// all ask it.
func (i *inquiry) outcome() State {
	v, ages := &i.v, i.v.Reason.row().Ages
	late := v.Since != nil && i.now.Sub(v.Since.Time) > i.patience
	switch {
	case !v.Wanted && v.Pod == nil:
		return StateNone
	case !v.Wanted:
		return StateStray
	case v.Ready && v.Reason != ReasonCrash, v.Reason == ReasonWouldRun:
		return StateReady
	case ages == atOnce, ages == noGap && v.Reason != ReasonDeleting, late, i.clues.warnedFor > warnedFor:
		return StateStuck
	default:
		return StateWaiting
	}
}

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
		verdicts, err := e.glances(ctx, ds, nodes)
		if err != nil {
			return nil, err
		}
		for n := range verdicts {
			v := &verdicts[n]
			verdict := MapVerdict{State: v.State(), Step: v.Step, Reason: v.Reason, Message: v.Message}
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
			SortNames(status.Top.Nodes)
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
