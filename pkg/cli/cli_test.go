// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/snapshot"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// now is when all clusters of the tests are looked at.
var now = metav1.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

// world is a cluster of twelve nodes with a DaemonSet for each kind of trouble.
func world() []runtime.Object {
	var objects []runtime.Object
	for n := 1; n <= 12; n++ {
		objects = append(objects, node(n))
	}
	objects = append(objects, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "daemons"}, Value: 1000})
	return slices.Concat(objects, agents(), giants(), rolling(), refusedDaemons(), webs())
}

// node has 4 cores; node-11 is tainted, and node-12 is not an ssd node and in no zone.
func node(n int) *corev1.Node {
	name := fmt.Sprintf("node-%d", n)
	w := st.MakeNode().Name(name).Label(corev1.LabelHostname, name).Label("disktype", "ssd").Capacity(map[corev1.ResourceName]string{
		corev1.ResourceCPU: "4", corev1.ResourceMemory: "16Gi", corev1.ResourcePods: "110",
	})
	if n == 11 {
		w.Taints([]corev1.Taint{{Key: "role", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}})
	}
	if n == 12 {
		w.Label("disktype", "hdd")
	} else {
		w.Label(corev1.LabelTopologyZone, []string{"us-east-1a", "us-east-1b"}[min(n/7, 1)])
	}
	w.CreationTimestamp = ago(48 * time.Hour)
	w.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(47 * time.Hour)}}
	return w.Obj()
}

func daemons(namespace, name, cpu string) *appsv1.DaemonSet {
	ds := daemonsettest.Make(name).Requests(map[corev1.ResourceName]string{corev1.ResourceCPU: cpu}).Obj()
	ds.Namespace = namespace
	ds.CreationTimestamp = ago(24 * time.Hour)
	ds.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	ds.Spec.Template.Labels = map[string]string{"app": name}
	ds.Spec.Template.Spec.SchedulerName = corev1.DefaultSchedulerName
	ds.Status.ObservedGeneration = 1
	return ds
}

func counts(ds *appsv1.DaemonSet, desired, current, ready int32) {
	ds.Status.DesiredNumberScheduled, ds.Status.CurrentNumberScheduled, ds.Status.NumberReady = desired, current, ready
}

func daemonPod(ds *appsv1.DaemonSet, n int, edit func(*corev1.Pod)) *corev1.Pod {
	pod := daemonsettest.Pod(ds, fmt.Sprintf("node-%d", n))
	pod.CreationTimestamp = ago(5 * time.Minute)
	edit(pod)
	return pod
}

func ready(pod *corev1.Pod) {
	pod.Spec.NodeName, _ = nodeOf(pod)
	pod.CreationTimestamp = ago(20 * time.Hour)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(19 * time.Hour)}}
}

func nodeOf(pod *corev1.Pod) (string, bool) {
	return pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0], true
}

func unschedulable(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, LastTransitionTime: ago(5 * time.Minute),
		Message: "0/12 nodes are available: 1 Insufficient cpu. preemption: 0/12 nodes are available: 1 No preemption victims found for incoming pod.",
	}}
}

// agents run on the ssd nodes but the tainted one, and have no room on node-9 and node-10.
func agents() []runtime.Object {
	ds := daemons("default", "agent", "500m")
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"disktype": "ssd"}
	counts(ds, 10, 10, 8)
	objects := []runtime.Object{ds}
	for n := 1; n <= 8; n++ {
		objects = append(objects, daemonPod(ds, n, ready))
	}
	return append(objects, daemonPod(ds, 9, unschedulable), daemonPod(ds, 10, unschedulable))
}

// giants fit nowhere.
func giants() []runtime.Object {
	ds := daemons("default", "giant", "8")
	ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	counts(ds, 12, 12, 0)
	objects := []runtime.Object{ds}
	for n := 1; n <= 12; n++ {
		objects = append(objects, daemonPod(ds, n, unschedulable))
	}
	return objects
}

// rolling is in the middle of an update whose image does not exist.
func rolling() []runtime.Object {
	ds := daemons("kube-system", "proxy", "100m")
	ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	old := ds.DeepCopy()
	ds.Generation, ds.Status.ObservedGeneration = 2, 2
	ds.Annotations[appsv1.DeprecatedTemplateGeneration] = "2"
	counts(ds, 12, 12, 11)
	objects := []runtime.Object{ds}
	for n := 1; n <= 11; n++ {
		objects = append(objects, daemonPod(old, n, ready))
	}
	return append(objects, daemonPod(ds, 12, func(pod *corev1.Pod) {
		pod.Spec.NodeName = "node-12"
		pod.Status.Phase = corev1.PodPending
		pod.Status.StartTime = new(ago(5 * time.Minute))
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "main", Image: "example/proxy:3", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "ImagePullBackOff", Message: `Back-off pulling image "example/proxy:3"`,
			}},
		}}
	}))
}

