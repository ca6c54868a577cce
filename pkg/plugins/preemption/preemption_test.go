// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package preemption_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	schedulerqueue "k8s.io/kubernetes/pkg/scheduler/backend/queue"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultbinder"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodeaffinity"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodeports"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	upstreamsort "k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	upstream "k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/cluster"
	"everynode.dev/everynode/pkg/plugins/plugintest"
	"everynode.dev/everynode/pkg/plugins/preemption"
)

type resources = map[corev1.ResourceName]string

func init() { metrics.Register() }

// world is a cluster with a scheduler whose filters are NodeAffinity, NodePorts and
// NodeResourcesFit.
type world struct {
	framework.Framework
	client    *fake.Clientset
	plugin    *preemption.Preemption
	activated chan map[string]*corev1.Pod
	// binding is the pod in PreBind, if any.
	binding fwk.PodInPreBind
}

// Activate implements [fwk.PodActivator].
func (w *world) Activate(_ klog.Logger, pods map[string]*corev1.Pod) { w.activated <- pods }

// GetPodInPreBind implements [fwk.Handle].
func (w *world) GetPodInPreBind(types.UID) fwk.PodInPreBind { return w.binding }

// ignored is a resource that NodeResourcesFit has been told to leave to others.
const ignored = "example.com/ignored"

func newWorld(tb testing.TB, args string, objects ...runtime.Object) *world {
	tb.Helper()
	return newWorldAt(tb, clock.RealClock{}, args, objects...)
}

func newWorldAt(tb testing.TB, clock clock.WithDelayedExecution, args string, objects ...runtime.Object) *world {
	tb.Helper()
	objects = append(objects, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000})
	var pods []*corev1.Pod
	var nodes []*corev1.Node
	for _, object := range objects {
		switch object := object.(type) {
		case *corev1.Pod:
			if object.Spec.NodeName != "" {
				pods = append(pods, object)
			}
		case *corev1.Node:
			nodes = append(nodes, object)
		}
	}
	w := &world{client: fake.NewClientset(objects...), activated: make(chan map[string]*corev1.Pod, 100)}
	factory := informers.NewSharedInformerFactory(w.client, 0)
	snapshot := schedulercache.NewSnapshot(pods, nodes)
	adapt := func(name string, factory func(context.Context, runtime.Object, fwk.Handle, feature.Features) (fwk.Plugin, error)) tf.RegisterPluginFunc {
		return tf.RegisterPluginAsExtensions(name, frameworkruntime.FactoryAdapter(feature.Features{}, factory), "PreFilter", "Filter")
	}
	scheduler, err := tf.NewFramework(tb.Context(), []tf.RegisterPluginFunc{
		tf.RegisterQueueSortPlugin(upstreamsort.Name, upstreamsort.New),
		adapt(nodeaffinity.Name, nodeaffinity.New),
		adapt(nodeports.Name, nodeports.New),
		adapt(noderesources.Name, func(ctx context.Context, args runtime.Object, handle fwk.Handle, features feature.Features) (fwk.Plugin, error) {
			args.(*config.NodeResourcesFitArgs).IgnoredResources = []string{ignored}
			return noderesources.NewFit(ctx, args, handle, features)
		}),
		tf.RegisterBindPlugin(defaultbinder.Name, defaultbinder.New),
	}, "",
		frameworkruntime.WithClientSet(w.client),
		frameworkruntime.WithEventRecorder(&events.FakeRecorder{}),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithPodNominator(schedulerqueue.NewSchedulingQueue(nil, factory)),
		frameworkruntime.WithPodActivator(w),
		frameworkruntime.WithSnapshotSharedLister(snapshot),
		frameworkruntime.WithMutableSnapshotLister(snapshot),
		frameworkruntime.WithWaitingPods(frameworkruntime.NewWaitingPodsMap()),
		frameworkruntime.WithPodsInPreBind(frameworkruntime.NewPodsInPreBindMap()),
	)
	if err != nil {
		tb.Fatal(err)
	}
	w.Framework = scheduler
	plugin, err := preemption.NewFactoryWithClock(cluster.NewPool(), clock)(tb.Context(), plugintest.Args(args), w)
	if err != nil {
		tb.Fatal(err)
	}
	w.plugin = plugin.(*preemption.Preemption)
	factory.Start(tb.Context().Done())
	factory.WaitForCacheSync(tb.Context().Done())
	return w
}

