// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"everynode.dev/everynode/pkg/lint"
)

// A DaemonSet that comes to nodes of several operating systems is found, and one that selects its nodes, or that a
// taint keeps off the others, is not.
func TestNodesOfSeveralSystems(t *testing.T) {
	t.Parallel()
	node := func(system string, taints ...corev1.Taint) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: system, Labels: map[string]string{corev1.LabelOSStable: system}}, Spec: corev1.NodeSpec{Taints: taints}}
	}
	taint := corev1.Taint{Key: "os", Value: "windows", Effect: corev1.TaintEffectNoSchedule}
	for name, tc := range map[string]struct {
		edit  func(*appsv1.DaemonSet)
		nodes []corev1.Node
		want  []string
	}{
		"both":    {nodes: []corev1.Node{node("windows"), node("linux")}, want: []string{"it belongs on nodes of linux and windows, and no container runs on all of them"}},
		"one":     {nodes: []corev1.Node{node("linux"), node("linux"), {}}},
		"a taint": {nodes: []corev1.Node{node("windows", taint), node("linux")}},
		"a selector": {edit: func(ds *appsv1.DaemonSet) {
			ds.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "linux"}
		}, nodes: []corev1.Node{node("windows"), node("linux")}},
		"a rule that is off": {edit: func(ds *appsv1.DaemonSet) { ds.Annotations = map[string]string{lint.IgnoreAnnotation: "mixed-systems"} }, nodes: []corev1.Node{node("windows"), node("linux")}},
	} {
		ds := &appsv1.DaemonSet{}
		if tc.edit != nil {
			tc.edit(ds)
		}
		var messages []string
		for _, finding := range lint.CheckNodes(ds, tc.nodes) {
			messages = append(messages, finding.Message)
		}
		if diff := cmp.Diff(tc.want, messages); diff != "" {
			t.Errorf("%s (-want,+got):\n%s", name, diff)
		}
	}
}

// A claim that comes with the DaemonSet says whether its volume can be on many nodes.
func TestSharedClaim(t *testing.T) {
	t.Parallel()
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "logging", Name: "agent"}}
	ds.Spec.Template.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	claim := func(namespace, name string, modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes}}
	}
	for name, tc := range map[string]struct {
		claim *corev1.PersistentVolumeClaim
		want  bool
	}{
		"of many that write":   {claim("logging", "data", corev1.ReadWriteOnce, corev1.ReadWriteMany), false},
		"of many that read":    {claim("", "data", corev1.ReadOnlyMany), false},
		"of one":               {claim("logging", "data", corev1.ReadWriteOnce), true},
		"of another name":      {claim("logging", "other", corev1.ReadWriteMany), true},
		"of another namespace": {claim("other", "data", corev1.ReadWriteMany), true},
	} {
		got := slices.ContainsFunc(lint.Check(ds, tc.claim), func(f lint.Finding) bool { return f.Rule == "shared-volume-claim" })
		if got != tc.want {
			t.Errorf("%s: found is %v", name, got)
		}
	}
}