// refusedDaemons are beyond the quota.
func refusedDaemons() []runtime.Object {
	ds := daemons("team", "logs", "100m")
	counts(ds, 11, 0, 0)
	return []runtime.Object{ds, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "team", Name: "logs.1"},
		InvolvedObject: corev1.ObjectReference{Kind: "DaemonSet", Namespace: "team", Name: "logs", UID: "logs"},
		Reason:         "FailedCreate",
		Message:        `Error creating: pods "logs-8xk2p" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=30, limited: pods=30`,
		FirstTimestamp: ago(10 * time.Minute), LastTimestamp: ago(2 * time.Minute), Count: 12,
	}}
}

// webs fill node-9 and node-10.
func webs() []runtime.Object {
	web := func(name, node, cpu string, priority int32) *corev1.Pod {
		pod := st.MakePod().Namespace("shop").Name(name).UID(name).Node(node).Label("pod-template-hash", "abc").Priority(priority).
			Req(map[corev1.ResourceName]string{corev1.ResourceCPU: cpu}).StartTime(ago(time.Hour)).Obj()
		owner := name[:strings.LastIndex(name, "-")] + "-abc"
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: new(true)}}
		return pod
	}
	return []runtime.Object{
		web("web-1", "node-9", "2", 0), web("web-2", "node-9", "1500m", 0), web("api-1", "node-9", "300m", 100),
		web("web-3", "node-10", "2", 0), web("api-2", "node-10", "1600m", 100),
	}
}

// run runs a command line in a cluster and returns what it prints, and how it ends.
func run(t *testing.T, client *fake.Clientset, stdin string, args ...string) string {
	t.Helper()
	t.Setenv("NO_COLOR", "")
	t.Setenv("LC_ALL", "en_US.UTF-8")
	in, out, errOut := strings.NewReader(stdin), &bytes.Buffer{}, &bytes.Buffer{}
	config := newConnection()
	config.rules = &clientcmd.ClientConfigLoadingRules{Precedence: []string{"testdata/kubeconfig"}}
	command := newCommand(&environment{
		IOStreams: genericiooptions.IOStreams{In: in, Out: out, ErrOut: errOut},
		clock:     testingclock.NewFakeClock(now.Time), config: config, client: client,
	})
	command.SetArgs(args)
	err := command.ExecuteContext(t.Context())
	text := out.String()
	if errOut.Len() > 0 {
		text += "--- standard error\n" + errOut.String()
	}
	if err != nil && !errors.Is(err, ErrFindings) {
		text += "--- error\n" + err.Error() + "\n"
	}
	if code := ExitCode(err); code != 0 {
		text += fmt.Sprintf("--- exit code %d\n", code)
	}
	return text
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("%s (-want,+got), -update writes it anew:\n%s", path, diff)
	}
}

// planned is the manifest that plan and lint are tried with.
const planned = `# A comment, and a document without anything.
---
apiVersion: v1
kind: ConfigMap
metadata: {name: exporter}
---

apiVersion: apps/v1
kind: DaemonSet
metadata: {name: exporter}
spec:
  selector: {matchLabels: {app: exporter}}
  template:
    metadata: {labels: {app: exporter}}
    spec:
      containers:
      - {name: main, image: example/exporter, resources: {requests: {cpu: 600m}, limits: {memory: 100Mi}}}
`

