// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/test/clustertest"
)

// checker works out from the objects of a cluster alone what the scheduler should have done.
type checker struct {
	*cluster
	log *podLog
	// admitted are the specs of pods that the API server makes of templates, by the
	// DaemonSet's UID and generation.
	admitted map[string]*corev1.PodSpec
	// before are the nodes before the change, changed is when that was.
	before  []corev1.Node
	changed time.Time
	// judged is up to when evictions have been judged.
	judged time.Time
	// blind is whether pods may have come and gone unseen.
	blind bool
}

func newChecker(c *cluster) *checker {
	c.t.Helper()
	return &checker{cluster: c, log: c.watchPods(), admitted: make(map[string]*corev1.PodSpec)}
}

// rememberNodes remembers the nodes before a change.
func (c *checker) rememberNodes() {
	c.before, c.changed = c.nodes(c.t.Context()), time.Now()
}

// world is all that there is at a moment.
type world struct {
	nodes      []corev1.Node
	daemonSets []appsv1.DaemonSet
	pods       []corev1.Pod
	budgets    []policyv1.PodDisruptionBudget
	claims     []corev1.PersistentVolumeClaim
	volumes    []corev1.PersistentVolume
	// admitted are the specs of the pods of DaemonSets, by UID. A DaemonSet whose pods
	// are refused has none.
	admitted map[types.UID]*corev1.PodSpec
}

