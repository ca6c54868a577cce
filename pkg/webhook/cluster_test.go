// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/webhook/policy"
)

func TestCluster(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	agent := daemonsettest.Make("agent").Annotation(daemonset.SchedulingAnnotation, "direct").Annotation("else", "x").Obj()
	agent.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	logging := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: "logging", Labels: map[string]string{"team": "a"}, Annotations: map[string]string{whitelistAnnotation: "[]", "else": "x"}}}
	metadata := metadatafake.NewSimpleMetadataClient(scheme, logging)
	node := st.MakeNode().Name("node").Label("large", "label").Capacity(map[corev1.ResourceName]string{"cpu": "8", "memory": "16Gi", "example.com/gpu": "1"}).Obj()
	typed := fake.NewClientset(agent, node, st.MakeNode().Name("new").Obj(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, GlobalDefault: true})

	// Time stands still but while everybody waits: cacheTimeout costs none.
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster(metadata, typed, nil)
		if err := cluster.healthy(); err == nil || strings.Count(err.Error(), "are not known yet") != 6 {
			t.Errorf("before anything is known: %v", err)
		}
		go cluster.run(t.Context())
		synctest.Wait()
		if err := cluster.healthy(); err != nil {
			t.Error(err)
		}

		elsewhere := daemonsettest.Pod(agent, "a")
		late := daemonsettest.Make("late").Obj()
		tests := map[string]struct {
			namespace string
			pod       *corev1.Pod
			want      map[string]string
			wantErr   string
		}{
			"an owner that exists":     {"default", daemonsettest.Pod(agent, "a"), map[string]string{daemonset.SchedulingAnnotation: "direct"}, ""},
			"in another namespace":     {"other", elsewhere, nil, "no DaemonSet other/agent with UID agent is known"},
			"with another UID":         {"default", withOwnerUID(daemonsettest.Pod(agent, "a"), "forged"), nil, "no DaemonSet default/agent with UID forged is known"},
			"an owner we hear of late": {"default", daemonsettest.Pod(late, "a"), nil, ""},
		}
		for name, tc := range tests {
			ctx, cancel := context.WithTimeout(t.Context(), cacheTimeout)
			if name == "an owner we hear of late" {
				time.AfterFunc(cacheTimeout/2, func() {
					if err := typed.Tracker().Add(late); err != nil {
						t.Error(err)
					}
				})
			}
			got, err := cluster.owner(ctx, tc.namespace, daemonset.OwnerOf(tc.pod))
			cancel()
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Errorf("%s: error is %v, want %s", name, err, tc.wantErr)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(tc.want, keepOurs(got.Annotations)); diff != "" {
				t.Errorf("%s: annotations (-want,+got):\n%s", name, diff)
			}
		}
		if kept, _ := get[*appsv1.DaemonSet](cluster.daemonSets, "default/agent"); kept.ManagedFields != nil || len(kept.Annotations) != 1 {
			t.Errorf("more is kept than needed: %+v", kept)
		}

		known, cancel := context.WithTimeout(t.Context(), cacheTimeout)
		if kept, err := cluster.namespace(known, "logging"); err != nil || kept.Labels["team"] != "a" || len(kept.Annotations) != 1 {
			t.Errorf("of the namespace is kept: %+v (%v)", kept, err)
		}
		if kept, err := cluster.namespace(known, "unknown"); err == nil {
			t.Errorf("of an unknown namespace is known: %+v", kept)
		}
		cancel()
		for name, want := range map[string]string{"node": "8", "new": "", "unknown": "", "late": "4"} {
			ctx, cancel := context.WithTimeout(t.Context(), cacheTimeout)
			if name == "late" {
				time.AfterFunc(cacheTimeout/2, func() {
					late := st.MakeNode().Name("late").Capacity(map[corev1.ResourceName]string{"cpu": "4"}).Obj()
					if _, err := typed.CoreV1().Nodes().Create(ctx, late, metav1.CreateOptions{}); err != nil {
						t.Error(err)
					}
				})
			}
			has := cluster.allocatable(ctx, name)
			cancel()
			if cpu, known := has[corev1.ResourceCPU]; known != (want != "") || known && cpu.String() != want {
				t.Errorf("node %s has %v, want %q of CPU", name, has, want)
			}
			if _, kept := has["example.com/gpu"]; kept {
				t.Errorf("more of node %s is kept than needed: %v", name, has)
			}
		}
		for name, want := range map[string]priorityClass{"usual": {isDefault: true}, "unknown": {forbidden: "it does not exist"}} {
			if got := cluster.priorityClass("default", name); got != want {
				t.Errorf("class %s is %+v, want %+v", name, got, want)
			}
		}
	})
}

