// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	testingclock "k8s.io/utils/clock/testing"

	"everynode.dev/everynode/pkg/plugins/headroom"
	everynodepreemption "everynode.dev/everynode/pkg/plugins/preemption"
)

// heldWorld has an ordinary pod that is held back: on six nodes for a DaemonSet whose pods
// a quota refuses, on two of them for one that gates, too.
func heldWorld() []runtime.Object {
	cilium := daemons("kube-system", "cilium", "1500m")
	fluent := daemons("logging", "fluent-bit", "100m")
	fluent.Annotations["everynode.dev/gate"] = "true"
	fluent.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "us-east-1b"}
	objects := []runtime.Object{cilium, fluent, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "kube-system", Name: "cilium.1"},
		InvolvedObject: corev1.ObjectReference{Kind: "DaemonSet", Namespace: "kube-system", Name: "cilium", UID: "cilium"},
		Reason:         "FailedCreate", Message: `Error creating: pods "cilium-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=30, limited: pods=30`,
		FirstTimestamp: ago(10 * time.Minute), LastTimestamp: ago(2 * time.Minute), Count: 12,
	}}
	for n := 1; n <= 8; n++ {
		objects = append(objects, node(n))
	}
	for _, n := range []int{7, 8} {
		objects = append(objects, daemonPod(fluent, n, func(pod *corev1.Pod) {
			ready(pod)
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Hour)}}}}
		}))
	}
	full := func(n int) *corev1.Pod {
		return st.MakePod().Namespace("shop").Name(fmt.Sprintf("full-%d", n)).UID(fmt.Sprintf("full-%d", n)).Node(fmt.Sprintf("node-%d", n)).
			Req(map[corev1.ResourceName]string{corev1.ResourceCPU: "3500m"}).Obj()
	}
	waits := st.MakePod().Namespace("shop").Name("web").UID("web").SchedulerName(corev1.DefaultSchedulerName).
		Req(map[corev1.ResourceName]string{corev1.ResourceCPU: "3"}).Obj()
	waits.CreationTimestamp = ago(5 * time.Minute)
	unschedulable(waits)
	waits.Status.Conditions[0].Message = "0/8 nodes are available: 2 Insufficient cpu, 6 " + headroom.ErrReason("cpu") + "."
	return append(objects, full(1), full(2), waits)
}

// brokenWorld has a node without a network, because the network plugin crashes there, and an
// ordinary pod that waits for it.
func brokenWorld() []runtime.Object {
	network := daemons("kube-system", "calico-node", "100m")
	network.Spec.Template.Spec.HostNetwork = true
	network.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	network.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "cni", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/cni/net.d"}}}}
	logs, metrics := daemons("logging", "fluent-bit", "100m"), daemons("monitoring", "exporter", "100m")
	waits := func(pod *corev1.Pod) {
		pod.Spec.NodeName = "node-3"
		pod.CreationTimestamp = ago(20 * time.Minute)
		pod.Status.Phase = corev1.PodPending
		pod.Status.StartTime = new(ago(20 * time.Minute))
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}
	}
	objects := []runtime.Object{network, logs, metrics}
	for n := 1; n <= 3; n++ {
		on := node(n)
		if n == 3 {
			on.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, LastTransitionTime: ago(30 * time.Minute),
				Message: "container runtime network not ready: cni plugin not initialized"}}
			objects = append(objects, on, daemonPod(logs, n, waits), daemonPod(metrics, n, waits), daemonPod(network, n, func(pod *corev1.Pod) {
				waits(pod)
				pod.Status.ContainerStatuses[0].RestartCount = 57
				pod.Status.ContainerStatuses[0].State.Waiting.Reason = "CrashLoopBackOff"
				pod.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: "cannot reach the datastore"}
			}))
			continue
		}
		objects = append(objects, on, daemonPod(logs, n, ready), daemonPod(metrics, n, ready), daemonPod(network, n, ready))
	}
	counts(network, 3, 3, 2)
	counts(logs, 3, 3, 2)
	counts(metrics, 3, 3, 2)
	shop := st.MakePod().Namespace("shop").Name("web").UID("web").Obj()
	waits(shop)
	return append(objects, shop)
}

