// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

const (
	fargate        = "eks.amazonaws.com/compute-type"
	tolerateAll    = "tolerations: [{operator: Exists}]"
	nodeCritical   = "priorityClassName: system-node-critical"
	otherScheduler = "schedulerName: fargate-scheduler"
)

// bind places the only pod of an app as another scheduler does.
func (c *cluster) bind(name, node string) {
	c.t.Helper()
	c.eventually(20*time.Second, "the pod "+name+" can be bound", func(ctx context.Context) error {
		pods, err := c.pods(ctx, app(name))
		if err != nil {
			return err
		}
		if len(pods) != 1 {
			return fmt.Errorf("%d pods of %s, want 1", len(pods), name)
		}
		return c.Client.CoreV1().Pods("default").Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pods[0].Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
	})
}

// agentRefusedTwice waits until the scheduler has refused all daemon pods of agent but
// those that are to be bound, deletes the refused ones and waits until it has refused
// their successors.
func (c *cluster) agentRefusedTwice(all, wantBound int, reason string) {
	c.t.Helper()
	c.eventually(30*time.Second, "daemon pods are refused", c.allTried("agent", all, wantBound, reason))
	c.kubectl("delete", "pod", "-l", "app=agent", "--field-selector", "spec.nodeName=", "--wait=false")
	c.eventually(30*time.Second, "their successors are refused", c.allTried("agent", all, wantBound, reason))
}

// F9: on a virtual node no pod is evicted for a daemon pod of the same priority, no room is
// held and no gate is closed. A pod that another scheduler has placed is not evicted either.
func TestF9VirtualNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	one := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
	nodes := localcluster.Nodes(1, 5)
	for i := range nodes[:4] {
		nodes[i].Capacity = one
	}
	fargateNode := func(node *localcluster.Node) {
		node.Labels[fargate] = "fargate"
		node.Taints = []corev1.Taint{{Key: fargate, Value: "fargate", Effect: corev1.TaintEffectNoSchedule}}
	}
	nodes[0].Labels["type"] = "virtual-kubelet"
	nodes[1].Taints = []corev1.Taint{{Key: "virtual-kubelet.io/provider", Value: "azure", Effect: corev1.TaintEffectNoSchedule}}
	fargateNode(&nodes[2])
	fargateNode(&nodes[4])

	fillers := make(map[string]map[string]string)
	for i, fragment := range []string{"", "", otherScheduler, otherScheduler} {
		name := fmt.Sprintf("filler-%d", i+1)
		c.addNodes(nodes[i])
		c.apply(restrict(deployment(name, 1, ""), strings.Join([]string{nodeCritical, tolerateAll, fragment}, "\n      ")))
		if fragment != "" {
			c.bind(name, nodes[i].Name)
		}
		c.eventually(20*time.Second, name+" runs", func(ctx context.Context) error { return c.runsOn(ctx, app(name), nodes[i].Name) })
		fillers[name] = c.boundUIDs(name)
	}
	agent := daemonSet("agent", "cpu: '3'", nodeCritical+"\n      "+tolerateAll)
	c.apply(strings.Replace(agent, "{name: agent}", `{name: agent, annotations: {everynode.dev/gate: "true"}}`, 1))
	c.agentRefusedTwice(4, 0, "Too many pods")
	for name, before := range fillers {
		if gone := c.gone(name, before); len(gone) > 0 {
			t.Errorf("these have gone: %v", gone)
		}
	}
	c.noEvictions()

	c.openNodesWithoutControllers(nodes[4])
	c.apply(barePod("web", "cpu: '2'", tolerateAll+"\n  "+onNode("node-5")))
	c.eventually(20*time.Second, "a pod neither waits for the gate nor leaves room", c.running("web", 1))
}

// away counts the pods of a controller that are away: had of them were Ready at first, most
// have been away at a time.
type away struct {
	ready map[types.UID]bool
	had   int
	most  int
}