// cycle runs the pod's filters on all nodes and then preemption, as a scheduling
// cycle does.
func (w *world) cycle(tb testing.TB, pod *corev1.Pod) (*fwk.PostFilterResult, *fwk.Status) {
	tb.Helper()
	state := framework.NewCycleState()
	return w.plugin.PostFilter(tb.Context(), state, pod, w.statuses(tb, state, pod))
}

// statuses runs the pod's filters on all nodes.
func (w *world) statuses(tb testing.TB, state fwk.CycleState, pod *corev1.Pod) *framework.NodeToStatus {
	tb.Helper()
	narrowed, status, _ := w.RunPreFilterPlugins(tb.Context(), state, pod)
	if !status.IsSuccess() {
		tb.Fatal(status)
	}
	nodes, err := w.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		tb.Fatal(err)
	}
	statuses := framework.NewDefaultNodeToStatus()
	for _, node := range nodes {
		if name := node.Node().Name; narrowed.AllNodes() || narrowed.NodeNames.Has(name) {
			statuses.Set(name, w.RunFilterPluginsWithNominatedPods(tb.Context(), state, pod, node))
		}
	}
	return statuses
}

// victims returns whom the pod would have evicted from the node named "node", in order, and why
// if nobody.
func (w *world) victims(tb testing.TB, pod *corev1.Pod) (names []string, reason string) {
	tb.Helper()
	state := framework.NewCycleState()
	if _, status, _ := w.RunPreFilterPlugins(tb.Context(), state, pod); !status.IsSuccess() {
		tb.Fatal(status)
	}
	node, err := w.SnapshotSharedLister().NodeInfos().Get("node")
	if err != nil {
		tb.Fatal(err)
	}
	possible, err := w.plugin.Evaluator.GetVictimsOnNode(tb.Context(), node)
	if err != nil {
		tb.Fatal(err)
	}
	victims, _, status := w.plugin.SelectVictimsOnNode(tb.Context(), state, pod, node.Snapshot(), possible, nil)
	for _, victim := range victims {
		names = append(names, victim.Name)
	}
	return names, status.Message()
}

// old is when the pods of these tests have started, if they don't say otherwise.
var old = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// filler is a pod of a ReplicaSet on node that started so many minutes after the
// others.
func filler(name, cpu string, minutes int) *st.PodWrapper {
	pod := st.MakePod().Namespace("default").Name(name).UID(name).Label("app", "filler").Node("node").
		Req(resources{"cpu": cpu}).StartTime(metav1.NewTime(old.Add(time.Duration(minutes) * time.Minute)))
	pod = pod.OwnerReference("filler", appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	pod.OwnerReferences[0].UID = "filler"
	return pod
}

func ownedBy(pod *corev1.Pod, name string) *corev1.Pod {
	pod.OwnerReferences[0].Name, pod.OwnerReferences[0].UID = name, types.UID(name)
	return pod
}

func budget(allowed int32, selector *metav1.LabelSelector) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "budget"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: selector},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed},
	}
}

func fillerLabels() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "filler"}}
}

