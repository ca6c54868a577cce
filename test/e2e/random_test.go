// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	seeds    = flag.Int("seeds", 20, "how many random clusters to test")
	onlySeed = flag.Int("seed", 0, "test the random cluster of this seed only")
)

// Random clusters: whatever nodes, DaemonSets and ordinary pods there are, in the end
// no daemon pod is missing that its node could hold, no ordinary pod waits that would
// fit beside all daemon pods, and nobody was evicted who should not have been.
//
// What the scheduler should have done is worked out here from the objects alone, in
// another way than the scheduler does it.
func TestRandomClusters(t *testing.T) {
	t.Parallel()
	for seed := 1; seed <= *seeds; seed++ {
		if *onlySeed != 0 && seed != *onlySeed {
			continue
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // nothing secret
			c := newCluster(t, nil)
			world := c.watchPods()
			c.apply(priorityClasses)

			// Everything comes in any order.
			var steps []func()
			for i := range 2 + random.IntN(4) {
				node := drawNode(random, i+1)
				steps = append(steps, func() {
					if err := c.AddNodes(t.Context(), node); err != nil {
						t.Fatal(err)
					}
				})
			}
			for i := range 2 + random.IntN(4) {
				manifest := drawDaemonSet(random, i)
				steps = append(steps, func() { c.apply(manifest) })
			}
			for i := range 2 + random.IntN(5) {
				manifest := drawDeployment(random, i)
				steps = append(steps, func() { c.apply(manifest) })
			}
			random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
			for _, step := range steps {
				step()
			}
			c.eventually(60*time.Second, "the cluster is as it should be", c.everyPodIsWhereItShouldBe)

			// Then something changes.
			switch random.IntN(4) {
			case 0:
				c.kubectl("delete", "daemonset", "daemons-0", "--wait=false")
			case 1:
				c.kubectl("label", "node", "node-1", "--overwrite", "disktype="+pick(random, "ssd", "tape"))
			case 2:
				c.kubectl("rollout", "restart", "daemonset")
			default:
				if err := c.AddNodes(t.Context(), drawNode(random, 100)); err != nil {
					t.Fatal(err)
				}
			}
			c.eventually(60*time.Second, "the cluster is as it should be after a change", c.everyPodIsWhereItShouldBe)
			for _, problem := range world.wrongEvictions(c) {
				t.Error(problem)
			}
		})
	}
}

func pick[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

func drawNode(random *rand.Rand, number int) localcluster.Node {
	node := localcluster.Nodes(number, 1)[0]
	node.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(pick(random, "2", "4", "8")),
		corev1.ResourceMemory: resource.MustParse(pick(random, "4Gi", "8Gi")),
		corev1.ResourcePods:   resource.MustParse(pick(random, "6", "12", "30")),
	}
	node.Labels["disktype"] = pick(random, "ssd", "tape")
	if random.IntN(4) == 0 {
		node.Taints = []corev1.Taint{{Key: "team", Value: "data", Effect: corev1.TaintEffectNoSchedule}}
	}
	return node
}

// drawSpec returns what daemon pods and ordinary pods have in common.
func drawSpec(random *rand.Rand) string {
	lines := []string{
		pick(random, "", "", "priorityClassName: low", "priorityClassName: middle"),
		pick(random, "", "", "nodeSelector: {disktype: ssd}", "nodeSelector: {topology.kubernetes.io/zone: us-east-1a}"),
		pick(random, "", "tolerations: [{key: team, operator: Exists}]"),
	}
	return strings.Join(lines, "\n      ")
}

func drawDaemonSet(random *rand.Rand, number int) string {
	requests := fmt.Sprintf("cpu: %dm, memory: %dMi", 100*(1+random.IntN(15)), 128*(1+random.IntN(10)))
	manifest := daemonSet(fmt.Sprintf("daemons-%d", number), requests, drawSpec(random))
	if random.IntN(4) == 0 {
		manifest = strings.Replace(manifest, "name: main,", "name: main, ports: [{containerPort: 9100, hostPort: 9100}],", 1)
	}
	return manifest
}