func TestGolden(t *testing.T) {
	// The environment of the process is set: no t.Parallel.
	tests := map[string][]string{
		"explain.txt":            {"explain", "ds/agent"},
		"explain-wide.txt":       {"explain", "ds/agent", "-o", "wide"},
		"explain.json":           {"explain", "ds/agent", "-o", "json"},
		"explain.yaml":           {"explain", "ds/agent", "-o", "yaml"},
		"explain-never-fits.txt": {"explain", "daemonset.apps/giant"},
		"explain-rollout.txt":    {"explain", "ds/proxy", "-n", "kube-system"},
		"explain-refused.txt":    {"explain", "logs", "--namespace=team", "--context=prod"},
		"explain-node.txt":       {"explain", "ds/agent", "--node", "node-9"},
		"explain-node-ready.txt": {"explain", "ds/agent", "--node", "node-1"},
		"explain-node.json":      {"explain", "ds/agent", "--node", "node-9", "-o", "json"},
		"explain-pod.txt":        {"explain", "pod/agent-node-9"},
		"explain-two.txt":        {"explain", "ds", "agent", "giant"},
		"status.txt":             {"status"},
		"status-all.txt":         {"status", "-A"},
		"status-wide.txt":        {"status", "-A", "-o", "wide"},
		"status.json":            {"status", "ds/agent", "-o", "json"},
		"status.yaml":            {"status", "ds/agent", "-o", "yaml"},
		"status-none.txt":        {"status", "-n", "empty"},
		"map.txt":                {"map"},
		"map-all.txt":            {"map", "-A"},
		"map-label.txt":          {"map", "ds/agent", "--group-by=disktype", "--context=prod"},
		"map-none.txt":           {"map", "-n", "empty"},
		"map-wide.txt":           {"map", "-A", "-o", "wide", "--group-by="},
		"map.json":               {"map", "-A", "-o", "json"},
		"map.yaml":               {"map", "-A", "-o", "yaml"},
		// The picture in the README.
		"../../../docs/map.svg": {"map", "-A", "--svg=-"},
		"map.html":              {"map", "-A", "--html=-"},
		"plan.txt":              {"plan", "-f", "-"},
		"plan-wide.txt":         {"plan", "-f", "-", "-o", "wide"},
		"plan.json":             {"plan", "-f", "-", "-o", "json"},
		"plan.yaml":             {"plan", "-f", "-", "-o", "yaml"},
		"lint.txt":              {"lint", "-f", "-"},
		"lint-strict.txt":       {"lint", "-f", "-", "--level=info", "--fail-on=info"},
		"lint.json":             {"lint", "-f", "-", "-o", "json", "--level=info"},
		"lint.yaml":             {"lint", "-f", "-", "-o", "yaml", "--level=info"},
		"lint.sarif":            {"lint", "-f", "-", "-o", "sarif", "--level=info"},
		"lint-cluster.txt":      {"lint", "ds/agent", "ds/giant", "--level=info", "--skip=no-memory-limit"},
		"lint-only.txt":         {"lint", "-f", "-", "--level=info", "--only=no-readiness-probe"},
		"lint-rules.txt":        {"lint", "--list"},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			golden(t, name, run(t, fake.NewClientset(world()...), planned, args...))
		})
	}
}

// However many nodes there are, and whatever labels of their own they have, an
// explanation is short.
func TestLargeExplanationIsShort(t *testing.T) {
	ds := daemons("default", "agent", "100m")
	ds.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-301"}
	objects := []runtime.Object{ds}
	for n := 1; n <= 300; n++ {
		objects = append(objects, node(n))
	}
	text := run(t, fake.NewClientset(objects...), "", "explain", "ds/agent")
	if lines := strings.Count(text, "\n"); lines > 40 {
		t.Errorf("%d lines", lines)
	}
	golden(t, "explain-300.txt", text)

	// Every node has a trouble of its own.
	ds.Spec.Template.Spec.NodeSelector = nil
	for n := 1; n <= 300; n++ {
		objects = append(objects, daemonPod(ds, n, func(pod *corev1.Pod) {
			pod.Spec.NodeName = fmt.Sprintf("node-%d", n)
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: fmt.Sprintf("container-%d", n), State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: strings.Repeat("no ", 50)}},
			}}
		}))
	}
	text = run(t, fake.NewClientset(objects...), "", "explain", "ds/agent")
	if lines := strings.Count(text, "\n"); lines > 80 {
		t.Errorf("%d lines:\n%s", lines, text)
	}
	golden(t, "explain-different.txt", text)
	if all := run(t, fake.NewClientset(objects...), "", "explain", "ds/agent", "--all"); strings.Count(all, "\n") < 300 {
		t.Errorf("--all leaves something out:\n%s", all)
	}
}

// What is printed to be pasted leads to the same cluster, or is not printed.
func TestCommandsLeadToTheSameCluster(t *testing.T) {
	for flags, want := range map[string]string{
		"":                                  "kubectl describe node",
		"--context=prod":                    "kubectl --context=prod describe node",
		"-s https://1.2.3.4":                "kubectl --server=https://1.2.3.4 describe node",
		"--as=me --as-group=a --as-group=b": "kubectl --as=me --as-group=a --as-group=b describe node",
		"--server=https://x --insecure-skip-tls-verify": "kubectl --insecure-skip-tls-verify=true --server=https://x describe node",
		"--tls-server-name=a --as=me --as-uid=b":        "kubectl --as=me --as-uid=b --tls-server-name=a describe node",
		"--token=secret":                                "",
		"-s https://x --token=y":                        "",
		"--request-timeout=3s":                          "kubectl describe node",
	} {
		for _, verb := range []string{"explain ds/agent", "explain ds/agent -o json", "status", "map", "map --html=-"} {
			text := run(t, fake.NewClientset(world()...), "", strings.Fields(verb+" "+flags)...)
			text = strings.ReplaceAll(text, "kubectl.kubernetes.io", "")
			if strings.HasPrefix(verb, "explain") && !strings.Contains(text, want) {
				t.Errorf("%s %s: this lacks %q:\n%s", verb, flags, want, text)
			}
			if want == "" && (strings.Contains(text, "kubectl ") && !strings.Contains(verb, "html") || strings.Contains(text, `"commands":true`) || strings.Contains(text, "secret")) {
				t.Errorf("%s %s names a command:\n%s", verb, flags, text)
			}
		}
	}
}