func TestQuestions(t *testing.T) {
	worlds := map[string]func() []runtime.Object{"": world, "held": heldWorld, "broken": brokenWorld, "paced": pacedWorld}
	tests := map[string]struct {
		world string
		args  string
	}{
		"pod-held.txt":           {"held", "explain pod/web -n shop"},
		"pod-held.md":            {"held", "explain pod/web -n shop -o markdown"},
		"pod-held.json":          {"held", "explain pod web -n shop -o json"},
		"pod-started.txt":        {"broken", "explain pod/web -n shop"},
		"node.txt":               {"broken", "explain node/node-3"},
		"node-room.txt":          {"held", "explain no node-7 node-1"},
		"doctor.txt":             {"", "doctor"},
		"doctor-root.txt":        {"broken", "doctor"},
		"doctor-root.md":         {"broken", "doctor -o markdown"},
		"doctor-root.json":       {"broken", "doctor -o json"},
		"doctor-root-names.txt":  {"broken", "doctor -o name"},
		"doctor-well.txt":        {"", "doctor -n empty"},
		"doctor-one.txt":         {"", "doctor ds/agent"},
		"explain-selector.txt":   {"", "explain -A -l app=logs"},
		"explain-markdown.md":    {"", "explain ds/agent -o markdown"},
		"explain-chain.md":       {"", "explain ds/agent --node node-9 -o markdown"},
		"explain-network.txt":    {"broken", "explain ds/fluent-bit -n logging"},
		"explain-paced.txt":      {"paced", "explain ds/agent --node node-9"},
		"map-ascii.txt":          {"", "map -A --ascii"},
		"status-markdown.md":     {"", "status -A -o markdown"},
		"status-sorted.txt":      {"", "status -A --sort-by=.missing --no-headers"},
		"status-columns.txt":     {"", "status -A -o custom-columns=NAME:.name,MISSING:.missing,TOP:.top.reason"},
		"status-jsonpath.txt":    {"", "status -A -o jsonpath={range.items[*]}{.name}={.ready}{\"\\n\"}{end}"},
		"status-names.txt":       {"", "status -A -o name"},
		"status-colours.txt":     {"", "status ds/agent --color=always"},
		"status-waits.txt":       {"", "status -n empty --wait"},
		"status-selector.txt":    {"", "status -A -l app=none"},
		"status-by-nonsense.txt": {"", "status --sort-by={"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			objects := worlds[tc.world]()
			for _, object := range objects {
				if ds, ok := object.(*appsv1.DaemonSet); ok {
					ds.Labels = ds.Spec.Template.Labels
				}
			}
			golden(t, name, run(t, fake.NewClientset(objects...), "", strings.Fields(tc.args)...))
		})
	}
}

// pacedWorld is the world when everynode-scheduler has evicted a pod of web before.
func pacedWorld() []runtime.Object {
	objects := world()
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok && pod.Name == "agent-node-9" {
			pod.Status.Conditions[0].Message = "0/12 nodes are available: 1 Insufficient cpu. preemption: 0/12 nodes are available: 1 " + everynodepreemption.ErrReasonPaced + "."
		}
	}
	return objects
}

// notChecked is what was not looked at, which is more in a dump.
var notChecked = regexp.MustCompile(`(?m)^Not checked: .*\n( {2}.*\n)*\n?`)

// What is said of a dump is what is said of the cluster, at the time of the dump.
func TestFrom(t *testing.T) {
	dump := t.TempDir()
	byKind := make(map[string][]runtime.Object)
	for _, object := range brokenWorld() {
		kinds, _, err := scheme.Scheme.ObjectKinds(object)
		if err != nil {
			t.Fatal(err)
		}
		object.GetObjectKind().SetGroupVersionKind(kinds[0])
		accessor, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(accessor.GetNamespace(), kinds[0].Kind)
		byKind[key] = append(byKind[key], object)
	}
	write := func(name string, object any) {
		content, err := json.Marshal(object)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dump, name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dump, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for key, objects := range byKind {
		// As kubectl cluster-info dump writes it: a list of a kind, whose items don't say theirs.
		kind := objects[0].GetObjectKind().GroupVersionKind()
		items := make([]any, len(objects))
		for n := range objects {
			// A must-gather has single objects, too.
			write(fmt.Sprintf("%s-%d.yaml", key, n), objects[n])
			objects[n].GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			items[n] = objects[n]
		}
		write(key+"s.json", map[string]any{"kind": kind.Kind + "List", "apiVersion": kind.GroupVersion().String(), "items": items})
	}
	write("version.json", map[string]any{"gitVersion": "v1.37.2"})
	latest := &corev1.EventList{TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "v1"}, Items: []corev1.Event{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x", CreationTimestamp: now}, InvolvedObject: corev1.ObjectReference{Kind: "Pod"},
	}}}
	write("shop/events.json", latest)
	for _, args := range []string{"doctor", "status -A", "map -A", "explain ds/fluent-bit -n logging"} {
		live := run(t, fake.NewClientset(brokenWorld()...), "", strings.Fields(args)...)
		dumped := run(t, nil, "", append(strings.Fields(args), "--from", dump)...)
		said := func(text string) string {
			var kept []string
			for line := range strings.Lines(text) {
				// Commands lead to the cluster, which a dump is not.
				if !strings.Contains(line, "kubectl") {
					kept = append(kept, line)
				}
			}
			return strings.TrimSpace(strings.ReplaceAll(notChecked.ReplaceAllString(strings.Join(kept, ""), ""), "--- standard error\n", ""))
		}
		if strings.Contains(dumped, "kubectl ") {
			t.Errorf("%s: a command in\n%s", args, dumped)
		}
		if diff := cmp.Diff(said(live), said(dumped)); diff != "" {
			t.Errorf("%s (-cluster,+dump):\n%s", args, diff)
		}
	}
}

