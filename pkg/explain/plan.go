// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/snapshot"
)

// Plan is what would happen if a DaemonSet were applied to a cluster.
type Plan struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Exists says whether the cluster has the DaemonSet: then its pods are replaced.
	Exists bool `json:"exists"`
	// Wanted are the nodes that the DaemonSet belongs on, Runs those where the pod fits as
	// things are.
	Wanted int `json:"wanted"`
	Runs   int `json:"runs"`
	// Least and Most are what one pod takes, on the smallest and on the largest node if
	// pods are sized after their nodes. Total is what those on all of Wanted take together.
	Least corev1.ResourceList `json:"least"`
	Most  corev1.ResourceList `json:"most"`
	Total corev1.ResourceList `json:"total"`
	// Priority is that of its pods.
	Priority int32 `json:"priority"`
	// Remarks are what becomes of pods that are there, and quotas that have no room for all.
	Remarks []string `json:"remarks,omitempty"`
	// Refused is why the API server would not take the pods, if it would not.
	Refused string `json:"refused,omitempty"`
	// Evicted are the pods that each scheduler would evict.
	Evicted Evictions `json:"evicted"`
	// Groups are the nodes with the same verdict, trouble first.
	Groups []Group `json:"groups"`
	// Verdicts are those of each node.
	Verdicts []Verdict `json:"verdicts"`
	// NotChecked says what was left out, a sentence each.
	NotChecked []string `json:"notChecked,omitempty"`
	// pods are those that fit as things are, as they would run.
	pods []*corev1.Pod
}

// Evictions are pods that would have to go, by the scheduler that the cluster has.
type Evictions struct {
	Stock     []Pod `json:"kubeScheduler,omitempty"`
	Everynode []Pod `json:"everynodeScheduler,omitempty"`
}

// Room says in words what the pods take.
func (p *Plan) Room() string {
	words := func(list corev1.ResourceList) string { return describeRequests(daemonset.NewResources(list)) }
	each := cmp.Or(words(p.Most), "nothing but a pod slot")
	if !equality.Semantic.DeepEqual(p.Least, p.Most) {
		each = words(p.Least) + " to " + each
	}
	return fmt.Sprintf("Each pod takes %s; all together %s.", each, cmp.Or(words(p.Total), "no more than that"))
}

// Plan says what would happen if ds, one of the cluster's DaemonSets, were applied in place of old
// ([Cluster.With]). admitted is one of its pods as the API server would admit it, nil if that is not
// known: then pods are made from the template.
func (e *Engine) Plan(ctx context.Context, ds, old *appsv1.DaemonSet, admitted *corev1.Pod) (*Plan, error) {
	s := e.subjects[ds.UID]
	pods := e.newPods(s, admitted)
	p := &Plan{
		Namespace: ds.Namespace, Name: ds.Name, Exists: old != nil,
		Priority: s.compiled.Priority, NotChecked: append(e.notChecked(&ds.Spec.Template.Spec), rulesElsewhere),
	}
	var least, most, total daemonset.Resources
	for _, node := range e.Nodes() {
		v, pod, err := e.planned(ctx, s, node, pods)
		if err != nil {
			return nil, err
		}
		p.Verdicts = append(p.Verdicts, v)
		if !v.Wanted {
			continue
		}
		p.Wanted++
		needs := daemonset.PodResources(pod)
		total = total.Plus(needs)
		if p.Wanted == 1 || needs.FitsIn(least) {
			least = needs
		}
		if most.FitsIn(needs) {
			most = needs
		}
		if v.Reason == ReasonWouldRun {
			p.Runs++
			p.pods = append(p.pods, running(pod, node.Name))
		}
		if v.Preemption != nil {
			p.Evicted.Stock = append(p.Evicted.Stock, v.Preemption.Stock.Victims...)
			p.Evicted.Everynode = append(p.Evicted.Everynode, v.Preemption.Everynode.Victims...)
		}
	}
	p.Least, p.Most, p.Total = least.List(), most.List(), total.List()
	p.Groups = groups(p.Verdicts)
	p.Remarks = append(e.changesOf(s, old), e.quotas(s, pods.pattern, p.Wanted)...)
	return p, nil
}

// After returns the cluster as it is when the pods of p run that fit as things are.
func (e *Engine) After(p *Plan) *snapshot.Cluster {
	after := *e.cluster
	after.Pods = append(slices.DeleteFunc(slices.Clone(after.Pods), func(pod *corev1.Pod) bool {
		owner := e.set.OwnerOf(pod)
		return owner != nil && owner.Namespace == p.Namespace && owner.Name == p.Name
	}), p.pods...)
	return &after
}

// running returns pod as it would run on a node.
func running(pod *corev1.Pod, node string) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Name, pod.Spec.NodeName, pod.Status.Phase = pod.GenerateName+node, node, corev1.PodRunning
	pod.UID = types.UID(snapshot.PlannedPrefix + pod.Namespace + "/" + pod.Name)
	return pod
}

