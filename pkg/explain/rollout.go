// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/daemonset"
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
	// Stalled says whether the update goes no further until one of them becomes available.
	Stalled bool `json:"stalled"`
	// Message says it in words.
	Message string `json:"message"`

	leftovers []string
}

// holds notes a pod that uses up what an update may take away, where no pod is wanted.
func (r *Rollout) holds(wanted, exists bool, node string, pods []*corev1.Pod) {
	if wanted || len(pods) == 0 {
		return
	}
	where := "where the DaemonSet no longer belongs"
	if !exists {
		where = "a node that is gone"
	}
	r.leftovers = append(r.leftovers, fmt.Sprintf(" Pod %s is still on %s, %s, and counts as unavailable.", pods[0].Name, node, where))
}

// rollout returns the update that is under way, or nil. It counts as the controller
// does (rollingUpdate in k8s.io/kubernetes/pkg/controller/daemon).
func (e *Engine) rollout(ds *appsv1.DaemonSet, verdicts []Verdict) *Rollout {
	s := e.subjects[ds.UID]
	r := &Rollout{}
	waiting := 0
	// The controller counts the nodes that it wants pods on, and those that have some: also
	// nodes that are gone, and pods that are ending where none is wanted any more.
	nodes := sets.KeySet(s.pods)
	wanted := sets.New[string]()
	for n := range verdicts {
		if verdicts[n].Wanted {
			wanted.Insert(verdicts[n].Node)
		}
	}
	r.Desired = wanted.Len()
	for _, node := range slices.SortedFunc(maps.Keys(nodes.Union(wanted)), CompareNames) {
		present := slices.DeleteFunc(slices.Clone(s.pods[node]), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil && podutil.IsPodTerminal(pod) })
		if len(present) == 0 && !wanted.Has(node) {
			continue
		}
		pods := live(present)
		updated, old := s.revisions(pods)
		if updated != nil && wanted.Has(node) {
			r.Updated++
		}
		if old != nil {
			waiting++
		}
		if usesUp(ds, updated, old, len(pods), e.now) {
			r.Unavailable = append(r.Unavailable, node)
			r.holds(wanted.Has(node), e.nodes[node] != nil, node, present)
		}
	}
	if waiting == 0 || r.Desired == 0 {
		return nil
	}
	if ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		r.Unavailable = nil
		r.Message = fmt.Sprintf("%d of %d nodes have the current template. The strategy is OnDelete: a pod is replaced when somebody deletes it.", r.Updated, r.Desired)
		return r
	}
	r.limits(ds)
	r.describe(ds)
	return r
}

// limits resolves percentages. The defaults are the controller's.
func (r *Rollout) limits(ds *appsv1.DaemonSet) {
	// What cannot be parsed stops the controller, too; the API server admits none.
	r.MaxUnavailable, _ = daemonutil.UnavailableCount(ds, r.Desired)
	r.MaxSurge, _ = daemonutil.SurgeCount(ds, r.Desired)
	if r.MaxUnavailable == 0 && r.MaxSurge == 0 {
		r.MaxUnavailable = 1
	}
}

func (r *Rollout) describe(ds *appsv1.DaemonSet) {
	limit, name := r.MaxUnavailable, "maxUnavailable"
	if r.MaxSurge > 0 {
		limit, name = r.MaxSurge, "maxSurge"
	}
	r.Stalled = len(r.Unavailable) >= limit
	r.Message = fmt.Sprintf("%d of %d nodes have the current template.", r.Updated, r.Desired)
	if r.Stalled {
		r.Message += strings.Join(r.leftovers, "")
		r.Message += fmt.Sprintf(" It goes no further before a pod becomes available on %s: %s is %d.", NodeList(r.Unavailable), name, limit)
	}
	if ds.Status.ObservedGeneration < ds.Generation {
		r.Message += " The controller has not seen the latest template yet."
	}
}

func live(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
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

// earlierWorks says whether an earlier template has a Ready pod on some node.
func (s *subject) earlierWorks() bool {
	if s.earlier == nil {
		works := false
		for _, pods := range s.pods {
			works = works || slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return !s.updated(pod) && daemonset.IsReady(pod) })
		}
		s.earlier = &works
	}
	return *s.earlier
}

// usesUp says whether a node uses up some of what an update may take away or add at a
// time, given its pods that are not ending.
func usesUp(ds *appsv1.DaemonSet, updated, old *corev1.Pod, pods int, now time.Time) bool {
	available := func(pod *corev1.Pod) bool {
		return podutil.IsPodAvailable(pod, ds.Spec.MinReadySeconds, metav1.NewTime(now))
	}
	if daemonutil.AllowsSurge(ds) {
		return pods > 2 || updated != nil && old != nil && !available(updated)
	}
	switch {
	case pods != 1:
		return true
	case updated != nil:
		return !available(updated)
	default:
		return !available(old)
	}
}