// times are those of objects in JSON.
var times = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`)

// Of objects without times no ages are told, and nothing counts as old.
func TestFromWithoutTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump.json")
	for name, objects := range map[string][]runtime.Object{"world": world(), "broken": brokenWorld(), "held": heldWorld()} {
		content, err := json.Marshal(listOf(t, objects))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, times.ReplaceAll(content, []byte("null")), 0o600); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, args := range []string{"doctor", "status -A -o wide", "map -A", "explain -A --all", "explain node/node-3", "explain pod/web -n shop", "explain ds/agent --node node-9"} {
			all.WriteString("$ " + args + "\n" + run(t, nil, "", append(strings.Fields(args), "--from", path)...))
		}
		text := all.String()
		if age := regexp.MustCompile(`\d{3}y|0s|, for|-?\d+[smhd] ago|  +ago`).FindString(text); age != "" {
			t.Errorf("%s: %q in\n%s", name, age, text)
		}
		if name == "world" {
			golden(t, "from-without-times.txt", text)
		}
	}
}

// deviceWorld has a DaemonSet that asks for a device of a DeviceClass, and has waited for it for days.
func deviceWorld() []runtime.Object {
	ds := daemons("default", "gpu", "100m")
	ds.Spec.Template.Spec.Containers[0].Resources.Requests["example.com/gpu"] = apiresource.MustParse("1")
	counts(ds, 1, 1, 0)
	return []runtime.Object{ds, node(1), daemonPod(ds, 1, func(pod *corev1.Pod) {
		unschedulable(pod)
		pod.CreationTimestamp = ago(72 * time.Hour)
	}), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new("example.com/gpu")}}}
}

// What Dynamic Resource Allocation serves is not called stuck, because it is not checked. Whether it serves a device, the
// DeviceClasses tell, if they may be read and the API server has them.
func TestDevices(t *testing.T) {
	objects := deviceWorld()
	last := len(objects) - 1
	for name, tc := range map[string]struct {
		objects   []runtime.Object
		err       error
		want, not string
	}{
		"a DeviceClass":  {objects, nil, "ABOUT TO BE PLACED on node-1, for 3d, on its way", "NO SUCH DEVICE"},
		"no DeviceClass": {objects[:last], nil, "NO SUCH DEVICE on node-1, for 3d\n", "Dynamic"},
		"no such API":    {objects, apierrors.NewNotFound(schema.GroupResource{}, ""), "NO SUCH DEVICE on node-1, for 3d\n", "Dynamic"},
		"no access":      {objects, apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no")), "NO SUCH DEVICE on node-1, for 3d, on its way", "\n--- error"},
		"an error":       {objects, errors.New("broken"), "reading deviceclasses.resource.k8s.io: broken", "DEVICE"},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(tc.objects...)
			client.PrependReactor("list", "deviceclasses", func(clienttesting.Action) (bool, runtime.Object, error) { return tc.err != nil, nil, tc.err })
			if text := run(t, client, "", "explain", "ds/gpu"); !strings.Contains(text, tc.want) || strings.Contains(text, tc.not) {
				t.Errorf("no %q, or %q, in\n%s", tc.want, tc.not, text)
			}
		})
	}
	planned := strings.Replace(planned, "cpu: 600m", "cpu: 600m, example.com/gpu: 1", 1)
	text := run(t, fake.NewClientset(node(1), objects[last]), planned, "plan", "-f", "-")
	for _, want := range []string{"fits on 1 as", "Not checked: what is free of example.com/gpu (Dynamic Resource Allocation)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan: no %q in\n%s", want, text)
		}
	}
	golden(t, "explain-device.txt", run(t, fake.NewClientset(deviceWorld()...), "", "explain", "ds/gpu"))
}

// A user of one namespace is told what can be said there, and what was not checked.
func TestOneNamespace(t *testing.T) {
	tests := map[string]struct {
		// cluster says whether objects of the cluster may be listed.
		cluster bool
		args    string
	}{
		"namespaced-explain.txt":       {args: "explain ds/fluent-bit -n logging"},
		"namespaced-status.txt":        {args: "status -n logging"},
		"namespaced-pod.txt":           {args: "explain pod/web -n shop"},
		"namespaced-nodes-explain.txt": {cluster: true, args: "explain ds/fluent-bit -n logging"},
		"namespaced-doctor.txt":        {args: "doctor -n logging"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(brokenWorld()...)
			client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
				if action.GetNamespace() != "" || tc.cluster && action.GetResource().Resource == "nodes" {
					return false, nil, nil
				}
				return true, nil, apierrors.NewForbidden(action.GetResource().GroupResource(), "", errors.New("no"))
			})
			golden(t, name, run(t, client, "", strings.Fields(tc.args)...))
		})
	}
}

// With --wait the exit code says whether it came to pass before the time was over.
func TestWait(t *testing.T) {
	client := fake.NewClientset(brokenWorld()...)
	if text := run(t, client, "", "status", "-n", "logging", "--wait=scheduled"); !strings.Contains(text, "fluent-bit") || strings.Contains(text, "exit code") {
		t.Errorf("scheduled:\n%s", text)
	}
	if text := run(t, client, "", "status", "-n", "logging", "-l", "app=misspelt", "--wait"); !strings.Contains(text, "there is nothing to wait for\n--- exit code 2") {
		t.Errorf("a selector that matches nothing:\n%s", text)
	}
	out, errOut := &lines{more: make(chan struct{}, 100)}, &lines{more: make(chan struct{}, 100)}
	config := newConnection()
	config.rules = &clientcmd.ClientConfigLoadingRules{Precedence: []string{"testdata/kubeconfig"}}
	clock := testingclock.NewFakeClock(now.Time)
	command := newCommand(&environment{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: errOut}, clock: clock, config: config, client: client,
	})
	command.SetArgs([]string{"status", "-n", "logging", "--wait", "--timeout=1m"})
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(t.Context()) }()
	var err error
	for waits := true; waits; {
		select {
		case err = <-ended:
			waits = false
		default:
			if clock.HasWaiters() {
				clock.Step(time.Second)
			}
			goruntime.Gosched()
		}
	}
	if !errors.Is(err, ErrFindings) || !strings.Contains(errOut.String(), "Not ready within 1m0s.") || strings.Count(out.String(), "fluent-bit") == 0 {
		t.Errorf("%v\n%s%s", err, out.String(), errOut.String())
	}
}

// plannedFile is a DaemonSet with what it needs.
const plannedFile = `
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: agents}
value: 5000
---
apiVersion: v1
kind: LimitRange
metadata: {name: defaults}
spec: {limits: [{type: Container, defaultRequest: {cpu: 600m}}]}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: gvisor}
handler: runsc
overhead: {podFixed: {cpu: 100m}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: compute}
spec: {hard: {requests.cpu: 104500m, pods: "100"}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: exporter}
spec:
  selector: {matchLabels: {app: exporter}}
  template:
    metadata: {labels: {app: exporter}}
    spec:
      priorityClassName: agents
      runtimeClassName: gvisor
      containers: [{name: main, image: "example/exporter:1"}]
