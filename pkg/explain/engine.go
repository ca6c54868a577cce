// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	schedulingv1helper "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/dryrun"
	"everynode.dev/everynode/pkg/snapshot"
)

// Options are what an Engine has to know besides the cluster.
type Options struct {
	// Now is the moment at which the cluster was read.
	Now time.Time
	// Kubectl begins the commands that verdicts name: the program, and the flags that
	// lead it to the cluster. If it is empty, verdicts name no commands.
	Kubectl string
	// Patience is for how long a gap may take to close by itself. Default: [DefaultPatience].
	Patience time.Duration
}

// DefaultPatience is enough for nodes that start and for images that are large.
const DefaultPatience = 10 * time.Minute

// Engine answers questions about a Cluster. It may be asked by one goroutine at a time.
type Engine struct {
	cluster    *snapshot.Cluster
	now        time.Time
	patience   time.Duration
	kubectl    string
	admission  daemonset.Options
	set        *daemonset.Set
	nodes      map[string]*corev1.Node
	namespaces map[string]*corev1.Namespace
	priorities map[string]int32
	// on are the live pods of each node: bound and not ended.
	on       map[string][]*corev1.Pod
	subjects map[types.UID]*subject
	podUIDs  sets.Set[types.UID]
	// lost are the warnings with which a kubelet refused or ended pods that are gone, one of each pod.
	lost       map[place][]*corev1.Event
	events     map[types.UID][]*corev1.Event
	schedulers *dryrun.Schedulers
	// everynode says whether everynode-scheduler has been seen in the cluster.
	everynode bool
	// profiles are the names of schedulers that are everynode-scheduler.
	profiles sets.Set[string]
	// networks are the DaemonSets that give nodes their network.
	networks []*subject
	// agents are the DaemonSets that take a start-up taint off, by its key.
	agents map[string]*subject
}

// subject is a DaemonSet that questions are asked about.
type subject struct {
	ds       *appsv1.DaemonSet
	compiled *daemonset.DaemonSet
	// pods are its pods by the node that the controller counts them on, and unpinned
	// those whose node cannot be told.
	pods     map[string][]*corev1.Pod
	unpinned []*corev1.Pod
	// tolerations are those of its pods, the controller's own among them.
	tolerations []corev1.Toleration
	// hash and generation mark pods of the current template: "" and nil if unknown.
	hash       string
	generation *int64
	creation   *creationTrouble
	// current: every pod counts as being of the current template.
	current bool
	// counted are numbers of nodes that remedies name.
	counted map[string]int
}

// New returns an Engine for cluster. What it runs in the background ends with ctx.
func New(ctx context.Context, cluster *snapshot.Cluster, options Options) (*Engine, error) {
	e := &Engine{
		cluster:    cluster,
		now:        options.Now,
		patience:   cmp.Or(options.Patience, DefaultPatience),
		kubectl:    options.Kubectl,
		nodes:      byName(cluster.Nodes),
		namespaces: byName(cluster.Namespaces),
		priorities: priorities(cluster),
		on:         make(map[string][]*corev1.Pod, len(cluster.Nodes)),
		subjects:   make(map[types.UID]*subject, len(cluster.DaemonSets)),
		podUIDs:    sets.New[types.UID](),
		lost:       make(map[place][]*corev1.Event),
		events:     make(map[types.UID][]*corev1.Event),
		profiles:   everynodeProfiles(cluster.Pods),
		agents:     make(map[string]*subject),
	}
	e.everynode = slices.ContainsFunc(cluster.Pods, e.showsEverynode)
	e.admission = daemonset.Options{Priority: e.priority, LimitRanges: cluster.LimitRangesIn, RuntimeClass: cluster.RuntimeClass}
	e.set = daemonset.NewSet(nil, cluster.DaemonSets, e.admission)
	for _, event := range cluster.Events {
		uid := event.InvolvedObject.UID
		e.events[uid] = append(e.events[uid], event)
	}
	for _, ds := range cluster.DaemonSets {
		s := e.newSubject(ds)
		e.subjects[ds.UID] = s
		if providesNetwork(s.template()) {
			e.networks = append(e.networks, s)
		}
	}
	var err error
	if e.schedulers, err = dryrun.New(ctx, cluster); err != nil {
		return nil, err
	}
	e.sortPods()
	e.noteLosses()
	e.set = e.set.WithLapsed(e.lapsed())
	return e, nil
}

// byName returns objects by their names.
func byName[T metav1.Object](objects []T) map[string]T {
	named := make(map[string]T, len(objects))
	for _, object := range objects {
		named[object.GetName()] = object
	}
	return named
}

// priority returns the priority of pods with a PriorityClass, 0 for a class that is not known.
func (e *Engine) priority(class string) int32 {
	return e.priorities[class]
}

