// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/plugins/readiness"
)

// FuzzCheck checks what holds for whatever can be decoded as a DaemonSet: Check does
// not panic, and says the same twice, on one line each, of rules that exist.
func FuzzCheck(f *testing.F) {
	f.Add(good)
	f.Add("null")
	f.Add(`{"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":"x%","maxUnavailable":"-1%"}},"template":{"spec":{"containers":[null],"volumes":[null],"affinity":{"nodeAffinity":{},"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[null]}}}}}}`)
	f.Add(`{"metadata":{"annotations":{"everynode.dev/":"","everynode.dev/lint-ignore":", ,x","everynode.dev/gate":"\n"}},"spec":{"selector":{"matchExpressions":[null]}}}`)
	for _, ds := range realDaemonSets(f) {
		encoded, err := yaml.Marshal(ds)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(encoded))
	}
	var names []string
	for _, rule := range lint.Rules() {
		names = append(names, rule.ID)
	}
	f.Fuzz(func(t *testing.T, manifest string) {
		var ds appsv1.DaemonSet
		if yaml.Unmarshal([]byte(manifest), &ds) != nil {
			return
		}
		findings := lint.Check(&ds)
		if diff := cmp.Diff(findings, lint.Check(&ds)); diff != "" {
			t.Errorf("it says something else the second time:\n%s", diff)
		}
		for _, finding := range findings {
			if !slices.Contains(names, finding.Rule) || finding.Field == "" || finding.Message == "" || finding.Fix == "" {
				t.Errorf("this is incomplete: %#v", finding)
			}
		}
		if err := lint.WriteSARIF(io.Discard, "v1", []lint.Result{{Name: ds.Name, Findings: findings}}); err != nil {
			t.Error(err)
		}
		annotated(lint.IgnoreAnnotation, strings.Join(names, ","))(&ds)
		for _, finding := range lint.Check(&ds) {
			if finding.Severity != lint.Error {
				t.Errorf("this was to be ignored: %v", finding)
			}
		}
	})
}

// FuzzNodeAffinity compares what is said of terms that no node can meet with what the
// DaemonSet controller decides for every node that could matter.
func FuzzNodeAffinity(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		ds := decode(t, good)
		spec := &ds.Spec.Template.Spec
		if choose.Intn(4) == 3 {
			spec.NodeName = choose.NodeName()
		}
		if choose.Intn(4) == 3 {
			spec.NodeSelector = map[string]string{"a": daemonsettest.Pick(choose, "1", "x")}
		}
		var terms []corev1.NodeSelectorTerm
		for range 1 + choose.Intn(3) {
			terms = append(terms, randomTerm(choose))
		}
		nodeTerms(terms...)(ds)

		var dead []string
		for i := range terms {
			if !canMatch(spec, terms[i]) {
				dead = append(dead, "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms["+string(rune('0'+i))+"]")
			}
		}
		want := dead
		if len(dead) == len(terms) {
			want = []string{"spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"}
		}
		var got []string
		for _, finding := range lint.Check(ds) {
			if finding.Rule == "node-affinity-impossible" || finding.Rule == "dead-affinity-term" {
				got = append(got, finding.Field)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("terms that match no node (-controller,+ours):\n%s\nnode name %q, selector %v, terms %+v", diff, spec.NodeName, spec.NodeSelector, terms)
		}
	})
}

func randomTerm(choose *daemonsettest.Chooser) corev1.NodeSelectorTerm {
	value := func() string { return daemonsettest.Pick(choose, "0", "1", "2", "3", "x", "") }
	var words []string
	for range choose.Intn(5) {
		key := daemonsettest.Pick(choose, "a", "b")
		switch operator := daemonsettest.Pick(choose, "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "name"); operator {
		case "In", "NotIn":
			words = append(words, key+" "+operator+" "+value()+" "+value())
		case "Exists", "DoesNotExist":
			words = append(words, key+" "+operator)
		case "Gt", "Lt":
			words = append(words, key+" "+operator+" "+daemonsettest.Pick(choose, "0", "1", "2", "3", "x"))
		default:
			words = append(words, "metadata.name "+daemonsettest.Pick(choose, "In ", "NotIn ")+choose.NodeName())
		}
	}
	result := term(words...)
	// Words leave empty values out.
	for i := range result.MatchExpressions {
		if r := &result.MatchExpressions[i]; (r.Operator == corev1.NodeSelectorOpIn || r.Operator == corev1.NodeSelectorOpNotIn) && len(r.Values) < 2 {
			r.Values = append(r.Values, "")
		}
	}
	return result
}

// canMatch looks for a node that the controller would run a pod of spec on for the
// sake of term. Labels don't depend on one another, so each is tried by itself.
func canMatch(spec *corev1.PodSpec, term corev1.NodeSelectorTerm) bool {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}}
	runs := func(node *corev1.Node, selector map[string]string, term corev1.NodeSelectorTerm) bool {
		ds := &appsv1.DaemonSet{}
		nodeTerms(term)(ds)
		ds.Spec.Template.Spec.NodeName, ds.Spec.Template.Spec.NodeSelector = spec.NodeName, selector
		run, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), node, ds)
		return run
	}
	for _, node.Name = range []string{"node-a", "node-b", "node-c"} {
		for _, key := range []string{"a", "b"} {
			selector := map[string]string{}
			if value, ok := spec.NodeSelector[key]; ok {
				selector[key] = value
			}
			// Every requirement on this label, and one that each node meets.
			part := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "other", Operator: corev1.NodeSelectorOpDoesNotExist}}}
			for _, r := range term.MatchExpressions {
				if r.Key == key {
					part.MatchExpressions = append(part.MatchExpressions, r)
				}
			}
			for _, value := range []string{"absent", "", "x", "y", "-1", "0", "1", "2", "3", "4", "00", "01", "02", "03", "04"} {
				node.Labels[key] = value
				if value == "absent" {
					delete(node.Labels, key)
				}
				if runs(node, selector, part) {
					break
				}
			}
		}
		if runs(node, spec.NodeSelector, term) {
			return true
		}
	}
	return false
}

// FuzzRequires compares what is said of everynode.dev/requires with what the
// scheduler makes of it.
func FuzzRequires(f *testing.F) {
	for _, value := range []string{"", "a/b", "a/b,c/d", " a/b , c/d", "a/b,", "a", "/b", "a/", "a/b/c", ",", "a /b"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		ds := decode(t, good)
		podAnnotated(readiness.RequiresAnnotation, value)(ds)
		ds.Name = "not required"
		_, err := readiness.ParseRequires(value)
		if wrong := len(lint.Check(ds)) > 0; wrong != (err != nil) {
			t.Errorf("%q is found wrong: %v; the scheduler says %v", value, wrong, err)
		}
	})
}