// watchAway follows how many pods of every controller are away at a time: missing, not
// Ready, or terminating. The function that it returns ends that and returns the highest
// number, by the controller's name.
func (c *cluster) watchAway() (stop func() map[string]int) {
	c.t.Helper()
	api := c.Client.CoreV1().Pods("default")
	list, err := api.List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	watcher, err := api.Watch(c.t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		c.t.Fatal(err)
	}
	controllers := make(map[string]*away)
	for i := range list.Items {
		if owner := metav1.GetControllerOf(&list.Items[i]); owner != nil && clustertest.IsReady(&list.Items[i]) {
			if controllers[owner.Name] == nil {
				controllers[owner.Name] = &away{ready: make(map[types.UID]bool)}
			}
			controllers[owner.Name].ready[list.Items[i].UID] = true
			controllers[owner.Name].had++
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watcher.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			owner := metav1.GetControllerOf(pod)
			if owner == nil || controllers[owner.Name] == nil {
				continue
			}
			controller := controllers[owner.Name]
			if event.Type != watch.Deleted && clustertest.IsReady(pod) {
				controller.ready[pod.UID] = true
			} else {
				delete(controller.ready, pod.UID)
			}
			controller.most = max(controller.most, controller.had-len(controller.ready))
		}
	}()
	return func() map[string]int {
		watcher.Stop()
		<-ended
		most := make(map[string]int)
		for name, controller := range controllers {
			most[name] = controller.most
		}
		return most
	}
}

// fullNodes fills nodes with one pod of web on each, and one that has to stay.
func (c *cluster) fullNodes(n int) {
	c.t.Helper()
	c.addNodes(localcluster.Nodes(1, n)...)
	stays := strings.Replace(deployment("stays", n, "cpu: '3'"), "metadata: {labels: {app: stays}}",
		`metadata: {labels: {app: stays}, annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}}`, 1)
	c.apply(stays)
	c.eventually(60*time.Second, "every node has a pod that stays", c.running("stays", n))
	c.apply(deployment("web", n, "cpu: '1'"))
	c.eventually(60*time.Second, "the nodes are full", c.running("web", n))
}

// F10: daemon pods for many full nodes evict one pod of a controller at a time.
func TestF10OneEvictionAtATime(t *testing.T) {
	t.Parallel()
	t.Run("spare nodes", func(t *testing.T) {
		t.Parallel()
		const full, spare = 20, 8
		c := newCluster(t, nil)
		c.fullNodes(full)
		c.addNodes(localcluster.Nodes(full+1, spare)...)
		stop := c.watchAway()
		c.apply(daemonSet("agent", "cpu: '1'", ""))
		c.eventually(4*time.Minute, "every daemon pod runs", c.running("agent", full+spare))
		c.eventually(60*time.Second, "the evicted pods run elsewhere", c.running("web", full))
		for name, most := range stop() {
			if most > 1 {
				t.Errorf("%d pods of %s were away at a time, want 1 at most", most, name)
			}
		}
		if evicted := c.evictions(); len(evicted) != full {
			t.Errorf("%d pods were evicted, want %d: %v", len(evicted), full, evicted)
		}
	})
	// The successors cannot run: an eviction counts as under way until the timeout.
	t.Run("no spare nodes", func(t *testing.T) {
		t.Parallel()
		const full, evictionTimeout = 4, 10 * time.Second
		c := newCluster(t, func(o *localcluster.Options) {
			o.PluginArgs = map[string]map[string]any{"DaemonSetPreemption": {"evictionTimeout": evictionTimeout.String()}}
		})
		c.fullNodes(full)
		c.apply(daemonSet("agent", "cpu: '1'", ""))
		c.eventually(full*evictionTimeout+time.Minute, "every daemon pod runs", c.running("agent", full))
		events, err := c.Client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var times []time.Time
		for i := range events.Items {
			if event := &events.Items[i]; event.Reason == "Preempted" {
				times = append(times, event.EventTime.Time)
			}
		}
		slices.SortFunc(times, time.Time.Compare)
		if len(times) != full {
			t.Errorf("%d pods were evicted, want %d", len(times), full)
		}
		for i := range times[:max(len(times), 1)-1] {
			// An event is a little later than the eviction.
			if gap := times[i+1].Sub(times[i]); gap < evictionTimeout-time.Second {
				t.Errorf("%s between two evictions, want %s", gap, evictionTimeout)
			}
		}
	})
}