// listOf returns objects as the items of a List.
func listOf(t *testing.T, objects []runtime.Object) *corev1.List {
	t.Helper()
	list := &corev1.List{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"}}
	for _, object := range objects {
		kinds, _, err := scheme.Scheme.ObjectKinds(object)
		if err != nil {
			t.Fatal(err)
		}
		object.GetObjectKind().SetGroupVersionKind(kinds[0])
		list.Items = append(list.Items, runtime.RawExtension{Object: object})
	}
	return list
}

// A cluster that is in files tells the same as the real one, but for what admission
// would do.
func TestPlanFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, objects []runtime.Object) string {
		content, err := yaml.Marshal(listOf(t, objects))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var nodes, others []runtime.Object
	for _, object := range world() {
		if _, ok := object.(*corev1.Node); ok {
			nodes = append(nodes, object)
		} else {
			others = append(others, object)
		}
	}
	golden(t, "plan-files.txt", run(t, nil, planned, "plan", "-f", "-", "--from", write("nodes.yaml", nodes), "--from", write("pods.yaml", others)))
}

// What the API server says to a pod that would be created is part of a plan.
func TestPlanRefused(t *testing.T) {
	client := fake.NewClientset(world()...)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "exporter-x2c4v",
			errors.New("exceeded quota: compute, requested: pods=1, used: pods=30, limited: pods=30"))
	})
	golden(t, "plan-refused.txt", run(t, client, planned, "plan", "-f", "-"))
}

// What admission makes of a pod is part of a plan.
func TestPlanAdmission(t *testing.T) {
	client := fake.NewClientset(world()...)
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create := action.(clienttesting.CreateActionImpl)
		if !slices.Equal(create.CreateOptions.DryRun, []string{metav1.DryRunAll}) {
			t.Errorf("a pod is created with the options %+v", create.CreateOptions)
		}
		pod := create.Object.(*corev1.Pod).DeepCopy()
		pod.Spec.NodeSelector = map[string]string{"disktype": "hdd"}
		return true, pod, nil
	})
	golden(t, "plan-admission.txt", run(t, client, planned, "plan", "-f", "-"))
}