func TestSelectVictimsOnNode(t *testing.T) {
	agent := func() *daemonsettest.Wrapper { return daemonsettest.Make("agent").Requests(resources{"cpu": "500m"}) }
	terminating := func(pod *corev1.Pod) *corev1.Pod {
		now := metav1.Now()
		pod.DeletionTimestamp, pod.Finalizers = &now, []string{"example.com/slow"}
		return pod
	}
	with := func(pod *corev1.Pod, edit func(*corev1.Pod)) *corev1.Pod {
		edit(pod)
		return pod
	}
	annotate := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { metav1.SetMetaDataAnnotation(&pod.ObjectMeta, key, value) }
	}
	none := preemption.ErrReasonNoVictims
	// The node has two cores.
	tests := map[string]struct {
		args    string
		ds      *appsv1.DaemonSet
		edit    func(*corev1.Pod) // changes the daemon pod
		present []*corev1.Pod
		objects []runtime.Object
		want    []string
		reason  string
	}{
		"the youngest of those that are enough": {
			present: []*corev1.Pod{filler("a", "500m", 1).Obj(), filler("b", "500m", 3).Obj(), filler("c", "500m", 2).Obj(), filler("d", "500m", 0).Obj()},
			want:    []string{"b"}},
		"one large pod rather than two young ones": {
			present: []*corev1.Pod{filler("a", "300m", 9).Obj(), filler("b", "300m", 8).Obj(), filler("large", "1400m", 0).Obj()},
			want:    []string{"large"}},
		"what no filter counts is no shortage": {
			ds:      daemonsettest.Make("agent").Requests(resources{"cpu": "500m", ignored: "1"}).Obj(),
			present: []*corev1.Pod{filler("a", "500m", 1).Obj(), filler("b", "500m", 3).Obj(), filler("c", "500m", 2).Obj(), filler("d", "500m", 0).Obj()},
			want:    []string{"b"}},
		"as many as it takes": {
			present: []*corev1.Pod{filler("a", "400m", 1).Obj(), filler("b", "400m", 2).Obj(), filler("c", "400m", 3).Obj(), filler("d", "400m", 4).Obj(), filler("e", "400m", 5).Obj()},
			want:    []string{"d", "e"}},
		"free room is counted": {
			present: []*corev1.Pod{filler("a", "900m", 1).Obj(), filler("b", "900m", 2).Obj(), filler("small", "100m", 0).Obj()},
			want:    []string{"b"}},
		"nobody beyond what is needed": {
			present: []*corev1.Pod{filler("a", "400m", 1).Obj(), filler("b", "400m", 2).Obj(), filler("c", "400m", 3).Obj(), filler("d", "400m", 4).Obj(), filler("e", "400m", 5).Obj()},
			ds:      daemonsettest.Make("agent").Requests(resources{"cpu": "400m"}).Obj(), want: []string{"e"}},
		"a pod that fits on another node": {
			present: []*corev1.Pod{
				with(ownedBy(filler("stuck", "1", 9).Obj(), "stuck"), func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{"name": "node"} }),
				ownedBy(filler("movable", "1", 0).Obj(), "movable")},
			objects: []runtime.Object{st.MakeNode().Name("elsewhere").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()},
			want:    []string{"movable"}},
		"lower priority, where it is enough, as ever": {
			present: []*corev1.Pod{filler("low", "500m", 0).Priority(-1).Obj(), filler("a", "1500m", 9).Obj()},
			want:    []string{"low"}},
		"lower and equal priority together": {
			present: []*corev1.Pod{filler("low", "300m", 0).Priority(-1).Obj(), filler("a", "200m", 9).Obj(), filler("b", "1", 8).Priority(1).Obj(), filler("c", "500m", 7).Priority(1).Obj()},
			want:    []string{"a", "low"}},
		"nobody of higher priority": {
			present: []*corev1.Pod{filler("a", "2", 0).Priority(1).Obj()}, reason: none},
		"a pod slot": {
			ds:      daemonsettest.Make("agent").Obj(),
			present: slotFillers(10), want: []string{"9"}},
		"a host port": {
			ds:      daemonsettest.Make("agent").HostPort(9100).Obj(),
			present: []*corev1.Pod{filler("port", "100m", 0).HostPort(9100).Obj(), filler("a", "100m", 9).Obj()},
			want:    []string{"port"}},
		"two pods with the same host ports, and room": {
			ds:      daemonsettest.Make("agent").HostPort(9100).HostPort(9101).Requests(resources{"cpu": "1"}).Obj(),
			present: []*corev1.Pod{filler("b", "100m", 0).HostPort(9101).Obj(), filler("large", "1500m", 0).Obj(), filler("a", "100m", 1).HostPort(9100).Obj(), filler("c", "100m", 9).Obj()},
			want:    []string{"b", "large", "a"}},
		"terminating pods leave room enough": {
			present: []*corev1.Pod{terminating(filler("going", "500m", 0).Obj()), filler("a", "1500m", 0).Obj()}, reason: preemption.ErrReasonTerminating},
		"terminating pods do not leave enough": {
			present: []*corev1.Pod{terminating(ownedBy(filler("going", "300m", 0).Obj(), "other")), filler("a", "200m", 0).Obj(), filler("b", "1500m", 9).Obj()}, want: []string{"b"}},
		"a pod that could never fit": {
			ds:      daemonsettest.Make("agent").Requests(resources{"cpu": "3"}).Obj(),
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, reason: none},
		"a pod that does not fit beside those that stay": {
			present: []*corev1.Pod{filler("a", "1", 0).Obj(), filler("b", "1", 0).Priority(1).Obj()},
			ds:      daemonsettest.Make("agent").Requests(resources{"cpu": "1500m"}).Obj(), reason: none},
		"a pod without a controller": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), func(pod *corev1.Pod) { pod.OwnerReferences = nil })}, reason: none},
		"a pod of a DaemonSet": {
			present: []*corev1.Pod{daemonsettest.BoundPod(daemonsettest.Make("other").Requests(resources{"cpu": "2"}).Obj(), "node")},
			objects: []runtime.Object{daemonsettest.Make("other").Obj()}, reason: none},
		"a pod that is pinned": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), func(pod *corev1.Pod) {
				pod.Spec.Affinity = daemonsettest.Pod(agent().Obj(), "node").Spec.Affinity
			})}, reason: none},
		"a static pod": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), annotate(corev1.MirrorPodAnnotationKey, "x"))}, reason: none},
		"safe-to-evict": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), annotate("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"))}, reason: none},
		"safe-to-evict that agrees": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), annotate("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"))}, want: []string{"a"}},
		"do-not-disrupt": {
			present: []*corev1.Pod{with(filler("a", "2", 0).Obj(), annotate("karpenter.sh/do-not-disrupt", "true"))}, reason: none},
		"a budget that allows none": {
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, objects: []runtime.Object{budget(0, fillerLabels())}, reason: none},
		"a budget that allows one": {
			present: []*corev1.Pod{filler("a", "1", 0).Obj(), filler("b", "1", 1).Obj()}, objects: []runtime.Object{budget(1, fillerLabels())}, want: []string{"b"}},
		"a budget that allows one of two": {
			present: []*corev1.Pod{filler("a", "1", 0).Obj(), filler("b", "1", 1).Obj()}, objects: []runtime.Object{budget(1, fillerLabels())},
			ds: daemonsettest.Make("agent").Requests(resources{"cpu": "2"}).Obj(), reason: none},
		"a budget for all pods of the namespace": {
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, objects: []runtime.Object{budget(0, &metav1.LabelSelector{})}, reason: none},
		"a budget for no pod": {
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, objects: []runtime.Object{budget(0, nil)}, want: []string{"a"}},
		"a budget of others": {
			present: []*corev1.Pod{filler("a", "2", 0).Obj()},
			objects: []runtime.Object{budget(0, &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}})}, want: []string{"a"}},
		"a preemptor that is not pinned": {
			edit:    func(pod *corev1.Pod) { pod.Spec.Affinity = nil },
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, reason: "No preemption victims found for incoming pod"},
		"a preemptor that only says it belongs to a DaemonSet": {
			edit:    func(pod *corev1.Pod) { pod.OwnerReferences[0].UID = "forged" },
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, reason: "No preemption victims found for incoming pod"},
		"a DaemonSet that does not want to preempt": {
			ds:      agent().Annotation(daemonset.PreemptAnnotation, "false").Obj(),
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, reason: "No preemption victims found for incoming pod"},
		"equal priority turned off": {
			args:    `{"equalPriority": false}`,
			present: []*corev1.Pod{filler("a", "2", 0).Obj()}, reason: "No preemption victims found for incoming pod"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.ds == nil {
				tc.ds = agent().Obj()
			}
			pod := daemonsettest.Pod(tc.ds, "node")
			if tc.edit != nil {
				tc.edit(pod)
			}
			objects := append(slices.Clone(tc.objects), tc.ds, pod, st.MakeNode().Name("node").Label("name", "node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj())
			for _, pod := range tc.present {
				objects = append(objects, pod)
			}
			got, reason := newWorld(t, tc.args, objects...).victims(t, pod)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("victims (-want,+got):\n%s", diff)
			}
			if reason != tc.reason {
				t.Errorf("the reason is %q, want %q", reason, tc.reason)
			}
		})
	}
}