func (e *Engine) newSubject(ds *appsv1.DaemonSet) *subject {
	s := &subject{
		ds:          ds,
		compiled:    e.set.Get(ds.UID),
		pods:        make(map[string][]*corev1.Pod),
		tolerations: append(slices.Clip(ds.Spec.Template.Spec.Tolerations), daemonset.DefaultTolerations(ds.Spec.Template.Spec.HostNetwork)...),
		creation:    newCreationTrouble(e.events[ds.UID]),
		counted:     make(map[string]int),
	}
	// An annotation that is no number counts as none.
	s.generation, _ = daemonutil.GetTemplateGeneration(ds)
	var newest int64
	for _, revision := range e.cluster.Revisions {
		if metav1.IsControlledBy(revision, ds) && revision.Revision > newest {
			newest, s.hash = revision.Revision, revision.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		}
	}
	return s
}

// sortPods gives every pod to its node and to its DaemonSet.
func (e *Engine) sortPods() {
	for _, pod := range e.cluster.Pods {
		if pod.Spec.NodeName != "" && !podutil.IsPodTerminal(pod) {
			e.on[pod.Spec.NodeName] = append(e.on[pod.Spec.NodeName], pod)
		}
		e.podUIDs.Insert(pod.UID)
		compiled := e.set.OwnerOf(pod)
		if compiled == nil {
			continue
		}
		s := e.subjects[compiled.UID]
		if pod.DeletionTimestamp != nil && podutil.IsPodTerminal(pod) {
			// The controller does not wait for it (getNodesToDaemonPods in k8s.io/kubernetes/pkg/controller/daemon).
			continue
		}
		if node, ok := daemonset.TargetNode(pod); ok {
			s.pods[node] = append(s.pods[node], pod)
		} else {
			s.unpinned = append(s.unpinned, pod)
		}
	}
}

// updated says whether pod is of the current template, as the controller does.
func (s *subject) updated(pod *corev1.Pod) bool {
	return s.current || daemonutil.IsPodUpdated(pod, s.hash, s.generation)
}

// count returns how many of its pods match.
func (s *subject) count(match func(*corev1.Pod) bool) int {
	n := 0
	for _, pods := range s.pods {
		for _, pod := range pods {
			if match(pod) {
				n++
			}
		}
	}
	return n
}

// template is the pod's spec that the DaemonSet asks for.
func (s *subject) template() *corev1.PodSpec {
	return &s.ds.Spec.Template.Spec
}

// available says whether pod is Ready for the DaemonSet's minReadySeconds.
func (e *Engine) available(pod *corev1.Pod, ds *appsv1.DaemonSet) bool {
	return podutil.IsPodAvailable(pod, ds.Spec.MinReadySeconds, metav1.NewTime(e.now))
}

// Find returns the DaemonSet of that name, or nil.
func (e *Engine) Find(namespace, name string) *appsv1.DaemonSet {
	if compiled := e.set.Named(namespace, name); compiled != nil {
		return e.subjects[compiled.UID].ds
	}
	return nil
}

// OfPod returns the DaemonSet of a pod, nil if it is no daemon pod, and the node that the
// pod is for.
func (e *Engine) OfPod(pod *corev1.Pod) (ds *appsv1.DaemonSet, node string) {
	compiled := e.set.OwnerOf(pod)
	if compiled == nil {
		return nil, ""
	}
	node, _ = daemonset.TargetNode(pod)
	return e.subjects[compiled.UID].ds, node
}

// NotChecked says what of the cluster could not be looked at, a sentence each.
func (e *Engine) NotChecked() []string {
	return e.cluster.Unread
}

// DaemonSets returns all DaemonSets in the order of their namespaces and names.
func (e *Engine) DaemonSets() []*appsv1.DaemonSet {
	return slices.SortedFunc(slices.Values(e.cluster.DaemonSets), func(a, b *appsv1.DaemonSet) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), CompareNames(a.Name, b.Name))
	})
}

// Node returns the node of that name, or nil.
func (e *Engine) Node(name string) *corev1.Node {
	return e.nodes[name]
}

// Nodes returns all nodes in the order of their names, numbers as numbers: node-2 is
// before node-10.
func (e *Engine) Nodes() []*corev1.Node {
	return slices.SortedFunc(maps.Values(e.nodes), func(a, b *corev1.Node) int { return CompareNames(a.Name, b.Name) })
}

// priorities are the values of the cluster's PriorityClasses by name ([daemonset.Priorities]). Where the classes are not
// known, the pods that name one tell its value.
func priorities(cluster *snapshot.Cluster) map[string]int32 {
	values := make(map[string]int32)
	for _, class := range schedulingv1helper.SystemPriorityClasses() {
		values[class.Name] = class.Value
	}
	for _, pod := range cluster.Pods {
		if name := pod.Spec.PriorityClassName; name != "" && pod.Spec.Priority != nil {
			values[name] = *pod.Spec.Priority
		}
	}
	maps.Copy(values, daemonset.Priorities(cluster.PriorityClasses))
	return values
}