// planned is the verdict on a node of a plan, and the pod that it is about, if any.
func (e *Engine) planned(ctx context.Context, s *subject, node *corev1.Node, pods *newPods) (Verdict, *corev1.Pod, error) {
	i := e.newInquiry(s, node, true)
	run, goOn := s.compiled.ShouldRun(node)
	i.v.Wanted = run
	if !run {
		i.unwanted(ctx, s.pods[node.Name], goOn)
		i.v.Pod, i.v.Facts = nil, nil
		i.conclude()
		return i.v, nil, i.err
	}
	pod := pinned(pods.pattern, node.Name)
	if pods.sizes != nil {
		pods.sizes.Apply(&pod.Spec, node.Status.Allocatable)
	}
	if pods.admitted {
		i.v.Admission = i.changes(pod)
	}
	var gone []*corev1.Pod
	if !s.compiled.Surges {
		gone = slices.DeleteFunc(slices.Clone(e.on[node.Name]), func(pod *corev1.Pod) bool { return e.set.OwnerOf(pod) != s.compiled })
	}
	if i.offer(ctx, pod, gone...) {
		i.end(ReasonWouldRun, nil)
	}
	i.conclude()
	return i.v, pod, i.err
}

// newPods are the pods that the controller would create.
type newPods struct {
	// pattern is one of them, and admitted says whether it has been through admission.
	pattern  *corev1.Pod
	admitted bool
	// sizes are applied to each, nil for none.
	sizes daemonset.Sizes
}

// newPods returns the pods of a plan. Where a pod has been through admission, that has
// shown whether pods are sized after their nodes.
func (e *Engine) newPods(s *subject, admitted *corev1.Pod) *newPods {
	// What cannot be parsed sizes nothing.
	sizes, _ := daemonset.ParseSizes(s.ds.Annotations[daemonset.ResourcesAnnotation])
	if admitted == nil {
		return &newPods{pattern: e.newPod(s), sizes: sizes}
	}
	name, _ := daemonset.PinnedNode(admitted)
	if node := e.nodes[name]; node == nil || !reflect.DeepEqual(s.compiled.NeedsOn(node).Resources, daemonset.PodResources(admitted)) {
		sizes = nil
	}
	return &newPods{pattern: admitted, admitted: true, sizes: sizes}
}

// NewPod returns the pod that the controller would create for the first node that ds
// belongs on, nil if there is none: to ask the API server what admission makes of it.
func (e *Engine) NewPod(ds *appsv1.DaemonSet) *corev1.Pod {
	s := e.subjects[ds.UID]
	for _, node := range e.Nodes() {
		if run, _ := s.compiled.ShouldRun(node); run {
			return pinned(e.newPod(s), node.Name)
		}
	}
	return nil
}

// newPod returns the pod that the controller would create, without its node, as far as
// admission leaves it alone.
func (e *Engine) newPod(s *subject) *corev1.Pod {
	template := daemonutil.CreatePodTemplate(s.ds.Spec.Template, s.generation, s.hash)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       s.ds.Namespace,
			GenerateName:    s.ds.Name + "-",
			Labels:          template.Labels,
			Annotations:     template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s.ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
		},
		Spec: template.Spec,
	}
	pod.Spec.Priority = new(s.compiled.Priority)
	if class := byName(e.cluster.PriorityClasses)[template.Spec.PriorityClassName]; class != nil {
		pod.Spec.PreemptionPolicy = class.PreemptionPolicy
	}
	e.admission.Admit(pod.Namespace, &pod.Spec)
	corev1defaults.SetObjectDefaults_Pod(pod)
	return pod
}

// pinned returns pod for node. A pod that has been through admission may be bound, or
// ask for more than its node's name, which stays.
func pinned(pod *corev1.Pod, node string) *corev1.Pod {
	pod = pod.DeepCopy()
	if _, ok := daemonset.NamedNode(pod); !ok {
		pod.Spec.NodeName = ""
		pod.Spec.Affinity = daemonutil.ReplaceDaemonSetPodNodeNameNodeAffinity(pod.Spec.Affinity, node)
		return pod
	}
	for _, term := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for n := range term.MatchFields {
			if term.MatchFields[n].Key == metav1.ObjectNameField {
				term.MatchFields[n].Values = []string{node}
			}
		}
	}
	return pod
}

// Summary says in one or two sentences what would happen.
func (p *Plan) Summary() string {
	text := fmt.Sprintf("It belongs on %d of %d nodes, and fits on %d as things are.", p.Wanted, len(p.Verdicts), p.Runs)
	switch stock, everynode := len(p.Evicted.Stock), len(p.Evicted.Everynode); {
	case stock == 0 && everynode == 0:
		text += " Nobody would be evicted."
	case stock == everynode:
		text += fmt.Sprintf(" %s would be evicted to make room.", Count(everynode, "pod"))
	default:
		text += fmt.Sprintf(" To make room, everynode-scheduler would evict %s, kube-scheduler %s.", Count(everynode, "pod"), Count(stock, "pod"))
	}
	return text
}