func TestErrors(t *testing.T) {
	const oneWay = "name what to check in one way: --filename, --kustomize, DaemonSets of the cluster as ds/NAME, or --all-namespaces"
	forbid := func(resource string) *fake.Clientset {
		client := fake.NewClientset(world()...)
		client.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
		})
		return client
	}
	absent := fake.NewClientset()
	absent.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewGenericServerResponse(http.StatusNotFound, "list", schema.GroupResource{}, "", "404 page not found", 0, true)
	})
	tests := map[string]struct {
		client *fake.Clientset
		args   string
		want   string
	}{
		"no such DaemonSet":        {args: "explain ds/none", want: "there is no DaemonSet none in any namespace"},
		"another namespace":        {args: "explain ds/logs", want: "there is no DaemonSet logs in namespace default, but in team: add -n team"},
		"no such pod":              {args: "explain pod/none", want: "there is no pod none in namespace default: name another namespace with -n"},
		"no such node":             {args: "explain ds/agent --node none", want: "there is no node none: see kubectl get nodes"},
		"another kind":             {args: "explain deploy/agent", want: `"deploy/agent" is of another kind: write ds/NAME or pod/NAME or node/NAME`},
		"no name":                  {args: "explain ds/", want: `"ds/" has no name: write ds/NAME or pod/NAME or node/NAME`},
		"another format":           {args: "explain ds/agent -o table", want: `--output is "table", must be one of wide, name, markdown, json, yaml, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,...`},
		"no file":                  {args: "plan", want: "name the files with the DaemonSet in one way: --filename, or --kustomize"},
		"nothing to explain":       {args: "explain", want: "name what to explain: ds/NAME, pod/NAME or node/NAME, or DaemonSets by --selector"},
		"a template without text":  {args: "status -o jsonpath", want: `--output is "jsonpath", must be one of wide, name, markdown, json, yaml, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,...`},
		"a column without a path":  {args: "status -o custom-columns=NAME", want: `--output: "NAME" is no HEADER:PATH, as in NAME:.name`},
		"another colour":           {args: "status --color=red", want: `--color is "red", must be auto, always or never`},
		"names and a selector":     {args: "map ds/agent -l a=b", want: "names and --selector exclude each other: leave one out"},
		"another condition":        {args: "status --wait=done", want: `--wait is "done", must be ready, available, updated or scheduled`},
		"no time":                  {args: "status --wait --timeout=0s", want: "--timeout is 0s, must be more than 0"},
		"two ways to wait":         {args: "status --wait --watch", want: "--watch and --wait exclude each other: choose one"},
		"files that change":        {args: "status --watch --from .", want: "files don't change: leave out --watch and --wait with --from"},
		"a folder without objects": {args: "status --from testdata", want: "testdata: there are no nodes and no DaemonSets in it"},
		"a name of all spaces":     {args: "status -A ds/agent", want: "a name belongs to one namespace: leave out --all-namespaces"},
		"no pause":                 {args: "status --interval 1ms", want: "--interval is 1ms, must be at least 1s"},
		"neither file nor name":    {args: "lint", want: oneWay},
		"a file and the cluster":   {args: "lint -f - -A", want: oneWay},
		"another severity":         {args: "lint -f - --fail-on all", want: `--fail-on is "all", must be one of error, warning, info, none`},
		"another level":            {args: "lint -f - --level all", want: `--level is "all", must be one of error, warning, info`},
		"another rule":             {args: "lint -f - --only no-such", want: `there is no rule "no-such": --list names all`},
		"a file that is not there": {args: "lint -f testdata/none.yaml", want: `the path "testdata/none.yaml" does not exist`},
		"no access to pods": {client: forbid("pods"), args: "status",
			want: "no access: RBAC has to allow you the verb list on pods, in all namespaces or in default"},
		"no access at all": {client: forbid("*"), args: "map",
			want: "no access: RBAC has to allow you the verb list on daemonsets.apps, pods, in all namespaces or in default"},
		"no API server":              {client: absent, args: "status", want: "reading nodes: the server could not find the requested resource"},
		"two formats":                {args: "map -o json --html map.html", want: "--output, --html and --svg exclude one another: choose one"},
		"two drawings":               {args: "map --svg map.svg --html map.html", want: "--html and --svg exclude one another: choose one"},
		"a folder that is not there": {args: "map --svg testdata/none/map.svg", want: "open testdata/none/map.svg: no such file or directory"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.client == nil {
				tc.client = fake.NewClientset(world()...)
			}
			want := "--- error\n" + tc.want + "\n--- exit code 2\n"
			if diff := cmp.Diff(want, run(t, tc.client, planned, strings.Fields(tc.args)...)); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

// A kubeconfig that leads nowhere is an error that names the flags.
func TestNoCluster(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	tests := map[string]struct {
		config connection
		want   string
		// A namespace need not be configured.
		anywhere bool
	}{
		"a file that is not there":    {connection{rules: &clientcmd.ClientConfigLoadingRules{ExplicitPath: none}}, none + ": no such file or directory", false},
		"a context that is not there": {connection{rules: &clientcmd.ClientConfigLoadingRules{}, overrides: clientcmd.ConfigOverrides{CurrentContext: "no-such"}}, "no-such", false},
		"nothing at all":              {connection{rules: &clientcmd.ClientConfigLoadingRules{}}, "the variable KUBECONFIG", true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, connecting := (&environment{config: &tc.config}).connect()
			_, naming := tc.config.namespace()
			for _, err := range []error{connecting, naming} {
				if err == nil && tc.anywhere {
					continue
				}
				if err == nil || !strings.HasPrefix(err.Error(), "no cluster is configured: ") || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "--kubeconfig") {
					t.Errorf("%v, want %q", err, tc.want)
				}
			}
		})
	}
}

// What may be missing is missing in the output only, which says so.
func TestOptionalAccess(t *testing.T) {
	client := fake.NewClientset(world()...)
	client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch resource := action.GetResource().Resource; resource {
		case "nodes", "pods", "daemonsets":
			return false, nil, nil
		default:
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
		}
	})
	golden(t, "explain-no-access.txt", run(t, client, "", "explain", "ds/agent"))
}

// refusedManifest is what the API server would refuse, in the second document.
const refusedManifest = `kind: Namespace
apiVersion: v1
metadata: {name: x}
---
# A comment.
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: exporter
spec:
  selector: {matchLabels: {app: exporter}}
  updateStrategy:
    rollingUpdate:
      maxUnavailable: 0
  template:
    metadata:
      labels: {app: other}
    spec:
      restartPolicy: OnFailure
      containers:
      - name: main
        image: example/exporter:1
        ports: [{containerPort: 9100}]
        readinessProbe:
          httpGet: {path: /, port: metrics}
        volumeMounts:
        - name: none
          mountPath: /x
`

