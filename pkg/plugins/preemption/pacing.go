// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// terminationAhead is how long before its deletionTimestamp a terminating pod
	// counts as about to end. Grace periods are seldom longer.
	terminationAhead = time.Minute
	// terminationSlack is how long after its deletionTimestamp a pod still counts as
	// about to end: the kubelet kills the containers then, and takes a little longer
	// to report it. A pod that is there later is stuck, for example by a finalizer.
	terminationSlack = 30 * time.Second
	// wakeAtOnce and wakePeriod bound how many preemptors are tried again when a
	// controller has an eviction to spare. Only one of them can use it, and thousands
	// may wait for the same controller.
	wakeAtOnce = 10
	wakePeriod = time.Second
	// terminatingIndex is the index of terminating pods by the UID of their controller.
	terminatingIndex = "everynode.dev/terminating"
)

// endsSoon says whether pod is terminating and about to end, so that its room is
// about to be free.
func endsSoon(pod *corev1.Pod, now time.Time) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionTimestamp.Time.Before(now.Add(terminationAhead)) && now.Before(stuckAt(pod))
}

// stuckAt is when pod, which is terminating, no longer counts as about to end.
func stuckAt(pod *corev1.Pod) time.Time {
	return pod.DeletionTimestamp.Add(terminationSlack)
}

func indexTerminating(obj any) ([]string, error) {
	if pod, ok := obj.(*corev1.Pod); ok && pod.DeletionTimestamp != nil {
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
			return []string{string(owner.UID)}, nil
		}
	}
	return nil, nil
}

// pacer counts the pods of each controller that are away: evicted and not yet
// replaced, or terminating. It tries preemptors again that wait for the number to
// fall.
//
// An eviction is under way until a pod that the controller created after it becomes
// Ready, or until its timeout. Evictions are recorded when victims are chosen, before
// they happen: the next scheduling cycle must see them.
type pacer struct {
	clock clock.WithDelayedExecution
	// pods has the terminatingIndex.
	pods     cache.Indexer
	activate func(pods map[string]*corev1.Pod)

	mu    sync.Mutex
	paces map[types.UID]*pace
	// waitsFor holds the controllers that each preemptor waits for. It decides; the
	// lists of the paces, which keep the order, may have outdated entries.
	waitsFor map[types.UID]sets.Set[types.UID]
}

// pace is the state of one controller.
type pace struct {
	// evictions holds the evictions under way by the UID of the victim.
	evictions map[types.UID]eviction
	// waiting holds the preemptors that wait, the oldest first.
	waiting []waiter
	timer   clock.Timer
}

type eviction struct{ since, until time.Time }

type waiter struct {
	pod   *corev1.Pod
	limit int
}

func newPacer(clock clock.WithDelayedExecution, pods cache.Indexer, activate func(map[string]*corev1.Pod)) *pacer {
	return &pacer{
		clock:    clock,
		pods:     pods,
		activate: activate,
		paces:    make(map[types.UID]*pace),
		waitsFor: make(map[types.UID]sets.Set[types.UID]),
	}
}

// left returns how many pods of controller may be evicted now if limit may be away
// at a time. If none, preemptor, unless it is nil, is tried again when that changes.
func (p *pacer) left(controller types.UID, limit int, preemptor *corev1.Pod) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The index is read under the lock: a pod that ends after this sees the waiter.
	away, _ := p.away(controller)
	if away < limit {
		return limit - away
	}
	if preemptor == nil {
		return 0
	}
	if controllers := p.waitsFor[preemptor.UID]; !controllers.Has(controller) {
		if controllers == nil {
			controllers = sets.New[types.UID]()
			p.waitsFor[preemptor.UID] = controllers
		}
		controllers.Insert(controller)
		pace := p.of(controller)
		pace.waiting = append(pace.waiting, waiter{preemptor, limit})
		p.settle(controller)
	}
	return 0
}

// begin records that a pod of controller is being evicted, for timeout at most.
func (p *pacer) begin(controller, victim types.UID, timeout time.Duration) {
	p.change(controller, func() {
		now := p.clock.Now()
		p.of(controller).evictions[victim] = eviction{now, now.Add(timeout)}
	})
}