func drawDeployment(random *rand.Rand, number int) string {
	requests := fmt.Sprintf("cpu: %dm, memory: %dMi", 100*(1+random.IntN(10)), 128*random.IntN(8))
	manifest := deployment(fmt.Sprintf("web-%d", number), 1+random.IntN(15), requests)
	spec := drawSpec(random)
	if random.IntN(8) == 0 {
		spec = strings.Replace(spec, "priorityClassName: middle", "priorityClassName: high", 1)
	}
	return restrict(manifest, spec)
}

// everyPodIsWhereItShouldBe checks the two rules of a settled cluster.
func (c *cluster) everyPodIsWhereItShouldBe(ctx context.Context) error {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	daemonSets, err := c.Client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	pods, err := c.pods(ctx, nil)
	if err != nil {
		return err
	}
	for i := range pods {
		if pods[i].DeletionTimestamp != nil {
			return fmt.Errorf("pod %s is terminating", pods[i].Name)
		}
	}
	for i := range nodes.Items {
		n := newNodeState(&nodes.Items[i], daemonSets.Items, pods)
		if err := n.check(pods); err != nil {
			return err
		}
	}
	return nil
}

// nodeState is what a node has and owes.
type nodeState struct {
	node *corev1.Node
	pods []*corev1.Pod
	// missing are the DaemonSets that belong on it and have no pod there.
	missing []*appsv1.DaemonSet
}

func newNodeState(node *corev1.Node, daemonSets []appsv1.DaemonSet, pods []corev1.Pod) *nodeState {
	n := &nodeState{node: node}
	present := make(map[types.UID]bool)
	for i := range pods {
		if pod := &pods[i]; pod.Spec.NodeName == node.Name {
			n.pods = append(n.pods, pod)
			present[ownerUID(pod)] = true
		}
	}
	for i := range daemonSets {
		ds := &daemonSets[i]
		if run, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds); run && !present[ds.UID] {
			n.missing = append(n.missing, ds)
		}
	}
	slices.SortFunc(n.missing, func(a, b *appsv1.DaemonSet) int {
		return cmp.Or(cmp.Compare(priorityOf(&b.Spec.Template.Spec), priorityOf(&a.Spec.Template.Spec)), cmp.Compare(a.Name, b.Name))
	})
	return n
}

func (n *nodeState) check(pods []corev1.Pod) error {
	// A missing daemon pod may take the room of ordinary pods up to its own priority,
	// and of daemon pods below it.
	for _, ds := range n.missing {
		priority := priorityOf(&ds.Spec.Template.Spec)
		room := n.room(func(pod *corev1.Pod) bool {
			return priorityOf(&pod.Spec) > priority || priorityOf(&pod.Spec) == priority && isDaemonPod(pod)
		})
		if room.take(&ds.Spec.Template.Spec) {
			return fmt.Errorf("DaemonSet %s has no pod on node %s, which could hold it", ds.Name, n.node.Name)
		}
	}
	for i := range pods {
		pod := &pods[i]
		if pod.Spec.NodeName != "" || isDaemonPod(pod) || !n.welcomes(&pod.Spec) {
			continue
		}
		// What is held is what would fit if there were no ordinary pods.
		withoutOrdinary, room := n.room(isDaemonPod), n.room(func(*corev1.Pod) bool { return true })
		for _, ds := range n.missing {
			if withoutOrdinary.take(&ds.Spec.Template.Spec) && priorityOf(&ds.Spec.Template.Spec) >= priorityOf(&pod.Spec) {
				room.give(&ds.Spec.Template.Spec)
			}
		}
		if room.take(&pod.Spec) {
			return fmt.Errorf("pod %s waits (%s), and would fit on node %s", pod.Name, whyWaiting(pod), n.node.Name)
		}
	}
	for _, pod := range n.pods {
		if !clustertest.IsReady(pod) {
			return fmt.Errorf("pod %s on node %s is not ready", pod.Name, n.node.Name)
		}
	}
	return nil
}

// welcomes says whether selector and taints let a pod onto the node.
func (n *nodeState) welcomes(spec *corev1.PodSpec) bool {
	for key, value := range spec.NodeSelector {
		if n.node.Labels[key] != value {
			return false
		}
	}
	return !slices.ContainsFunc(n.node.Spec.Taints, func(taint corev1.Taint) bool {
		return !slices.ContainsFunc(spec.Tolerations, func(toleration corev1.Toleration) bool { return toleration.Key == taint.Key })
	})
}