func slotFillers(n int) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range n {
		pods = append(pods, filler(strconv.Itoa(i), "0", i).Obj())
	}
	return pods
}

// For random nodes the victims are enough, none of them could stay, and where CPU
// alone is short there is no smaller choice.
func TestVictimsAreEnoughAndFew(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nothing secret
		onlyCPU := random.IntN(2) == 0
		amount := func() daemonset.Resources {
			r := daemonset.Resources{MilliCPU: 1 + random.Int64N(5), Pods: 1}
			if !onlyCPU {
				r.Memory = random.Int64N(5)
			}
			return r
		}
		requests := func(r daemonset.Resources) resources {
			return resources{"cpu": fmt.Sprintf("%dm", r.MilliCPU), "memory": strconv.FormatInt(r.Memory, 10)}
		}
		room := daemonset.Resources{MilliCPU: 10, Memory: 10, Pods: 100}
		free, sizes := room, map[string]daemonset.Resources{}
		var objects []runtime.Object
		for i := range 10 {
			size := amount()
			if !size.FitsIn(free) {
				continue
			}
			name := strconv.Itoa(i)
			free, sizes[name] = free.Minus(size), size
			objects = append(objects, filler(name, "0", i).Req(requests(size)).Obj())
		}
		needs := amount().Plus(amount())
		needs.Pods = 1
		ds := daemonsettest.Make("agent").Requests(requests(needs)).Obj()
		pod := daemonsettest.Pod(ds, "node")
		if needs.FitsIn(free) {
			continue
		}
		objects = append(objects, ds, pod, st.MakeNode().Name("node").Capacity(resources{"cpu": "10m", "memory": "10", "pods": "100"}).Obj())
		victims, reason := newWorld(t, "", objects...).victims(t, pod)

		left := free
		for _, victim := range victims {
			left = left.Plus(sizes[victim])
		}
		if !needs.FitsIn(left) {
			if needs.FitsIn(room) {
				t.Errorf("seed %d: %v are not enough: %s", seed, victims, reason)
			}
			continue
		}
		for _, victim := range victims {
			if needs.FitsIn(left.Minus(sizes[victim])) {
				t.Errorf("seed %d: of %v, %s could stay", seed, victims, victim)
			}
		}
		if fewest := fewest(free, needs, sizes); onlyCPU && len(victims) > fewest {
			t.Errorf("seed %d: %d victims, %d would be enough", seed, len(victims), fewest)
		}
	}
}