func (c *checker) look(ctx context.Context) (*world, error) {
	core := c.Client.CoreV1()
	nodes, err := core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	daemonSets, err := c.Client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	budgets, err := c.Client.PolicyV1().PodDisruptionBudgets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	claims, err := core.PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	volumes, err := core.PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	pods, err := core.Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w := &world{nodes.Items, daemonSets.Items, pods.Items, budgets.Items, claims.Items, volumes.Items, make(map[types.UID]*corev1.PodSpec)}
	for i := range w.daemonSets {
		ds := &w.daemonSets[i]
		if w.admitted[ds.UID], err = c.admit(ctx, ds); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// admit returns the spec of the pods that the API server makes of a template, or nil if
// it refuses them.
func (c *checker) admit(ctx context.Context, ds *appsv1.DaemonSet) (*corev1.PodSpec, error) {
	key := fmt.Sprintf("%s/%d", ds.UID, ds.Generation)
	if spec := c.admitted[key]; spec != nil {
		return spec, nil
	}
	pod, err := c.Client.CoreV1().Pods(ds.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: ds.Name + "-", Labels: ds.Spec.Template.Labels, Annotations: ds.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
		},
		Spec: ds.Spec.Template.Spec,
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.admitted[key] = &pod.Spec
	return &pod.Spec, nil
}

// everyPodIsWhereItShouldBe checks the two rules of a settled cluster.
func (c *checker) everyPodIsWhereItShouldBe(ctx context.Context) error {
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	for i := range w.pods {
		pod := &w.pods[i]
		switch {
		case isStuck(pod):
		case pod.DeletionTimestamp != nil:
			return fmt.Errorf("pod %s is terminating", pod.Name)
		case pod.Spec.NodeName != "" && !clustertest.IsReady(pod) && ownerKind(pod) != "Job":
			return fmt.Errorf("pod %s on node %s is not ready", pod.Name, pod.Spec.NodeName)
		}
	}
	for i := range w.nodes {
		n := w.on(&w.nodes[i])
		if err := n.daemonPodsThatCouldRun(); err != nil {
			return err
		}
		if err := n.ordinaryPodsThatWouldFit(); err != nil {
			return err
		}
	}
	return nil
}

// nodeState is what a node has and owes.
type nodeState struct {
	*world
	node *corev1.Node
	pods []*corev1.Pod
	// missing are the daemon pods that should be on it and are not, the most important
	// one first.
	missing []missing
}

// missing is a daemon pod that a node lacks: one that waits for it, or one that its
// DaemonSet could create there.
type missing struct {
	name string
	spec *corev1.PodSpec
}

func (w *world) on(node *corev1.Node) *nodeState {
	n := &nodeState{world: w, node: node}
	present := make(map[types.UID]bool)
	for i := range w.pods {
		pod := &w.pods[i]
		waits := pod.Spec.NodeName == "" && isDaemonPod(pod) && isPinned(pod, node.Name)
		switch {
		case pod.Spec.NodeName == node.Name:
			n.pods = append(n.pods, pod)
		case waits && w.welcomes(node, pod.Namespace, &pod.Spec):
			n.missing = append(n.missing, missing{pod.Name, &pod.Spec})
		}
		if pod.Spec.NodeName == node.Name || waits {
			present[ownerUID(pod)] = true
		}
	}
	for i := range w.daemonSets {
		ds := &w.daemonSets[i]
		run, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds)
		if spec := w.admitted[ds.UID]; run && spec != nil && !present[ds.UID] && w.welcomes(node, ds.Namespace, spec) {
			n.missing = append(n.missing, missing{ds.Name, spec})
		}
	}
	slices.SortFunc(n.missing, func(a, b missing) int {
		return cmp.Or(cmp.Compare(priorityOf(b.spec), priorityOf(a.spec)), cmp.Compare(a.name, b.name))
	})
	return n
}

// daemonPodsThatCouldRun checks that no daemon pod is missing that could run: one may take the
// room of pods below its own priority, as kube-scheduler does, or within the budgets of all that
// and the room of those of its priority that may move.
func (n *nodeState) daemonPodsThatCouldRun() error {
	for _, m := range n.missing {
		for _, equal := range []bool{false, true} {
			room := n.room(func(pod *corev1.Pod) bool {
				switch above := priorityOf(&pod.Spec) - priorityOf(m.spec); {
				case above > 0 || isStuck(pod) || isMirror(pod):
					return true
				case above == 0:
					return !equal || n.whyItStays(pod) != ""
				default:
					return equal && n.isInBudget(pod)
				}
			})
			if room.take(m.spec, nil) {
				return fmt.Errorf("daemon pod %s is not on node %s, which could hold it", m.name, n.node.Name)
			}
		}
	}
	return nil
}

// ordinaryPodsThatWouldFit checks that no ordinary pod waits that would fit beside all pods and all that is held.
func (n *nodeState) ordinaryPodsThatWouldFit() error {
	for i := range n.world.pods {
		pod := &n.world.pods[i]
		if pod.Spec.NodeName != "" || isDaemonPod(pod) || pod.Spec.SchedulerName != corev1.DefaultSchedulerName || !n.welcomes(n.node, pod.Namespace, &pod.Spec) {
			continue
		}
		room := n.room(func(*corev1.Pod) bool { return true })
		for _, m := range n.held() {
			if priorityOf(m.spec) >= priorityOf(&pod.Spec) {
				room.give(m.spec)
			}
		}
		if room.take(&pod.Spec, nil) {
			return fmt.Errorf("pod %s waits (%s), and would fit on node %s", pod.Name, whyWaiting(pod), n.node.Name)
		}
	}
	return nil
}

// held returns the missing daemon pods that would fit if there were no ordinary pods. What
// the node does not list yet may come.
func (n *nodeState) held() []missing {
	if isVirtual(n.node) {
		return nil
	}
	room := n.room(func(pod *corev1.Pod) bool { return isDaemonPod(pod) || isMirror(pod) })
	return slices.DeleteFunc(slices.Clone(n.missing), func(m missing) bool { return !room.take(m.spec, n.node.Status.Allocatable) })
}

// welcomes says whether selector, affinity, taints and volumes let a pod onto a node.
func (w *world) welcomes(node *corev1.Node, namespace string, spec *corev1.PodSpec) bool {
	return w.couldBeOn(node, namespace, spec) && !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Effect != corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(spec.Tolerations, func(toleration corev1.Toleration) bool {
			return (toleration.Key == "" || toleration.Key == taint.Key) && (toleration.Effect == "" || toleration.Effect == taint.Effect)
		})
	})
}

