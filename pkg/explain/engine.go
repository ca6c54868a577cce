// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	schedulingv1helper "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/daemonset"
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
	cluster    *Cluster
	now        time.Time
	patience   time.Duration
	commands   commands
	set        *daemonset.Set
	nodes      map[string]*corev1.Node
	namespaces map[string]*corev1.Namespace
	priorities priorities
	// on are the live pods of each node: bound and not ended.
	on         map[string][]*corev1.Pod
	subjects   map[types.UID]*subject
	podUIDs    sets.Set[types.UID]
	events     map[types.UID][]*corev1.Event
	nominated  nominations
	schedulers *schedulers
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
	// those that it cannot tell the node of.
	pods     map[string][]*corev1.Pod
	unpinned []*corev1.Pod
	// tolerations are those of its pods, the controller's own among them.
	tolerations []corev1.Toleration
	// hash is the mark of pods of the current template, "" if unknown; generation is
	// the other mark, nil if unknown.
	hash       string
	generation *int64
	creation   *creationTrouble
	// current: every pod counts as being of the current template.
	current bool
	// earlier is what earlierWorks has found out, nil before.
	earlier *bool
}

// New returns an Engine for cluster. What it runs in the background ends with ctx.
func New(ctx context.Context, cluster *Cluster, options Options) (*Engine, error) {
	e := &Engine{
		cluster:    cluster,
		now:        options.Now,
		patience:   cmp.Or(options.Patience, DefaultPatience),
		commands:   commands{kubectl: options.Kubectl},
		nodes:      make(map[string]*corev1.Node, len(cluster.Nodes)),
		namespaces: make(map[string]*corev1.Namespace, len(cluster.Namespaces)),
		priorities: newPriorities(cluster),
		on:         make(map[string][]*corev1.Pod, len(cluster.Nodes)),
		subjects:   make(map[types.UID]*subject, len(cluster.DaemonSets)),
		podUIDs:    sets.New[types.UID](),
		events:     make(map[types.UID][]*corev1.Event),
		nominated:  newNominations(cluster.Pods),
		everynode:  slices.ContainsFunc(cluster.Pods, showsEverynode),
		profiles:   everynodeProfiles(cluster.Pods),
		agents:     make(map[string]*subject),
	}
	e.set = daemonset.NewSet(nil, cluster.DaemonSets, daemonset.Options{Priority: e.priorities.of, LimitRanges: cluster.limitRanges, RuntimeClass: cluster.runtimeClass})
	for _, node := range cluster.Nodes {
		e.nodes[node.Name] = node
	}
	for _, namespace := range cluster.Namespaces {
		e.namespaces[namespace.Name] = namespace
	}
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
	e.sortPods()
	e.set = e.set.WithLapsed(e.lapsed())
	var err error
	e.schedulers, err = newSchedulers(ctx, cluster, e.on)
	return e, err
}

func (e *Engine) newSubject(ds *appsv1.DaemonSet) *subject {
	s := &subject{
		ds:          ds,
		compiled:    e.set.Get(ds.UID),
		pods:        make(map[string][]*corev1.Pod),
		tolerations: append(slices.Clip(ds.Spec.Template.Spec.Tolerations), daemonset.DefaultTolerations(ds.Spec.Template.Spec.HostNetwork)...),
	}
	// An annotation that is no number is as good as none.
	s.generation, _ = daemonutil.GetTemplateGeneration(ds)
	var newest int64
	for _, revision := range e.cluster.Revisions {
		if metav1.IsControlledBy(revision, ds) && revision.Revision > newest {
			newest, s.hash = revision.Revision, revision.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		}
	}
	s.creation = newCreationTrouble(e.events[ds.UID])
	return s
}