// fewest tries all choices.
func fewest(free, needs daemonset.Resources, sizes map[string]daemonset.Resources) int {
	var list []daemonset.Resources
	for _, size := range sizes {
		list = append(list, size)
	}
	fewest := len(list)
	for choice := range uint(1) << len(list) {
		left := free
		for i, size := range list {
			if choice&(1<<i) != 0 {
				left = left.Plus(size)
			}
		}
		if needs.FitsIn(left) {
			fewest = min(fewest, bits.OnesCount(choice))
		}
	}
	return fewest
}

// https://github.com/kubernetes/kubernetes/issues/141227
func TestPinnedPodsAreSpared(t *testing.T) {
	logs := daemonsettest.Make("logs").Requests(resources{"cpu": "1"}).Obj()
	daemonPod := func(node string) *corev1.Pod {
		pod := daemonsettest.BoundPod(logs, node)
		pod.Status.StartTime = &metav1.Time{Time: old.Add(time.Hour)}
		return pod
	}
	important := st.MakePod().Namespace("default").Name("important").UID("important").Priority(1000).Req(resources{"cpu": "1"}).Obj()
	capacity := resources{"cpu": "2", "pods": "10"}

	t.Run("on a node", func(t *testing.T) {
		w := newWorld(t, "", logs, important, st.MakeNode().Name("node").Capacity(capacity).Obj(), daemonPod("node"), filler("a", "1", 0).Obj())
		if got, _ := w.victims(t, important); !slices.Equal(got, []string{"a"}) {
			t.Errorf("victims are %v, want the pod that can run elsewhere", got)
		}
	})
	t.Run("unless it has a lower priority", func(t *testing.T) {
		w := newWorld(t, "", logs, important, st.MakeNode().Name("node").Capacity(capacity).Obj(), daemonPod("node"), filler("a", "1", 0).Priority(1).Obj())
		if got, _ := w.victims(t, important); !slices.Equal(got, []string{"logs-node"}) {
			t.Errorf("victims are %v, want the pod of lower priority", got)
		}
	})
	t.Run("among nodes", func(t *testing.T) {
		order := newWorld(t, "", logs).plugin.OrderedScoreFuncs(t.Context(), map[string]*extenderv1.Victims{
			"daemon":   {Pods: []*corev1.Pod{daemonPod("daemon")}},
			"ordinary": {Pods: []*corev1.Pod{filler("a", "1", 0).Obj(), filler("b", "1", 0).Obj()}},
		})
		for i, score := range order {
			if daemon, ordinary := score("daemon"), score("ordinary"); daemon != ordinary {
				if daemon > ordinary {
					t.Errorf("rule %d prefers the node of the daemon pod", i)
				}
				return
			}
		}
		t.Error("no rule tells them apart")
	})
}

// Where nobody is pinned, nodes are chosen as upstream chooses them.
func TestNodesAreOrderedAsUpstream(t *testing.T) {
	w := newWorld(t, "")
	ours := &upstream.Evaluator{Interface: w.plugin}
	theirs := &upstream.Evaluator{Interface: w.plugin.DefaultPreemption}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nothing secret
		var candidates []upstream.Candidate
		for node := range 2 + random.IntN(3) {
			victims := &extenderv1.Victims{NumPDBViolations: random.Int64N(2)}
			for i := range 1 + random.IntN(3) {
				victims.Pods = append(victims.Pods, filler(fmt.Sprintf("%d-%d", node, i), "1", random.IntN(100000)).Priority(random.Int32N(3)).Obj())
			}
			slices.SortFunc(victims.Pods, func(a, b *corev1.Pod) int { return int(*b.Spec.Priority - *a.Spec.Priority) })
			candidates = append(candidates, candidate{fmt.Sprintf("node-%d", node), victims})
		}
		if got, want := ours.SelectCandidate(t.Context(), candidates).Name(), theirs.SelectCandidate(t.Context(), candidates).Name(); got != want {
			t.Errorf("seed %d: %s is chosen, upstream chooses %s", seed, got, want)
		}
	}
}

