// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/snapshot"
)

// What keeps a DaemonSet off a node is what the controller looks at: there is a reason
// exactly where the controller wants no pod.
func FuzzWanted(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		ds := daemons("agent").Obj()
		spec := choose.Placement()
		spec.Containers = ds.Spec.Template.Spec.Containers
		ds.Spec.Template.Spec = spec
		node := choose.Node()
		want, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds)

		e := newEngine(t, &snapshot.Cluster{Nodes: []*corev1.Node{node}, DaemonSets: []*appsv1.DaemonSet{ds}})
		verdict, err := e.verdict(t.Context(), ds, node, true)
		if err != nil {
			t.Fatal(err)
		}
		if verdict.Wanted != want || (verdict.Step == StepController) == want || verdict.Message == "" {
			t.Errorf("wanted: %t, but: %+v", want, verdict)
		}
	})
}

// The order of names is one: whoever comes before somebody comes before all after it.
func FuzzCompareNames(f *testing.F) {
	f.Add("node-2", "node-10", "node-9")
	f.Add("a01", "a1", "a001")
	f.Add("ip-10-0-0-1.example", "ip-10-0-0-10.example", "ip-10-0-0-2")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareNames(a, b) != -CompareNames(b, a) || (CompareNames(a, b) == 0) != (a == b) {
			t.Errorf("%q and %q: %d, and back: %d", a, b, CompareNames(a, b), CompareNames(b, a))
		}
		if CompareNames(a, b) < 0 && CompareNames(b, c) < 0 && CompareNames(a, c) >= 0 {
			t.Errorf("%q < %q < %q, but not %q < %q", a, b, c, a, c)
		}
	})
}

func TestSortNames(t *testing.T) {
	t.Parallel()
	have := []string{"node-10", "a", "node-9", "node-1", "node-01", "b2c10", "b2c9"}
	slices.SortFunc(have, CompareNames)
	if diff := gocmp.Diff([]string{"a", "b2c9", "b2c10", "node-01", "node-1", "node-9", "node-10"}, have); diff != "" {
		t.Errorf("(-want,+got):\n%s", diff)
	}
}

// A shell takes a quoted word for the word.
func TestQuote(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"", "plain-word_1.2/x:y=z,%+@", "two words", `it's "quoted"`, `{"a":["$HOME"]}`, "a\nb", "~", "*", "a&&b;c|d>e", `back\slash`, "ümlaut", "#x", "!x"} {
		output, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+Quote(word)).Output()
		if err != nil || string(output) != word {
			t.Errorf("%q is quoted as %s, which is %q (%v)", word, Quote(word), output, err)
		}
	}
}

func TestFormatAmount(t *testing.T) {
	t.Parallel()
	tests := []struct {
		resource string
		amount   int64
		want     string
	}{
		{"cpu", 500, "cpu 500m"},
		{"cpu", 2000, "cpu 2"},
		{"memory", 1 << 30, "memory 1Gi"},
		{"memory", 3 << 29, "memory 1.5Gi"},
		{"memory", 1100 << 20, "memory 1100Mi"},
		{"memory", 1_000_000_000, "memory 953.7Mi"},
		{"memory", 1000, "memory 1000"},
		{"memory", -(2 << 20), "memory -2Mi"},
		{"pods", 1, "1 pod slot"},
		{"pods", 3, "3 pod slots"},
		{"example.com/gpu", 2, "example.com/gpu 2"},
	}
	for _, tc := range tests {
		if have := FormatAmount(tc.resource, tc.amount); have != tc.want {
			t.Errorf("%d of %s: %q, want %q", tc.amount, tc.resource, have, tc.want)
		}
	}
}

// What the API server says in these words (k8s.io/kubernetes/plugin/pkg/admission and
// k8s.io/apiserver/pkg/admission) is said in others.
func TestDescribeRefusal(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ event, message, command string }{
		"a quota that wants requests": {
			`Error creating: pods "a-x" is forbidden: failed quota: compute: must specify limits.cpu for: main`,
			"the quota compute wants every pod to say limits.cpu for: main.", "describe resourcequota compute -n NAMESPACE",
		},
		"a service account": {
			`Error creating: pods "a-" is forbidden: error looking up service account team/agent: serviceaccount "agent" not found`,
			"the service account agent does not exist.", "get serviceaccounts -n NAMESPACE",
		},
		"a priority class": {
			`Error creating: pods "a-" is forbidden: no PriorityClass with name urgent was found`,
			"the PriorityClass urgent does not exist.", "get priorityclasses",
		},
		"pod security": {
			`Error creating: pods "a-x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), hostPort (container "main" uses hostPort 80)`,
			`the namespace's pod security level "baseline:latest" forbids it: host namespaces (hostNetwork=true), hostPort (container "main" uses hostPort 80).`,
			"get namespace NAMESPACE --show-labels",
		},
		"a namespace's node selector": {
			`Error creating: pods "a-x" is forbidden: pod node label selector conflicts with its namespace node label selector`,
			"its node selector contradicts the one of its namespace.", "get namespace NAMESPACE -o yaml",
		},
		"a webhook that denies": {
			`Error creating: admission webhook "policy.example.com" denied the request: [no-root] runs as root`,
			"the webhook policy.example.com denies it: [no-root] runs as root", "get validatingwebhookconfigurations,mutatingwebhookconfigurations",
		},
		"a webhook that is away": {
			`Error creating: Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: Post "https://policy.svc/": no endpoints available`,
			`the webhook policy.example.com does not answer: failed to call webhook: Post "https://policy.svc/": no endpoints available`,
			"get validatingwebhookconfigurations,mutatingwebhookconfigurations",
		},
		"a limit range": {
			`Error creating: pods "a-x" is forbidden: maximum cpu usage per Container is 1, but limit is 2`,
			"a LimitRange forbids it: maximum cpu usage per Container is 1, but limit is 2.", "describe limitrange -n NAMESPACE",
		},
		"something else": {`Error creating: pods "a-x" is forbidden: because.`, "because.", ""},
	}
	for name, tc := range tests {
		message, kind, found := describeRefusal(tc.event)
		command := ""
		if kind != nil {
			command = fillIn(kind.next, Args{"name": found, "namespace": "NAMESPACE"})
		}
		if message != tc.message || command != tc.command {
			t.Errorf("%s: %q, %q, want %q, %q", name, message, command, tc.message, tc.command)
		}
	}
}

// Every reason has words, and none is longer than a headline.
func TestReasonsHaveWords(t *testing.T) {
	t.Parallel()
	if len(allRows()) == 0 {
		t.Fatal("there are no reasons")
	}
	for _, row := range allRows() {
		reason := row.Reason
		if text := reason.Words(); text == string(reason) || text != strings.ToLower(text) || len(text) > 30 {
			t.Errorf("%s: %q", reason, text)
		}
	}
}