// sortPods gives every pod to its node and to its DaemonSet.
func (e *Engine) sortPods() {
	for _, pod := range e.cluster.Pods {
		if pod.Spec.NodeName != "" && !podutil.IsPodTerminal(pod) {
			e.on[pod.Spec.NodeName] = append(e.on[pod.Spec.NodeName], pod)
		}
		compiled := e.set.OwnerOf(pod)
		if compiled == nil {
			continue
		}
		e.podUIDs.Insert(pod.UID)
		s := e.subjects[compiled.UID]
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

// template is the pod's spec that the DaemonSet asks for.
func (s *subject) template() *corev1.PodSpec {
	return &s.ds.Spec.Template.Spec
}

// Find returns the DaemonSet of that name, or nil.
func (e *Engine) Find(namespace, name string) *appsv1.DaemonSet {
	if compiled := e.set.Named(namespace, name); compiled != nil {
		return e.subjects[compiled.UID].ds
	}
	return nil
}

// Namespaces returns those that have a DaemonSet of that name.
func (e *Engine) Namespaces(name string) []string {
	var namespaces []string
	for _, ds := range e.DaemonSets() {
		if ds.Name == name {
			namespaces = append(namespaces, ds.Namespace)
		}
	}
	return namespaces
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

// Verdict says why ds, one of the cluster's DaemonSets, has or has not a Ready pod on
// node.
func (e *Engine) Verdict(ctx context.Context, ds *appsv1.DaemonSet, node *corev1.Node) (Verdict, error) {
	return e.verdict(ctx, e.subjects[ds.UID], node, true)
}

// Glance is Verdict without blockers, preemption and next command: as much as a
// table of all DaemonSets on all nodes takes, and much quicker.
func (e *Engine) Glance(ctx context.Context, ds *appsv1.DaemonSet, node *corev1.Node) (Verdict, error) {
	return e.verdict(ctx, e.subjects[ds.UID], node, false)
}

// verdict follows the chain. Without detail it stops where it knows the reason.
func (e *Engine) verdict(ctx context.Context, s *subject, node *corev1.Node, detail bool) (Verdict, error) {
	i, err := e.inquire(ctx, s, node, detail)
	return i.v, err
}

func (e *Engine) inquire(ctx context.Context, s *subject, node *corev1.Node, detail bool) (*inquiry, error) {
	i := &inquiry{Engine: e, subject: s, node: node, detail: detail, v: Verdict{Node: node.Name}}
	err := i.follow(ctx)
	return i, err
}

// inquiry is the making of one verdict.
type inquiry struct {
	*Engine
	*subject
	node   *corev1.Node
	detail bool
	// root says whether the verdict is the root cause of another one: then it is not traced further.
	root bool
	pod  *corev1.Pod
	v    Verdict
	// clues are what commands depend on, besides the verdict.
	clues clues
}

// follow follows the chain.
func (i *inquiry) follow(ctx context.Context) (err error) {
	run, goOn := i.compiled.ShouldRun(i.node)
	pods := i.pods[i.node.Name]
	if i.cluster.NodesUnread {
		run = len(pods) > 0
	}
	i.v.Wanted = run && i.ds.DeletionTimestamp == nil
	switch namespace := i.namespaces[i.ds.Namespace]; {
	case i.ds.DeletionTimestamp != nil:
		i.deleting("DaemonSet", i.ds.Finalizers)
	case !run && i.cluster.NodesUnread:
		i.endAt(StepController, ReasonNotKnown, nil)
	case !run:
		err = i.unwanted(ctx, pods, goOn)
	case len(pods) == 0 && namespace != nil && namespace.DeletionTimestamp != nil:
		i.deleting("namespace", nil)
	case len(pods) == 0:
		i.noPod()
	default:
		err = i.havePods(ctx, pods)
	}
	if err != nil {
		return err
	}
	i.conclude()
	if i.detail {
		i.v.Next, i.v.Fix = i.next(), i.fix()
	}
	return nil
}

func (i *inquiry) deleting(what string, finalizers []string) {
	held := ""
	if len(finalizers) > 0 {
		held = ", and held by the finalizers " + strings.Join(finalizers, ", ")
	}
	i.end(ReasonDeleting, Args{"what": what, "held": held})
}

// conclude says what the causes amount to.
func (i *inquiry) conclude() {
	i.v.Message = message(i.v.Causes)
	i.v.Outcome = i.outcome()
	i.v.startup = i.clues.forgotten != nil || i.clues.root != nil
}

// end says where the chain ends, and why.
func (i *inquiry) end(reason Reason, args Args) {
	i.endAt(reason.row().Step, reason, args)
}

// endAt is end for a reason that is found at another step than usual.
func (i *inquiry) endAt(step Step, reason Reason, args Args) {
	i.v.Step, i.v.Reason, i.v.Causes = step, reason, []Cause{{reason, args}}
}

// fact adds a sentence about this node alone.
func (i *inquiry) fact(sentence string) {
	if i.detail {
		i.v.Facts = append(i.v.Facts, sentence)
	}
}

// about has the verdict be about pod.
func (i *inquiry) about(pod *corev1.Pod) {
	i.pod = pod
	described := i.describe(pod)
	i.v.Pod = &described
	i.v.Since = gapOf(pod)
	if i.detail {
		i.v.Admission = i.admissionOf(pod)
	}
}

// gapOf returns since when a pod is not Ready, or nil if it is.
func gapOf(pod *corev1.Pod) *metav1.Time {
	if daemonset.IsReady(pod) {
		return nil
	}
	since := pod.CreationTimestamp
	if ready := podutil.GetPodReadyCondition(pod.Status); ready != nil && since.Before(&ready.LastTransitionTime) {
		since = ready.LastTransitionTime
	}
	return &since
}

// describe returns what is told of a pod.
func (e *Engine) describe(pod *corev1.Pod) Pod {
	described := Pod{
		Namespace: pod.Namespace,
		Name:      pod.Name,
		Owner:     ownerOf(pod),
		Priority:  corev1helper.PodPriority(pod),
		Scheduler: pod.Spec.SchedulerName,
		Created:   pod.CreationTimestamp,
	}
	if said := scheduledCondition(pod); said != nil && said.Status == corev1.ConditionFalse {
		described.Said = said.Message
		if !said.LastTransitionTime.IsZero() {
			described.SaidAt = said.LastTransitionTime.DeepCopy()
		}
	}
	return described
}

func scheduledCondition(pod *corev1.Pod) *corev1.PodCondition {
	_, condition := podutil.GetPodCondition(&pod.Status, corev1.PodScheduled)
	return condition
}

// ownerOf names what controls pod. A ReplicaSet whose name ends in the hash of its
// pods' template was made by a Deployment.
func ownerOf(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return ""
	}
	if hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; owner.Kind == "ReplicaSet" && hash != "" {
		if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
			return "Deployment " + deployment
		}
	}
	return owner.Kind + " " + owner.Name
}

// priorities are the values of PriorityClasses.
type priorities struct {
	byName map[string]int32
}

// newPriorities resolves names as the API server's Priority admission does
// (k8s.io/kubernetes/plugin/pkg/admission/priority). Where the classes are not known,
// the pods that name one tell its value.
func newPriorities(cluster *Cluster) priorities {
	p := priorities{byName: make(map[string]int32)}
	for _, class := range schedulingv1helper.SystemPriorityClasses() {
		p.byName[class.Name] = class.Value
	}
	for _, pod := range cluster.Pods {
		if name := pod.Spec.PriorityClassName; name != "" && pod.Spec.Priority != nil {
			p.byName[name] = *pod.Spec.Priority
		}
	}
	hasDefault := false
	for _, class := range cluster.PriorityClasses {
		p.byName[class.Name] = class.Value
		if class.GlobalDefault && (!hasDefault || class.Value < p.byName[""]) {
			p.byName[""], hasDefault = class.Value, true
		}
	}
	return p
}

// of returns the priority of pods with that class, 0 for a class that is not known.
func (p priorities) of(name string) int32 {
	return p.byName[name]
}