`

// Objects of the same file count, and what becomes of pods that are there is said before.
// Of two DaemonSets in a file, each of which has room for itself, the second one finds what
// the first one leaves: of the nodes and of a quota.
func TestPlanOfTwoDaemonSets(t *testing.T) {
	documents := []string{"apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: pods, namespace: fresh}\nspec: {hard: {pods: \"15\"}}\n"}
	for _, name := range []string{"one", "two"} {
		documents = append(documents, fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, namespace: fresh}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: main, image: example/main, resources: {requests: {cpu: 600m}}}]
`, name))
	}
	var nodes []runtime.Object
	for n := range 10 {
		nodes = append(nodes, st.MakeNode().Name(fmt.Sprint("node-", n)).Capacity(map[corev1.ResourceName]string{"cpu": "1", "pods": "10"}).Obj())
	}
	text := run(t, fake.NewClientset(nodes...), strings.Join(documents, "---\n"), "plan", "-f", "-", "--dry-run-pod=false")
	one, two, _ := strings.Cut(text, "DaemonSet fresh/two")
	if strings.Contains(one, "NO ROOM") || strings.Contains(one, "quota") {
		t.Errorf("the first one has room:\n%s", one)
	}
	for _, want := range []string{"(10 nodes)\n  The node has not enough cpu left.", "The quota pods has room for 5 of 10 pods"} {
		if !strings.Contains(two, want) {
			t.Errorf("the second one: no %q in\n%s", want, two)
		}
	}
}