// keepOurs turns no annotations into nil.
func keepOurs(annotations map[string]string) map[string]string {
	if len(annotations) == 0 {
		return nil
	}
	return annotations
}

func withOwnerUID(pod *corev1.Pod, uid string) *corev1.Pod {
	pod.OwnerReferences[0].UID = st.MakePod().UID(uid).Obj().UID
	return pod
}

// BenchmarkNodes keeps 15,000 nodes, each as large as a kubelet reports it, and says how
// much memory one of them takes.
func BenchmarkNodes(b *testing.B) {
	const nodes = 15_000
	for b.Loop() {
		before := heap()
		kept := make([]any, nodes)
		for i := range kept {
			node, err := trim(largeNode(i))
			if err != nil {
				b.Fatal(err)
			}
			kept[i] = node
		}
		b.ReportMetric(float64(heap()-before)/nodes, "B/node")
		runtime.KeepAlive(kept)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// largeNode returns a node with the labels, conditions and images that nodes have.
func largeNode(i int) *corev1.Node {
	node := st.MakeNode().Name(fmt.Sprintf("node-%d.example.com", i)).UID(fmt.Sprintf("uid-%d", i)).
		Capacity(map[corev1.ResourceName]string{"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "250"}).Obj()
	node.ResourceVersion = strconv.Itoa(i)
	node.Labels = make(map[string]string)
	for label := range 20 {
		node.Labels[fmt.Sprintf("example.com/label-%d", label)] = fmt.Sprintf("value of %d", i)
	}
	for image := range 50 {
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{Names: []string{fmt.Sprintf("example.com/image-%d@sha256:%064d", image, i)}})
	}
	return node
}

// A pod and its DaemonSet get the policy of their namespace's labels, or none, but never
// the one for a namespace without labels: the namespace, the DaemonSet and the node are late.
func TestLateCache(t *testing.T) {
	policies, err := policy.Parse([]byte(`
apiVersion: config.everynode.dev/v1alpha1
kind: WebhookConfiguration
policies:
  - name: tenants
    match: {namespaceSelector: {matchLabels: {tenant: a}}}
    annotations: {everynode.dev/resources: '{"main": {"cpu": "50%"}}'}
    pod: {schedulerName: tenants}
    daemonSet: {schedulerName: tenants}
  - name: all others
    pod: {schedulerName: wrong}
    daemonSet: {schedulerName: wrong}
`))
	if err != nil {
		t.Fatal(err)
	}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		late          time.Duration
		wantScheduler string
		wantErr       string
	}{
		"300 ms late":  {300 * time.Millisecond, "tenants", ""},
		"for too long": {2 * cacheTimeout, "", "is known"},
	} {
		synctest.Test(t, func(t *testing.T) {
			metadata, typed := metadatafake.NewSimpleMetadataClient(scheme), fake.NewClientset()
			cluster := newCluster(metadata, typed, nil)
			go cluster.run(t.Context())
			synctest.Wait()
			agent := daemonsettest.Make("agent").Obj()
			arrived := make(chan struct{})
			time.AfterFunc(tc.late, func() {
				defer close(arrived)
				for _, err := range []error{
					typed.Tracker().Add(agent),
					typed.Tracker().Add(st.MakeNode().Name("a").Capacity(map[corev1.ResourceName]string{"cpu": "4"}).Obj()),
					metadata.Tracker().Add(&metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
						ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"tenant": "a"}}}),
				} {
					if err != nil {
						t.Error(err)
					}
				}
			})
			admission := &admission{cluster: cluster, policies: func() *policy.Policies { return policies }}
			check := func(what string, d decision, err error) {
				if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("%s, %s: error is %v, want %q", name, what, err, tc.wantErr)
				}
				if got := d.Audit["scheduler"]; got != tc.wantScheduler {
					t.Errorf("%s, %s: the scheduler is %q, want %q", name, what, got, tc.wantScheduler)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				d, err := admission.decideDaemonSet(t.Context(), &request[appsv1.DaemonSet]{requestInfo: requestInfo{Namespace: "default"}, Object: agent})
				check("the DaemonSet", d, err)
			}()
			d, err := admission.decidePod(t.Context(), &request[pod]{requestInfo: requestInfo{Namespace: "default"}, Object: (*pod)(daemonsettest.Pod(agent, "a"))})
			check("the pod", d, err)
			if tc.wantErr == "" && d.Audit["resources"] != "main.cpu=2" {
				t.Errorf("%s: the sizes are %q", name, d.Audit["resources"])
			}
			<-done
			<-arrived
		})
	}
}

