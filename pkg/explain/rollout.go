// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
)

// Rollout is an update that is under way.
type Rollout struct {
	// Updated are the nodes with a pod of the current template; Desired is how many
	// there will be.
	Updated int `json:"updated"`
	Desired int `json:"desired"`
	// MaxUnavailable and MaxSurge are numbers of nodes; one of them is 0. Both are with
	// the strategy OnDelete.
	MaxUnavailable int `json:"maxUnavailable"`
	MaxSurge       int `json:"maxSurge"`
	// Unavailable are the nodes that use up MaxUnavailable or MaxSurge.
	Unavailable []string `json:"unavailable,omitempty"`
	// Stalled says whether the update goes no further until one of them becomes available, and one
	// is in trouble. Without trouble that is how an update goes on, node after node.
	Stalled bool `json:"stalled"`
	// Message says it in words.
	Message string `json:"message"`
}

// rollout returns the update that is under way, or nil. It counts as the controller
// does (rollingUpdate in k8s.io/kubernetes/pkg/controller/daemon).
func (e *Engine) rollout(ds *appsv1.DaemonSet, verdicts []Verdict) *Rollout {
	s := e.subjects[ds.UID]
	r := &Rollout{}
	wanted := make(map[string]State)
	for n := range verdicts {
		if v := &verdicts[n]; v.Wanted {
			wanted[v.Node] = v.Outcome
		}
	}
	r.Desired = len(wanted)
	outdated, leftovers := false, []string(nil)
	// The controller counts the nodes that it wants pods on, and those that have some: also
	// nodes that are gone, and pods that are ending where none is wanted any more.
	for _, node := range slices.SortedFunc(maps.Keys(sets.KeySet(s.pods).Union(sets.KeySet(wanted))), CompareNames) {
		pods := live(s.pods[node])
		updated, old := s.revisions(pods)
		state, belongs := wanted[node]
		if updated != nil && belongs {
			r.Updated++
		}
		outdated = outdated || old != nil
		if !e.usesUp(ds, updated, old, len(pods)) {
			continue
		}
		r.Unavailable = append(r.Unavailable, node)
		r.Stalled = r.Stalled || state == StateStuck
		if !belongs {
			pod := s.pods[node][0]
			leftovers = append(leftovers, e.leftover(pod, node))
			r.Stalled = r.Stalled || pod.DeletionTimestamp != nil && e.now.Sub(deletedAt(pod).Time) > e.patience
		}
	}
	if !outdated || r.Desired == 0 {
		return nil
	}
	r.Message = fmt.Sprintf("%d of %d nodes have the current template.", r.Updated, r.Desired)
	if ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		r.Unavailable, r.Stalled = nil, false
		r.Message += " The strategy is OnDelete: a pod is replaced when somebody deletes it."
		return r
	}
	r.limit(ds, strings.Join(leftovers, ""))
	return r
}

// leftover says that pod is on a node where the DaemonSet wants none.
func (e *Engine) leftover(pod *corev1.Pod, node string) string {
	where := "where the DaemonSet no longer belongs"
	if e.nodes[node] == nil {
		where = "a node that is gone"
	}
	return fmt.Sprintf(" Pod %s is still on %s, %s, and counts as unavailable.", pod.Name, node, where)
}

// limit says how far the update gets. Percentages and defaults are the controller's.
func (r *Rollout) limit(ds *appsv1.DaemonSet, leftovers string) {
	// What cannot be parsed stops the controller, too; the API server admits none.
	r.MaxUnavailable, _ = daemonutil.UnavailableCount(ds, r.Desired)
	r.MaxSurge, _ = daemonutil.SurgeCount(ds, r.Desired)
	if r.MaxUnavailable == 0 && r.MaxSurge == 0 {
		r.MaxUnavailable = 1
	}
	limit, name := r.MaxUnavailable, "maxUnavailable"
	if r.MaxSurge > 0 {
		limit, name = r.MaxSurge, "maxSurge"
	}
	full := len(r.Unavailable) >= limit
	if r.Stalled = r.Stalled && full; full {
		r.Message += fmt.Sprintf("%s It goes no further before a pod becomes available on %s: %s is %d.", leftovers, NodeList(r.Unavailable), name, limit)
	}
	if ds.Status.ObservedGeneration < ds.Generation {
		r.Message += " The controller has not seen the latest template yet."
	}
}

// revisions returns a pod of the current template and one of an earlier template, as
// far as there are such.
func (s *subject) revisions(pods []*corev1.Pod) (updated, old *corev1.Pod) {
	for _, pod := range pods {
		if s.updated(pod) {
			updated = pod
		} else {
			old = pod
		}
	}
	return updated, old
}

// usesUp says whether a node uses up some of what an update may take away or add at a
// time, given its pods that are not ending.
func (e *Engine) usesUp(ds *appsv1.DaemonSet, updated, old *corev1.Pod, pods int) bool {
	switch {
	case daemonutil.AllowsSurge(ds):
		return pods > 2 || updated != nil && old != nil && !e.available(updated, ds)
	case pods != 1:
		return true
	default:
		return !e.available(cmp.Or(updated, old), ds)
	}
}