// see records that pod was evicted at a time, unless it is recorded: by a scheduler that
// led before, or by another client of the eviction API.
func (p *pacer) see(pod *corev1.Pod, at time.Time, timeout time.Duration) {
	if controller := controllerUID(pod); controller != "" {
		p.change(controller, func() {
			evictions, until := p.of(controller).evictions, at.Add(timeout)
			if _, recorded := evictions[pod.UID]; !recorded && p.clock.Now().Before(until) {
				evictions[pod.UID] = eviction{at, until}
			}
		})
	}
}

// cancel takes the record of an eviction back that does not happen.
func (p *pacer) cancel(controller, victim types.UID) {
	p.change(controller, func() { delete(p.of(controller).evictions, victim) })
}

// ready ends the oldest eviction that pod, which has become Ready, replaces.
func (p *pacer) ready(pod *corev1.Pod) {
	p.changeOwner(pod, func(pace *pace) {
		var replaced types.UID
		for victim, e := range pace.evictions {
			// Creation timestamps are in whole seconds.
			if e.since.Truncate(time.Second).After(pod.CreationTimestamp.Time) {
				continue
			}
			if oldest, found := pace.evictions[replaced]; !found || e.since.Before(oldest.since) {
				replaced = victim
			}
		}
		delete(pace.evictions, replaced)
	})
}

// gone tries the preemptors again that wait for a terminating pod to end.
func (p *pacer) gone(pod *corev1.Pod) {
	p.changeOwner(pod, func(*pace) {})
}

// forget has preemptor wait no longer.
func (p *pacer) forget(preemptor *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waitsFor, preemptor.UID)
}

// changeOwner changes the state of the controller of pod, if it has any.
func (p *pacer) changeOwner(pod *corev1.Pod, do func(*pace)) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return
	}
	p.change(owner.UID, func() {
		if pace := p.paces[owner.UID]; pace != nil {
			do(pace)
		}
	})
}

func (p *pacer) change(controller types.UID, do func()) {
	p.mu.Lock()
	do()
	woken := p.settle(controller)
	p.mu.Unlock()
	if len(woken) > 0 {
		p.activate(woken)
	}
}

// of returns the state of controller, which settle deletes when it is empty.
func (p *pacer) of(controller types.UID) *pace {
	if p.paces[controller] == nil {
		p.paces[controller] = &pace{evictions: make(map[types.UID]eviction)}
	}
	return p.paces[controller]
}

// away returns how many pods of controller are away, and when the first of them
// will no longer count.
func (p *pacer) away(controller types.UID) (count int, next time.Time) {
	now := p.clock.Now()
	add := func(until time.Time) {
		count++
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	var evictions map[types.UID]eviction
	if pace := p.paces[controller]; pace != nil {
		evictions = pace.evictions
	}
	maps.DeleteFunc(evictions, func(_ types.UID, e eviction) bool { return !now.Before(e.until) })
	for _, e := range evictions {
		add(e.until)
	}
	// The index exists, so there is no error.
	terminating, _ := p.pods.ByIndex(terminatingIndex, string(controller))
	for _, obj := range terminating {
		pod := obj.(*corev1.Pod)
		if _, counted := evictions[pod.UID]; !counted && endsSoon(pod, now) {
			add(stuckAt(pod))
		}
	}
	return count, next
}

// settle returns the preemptors to try again after a change of controller, and sets
// the timer for the next change.
func (p *pacer) settle(controller types.UID) map[string]*corev1.Pod {
	pace := p.paces[controller]
	if pace == nil {
		return nil
	}
	if pace.timer != nil {
		pace.timer.Stop()
	}
	away, next := p.away(controller)
	woken := make(map[string]*corev1.Pod)
	for len(pace.waiting) > 0 && len(woken) < wakeAtOnce {
		first := pace.waiting[0]
		if controllers := p.waitsFor[first.pod.UID]; controllers.Has(controller) {
			if away >= first.limit {
				break
			}
			controllers.Delete(controller)
			if controllers.Len() == 0 {
				delete(p.waitsFor, first.pod.UID)
			}
			woken[klog.KObj(first.pod).String()] = first.pod
		}
		pace.waiting = slices.Delete(pace.waiting, 0, 1)
	}
	now := p.clock.Now()
	switch {
	case len(pace.waiting) > 0 && len(woken) > 0:
		// Those who are tried now may not need the eviction after all.
		next = now.Add(wakePeriod)
	case next.IsZero():
		delete(p.paces, controller)
		return woken
	}
	pace.timer = p.clock.AfterFunc(next.Sub(now), func() { p.change(controller, func() {}) })
	return woken
}
