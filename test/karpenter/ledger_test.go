// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package karpenter

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// ledger writes down what happens to nodes and pods, in the order in which it happens.
type ledger struct {
	podLister  corelisters.PodLister
	nodeLister corelisters.NodeLister

	mu sync.Mutex // protects the rest
	// changed is when something changed last, and what.
	changed time.Time
	what    string
	// machines are the nodes that were bought, also those that have gone.
	machines map[string]*machine
	// known are the states of pods and nodes at which something last changed.
	known map[types.UID]string
	// evicted are ordinary pods that had to leave their nodes.
	evicted []string
	// lost are daemon pods that had to go although their nodes stay.
	lost []string
}

// machine is a node that was bought.
type machine struct {
	cpu          int64
	bought, gone time.Time
}

// newLedger begins to write, and plays the agent of the DaemonSet network as long as the test runs.
func newLedger(t *testing.T, c *localcluster.Cluster) *ledger {
	t.Helper()
	factory := informers.NewSharedInformerFactory(c.Client, 0)
	l := &ledger{
		podLister:  factory.Core().V1().Pods().Lister(),
		nodeLister: factory.Core().V1().Nodes().Lister(),
		changed:    time.Now(),
		machines:   make(map[string]*machine),
		known:      make(map[types.UID]string),
	}
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		factory.Core().V1().Pods().Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { l.pod(nil, obj.(*corev1.Pod)) },
			UpdateFunc: func(before, after any) { l.pod(before.(*corev1.Pod), after.(*corev1.Pod)) },
			DeleteFunc: func(any) { l.change("a pod has gone") },
		},
		factory.Core().V1().Nodes().Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { l.buy(obj.(*corev1.Node)) },
			UpdateFunc: func(_, after any) { l.node(after.(*corev1.Node)) },
			DeleteFunc: l.sell,
		},
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go wait.UntilWithContext(ctx, func(ctx context.Context) { l.untaint(ctx, c) }, 500*time.Millisecond)
	return l
}

// untaint does what agents do that have a start-up taint: it takes the taint from nodes where the agent is Ready.
func (l *ledger) untaint(ctx context.Context, c *localcluster.Cluster) {
	for _, node := range l.nodes() {
		n := slices.IndexFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == startupTaint })
		if n < 0 || !l.covered(node, network) {
			continue
		}
		node = node.DeepCopy()
		node.Spec.Taints = slices.Delete(node.Spec.Taints, n, n+1)
		// What fails is tried again in the next round.
		_, _ = c.Client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	}
}

func (l *ledger) change(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed, l.what = time.Now(), what
}

// see notes a state of an object, and whether that is a change.
func (l *ledger) see(object metav1.Object, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[object.GetUID()] != state {
		l.known[object.GetUID()], l.changed, l.what = state, time.Now(), object.GetName()+": "+state
	}
}

func (l *ledger) pod(before, after *corev1.Pod) {
	l.see(after, fmt.Sprintf("on %q, ready %t, ends %t", after.Spec.NodeName, clustertest.IsReady(after), after.DeletionTimestamp != nil))
	if before == nil || before.DeletionTimestamp != nil || after.DeletionTimestamp == nil || after.Spec.NodeName == "" {
		return
	}
	node, err := l.nodeLister.Get(after.Spec.NodeName)
	if err != nil || leaves(node) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if isDaemonPod(after) {
		l.lost = append(l.lost, after.Name+" on "+node.Name)
	} else {
		l.evicted = append(l.evicted, after.Name+" on "+node.Name)
	}
}

func (l *ledger) node(node *corev1.Node) {
	l.see(node, fmt.Sprintf("leaves %t, taints %v", leaves(node), node.Spec.Taints))
}

func (l *ledger) buy(node *corev1.Node) {
	l.node(node)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.machines[node.Name] = &machine{cpu: node.Status.Capacity.Cpu().Value(), bought: node.CreationTimestamp.Time}
}