// localVolumes returns a StorageClass and a local volume on each of the nodes.
func localVolumes(nodes ...string) string {
	var manifests strings.Builder
	manifests.WriteString(`
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
`)
	for _, node := range nodes {
		fmt.Fprintf(&manifests, `
apiVersion: v1
kind: PersistentVolume
metadata: {name: local-%[1]s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  local: {path: /mnt}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[1]s]}]}]}}
---
`, node)
	}
	return manifests.String()
}

// statefulSet returns a manifest of one whose pods have a volume of the class local.
func statefulSet(name string, replicas int, requests string) string {
	manifest := strings.Replace(deployment(name, replicas, requests), "kind: Deployment", "kind: StatefulSet", 1)
	return strings.Replace(manifest, "spec:\n", fmt.Sprintf(`spec:
  serviceName: %s
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {storageClassName: local, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, name), 1)
}

// F11: a pod that its volume, selector or affinity binds to the node is not evicted, not
// even if there is no other victim.
func TestF11BoundToTheNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	// Nothing can move from node-1; from node-2 one pod can.
	c.addNodes(localcluster.Nodes(1, 3)...)
	c.kubectl("cordon", "node-3")
	inZone := func(zone string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [" + zone + "]}]}]}}}"
	}
	c.apply(localVolumes("node-1", "node-2") +
		restrict(deployment("selector-1", 1, "cpu: '1'"), onNode("node-1")) + restrict(deployment("zone-1", 2, "cpu: '1'"), inZone("us-east-1a")) +
		restrict(deployment("selector-2", 1, "cpu: '1'"), onNode("node-2")))
	for name, n := range map[string]int{"selector-1": 1, "zone-1": 2, "selector-2": 1} {
		c.eventually(20*time.Second, name+" runs", c.running(name, n))
	}
	c.apply(statefulSet("local", 2, "cpu: '1'"))
	c.eventually(30*time.Second, "the pods with local volumes run", func(ctx context.Context) error { return c.runsOn(ctx, app("local"), "node-1", "node-2") })
	c.apply(deployment("movable", 1, "cpu: '2'"))
	c.eventually(20*time.Second, "the nodes are full", func(ctx context.Context) error { return c.runsOn(ctx, app("movable"), "node-2") })
	c.kubectl("uncordon", "node-3")

	c.apply(daemonSet("agent", "cpu: '1'", ""))
	c.eventually(30*time.Second, "the movable pod has moved", func(ctx context.Context) error { return c.runsOn(ctx, app("movable"), "node-3") })
	c.eventually(30*time.Second, "two daemon pods run", c.running("agent", 2))
	c.agentRefusedTwice(3, 2, "Insufficient cpu")
	c.onlyEvicted("movable")
}

// F12: the room of a pod that has been terminating for an hour does not count as free soon.
func TestF12StuckTerminatingPod(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 1)...)
	c.apply(strings.Replace(barePod("stuck", "cpu: '2'", ""), "labels:", "finalizers: [example.com/stuck], labels:", 1) + deployment("web", 2, "cpu: '1'"))
	c.eventually(20*time.Second, "the stuck pod runs", c.running("stuck", 1))
	c.eventually(20*time.Second, "the node is full", c.running("web", 2))
	c.terminatingForAnHour("stuck")
	c.apply(daemonSet("agent", "cpu: '1'", ""))
	c.eventually(30*time.Second, "the daemon pod runs", c.running("agent", 1))
	if evicted := c.evictions(); len(evicted) != 1 || !strings.HasPrefix(evicted[0], "web-") {
		t.Errorf("evicted: %v, want one web pod", evicted)
	}
}

// terminatingForAnHour deletes a pod that has a finalizer, and sets its deletionTimestamp
// back by an hour.
func (c *cluster) terminatingForAnHour(name string) {
	c.t.Helper()
	c.kubectl("delete", "pod", name, "--wait=false")
	c.rewritePod(name, func(pod *corev1.Pod) { pod.DeletionTimestamp.Time = pod.DeletionTimestamp.Add(-time.Hour) })
	c.eventually(20*time.Second, name+" has been terminating for an hour", func(ctx context.Context) error {
		pod, err := c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if since := time.Since(pod.DeletionTimestamp.Time); since < time.Hour-time.Minute {
			return fmt.Errorf("it has been terminating for %s", since)
		}
		return nil
	})
}

// rewritePod changes a pod in etcd, also fields that the API server never changes.
func (c *cluster) rewritePod(name string, edit func(*corev1.Pod)) {
	c.t.Helper()
	socket := filepath.Join(filepath.Dir(c.Kubeconfig), "etcd.sock")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	type keyValue struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value,omitempty"`
	}
	// https://etcd.io/docs/latest/dev-guide/api_grpc_gateway/
	call := func(method string, body keyValue, into any) {
		c.t.Helper()
		content, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "http://etcd/v3/kv/"+method, bytes.NewReader(content))
		if err != nil {
			c.t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			c.t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil || response.StatusCode != http.StatusOK {
			c.t.Fatalf("etcd: %s: %v", response.Status, err)
		}
	}
	key := []byte("/registry/pods/default/" + name)
	var found struct {
		KVs []keyValue `json:"kvs"`
	}
	call("range", keyValue{Key: key}, &found)
	if len(found.KVs) != 1 {
		c.t.Fatalf("etcd has %d values of pod %s", len(found.KVs), name)
	}
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	pod := &corev1.Pod{}
	if _, _, err := serializer.Decode(found.KVs[0].Value, nil, pod); err != nil {
		c.t.Fatal(err)
	}
	edit(pod)
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	var encoded bytes.Buffer
	if err := serializer.Encode(pod, &encoded); err != nil {
		c.t.Fatal(err)
	}
	var done struct{}
	call("put", keyValue{Key: key, Value: encoded.Bytes()}, &done)
}

// F13: not evicted are a pod that two budgets cover (the API always refuses), a pod whose
// Job would fail, and pods on a node that is being drained or removed.
func TestF13ProtectedPods(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	budget := func(name string) string {
		return `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: ` + name + `}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: budgets}}}
---
`
	}
	stays := []struct{ name, manifest string }{
		{"budgets", deployment("budgets", 1, "cpu: '4'")},
		{"job", oneJob("job", "cpu: '4'")},
		{"cordoned", deployment("cordoned", 1, "cpu: '4'")},
		{"removed", deployment("removed", 1, "cpu: '4'")},
		{"movable", deployment("movable", 1, "cpu: '4'")},
	}
	before := make(map[string]map[string]string)
	for i, filler := range stays {
		c.addNodes(localcluster.Nodes(i+1, 1)...)
		c.apply(filler.manifest)
		c.eventually(20*time.Second, filler.name+" has a node", c.allTried(filler.name, 1, 1, ""))
		if filler.name != "job" {
			c.eventually(20*time.Second, filler.name+" runs", c.running(filler.name, 1))
		}
		before[filler.name] = c.boundUIDs(filler.name)
	}
	// The controller of budgets looks at a pod's first budget alone when the pod changes.
	c.apply(budget("first") + budget("second"))
	c.eventually(20*time.Second, "the budgets allow an eviction", func(ctx context.Context) error {
		budgets, err := c.Client.PolicyV1().PodDisruptionBudgets("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range budgets.Items {
			if allowed := budgets.Items[i].Status.DisruptionsAllowed; allowed != 1 {
				return fmt.Errorf("budget %s allows %d", budgets.Items[i].Name, allowed)
			}
		}
		return nil
	})
	c.kubectl("cordon", "node-3")
	c.kubectl("taint", "node", "node-4", "ToBeDeletedByClusterAutoscaler=1:NoSchedule")
	c.apply(daemonSet("agent", "cpu: 500m", tolerateAll))
	c.eventually(30*time.Second, "one daemon pod runs", c.running("agent", 1))
	c.agentRefusedTwice(5, 1, "Insufficient cpu")
	for _, filler := range stays[:4] {
		if gone := c.gone(filler.name, before[filler.name]); len(gone) > 0 {
			t.Errorf("these have gone: %v", gone)
		}
	}
	c.onlyEvicted("movable")
	metrics, err := c.Client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, `subresource="eviction"`) && !strings.Contains(line, `code="201"`) {
			t.Errorf("evictions were refused: %s", line)
		}
	}
}
