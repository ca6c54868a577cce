// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/webhook/policy"
)

const header = "apiVersion: config.everynode.dev/v1alpha1\nkind: WebhookConfiguration\n"

func TestParse(t *testing.T) {
	tests := map[string]struct {
		content string
		// wantErrs are parts of the error, all of which have to be there.
		wantErrs []string
	}{
		"no policies":           {header, nil},
		"a policy of each kind": {header + full, nil},
		"nothing":               {"", []string{`apiVersion is "" and kind is "", must be config.everynode.dev/v1alpha1 and WebhookConfiguration`}},
		"another kind":          {"apiVersion: v1\nkind: ConfigMap", []string{`apiVersion is "v1" and kind is "ConfigMap"`}},
		"no YAML":               {"a: b: c", []string{"mapping values are not allowed"}},
		"a misspelt field":      {header + "policies: [{name: a, pods: {}}]", []string{`unknown field "policies[0].pods"`}},
		"a repeated field":      {header + "policies: []\npolicies: []", []string{`key "policies" already set`}},
		"a value of the wrong type": {
			header + "policies: {name: a}", []string{"cannot unmarshal object"}},
		"all that is wrong is said at once": {
			header + `
policies:
  - match: {namespaces: [UPPER], selector: {matchExpressions: [{key: a, operator: Is}]}, namespaceSelector: {matchLabels: {"a b": c}}}
    annotations: {everynode.dev/gate: maybe, everynode.dev/resources: '{', everynode.dev/else: x, other: x}
  - name: a
    pod:
      tolerations:
        - {operator: Exists}
        - {key: "a b"}
        - {key: a, value: "b c", effect: Sometimes}
        - {key: a, operator: Exists, value: b}
        - {key: a, operator: Like}
        - {key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 1}
      schedulerName: my scheduler
    daemonSet: {priorityClassName: Upper}
  - name: a
`, []string{
				"policies[0].name: Required value",
				`policies[0].match.namespaces[0]: Invalid value: "UPPER"`,
				"policies[0].match.selector.matchExpressions[0].operator: Invalid value",
				`policies[0].match.namespaceSelector.matchLabels: Invalid value: "a b"`,
				`policies[0].annotations[everynode.dev/gate]: Invalid value: "maybe": "maybe" is not among the values true, false`,
				`policies[0].annotations[everynode.dev/resources]: Invalid value`,
				`policies[0].annotations[everynode.dev/else]: Invalid value: "x": there is no such annotation for DaemonSets`,
				`policies[0].annotations[other]: Invalid value: "x": there is no such annotation for DaemonSets`,
				"policies[1].pod.tolerations[0].key: Required value: without a key all taints are tolerated",
				"policies[1].pod.tolerations[1].key: Invalid value",
				"policies[1].pod.tolerations[2].value: Invalid value",
				"policies[1].pod.tolerations[2].effect: Unsupported value",
				"policies[1].pod.tolerations[3].value: Invalid value",
				"policies[1].pod.tolerations[4].operator: Unsupported value",
				"policies[1].pod.tolerations[5].tolerationSeconds: Invalid value",
				"policies[1].pod.schedulerName: Invalid value",
				"policies[1].daemonSet.priorityClassName: Invalid value",
				`policies[2].name: Duplicate value: "a"`,
			}},
		"a validation that is none": {content: "apiVersion: config.everynode.dev/v1alpha1\nkind: WebhookConfiguration\n" +
			"validation: {mode: deny, ignore: [floating-image, misspelt]}",
			wantErrs: []string{"validation.mode: Unsupported value", `validation.ignore[1]: Invalid value: "misspelt": there is no such rule: docs/lint.md lists them`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse([]byte(tc.content))
			if len(tc.wantErrs) == 0 && err != nil {
				t.Fatal(err)
			}
			if len(tc.wantErrs) > 0 && err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.wantErrs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is\n%v\nwant %q", err, want)
				}
			}
		})
	}
}