// lint finds what the API server refuses, with the line of each field, in folders, and
// passes over files without a DaemonSet.
func TestLintFolders(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n", "deep/agent.yml": refusedManifest, "notes.txt": "{", "crd.json": `{"apiVersion":"example.com/v1","kind":"X"}`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if text := run(t, nil, "", "lint", "-f", dir); text != "0 errors, 0 warnings in 0 DaemonSets.\n" {
		t.Errorf("without -R: %s", text)
	}
	if text := run(t, nil, "", "lint", "-f", dir, "-o", "json"); !strings.Contains(text, `"items": []`) {
		t.Errorf("no list without a DaemonSet: %s", text)
	}
	golden(t, "lint-refused.txt", strings.ReplaceAll(run(t, nil, "", "lint", "-f", dir, "-R"), dir, "DIR"))
}

// lint reads what kubectl reads: URLs, what kustomize makes of a folder, and all that a cluster has.
func TestLintSources(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/agent.yaml" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, planned)
	}))
	t.Cleanup(server.Close)
	overlay := t.TempDir()
	for name, content := range map[string]string{"agent.yaml": planned, "kustomization.yaml": "resources: [agent.yaml]\nnamespace: logging\nnamePrefix: node-\n"} {
		if err := os.WriteFile(filepath.Join(overlay, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"-f " + server.URL + "/agent.yaml": server.URL + "/agent.yaml:8: DaemonSet exporter\n",
		"-f " + server.URL + "/none.yaml":  server.URL + "/none.yaml: the server says 404 Not Found\n--- exit code 2",
		"-k " + overlay:                    "DaemonSet logging/node-exporter\n  info no-readiness-probe\n    spec.template",
		"-k none":                          "must build at directory: not a valid directory",
		"-A":                               " in 4 DaemonSets.\n",
		"ds/giant --only=mixed-systems":    "DaemonSet default/giant\n  warning mixed-systems\n",
		"ds/agent --only=mixed-systems":    "0 errors, 0 warnings, 0 of info in 1 DaemonSet.\n",
	} {
		windows := node(13)
		windows.Labels[corev1.LabelOSStable], windows.Labels["disktype"] = "windows", ""
		linux := node(14)
		linux.Labels[corev1.LabelOSStable] = "linux"
		if text := run(t, fake.NewClientset(append(world(), windows, linux)...), "", append([]string{"lint", "--level=info"}, strings.Fields(args)...)...); !strings.Contains(text, want) {
			t.Errorf("lint %s: no %q in\n%s", args, want, text)
		}
	}
}

// A template of Helm, or a misspelt field, does not hide what is wrong elsewhere.
func TestLintGoesOnAfterAnError(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{
		"a-template.yaml": "kind: DaemonSet\n{{ if .Values.agent }}\n", "b-agent.yaml": planned,
		"c-field.yaml": "---\napiVersion: v1\nkind: ConfigMap\ndate: {}\n---\n" + strings.Replace(planned, "cpu: 600m", "cpu: 600m}, request: {", 1),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := run(t, nil, "", "lint", "--level=info", "-f", folder)
	for _, want := range []string{
		"/b-agent.yaml:8: DaemonSet exporter\n", "/c-field.yaml:13: DaemonSet exporter\n  error api-refuses\n    line 22: spec.template.spec.containers[0].resources.request: there is no", "/a-template.yaml:1: ", "--- exit code 2",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "/c-field.yaml:2") {
		t.Errorf("a ConfigMap has a field that it does not know:\n%s", text)
	}
}

// What is within a field that cannot be read is no finding of its own, and the rules know the claims of the file.
func TestLintSaysItOnce(t *testing.T) {
	const claim = "\n---\nkind: PersistentVolumeClaim\napiVersion: v1\nmetadata: {name: data}\nspec: {accessModes: [%s]}\n"
	const agent = "kind: DaemonSet\napiVersion: apps/v1\nmetadata: {name: agent}\nspec:\n  selector: {matchLabels: {app: agent}}\n  template:\n" +
		"    metadata: {labels: {app: agent}}\n    spec: {%s, containers: [{name: agent, image: 'agent:1', %s}]}\n"
	const volumes = "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]"
	for name, tc := range map[string]struct {
		manifest string
		want     []string
	}{
		"variables as text": {fmt.Sprintf(agent, "hostPID: false", "env: [A=b], ports: ['80']"), []string{
			"spec.template.spec.containers[0].env[0]: its type is string, and has to be v1.EnvVar (api-refuses)",
			"spec.template.spec.containers[0].ports[0]: its type is string, and has to be v1.ContainerPort (api-refuses)",
		}},
		"a claim for many": {fmt.Sprintf(agent+claim, volumes, "tty: false", "ReadWriteMany"), nil},
		"a claim for one": {fmt.Sprintf(agent+claim, volumes, "tty: false", "ReadWriteOnce"), []string{
			"spec.template.spec.volumes[0].persistentVolumeClaim: all pods share claim data: unless its volume can be on many nodes at once, one pod starts and no others (shared-volume-claim)",
		}},
	} {
		text, _, _ := strings.Cut(run(t, nil, tc.manifest, "lint", "-f", "-", "-o", "json"), "---")
		var results struct{ Items []lint.Result }
		if err := json.Unmarshal([]byte(text), &results); err != nil {
			t.Fatalf("%s: %v: %s", name, err, text)
		}
		var have []string
		for _, finding := range results.Items[0].Findings {
			have = append(have, finding.String())
		}
		if diff := cmp.Diff(tc.want, have); diff != "" {
			t.Errorf("%s (-want,+got):\n%s", name, diff)
		}
	}
}

// Lines that people read fit a terminal, but for commands, tables and names.
func TestLinesAreShort(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.Contains(file, "wide") {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			line = strings.TrimSpace(line)
			if len([]rune(line)) > columnsOfText && !strings.HasPrefix(line, "Next") && !strings.HasPrefix(line, "error: ") && !strings.Contains(line, "  ") {
				t.Errorf("%s: this line is longer than %d characters: %s", file, columnsOfText, line)
			}
		}
	}
}

// lines lets a test wait for what a command prints.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// status --watch looks again after every interval, survives a look that fails, and ends
// without an error when it is interrupted.
func TestWatch(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(world()...)
	out, errOut := &lines{more: make(chan struct{}, 100)}, &lines{more: make(chan struct{}, 100)}
	config := newConnection()
	config.rules = &clientcmd.ClientConfigLoadingRules{Precedence: []string{"testdata/kubeconfig"}}
	clock := testingclock.NewFakeClock(now.Time)
	command := newCommand(&environment{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: errOut}, clock: clock, config: config, client: client,
	})
	command.SetArgs([]string{"status", "ds/agent", "--watch", "--interval=10s"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(ctx) }()

	<-out.more // the first page
	lists := len(client.Actions())
	if err := client.Tracker().Delete(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, "default", "agent"); err != nil {
		t.Fatal(err)
	}
	until := func(l *lines, want string) {
		for !strings.Contains(l.String(), want) {
			clock.Step(10 * time.Second)
			select {
			case <-out.more:
			case <-errOut.more:
			}
		}
	}
	until(errOut, "error: there is no DaemonSet agent in any namespace")
	counted := daemons("default", "agent", "1m")
	counted.Spec.Template.Spec.NodeName = "nowhere"
	if err := client.Tracker().Add(counted); err != nil {
		t.Fatal(err)
	}
	until(out, "nowhere.")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if actions := client.Actions(); len(actions) != lists {
		t.Errorf("after the first look it has asked for more: %v", actions[lists:])
	}
}

// Lists come in pages.
func TestPages(t *testing.T) {
	t.Parallel()
	const all = 1234
	client := fake.NewClientset(world()...)
	pages := 0
	client.PrependReactor("list", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		options := action.(clienttesting.ListActionImpl).ListOptions
		begin, end := 0, int(options.Limit)
		if options.Continue != "" {
			if _, err := fmt.Sscan(options.Continue, &begin); err != nil {
				return true, nil, err
			}
		}
		if options.Limit == 0 || options.Limit > 1000 {
			return true, nil, fmt.Errorf("the limit is %d", options.Limit)
		}
		pages++
		end = min(begin+end, all)
		list := &corev1.PodList{}
		for n := begin; n < end; n++ {
			list.Items = append(list.Items, *st.MakePod().Namespace("shop").Name(fmt.Sprintf("pod-%d", n)).Obj())
		}
		if end < all {
			list.Continue = strconv.Itoa(end)
			list.RemainingItemCount = new(int64(all - end))
		}
		return true, list, nil
	})
	var shown bytes.Buffer
	clock := testingclock.NewFakeClock(now.Time)
	p := &progress{out: &shown, clock: clock, begun: now.Add(-time.Minute), counts: make(map[string]int)}
	cluster, err := (&reader{client: client, progress: p}).read(t.Context(), scope{})
	if err != nil {
		t.Fatal(err)
	}
	if len(cluster.Pods) != all || pages != 3 || cluster.Pods[all-1].Name != "pod-1233" {
		t.Errorf("%d pods in %d pages", len(cluster.Pods), pages)
	}
	if want := "Reading pods: 500 of 1234"; !strings.Contains(shown.String(), want) || !strings.HasSuffix(shown.String(), clearLine) {
		t.Errorf("progress: %q, want %q and a clear line at the end", shown.String(), want)
	}
}