// A name is found absent only where there are others of its kind, in its namespace, and
// one of these is nearly the same.
func TestReferences(t *testing.T) {
	t.Parallel()
	named := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	claim := []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	from := func(optional *bool) []corev1.Container {
		return []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "api-tokne"}, Optional: optional}}}}}
	}
	tests := map[string]struct {
		pod     corev1.PodSpec
		ignore  string
		objects []runtime.Object
		want    []string
	}{
		"a claim, and another one": {
			pod: corev1.PodSpec{Volumes: claim}, objects: []runtime.Object{&corev1.PersistentVolumeClaim{ObjectMeta: named("logging", "dat")}},
			want: []string{"spec.template.spec.volumes[0].persistentVolumeClaim.claimName"},
		},
		"the claim": {pod: corev1.PodSpec{Volumes: claim}, objects: []runtime.Object{&corev1.PersistentVolumeClaim{ObjectMeta: named("", "data")}}},
		"no claims": {pod: corev1.PodSpec{Volumes: claim}, objects: []runtime.Object{&corev1.ConfigMap{ObjectMeta: named("logging", "dat")}}},
		"claims of another namespace": {
			pod: corev1.PodSpec{Volumes: claim}, objects: []runtime.Object{&corev1.PersistentVolumeClaim{ObjectMeta: named("other", "dat")}},
		},
		"a secret, and another one": {
			pod: corev1.PodSpec{InitContainers: from(nil)}, objects: []runtime.Object{&corev1.Secret{ObjectMeta: named("logging", "x")}, &corev1.Secret{ObjectMeta: named("logging", "api-token")}},
			want: []string{"spec.template.spec.initContainers[0].envFrom[0].secretRef.name"},
		},
		"a secret that the user brings, and others that the chart makes": {
			pod: corev1.PodSpec{Containers: from(nil)}, objects: []runtime.Object{&corev1.Secret{ObjectMeta: named("logging", "webhook-cert")}, &corev1.Secret{ObjectMeta: named("logging", "api-tokens-cluster")}},
		},
		"a secret and another one of two letters": {
			pod: corev1.PodSpec{Containers: from(nil)}, objects: []runtime.Object{&corev1.Secret{ObjectMeta: named("logging", "ab")}},
		},
		"an account, and nearly the same one": {
			pod: corev1.PodSpec{ServiceAccountName: "agent"}, objects: []runtime.Object{&corev1.ServiceAccount{ObjectMeta: named("logging", "controller")}, &corev1.ServiceAccount{ObjectMeta: named("logging", "agnt")}},
			want: []string{"spec.template.spec.serviceAccountName"},
		},
		"an account with a letter missing in two places, and nearly the same one": {
			pod: corev1.PodSpec{ServiceAccountName: "nde-exportr"}, objects: []runtime.Object{&corev1.ServiceAccount{ObjectMeta: named("logging", "node-exporter")}},
			want: []string{"spec.template.spec.serviceAccountName"},
		},
		"classes, and nearly the same ones": {
			pod:     corev1.PodSpec{PriorityClassName: "agent", RuntimeClassName: new("gvisr")},
			objects: []runtime.Object{&schedulingv1.PriorityClass{ObjectMeta: named("", "agents")}, &nodev1.RuntimeClass{ObjectMeta: named("", "gvisor")}},
			want:    []string{"spec.template.spec.priorityClassName", "spec.template.spec.runtimeClassName"},
		},
		"nearly a class that every cluster has": {pod: corev1.PodSpec{PriorityClassName: "system-nod-critical"}, want: []string{"spec.template.spec.priorityClassName"}},
		"a class that every cluster has":        {pod: corev1.PodSpec{PriorityClassName: "system-node-critical"}},
		"an account that another project makes": {
			pod: corev1.PodSpec{ServiceAccountName: "agent"}, objects: []runtime.Object{&corev1.ServiceAccount{ObjectMeta: named("logging", "controller")}},
		},
		"a secret that is optional": {pod: corev1.PodSpec{Containers: from(new(true))}, objects: []runtime.Object{&corev1.Secret{ObjectMeta: named("logging", "api-token")}}},
		"a rule that is ignored": {
			pod: corev1.PodSpec{Containers: from(nil)}, ignore: "absent-reference", objects: []runtime.Object{&corev1.Secret{ObjectMeta: named("logging", "api-token")}},
		},
		"the default account": {
			pod: corev1.PodSpec{ServiceAccountName: "default"}, objects: []runtime.Object{&corev1.ServiceAccount{ObjectMeta: named("logging", "x")}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ds := &appsv1.DaemonSet{ObjectMeta: named("logging", "agent"), Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: tc.pod}}}
			ds.Annotations = map[string]string{lint.IgnoreAnnotation: tc.ignore}
			var fields []string
			for _, finding := range lint.CheckReferences(ds, tc.objects) {
				fields = append(fields, finding.Field)
			}
			if diff := cmp.Diff(tc.want, fields); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

// Two DaemonSets with one host port are found if a node may have both.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	neighbour := func(name string, changes ...change) *appsv1.DaemonSet {
		ds := decode(t, good)
		ds.Name = name
		all(changes...)(ds)
		return ds
	}
	selects := func(key, value string) change {
		return pod(func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{key: value} })
	}
	on := func(name string) change { return pod(func(spec *corev1.PodSpec) { spec.NodeName = name }) }
	const found = "spec.template.spec.containers[0].ports[0]: DaemonSet b has host port 8080 as well: on a node with both, the pod that comes later stays Pending"
	for name, tc := range map[string]struct {
		a, b *appsv1.DaemonSet
		want []string
	}{
		"two ports":                         {neighbour("a", hostPort(8080)), neighbour("b", hostPort(8081)), nil},
		"the same port":                     {neighbour("a", hostPort(8080)), neighbour("b", hostPort(8080)), []string{found}},
		"a port of the host network":        {neighbour("a", pod(hostNetwork)), neighbour("b", hostPort(8080)), []string{found}},
		"ports that are the pods' own":      {neighbour("a"), neighbour("b"), nil},
		"the DaemonSet itself":              {neighbour("b", hostPort(8080)), neighbour("b", hostPort(8080)), nil},
		"nodes of two systems":              {neighbour("a", hostPort(8080), selects("os", "linux")), neighbour("b", hostPort(8080), selects("os", "windows")), nil},
		"nodes of one system and of a disk": {neighbour("a", hostPort(8080), selects("os", "linux")), neighbour("b", hostPort(8080), selects("disk", "ssd")), []string{found}},
		"nodes by term":                     {neighbour("a", hostPort(8080), selects("os", "linux")), neighbour("b", hostPort(8080), nodeTerms(term("os In windows"))), nil},
		"nodes by terms":                    {neighbour("a", hostPort(8080), nodeTerms(term("os In linux"), term("os In windows"))), neighbour("b", hostPort(8080), nodeTerms(term("os In windows"))), []string{found}},
		"nodes by other terms":              {neighbour("a", hostPort(8080), nodeTerms(term("gpu Exists"))), neighbour("b", hostPort(8080), nodeTerms(term("gpu DoesNotExist"))), nil},
		"two nodes":                         {neighbour("a", hostPort(8080), on("node-1")), neighbour("b", hostPort(8080), on("node-2")), nil},
		"one node":                          {neighbour("a", hostPort(8080), on("node-1")), neighbour("b", hostPort(8080)), []string{found}},
		"a rule that is ignored":            {neighbour("a", hostPort(8080), ignoring("host-port-clash")), neighbour("b", hostPort(8080)), nil},
	} {
		var have []string
		for _, finding := range lint.CheckNeighbours(tc.a, []*appsv1.DaemonSet{tc.b}) {
			have = append(have, finding.Field+": "+finding.Message)
		}
		if diff := cmp.Diff(tc.want, have); diff != "" {
			t.Errorf("%s (-want,+got):\n%s", name, diff)
		}
	}
}