// Ordinary pods preempt as with DefaultPreemption, although nodes are left out.
func TestOrdinaryPodsPreemptAsUpstream(t *testing.T) {
	var preempted, refused int
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // nothing secret
		pod := st.MakePod().Namespace("default").Name("pending").UID("pending").Priority(random.Int32N(4)).
			Req(resources{"cpu": strconv.Itoa(1 + random.IntN(4))}).Obj()
		objects := []runtime.Object{pod}
		start := 0
		for i := range 2 + random.IntN(6) {
			node := fmt.Sprintf("node-%d", i)
			cores := 1 + random.IntN(4)
			objects = append(objects, st.MakeNode().Name(node).Capacity(resources{"cpu": strconv.Itoa(cores), "pods": "10"}).Obj())
			for j := range cores {
				// Distinct start times leave no choice to chance.
				start += 1 + random.IntN(10)
				objects = append(objects, filler(fmt.Sprintf("%d-%d", i, j), "1", start).Node(node).Priority(1+random.Int32N(4)).Obj())
			}
		}
		if random.IntN(2) == 0 {
			objects = append(objects, budget(0, fillerLabels()))
		}
		run := func(w *world, plugin fwk.PostFilterPlugin, executor *upstream.Executor) string {
			var mu sync.Mutex
			var victims []string
			executor.PreemptPod = func(_ context.Context, candidate upstream.Candidate, _ upstream.ExecutorPreemptor, victim *corev1.Pod, _ string) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				victims = append(victims, candidate.Name()+"/"+victim.Name)
				return false, nil
			}
			state := framework.NewCycleState()
			result, status := plugin.PostFilter(t.Context(), state, pod, w.statuses(t, state, pod))
			w.eventually(t, func() bool { return !executor.IsPodRunningPreemption(pod.UID) })
			if result == nil {
				t.Fatal(status)
			}
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(victims)
			return fmt.Sprint(status.Code(), result.NominatedNodeName, victims)
		}
		w := newWorld(t, "", objects...)
		stock, err := defaultpreemption.New(t.Context(), &config.DefaultPreemptionArgs{MinCandidateNodesPercentage: 10, MinCandidateNodesAbsolute: 100},
			w, feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate))
		if err != nil {
			t.Fatal(err)
		}
		got, want := run(w, w.plugin, w.plugin.Executor), run(w, stock, stock.Executor)
		if got != want {
			t.Errorf("seed %d: %s, upstream: %s", seed, got, want)
		}
		if strings.Contains(want, "/") {
			preempted++
		} else {
			refused++
		}
	}
	if preempted < 20 || refused < 20 {
		t.Errorf("%d preempted and %d refused are too few to tell", preempted, refused)
	}
}

type candidate struct {
	name    string
	victims *extenderv1.Victims
}

func (c candidate) Name() string                 { return c.name }
func (c candidate) Victims() *extenderv1.Victims { return c.victims }
func (c candidate) NumPodGroupDisruptions() int  { return 0 }

// evicted returns the pods that were evicted through the API, and those deleted.
// Requests with dry run do not count.
func (w *world) evicted() (evicted, deleted []string) {
	for _, action := range w.client.Actions() {
		switch action := action.(type) {
		case clienttesting.CreateAction:
			if eviction, ok := action.GetObject().(*policyv1.Eviction); ok && len(eviction.DeleteOptions.DryRun) == 0 {
				evicted = append(evicted, eviction.Name)
			}
		case clienttesting.DeleteAction:
			deleted = append(deleted, action.GetName())
		}
	}
	return evicted, deleted
}

// finish waits until the evictions for pod have ended.
func (w *world) finish(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	w.eventually(t, func() bool { return !w.plugin.Executor.IsPodRunningPreemption(pod.UID) })
}

func (w *world) eventually(t *testing.T, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatal(err)
	}
}

var errTest = errors.New("a failure of the test")