// What is dropped of objects changes nothing that is said of them.
func TestTrimmedObjectsSayTheSame(t *testing.T) {
	t.Parallel()
	explanation := func(trimmed bool) string {
		c, s := &snapshot.Cluster{}, &trimmer{}
		for _, object := range append(world(), stuffedDaemons()...) {
			if trimmed {
				s.trim(object)
			}
			c.Add(object)
		}
		engine, err := explain.New(t.Context(), c, explain.Options{Now: now.Time})
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, ds := range engine.DaemonSets() {
			x, err := engine.Explain(t.Context(), ds, engine.Nodes())
			if err != nil {
				t.Fatal(err)
			}
			if err := (&output{format: formatYAML}).printObject(&all, "x", x); err != nil {
				t.Fatal(err)
			}
		}
		return all.String()
	}
	if diff := cmp.Diff(explanation(false), explanation(true)); diff != "" {
		t.Errorf("(-whole,+trimmed):\n%s", diff)
	}
}

// stuffedDaemons have all that pods can have.
func stuffedDaemons() []runtime.Object {
	ds := daemonsettest.Agent("stuffed")
	ds.Annotations[corev1.LastAppliedConfigAnnotation] = strings.Repeat("x", 1000)
	ds.Spec.Selector = &metav1.LabelSelector{MatchLabels: ds.Spec.Template.Labels}
	ds.Spec.Template.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true", "example.com/checksum": "x"}
	pod := daemonPod(ds, 3, func(pod *corev1.Pod) {
		pod.Spec.NodeName = "node-3"
		// Admission has added to the controller's pin.
		terms := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		terms[0].MatchExpressions = []corev1.NodeSelectorRequirement{{Key: "pool", Operator: corev1.NodeSelectorOpExists}}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.StartTime = new(ago(time.Minute))
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "install", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, ContainerID: "x"}}
	})
	return []runtime.Object{ds, pod, daemonPod(ds, 9, unschedulable)}
}