// full has every field.
const full = `
validation: {mode: Warn, ignore: [floating-image, host-port-twice]}
policies:
  - name: agents
    match:
      namespaces: [logging, monitoring]
      namespaceSelector: {matchLabels: {team: a}}
      selector: {matchExpressions: [{key: tier, operator: In, values: [agents]}]}
    annotations:
      everynode.dev/scheduling: direct
      everynode.dev/hold: "false"
      everynode.dev/gate: "true"
      everynode.dev/preempt: "false"
      everynode.dev/resources: '{"agent": {"cpu": "2%"}}'
    pod:
      tolerations: [{key: dedicated, operator: Exists, effect: NoExecute, tolerationSeconds: 60}, {key: a, value: b}]
      schedulerName: everynode-scheduler
      priorityClassName: system-node-critical
    daemonSet:
      tolerations: [{key: dedicated, operator: Exists}]
      schedulerName: everynode-scheduler
      priorityClassName: system-node-critical
`

func TestFor(t *testing.T) {
	policies, err := policy.Parse([]byte(header + `
policies:
  - name: one-namespace
    match: {namespaces: [logging]}
  - name: team
    match: {namespaceSelector: {matchLabels: {team: a}}, selector: {matchLabels: {tier: agents}}}
  - name: labels
    match: {selector: {matchLabels: {tier: agents}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	agents, teamA := map[string]string{"tier": "agents"}, map[string]string{"team": "a"}
	tests := map[string]struct {
		namespace               string
		namespaceLabels, labels map[string]string
		want                    string
	}{
		"by namespace":               {"logging", nil, nil, "one-namespace"},
		"the first that matches":     {"logging", teamA, agents, "one-namespace"},
		"by labels of the namespace": {"default", teamA, agents, "team"},
		"all selectors have to match": {
			"default", teamA, nil, ""},
		"by labels of the DaemonSet": {"default", nil, agents, "labels"},
		"by none":                    {"default", nil, nil, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := policies.For(tc.namespace, tc.namespaceLabels, tc.labels).Name; got != tc.want {
				t.Errorf("policy is %q, want %q", got, tc.want)
			}
		})
	}
	if got := (&policy.Policies{}).For("default", nil, nil); got == nil || got.Name != "" {
		t.Errorf("without policies: %+v", got)
	}
}

func TestEffective(t *testing.T) {
	p := &policy.Policy{Annotations: map[string]string{"a": "policy", "b": "policy"}}
	want := map[string]string{"a": "own", "b": "policy", "c": "own"}
	if diff := cmp.Diff(want, p.Effective(map[string]string{"a": "own", "c": "own"})); diff != "" {
		t.Errorf("annotations (-want,+got):\n%s", diff)
	}
	if p.Annotations["a"] != "policy" {
		t.Error("the policy has changed")
	}
}

// The schema that editors use knows every field, and no other.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../../deploy/webhook-config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(content string) error {
		t.Helper()
		var document any
		if err := yaml.Unmarshal([]byte(content), &document); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(document)
	}
	if err := check(header + full); err != nil {
		t.Errorf("a file with every field is refused: %v", err)
	}
	for name, content := range map[string]string{
		"a misspelt field":            header + "policies: [{name: a, pods: {}}]",
		"a misspelt field of a match": header + "policies: [{name: a, match: {namespace: [a]}}]",
		"a policy without a name":     header + "policies: [{pod: {}}]",
		"another kind":                "apiVersion: v1\nkind: ConfigMap",
		"an unknown annotation":       header + "policies: [{name: a, annotations: {everynode.dev/else: x}}]",
		"an unknown effect":           header + "policies: [{name: a, pod: {tolerations: [{key: a, effect: Sometimes}]}}]",
	} {
		if check(content) == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header + full))
	f.Add([]byte("policies: ["))
	f.Fuzz(func(t *testing.T, content []byte) {
		policies, err := policy.Parse(content)
		if (policies == nil) == (err == nil) {
			t.Errorf("policies are %v, error is %v", policies, err)
		}
		if err == nil {
			policies.For("default", nil, nil)
		}
	})
}
