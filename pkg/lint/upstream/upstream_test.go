// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/lint/upstream"
)

const good = `
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers:
        - {name: agent, image: "example/agent:1"}
`

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		want     []string
	}{
		"nothing is wrong": {},
		"a selector that does not match": {
			"matchLabels: {app: agent}", "matchLabels: {app: other}",
			[]string{"error api-refuses spec.template.metadata.labels: Invalid value: {\"app\":\"agent\"}: `selector` does not match template `labels`"},
		},
		"no progress is possible": {
			"spec:\n  selector", "spec:\n  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 0}}\n  selector",
			[]string{"error api-refuses spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"},
		},
		"pods that end": {
			"      containers:", "      restartPolicy: OnFailure\n      containers:",
			[]string{`error api-refuses spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"`},
		},
		"requests above the limits": {
			`image: "example/agent:1"`, `image: "example/agent:1", resources: {requests: {cpu: 2}, limits: {cpu: 1}}`,
			[]string{`error api-refuses spec.template.spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`},
		},
		"a mount without a volume": {
			`image: "example/agent:1"`, `image: "example/agent:1", volumeMounts: [{name: x, mountPath: /x}]`,
			[]string{`error api-refuses spec.template.spec.containers[0].volumeMounts[0].name: Not found: "x"`},
		},
		"a privileged container is allowed": {`image: "example/agent:1"`, `image: "example/agent:1", securityContext: {privileged: true}`, nil},
		"a variable twice": {
			`image: "example/agent:1"`, `image: "example/agent:1", env: [{name: A, value: a}, {name: A, value: b}]`,
			[]string{`warning api-warns spec.template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`},
		},
		"an annotation without effect": {
			"metadata: {labels: {app: agent}}", `metadata: {labels: {app: agent}, annotations: {scheduler.alpha.kubernetes.io/critical-pod: ""}}`,
			[]string{`warning api-warns spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var ds appsv1.DaemonSet
			if err := yaml.UnmarshalStrict([]byte(strings.Replace(good, tc.old, tc.new, 1)), &ds); err != nil {
				t.Fatal(err)
			}
			var have []string
			for _, f := range upstream.Check(t.Context(), &ds) {
				have = append(have, string(f.Severity)+" "+f.Rule+" "+f.Field+": "+f.Message)
			}
			if diff := cmp.Diff(tc.want, have); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}