// Colours are no more than colours.
func TestColoursSayNothing(t *testing.T) {
	t.Parallel()
	c := &snapshot.Cluster{}
	for _, object := range world() {
		c.Add(object)
	}
	engine, err := explain.New(t.Context(), c, explain.Options{Now: now.Time})
	if err != nil {
		t.Fatal(err)
	}
	show := func(colours bool) string {
		var out bytes.Buffer
		e := &environment{clock: testingclock.NewFakeClock(now.Time)}
		for _, ds := range engine.DaemonSets() {
			x, err := engine.Explain(t.Context(), ds, engine.Nodes())
			if err != nil {
				t.Fatal(err)
			}
			e.colored = colours
			e.newPrinter(&out).overview(x)
		}
		return out.String()
	}
	coloured := show(true)
	if !strings.Contains(coloured, "\033[1;31mNO ROOM\033[0m") {
		t.Errorf("there is no colour in\n%s", coloured)
	}
	if diff := cmp.Diff(show(false), regexp.MustCompile("\033\\[[0-9;]*m").ReplaceAllString(coloured, "")); diff != "" {
		t.Errorf("(-plain,+coloured):\n%s", diff)
	}
}

// What others have written does nothing to a terminal.
func TestMessagesAreText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	(&environment{}).newPrinter(&out).fold(2, 0, "\x1b[1mbold\x1b[0m \x1b]0;title\a \x1b[2Jcleared \u009b31m")
	if have, want := out.String(), "  \x1b[1mbold\x1b[0m \ufffd]0;title\ufffd \ufffd[2Jcleared \ufffd31m\n"; have != want {
		t.Errorf("have %q, want %q", have, want)
	}
}

// Completion offers names that exist.
func TestCompletion(t *testing.T) {
	client := fake.NewClientset(world()...)
	for args, want := range map[string]string{
		"__complete explain a":                    "ds/agent\nds/giant\n:4\n",
		"__complete explain ds/agent --node node": "node-1\nnode-2\nnode-3\n",
		"__complete status ds/agent d":            "ds/giant\n:4\n",
		"__complete map d":                        "ds/agent\nds/giant\n:4\n",
		"__complete map -o w":                     "wide\njson\nyaml\njsonpath\ncustom-columns\n:4\n",
	} {
		if text := run(t, client, "", strings.Fields(args)...); !strings.HasPrefix(text, want) {
			t.Errorf("%s: %s\nwant %s", args, text, want)
		}
	}
}