func TestPlanOfAWholeFile(t *testing.T) {
	bare := func(name string, n int) *corev1.Pod {
		return st.MakePod().Namespace("default").Name(name).UID(name).Node(fmt.Sprintf("node-%d", n)).Label("app", "exporter").Obj()
	}
	agent := ""
	for _, object := range world() {
		ds, ok := object.(*appsv1.DaemonSet)
		if !ok || ds.Name != "agent" {
			continue
		}
		ds = ds.DeepCopy()
		ds.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"}
		content, err := json.Marshal(ds)
		if err != nil {
			t.Fatal(err)
		}
		agent = string(content)
	}
	tests := map[string]struct {
		file    string
		objects []runtime.Object
	}{
		"plan-file.txt":    {plannedFile, nil},
		"plan-adopts.txt":  {plannedFile, []runtime.Object{bare("old-1", 1), bare("old-2", 2)}},
		"plan-same.txt":    {agent, nil},
		"plan-unready.txt": {strings.Replace(agent, `"cpu":"500m"`, `"cpu":"501m"`, 1), nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			objects := append(world(), tc.objects...)
			client := fake.NewClientset(objects...)
			client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no PriorityClass with name agents was found"))
			})
			golden(t, name, run(t, client, tc.file, "plan", "-f", "-"))
		})
	}
}

// Where nothing is wrong at all, programs read an empty list of findings.
func TestLintWithoutFindingsIsAList(t *testing.T) {
	const manifest = `
kind: DaemonSet
apiVersion: apps/v1
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      serviceAccountName: agent
      priorityClassName: system-node-critical
      containers:
      - name: agent
        image: example/agent:1.0
        resources: {requests: {cpu: 10m, memory: 10Mi}, limits: {memory: 20Mi}}
        readinessProbe: {tcpSocket: {port: 80}}
`
	for _, level := range []string{"warning", "info"} {
		if got := run(t, nil, manifest, "lint", "-f", "-", "-o", "json", "--level", level); !strings.Contains(got, `"findings": []`) {
			t.Errorf("--level=%s:\n%s", level, got)
		}
	}
}

// A name that the files don't have is found, with the settings of a file.
func TestLintReferencesAndSettings(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "lint.yaml")
	if err := os.WriteFile(settings, []byte("level: warning\nfail-on: warning\nskip: [no-tolerations]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const manifest = `
kind: ServiceAccount
apiVersion: v1
metadata: {name: exporter}
---
kind: ConfigMap
apiVersion: v1
metadata: {name: settings}
---
kind: DaemonSet
apiVersion: apps/v1
metadata: {name: exporter}
spec:
  selector: {matchLabels: {app: exporter}}
  template:
    metadata: {labels: {app: exporter}}
    spec:
      serviceAccountName: exportr
      containers:
      - name: main
        image: example/exporter:1
        env:
        - {name: A, valueFrom: {configMapKeyRef: {name: setings, key: a}}}
        - {name: B, valueFrom: {configMapKeyRef: {name: none, key: a, optional: true}}}
        - {name: C, valueFrom: {secretKeyRef: {name: from-elsewhere, key: a}}}
      volumes: [{name: x, configMap: {name: settings}}]
`
	golden(t, "lint-references.txt", run(t, nil, manifest, "lint", "-f", "-", "--settings", settings))
	if err := os.WriteFile(settings, []byte("fail_on: warning\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := run(t, nil, manifest, "lint", "-f", "-", "--settings", settings); !strings.Contains(text, `unknown field "fail_on"`) {
		t.Error(text)
	}
}

// Where symbols may be missing or two columns wide, the map is drawn without them.
func TestNarrowSymbols(t *testing.T) {
	for locale, want := range map[string]bool{"en_US.UTF-8": true, "C.utf8": true, "POSIX": false, "ja_JP.UTF-8": false, "zh_CN.UTF-8": false, "de_DE@euro": false} {
		t.Setenv("LC_ALL", locale)
		if have := narrowSymbols(); have != want {
			t.Errorf("%s: %v", locale, have)
		}
	}
}