func TestPostFilter(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
	node := st.MakeNode().Name("node").Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	t.Run("equal priority goes through the eviction API", func(t *testing.T) {
		pod := daemonsettest.Pod(ds, "node")
		w := newWorld(t, "", ds, node, pod, filler("a", "1", 0).Obj(), filler("b", "1", 1).Obj())
		result, status := w.cycle(t, pod)
		if !status.IsSuccess() || result.NominatedNodeName != "node" {
			t.Errorf("result is %v, %v", result, status)
		}
		w.finish(t, pod)
		evicted, deleted := w.evicted()
		if diff := cmp.Diff([][]string{{"b"}, nil}, [][]string{evicted, deleted}); diff != "" {
			t.Errorf("evicted and deleted (-want,+got):\n%s", diff)
		}
	})
	t.Run("lower priority is deleted, as ever", func(t *testing.T) {
		pod := daemonsettest.Pod(ds, "node")
		w := newWorld(t, "", ds, node, pod, filler("a", "1", 0).Obj(), filler("low", "1", 1).Priority(-1).Obj())
		if _, status := w.cycle(t, pod); !status.IsSuccess() {
			t.Error(status)
		}
		w.finish(t, pod)
		evicted, deleted := w.evicted()
		if diff := cmp.Diff([][]string{nil, {"low"}}, [][]string{evicted, deleted}); diff != "" {
			t.Errorf("evicted and deleted (-want,+got):\n%s", diff)
		}
	})
	t.Run("a refused eviction is not tried again at once", func(t *testing.T) {
		pod := daemonsettest.Pod(ds, "node")
		w := newWorld(t, "", ds, node, pod, filler("a", "2", 0).Obj())
		w.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetSubresource() == "eviction", nil, apierrors.NewTooManyRequests("the budget says no", 10)
		})
		if _, status := w.cycle(t, pod); !status.IsSuccess() {
			t.Error(status)
		}
		// Upstream tries the pod again at once. It finds nobody now.
		<-w.activated
		if _, status := w.cycle(t, pod); status.IsSuccess() || !strings.Contains(status.Message(), preemption.ErrReasonNoVictims) {
			t.Errorf("status is %v", status)
		}
	})
	t.Run("when a refused pod may be tried again, so is everybody who had no room without it", func(t *testing.T) {
		other := daemonsettest.Make("other").Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: "2"}).Obj()
		pods := []*corev1.Pod{daemonsettest.Pod(ds, "node"), daemonsettest.Pod(other, "node")}
		clock := newClock()
		w := newWorldAt(t, clock, "", ds, other, node, pods[0], pods[1], filler("a", "2", 0).Obj())
		w.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetSubresource() == "eviction", nil, apierrors.NewTooManyRequests("the budget says no", 10)
		})
		if _, status := w.cycle(t, pods[0]); !status.IsSuccess() {
			t.Error(status)
		}
		<-w.activated
		if _, status := w.cycle(t, pods[1]); status.IsSuccess() || !strings.Contains(status.Message(), preemption.ErrReasonNoVictims) {
			t.Errorf("status is %v", status)
		}
		if len(w.activated) > 0 {
			t.Errorf("%v are tried again at once", <-w.activated)
		}
		clock.Step(10 * time.Second)
		if diff := cmp.Diff([]string{"default/other-node"}, w.woken(t)); diff != "" {
			t.Errorf("tried again (-want, +got):\n%s", diff)
		}
	})
	t.Run("a pod that has gone is no error", func(t *testing.T) {
		pod := daemonsettest.Pod(ds, "node")
		w := newWorld(t, "", ds, node, pod, filler("a", "2", 0).Obj())
		w.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetSubresource() == "eviction", nil, apierrors.NewNotFound(corev1.Resource("pods"), "a")
		})
		if _, status := w.cycle(t, pod); !status.IsSuccess() {
			t.Error(status)
		}
		w.finish(t, pod)
		if len(w.activated) > 0 {
			t.Error("the pod is tried again although it has room")
		}
	})
	for name, priority := range map[string]int32{"equal": 0, "lower": -1} {
		t.Run("nobody waits for the end of a pod of "+name+" priority that has ended before", func(t *testing.T) {
			pod := daemonsettest.Pod(ds, "node")
			w := newWorld(t, "", ds, node, pod, filler("ended", "2", 0).Priority(priority).Obj())
			if err := w.client.CoreV1().Pods("default").Delete(t.Context(), "ended", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			lister := w.SharedInformerFactory().Core().V1().Pods().Lister()
			err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
				_, err := lister.Pods("default").Get("ended")
				return apierrors.IsNotFound(err), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			// The cycle has begun before.
			if _, status := w.cycle(t, pod); !status.IsSuccess() {
				t.Error(status)
			}
			if diff := cmp.Diff([]string{"agent-node"}, slices.Collect(maps.Keys(<-w.activated))); diff != "" {
				t.Errorf("tried again (-want, +got):\n%s", diff)
			}
		})
	}
	t.Run("while evicted pods terminate nobody else is evicted", func(t *testing.T) {
		pod := daemonsettest.Pod(ds, "node")
		pod.Status.NominatedNodeName = "node"
		going := filler("going", "500m", 0).Obj()
		now := metav1.Now()
		going.DeletionTimestamp, going.Finalizers = &now, []string{"example.com/slow"}
		going.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"}}
		w := newWorld(t, "", ds, node, pod, going, filler("a", "1500m", 0).Obj())
		result, status := w.cycle(t, pod)
		if result != nil || !strings.Contains(status.Message(), "an evicted pod that is terminating on the nominated node") {
			t.Errorf("result is %v, %v; the nomination has to stay", result, status)
		}
	})
}