func (l *ledger) sell(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	l.change("a node has gone")
	l.mu.Lock()
	defer l.mu.Unlock()
	if node, ok := obj.(*corev1.Node); ok && l.machines[node.Name] != nil {
		l.machines[node.Name].gone = time.Now()
	}
}

// lastChange returns when something changed last, and what.
func (l *ledger) lastChange() (time.Time, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.what
}

// bought returns how many nodes were bought, with how many CPUs, and the sum of their ages at the given time.
func (l *ledger) bought(until time.Time) (nodes int, cpu int64, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, machine := range l.machines {
		nodes, cpu = nodes+1, cpu+machine.cpu
		end := until
		if !machine.gone.IsZero() && machine.gone.Before(until) {
			end = machine.gone
		}
		age += max(0, end.Sub(machine.bought))
	}
	return nodes, cpu, age
}

// purchases returns when the nodes were bought, in seconds after the given time.
func (l *ledger) purchases(since time.Time) []float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []float64
	for _, machine := range l.machines {
		all = append(all, machine.bought.Sub(since).Round(time.Second).Seconds())
	}
	slices.Sort(all)
	return all
}

// placed returns when the last ordinary pod and the last daemon pod were given to their nodes, in seconds after the
// given time.
func (l *ledger) placed(since time.Time) (ordinary, daemon float64) {
	for _, pod := range l.pods() {
		_, condition := podutil.GetPodCondition(&pod.Status, corev1.PodScheduled)
		if condition == nil || pod.Spec.NodeName == "" {
			continue
		}
		after := condition.LastTransitionTime.Sub(since).Round(time.Second).Seconds()
		if isDaemonPod(pod) {
			daemon = max(daemon, after)
		} else {
			ordinary = max(ordinary, after)
		}
	}
	return ordinary, daemon
}

// moves returns how many nodes were bought, and how many have gone.
func (l *ledger) moves() (bought, gone int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, machine := range l.machines {
		bought++
		if !machine.gone.IsZero() {
			gone++
		}
	}
	return bought, gone
}

// victims returns the ordinary pods that had to leave nodes that stay, and the daemon pods.
func (l *ledger) victims() (ordinary, daemon []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.evicted), slices.Clone(l.lost)
}

// nodes returns the nodes that are there to stay.
func (l *ledger) nodes() []*corev1.Node {
	// It reads from memory, and fails for no selector.
	all, _ := l.nodeLister.List(labels.Everything())
	return slices.DeleteFunc(all, leaves)
}

func (l *ledger) pods() []*corev1.Pod {
	all, _ := l.podLister.List(labels.Everything())
	return all
}

// ordinary returns how many ordinary pods are Ready, and how many are not.
func (l *ledger) ordinary() (ready, waiting int) {
	for _, pod := range l.pods() {
		switch {
		case isDaemonPod(pod):
		case clustertest.IsReady(pod):
			ready++
		default:
			waiting++
		}
	}
	return ready, waiting
}

// missing returns where a node has no Ready pod of a DaemonSet.
func (l *ledger) missing(daemonSets []string) []string {
	var missing []string
	for _, node := range l.nodes() {
		for _, name := range daemonSets {
			if !l.covered(node, name) {
				missing = append(missing, name+" on "+node.Name)
			}
		}
	}
	return missing
}

func (l *ledger) covered(node *corev1.Node, daemonSet string) bool {
	return slices.ContainsFunc(l.pods(), func(pod *corev1.Pod) bool {
		return pod.Spec.NodeName == node.Name && pod.Labels["app"] == daemonSet && clustertest.IsReady(pod)
	})
}

func isDaemonPod(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet"
}

// leaves says whether Karpenter has begun to remove a node.
func leaves(node *corev1.Node) bool {
	return node.DeletionTimestamp != nil || slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == "karpenter.sh/disrupted"
	})
}