// couldBeOn says whether selector, affinity and volumes let a pod onto a node.
func (w *world) couldBeOn(node *corev1.Node, namespace string, spec *corev1.PodSpec) bool {
	if match, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *spec}).Match(node); err != nil || !match {
		return false
	}
	for i := range spec.Volumes {
		claim := spec.Volumes[i].PersistentVolumeClaim
		if claim != nil && !slices.ContainsFunc(w.volumes, func(volume corev1.PersistentVolume) bool {
			if volume.Name != "local-"+node.Name {
				return false
			}
			bound := volume.Spec.ClaimRef
			return bound == nil && !w.isBound(namespace, claim.ClaimName) ||
				bound != nil && bound.Namespace == namespace && bound.Name == claim.ClaimName
		}) {
			return false
		}
	}
	return true
}

// isBound says whether a claim has a volume.
func (w *world) isBound(namespace, name string) bool {
	return slices.ContainsFunc(w.claims, func(claim corev1.PersistentVolumeClaim) bool {
		return claim.Namespace == namespace && claim.Name == name && claim.Spec.VolumeName != ""
	})
}

// whyItStays returns why a pod must not be evicted for a daemon pod of its own priority, or "".
func (w *world) whyItStays(pod *corev1.Pod) string {
	switch owner := metav1.GetControllerOf(pod); {
	case isDaemonPod(pod):
		return "it is a daemon pod"
	case isMirror(pod):
		return "it is the mirror of a static pod"
	case isStuck(pod):
		return "it is terminating"
	case owner == nil:
		return "it has no controller"
	case owner.Kind == "Job":
		return "its Job would fail"
	case pod.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false", pod.Annotations["karpenter.sh/do-not-disrupt"] == "true":
		return "an annotation protects it"
	case pod.Spec.SchedulerName != corev1.DefaultSchedulerName:
		return "another scheduler has placed it"
	}
	if w.isInBudget(pod) {
		return "a budget protects it"
	}
	elsewhere := false
	for i := range w.nodes {
		node := &w.nodes[i]
		switch {
		case node.Name != pod.Spec.NodeName:
			elsewhere = elsewhere || w.couldBeOn(node, pod.Namespace, &pod.Spec)
		case isVirtual(node):
			return "it is on a virtual node"
		case node.Spec.Unschedulable:
			return "it is on a node that is being drained"
		}
	}
	if !elsewhere {
		return onItsNodeOnly
	}
	return ""
}

// isInBudget says whether a PodDisruptionBudget covers a pod. Those here allow nothing.
func (w *world) isInBudget(pod *corev1.Pod) bool {
	return slices.ContainsFunc(w.budgets, func(budget policyv1.PodDisruptionBudget) bool {
		selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
		return err == nil && budget.Namespace == pod.Namespace && selector.Matches(labels.Set(pod.Labels))
	})
}

const onItsNodeOnly = "it can be on its node only"

// isOneOfSeveral says whether the ReplicaSet of a pod has two more on its node, so that it
// may be evicted as a last resort.
func (w *world) isOneOfSeveral(pod *corev1.Pod) bool {
	others := 0
	for i := range w.pods {
		if other := &w.pods[i]; other.UID != pod.UID && other.Spec.NodeName == pod.Spec.NodeName && ownerUID(other) == ownerUID(pod) {
			others++
		}
	}
	return ownerKind(pod) == "ReplicaSet" && others >= 2
}

// room is what a node has left.
type room struct {
	resources corev1.ResourceList
	ports     map[int32]bool
}

// room returns what is left beside the pods that stay.
func (n *nodeState) room(stays func(*corev1.Pod) bool) *room {
	r := &room{n.node.Status.Allocatable.DeepCopy(), make(map[int32]bool)}
	for _, pod := range n.pods {
		if stays(pod) {
			r.give(&pod.Spec)
		}
	}
	return r
}

var oneSlot = resource.MustParse("1")

// asksFor returns what a pod asks for.
func asksFor(spec *corev1.PodSpec) corev1.ResourceList {
	requests := resourcehelper.PodRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{})
	requests[corev1.ResourcePods] = oneSlot
	return requests
}

// give takes room away, whether there is enough or not.
func (r *room) give(spec *corev1.PodSpec) {
	for name, quantity := range asksFor(spec) {
		left := r.resources[name]
		left.Sub(quantity)
		r.resources[name] = left
	}
	for port := range hostPorts(spec) {
		r.ports[port] = true
	}
}