// Pods get no class that a ResourceQuota, or the lack of one, has the API server refuse.
func TestPriorityClassesAndQuotas(t *testing.T) {
	quota := func(namespace string, spec corev1.ResourceQuotaSpec, pods, used string) *corev1.ResourceQuota {
		q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "quota"}, Spec: spec}
		q.Status.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse(pods)}
		q.Status.Used = corev1.ResourceList{corev1.ResourcePods: resource.MustParse(used)}
		return q
	}
	selecting := func(operator corev1.ScopeSelectorOperator, values ...string) corev1.ResourceQuotaSpec {
		return corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: operator, Values: values}}}}
	}
	class := func(name string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	typed := fake.NewClientset(class("limited"), class("free"),
		quota("plain", corev1.ResourceQuotaSpec{}, "10", "10"),
		quota("listed", selecting(corev1.ScopeSelectorOpIn, "limited", "else"), "10", "9"),
		quota("existing", selecting(corev1.ScopeSelectorOpExists), "10", "0"),
		quota("scope", corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopePriorityClass}}, "10", "0"),
		quota("others", selecting(corev1.ScopeSelectorOpNotIn, "limited"), "10", "0"),
		quota("without", selecting(corev1.ScopeSelectorOpDoesNotExist), "10", "0"),
		quota("used-up", selecting(corev1.ScopeSelectorOpIn, "limited", "free"), "3", "3"),
	)
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	const needsQuota, noMore = "has no ResourceQuota for it", "ResourceQuota used-up/quota allows no more pods of it"
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster(metadatafake.NewSimpleMetadataClient(scheme), typed, []string{"limited"})
		go cluster.run(t.Context())
		synctest.Wait()
		for namespace, want := range map[string]struct{ limited, free string }{
			"none": {needsQuota, ""}, "plain": {needsQuota, ""}, "others": {needsQuota, ""}, "without": {needsQuota, ""},
			"listed": {}, "existing": {}, "scope": {}, metav1.NamespaceSystem: {}, "used-up": {noMore, noMore},
		} {
			for name, want := range map[string]string{"limited": want.limited, "free": want.free} {
				got := cluster.priorityClass(namespace, name).forbidden
				if (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("class %s in namespace %s: %q, want %q", name, namespace, got, want)
				}
			}
		}
	})
}

// A pod is bound without a scheduler only if its DaemonSet exists, and asks for it itself or by a policy.
func TestSchedulesAuto(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	namespace := func(name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	agent := daemonsettest.Make("agent").Annotation(daemonset.SchedulingAnnotation, "auto").Obj()
	plain := daemonsettest.Make("plain").Obj()
	policed := daemonsettest.Make("policed").Obj()
	policed.Namespace = "policed"
	policies, err := policy.Parse([]byte(`{apiVersion: config.everynode.dev/v1alpha1, kind: WebhookConfiguration, policies: [
		{name: auto, match: {namespaces: [policed]}, annotations: {everynode.dev/scheduling: auto}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		cluster := newCluster(metadatafake.NewSimpleMetadataClient(scheme, namespace("default"), namespace("policed")), fake.NewClientset(agent, plain, policed), nil)
		go cluster.run(t.Context())
		synctest.Wait()
		admission := &admission{cluster: cluster, policies: func() *policy.Policies { return policies }}
		for name, tc := range map[string]struct {
			pod  *corev1.Pod
			want bool
		}{
			"a DaemonSet that asks for it": {daemonsettest.Pod(agent, "a"), true},
			"one that does not":            {daemonsettest.Pod(plain, "a"), false},
			"one for which a policy does":  {daemonsettest.Pod(policed, "a"), true},
			"one that does not exist":      {daemonsettest.Pod(daemonsettest.Make("unknown").Annotation(daemonset.SchedulingAnnotation, "auto").Obj(), "a"), false},
			"a forged owner":               {withOwnerUID(daemonsettest.Pod(agent, "a"), "forged"), false},
			"a pod of no DaemonSet":        {st.MakePod().Namespace("default").Name("ordinary").Obj(), false},
		} {
			began := time.Now()
			if got := admission.schedulesAuto(t.Context(), tc.pod); got != tc.want {
				t.Errorf("%s: %t, want %t", name, got, tc.want)
			}
			if waited := time.Since(began); waited > 0 {
				t.Errorf("%s: it waited for %s", name, waited)
			}
		}
	})
}