// room is what a node has left.
type room struct {
	milliCPU, memory, pods int64
	ports                  map[int32]bool
}

// room returns what is left beside the pods that stay.
func (n *nodeState) room(stays func(*corev1.Pod) bool) *room {
	allocatable := n.node.Status.Allocatable
	r := &room{allocatable.Cpu().MilliValue(), allocatable.Memory().Value(), allocatable.Pods().Value(), make(map[int32]bool)}
	for _, pod := range n.pods {
		if stays(pod) {
			r.give(&pod.Spec)
		}
	}
	return r
}

// give takes room away, whether there is enough or not.
func (r *room) give(spec *corev1.PodSpec) {
	for i := range spec.Containers {
		r.milliCPU -= spec.Containers[i].Resources.Requests.Cpu().MilliValue()
		r.memory -= spec.Containers[i].Resources.Requests.Memory().Value()
		for _, port := range spec.Containers[i].Ports {
			r.ports[port.HostPort] = true
		}
	}
	r.pods--
}

// take takes room away if there is enough.
func (r *room) take(spec *corev1.PodSpec) bool {
	for i := range spec.Containers {
		container := &spec.Containers[i]
		cpu, memory := container.Resources.Requests.Cpu().MilliValue(), container.Resources.Requests.Memory().Value()
		if cpu > 0 && cpu > r.milliCPU || memory > 0 && memory > r.memory || r.pods < 1 {
			return false
		}
		for _, port := range container.Ports {
			if r.ports[port.HostPort] {
				return false
			}
		}
	}
	r.give(spec)
	return true
}

// priorityOf returns the priority of pods with that spec, a template's too.
func priorityOf(spec *corev1.PodSpec) int32 {
	return map[string]int32{"low": -10, "middle": 1000, "high": 2000}[spec.PriorityClassName]
}

func ownerUID(pod *corev1.Pod) types.UID {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.UID
	}
	return ""
}

func isDaemonPod(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet"
}

// podLog knows every pod that ever was, by UID and by name, and why it once waited.
type podLog struct {
	mu      sync.Mutex
	pods    map[string]*corev1.Pod
	waiting map[string]string
}

// bound returns how many pods have been bound.
func (l *podLog) bound() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	bound := 0
	for key, pod := range l.pods {
		if key == pod.Name && pod.Spec.NodeName != "" {
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

func (c *cluster) watchPods() *podLog {
	c.t.Helper()
	log := &podLog{pods: make(map[string]*corev1.Pod), waiting: make(map[string]string)}
	see := func(object any) {
		pod := object.(*corev1.Pod)
		log.mu.Lock()
		defer log.mu.Unlock()
		log.pods[string(pod.UID)], log.pods[pod.Name] = pod, pod
		if why := whyWaiting(pod); why != string(pod.Status.Phase) {
			log.waiting[pod.Name] = why
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithNamespace("default"))
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

// wrongEvictions returns the evictions that the rules don't allow.
func (l *podLog) wrongEvictions(c *cluster) []string {
	c.t.Helper()
	events, err := c.Client.EventsV1().Events("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var problems []string
	for i := range events.Items {
		event := &events.Items[i]
		if event.Reason != "Preempted" {
			continue
		}
		victim := l.pods[event.Regarding.Name]
		words := strings.Fields(event.Note)
		equal := strings.HasPrefix(event.Note, "Made room for pod default/")
		var preemptor *corev1.Pod
		if equal {
			preemptor = l.pods[strings.TrimPrefix(words[4], "default/")]
		} else {
			preemptor = l.pods[words[3]] // "Preempted by pod UID on node NAME"
		}
		switch {
		case victim == nil || preemptor == nil:
			problems = append(problems, "unknown pods in the event: "+event.Note)
		case equal && (isDaemonPod(victim) || !isDaemonPod(preemptor) || priorityOf(&victim.Spec) != priorityOf(&preemptor.Spec)),
			!equal && priorityOf(&victim.Spec) >= priorityOf(&preemptor.Spec):
			problems = append(problems, fmt.Sprintf("%s of priority %d was evicted for %s of priority %d: %s",
				victim.Name, priorityOf(&victim.Spec), preemptor.Name, priorityOf(&preemptor.Spec), event.Note))
		}
	}
	return problems
}