// take takes room away if there is enough. With a list, what is not in it counts as enough.
func (r *room) take(spec *corev1.PodSpec, listed corev1.ResourceList) bool {
	for name, quantity := range asksFor(spec) {
		left, lists := r.resources[name], listed[name]
		if quantity.IsZero() || listed != nil && lists.IsZero() {
			continue
		}
		if quantity.Cmp(left) > 0 {
			return false
		}
	}
	for port := range hostPorts(spec) {
		if r.ports[port] {
			return false
		}
	}
	r.give(spec)
	return true
}

func hostPorts(spec *corev1.PodSpec) map[int32]bool {
	ports := make(map[int32]bool)
	for i := range spec.Containers {
		for _, port := range spec.Containers[i].Ports {
			if port.HostPort != 0 {
				ports[port.HostPort] = true
			}
		}
	}
	return ports
}

// priorityOf returns the priority of an admitted pod.
func priorityOf(spec *corev1.PodSpec) int32 { return ptr.Deref(spec.Priority, 0) }

func ownerUID(pod *corev1.Pod) types.UID {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.UID
	}
	return ""
}

func ownerKind(pod *corev1.Pod) string {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.Kind
	}
	return ""
}

func isDaemonPod(pod *corev1.Pod) bool { return ownerKind(pod) == "DaemonSet" }

func isMirror(pod *corev1.Pod) bool { return pod.Annotations[corev1.MirrorPodAnnotationKey] != "" }

func isVirtual(node *corev1.Node) bool { return node.Labels[fargate] == "fargate" }

// isStuck says whether a pod has been terminating for long.
func isStuck(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0 }

// isPinned says whether the DaemonSet controller has made a pod for a node.
func isPinned(pod *corev1.Pod, node string) bool {
	affinity := pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	return slices.ContainsFunc(affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(term.MatchFields, func(field corev1.NodeSelectorRequirement) bool { return slices.Contains(field.Values, node) })
	})
}

// podLog knows every pod that ever was, as it was seen last, and why it once waited.
type podLog struct {
	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod
	waiting map[string]string
	// moved are the pods that were bound more than once.
	moved []string
}

// bound returns how many pods have been bound.
func (l *podLog) bound() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	bound := 0
	for _, pod := range l.pods {
		if pod.Spec.NodeName != "" {
			bound++
		}
	}
	return bound
}

// refused returns the pods that the scheduler could not place at its first attempt,
// and why.
func (l *podLog) refused(prefix string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var refused []string
	for name, why := range l.waiting {
		if strings.HasPrefix(name, prefix) {
			refused = append(refused, name+": "+why)
		}
	}
	return refused
}

// wasHeldBack checks that a pod of web was refused because of a hold.
func (l *podLog) wasHeldBack(t *testing.T) {
	t.Helper()
	if refused := l.refused("web-"); !slices.ContainsFunc(refused, func(why string) bool { return strings.Contains(why, "held for DaemonSet pods") }) {
		t.Errorf("no pod was ever held back; refused: %v", refused)
	}
}

// named returns the pod of that namespace/name that was seen last, or nil. No two pods
// of controllers have the same name.
func (l *podLog) named(name string) *corev1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		if pod.Namespace+"/"+pod.Name == name {
			return pod
		}
	}
	return nil
}

// of returns the pod with that UID, or nil.
func (l *podLog) of(uid string) *corev1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pods[types.UID(uid)]
}

// anyReady says whether a pod of a controller turned Ready between two moments, which
// the API server's timestamps say to the second.
func (l *podLog) anyReady(owner types.UID, from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		ready := podutil.GetPodReadyCondition(pod.Status)
		if ownerUID(pod) == owner && ready != nil && !pod.CreationTimestamp.Time.Before(from.Truncate(time.Second)) && !ready.LastTransitionTime.After(to) {
			return true
		}
	}
	return false
}