func TestPodsAreWokenByBudgets(t *testing.T) {
	ds := daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).Obj()
	pod, other := daemonsettest.Pod(ds, "node"), daemonsettest.Pod(ds, "other")
	node := func(name string) *corev1.Node {
		return st.MakeNode().Name(name).Capacity(resources{"cpu": "2", "pods": "10"}).Obj()
	}
	w := newWorld(t, "", ds, pod, other, node("node"), node("other"), filler("a", "2", 0).Obj(), filler("b", "2", 0).Node("other").Obj(), budget(0, fillerLabels()))
	budgets := w.client.PolicyV1().PodDisruptionBudgets("default")
	allow := func(disruptions int32) {
		t.Helper()
		if _, err := budgets.UpdateStatus(t.Context(), budget(disruptions, fillerLabels()), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	woken := func() []string { return slices.Collect(maps.Keys(<-w.activated)) }

	if _, status := w.cycle(t, pod); status.IsSuccess() {
		t.Fatal("the budget does not hold")
	}
	allow(1)
	if diff := cmp.Diff([]string{"default/agent-node"}, woken()); diff != "" {
		t.Errorf("woken when the budget allows more (-want, +got):\n%s", diff)
	}
	if _, status := w.cycle(t, pod); !status.IsSuccess() {
		t.Error(status)
	}
	w.finish(t, pod)
	allow(0)
	lister := w.SharedInformerFactory().Policy().V1().PodDisruptionBudgets().Lister()
	err := wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) {
		known, err := lister.PodDisruptionBudgets("default").Get("budget")
		return err == nil && known.Status.DisruptionsAllowed == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, status := w.cycle(t, other); status.IsSuccess() {
		t.Fatal("the budget does not hold")
	}
	if err := budgets.Delete(t.Context(), "budget", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The first one waits no more.
	if diff := cmp.Diff([]string{"default/agent-other"}, woken()); diff != "" {
		t.Errorf("woken when the budget has gone (-want, +got):\n%s", diff)
	}
}

func TestBadArgs(t *testing.T) {
	for args, want := range map[string]string{
		`{"equalPriorty": false}`:              `decoding the args of DaemonSetPreemption: unknown field "equalPriorty"`,
		`{"equalPriority": null}`:              `args of DaemonSetPreemption: args.equalPriority: Required value`,
		`{"equalPriority": "yes"}`:             `decoding the args of DaemonSetPreemption: json: cannot unmarshal string`,
		`{"maxEvictionsPerController": 0}`:     `args of DaemonSetPreemption: args.maxEvictionsPerController: Invalid value: 0: give at least 1`,
		`{"evictionTimeout": "0s"}`:            `args of DaemonSetPreemption: args.evictionTimeout: Invalid value: "0s": give more than 0s`,
		`{"evictionTimeout": "soon"}`:          `decoding the args of DaemonSetPreemption`,
		`{"minCandidateNodesPercentage": 101}`: `args of DaemonSetPreemption: args.minCandidateNodesPercentage: Invalid value: 101`,
		`{"minCandidateNodesAbsolute": -1}`:    `args of DaemonSetPreemption: args.minCandidateNodesAbsolute: Invalid value: -1`,
	} {
		_, err := preemption.NewFactory(cluster.NewPool())(t.Context(), plugintest.Args(args), plugintest.NewScheduler(t).Handle)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("args %s: error is %v, want one with %q", args, err, want)
		}
	}
}