func (c *cluster) watchPods() *podLog {
	c.t.Helper()
	log := &podLog{pods: make(map[types.UID]*corev1.Pod), waiting: make(map[string]string)}
	see := func(object any) {
		pod := object.(*corev1.Pod)
		log.mu.Lock()
		defer log.mu.Unlock()
		if before := log.pods[pod.UID]; before != nil && before.Spec.NodeName != "" && before.Spec.NodeName != pod.Spec.NodeName {
			log.moved = append(log.moved, fmt.Sprintf("%s/%s from node %s to %q", pod.Namespace, pod.Name, before.Spec.NodeName, pod.Spec.NodeName))
		}
		log.pods[pod.UID] = pod
		if why := whyWaiting(pod); why != string(pod.Status.Phase) {
			log.waiting[pod.Name] = why
		}
	}
	factory := informers.NewSharedInformerFactory(c.Client, 0)
	if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
	}); err != nil {
		c.t.Fatal(err)
	}
	factory.Start(c.t.Context().Done())
	factory.WaitForCacheSync(c.t.Context().Done())
	return log
}

// eviction is one that an event tells of.
type eviction struct {
	at                time.Time
	victim, preemptor *corev1.Pod
	note              string
	// equal is one for a daemon pod of the victim's priority.
	equal bool
}

// evicted returns the evictions in the order in which they were.
func (c *checker) evicted(ctx context.Context) ([]eviction, error) {
	events, err := c.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var evictions []eviction
	for i := range events.Items {
		event := &events.Items[i]
		if event.Reason != "Preempted" {
			continue
		}
		e := eviction{at: event.EventTime.Time, victim: c.log.of(string(event.Regarding.UID)), note: event.Note}
		words := strings.Fields(event.Note)
		if e.equal = strings.HasPrefix(event.Note, "Made room for pod "); e.equal {
			e.preemptor = c.log.named(words[4])
		} else {
			e.preemptor = c.log.of(words[3]) // "Preempted by pod UID on node NAME"
		}
		evictions = append(evictions, e)
	}
	slices.SortFunc(evictions, func(a, b eviction) int { return a.at.Compare(b.at) })
	return evictions, nil
}

// wrongEvictions returns the evictions since the last call that the rules don't allow.
func (c *checker) wrongEvictions(ctx context.Context) []string {
	c.t.Helper()
	evictions, err := c.evicted(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	w, err := c.look(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	var problems []string
	judged := c.judged
	c.judged = time.Now()
	last := make(map[types.UID]time.Time)
	for _, e := range evictions {
		if e.victim == nil || e.preemptor == nil {
			if !c.blind {
				problems = append(problems, "unknown pods in the event: "+e.note)
			}
			continue
		}
		if e.at.Before(judged) {
			if e.equal {
				last[ownerUID(e.victim)] = e.at
			}
			continue
		}
		victim, preemptor := priorityOf(&e.victim.Spec), priorityOf(&e.preemptor.Spec)
		if e.equal && (!isDaemonPod(e.preemptor) || victim != preemptor) || !e.equal && victim >= preemptor {
			problems = append(problems, fmt.Sprintf("%s of priority %d was evicted for %s of priority %d: %s", e.victim.Name, victim, e.preemptor.Name, preemptor, e.note))
		}
		if !e.equal {
			continue
		}
		why := c.atThatTime(w, e.at).whyItStays(e.victim)
		if why != "" && !isStuck(e.victim) && (why != onItsNodeOnly || !w.isOneOfSeveral(e.victim)) {
			problems = append(problems, fmt.Sprintf("%s was evicted although %s: %s", e.victim.Name, why, e.note))
		}
		owner := ownerUID(e.victim)
		if before, ok := last[owner]; ok && e.at.Sub(before) < randomEvictionTimeout-time.Second && !c.log.anyReady(owner, before, e.at) {
			problems = append(problems, fmt.Sprintf("%s was evicted %s after another pod of its controller: %s", e.victim.Name, e.at.Sub(before), e.note))
		}
		last[owner] = e.at
	}
	return problems
}

// atThatTime returns the world with the nodes as they were, a moment after the change
// still as they were before it.
func (c *checker) atThatTime(w *world, at time.Time) *world {
	then := *w
	if at.Before(c.changed.Add(time.Second)) {
		then.nodes = c.before
	} else {
		// A label may have let the pod onto a node that it now keeps it from.
		then.nodes = slices.Concat(w.nodes, c.before)
	}
	return &then
}
