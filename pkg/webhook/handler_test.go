// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-base/metrics/testutil"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// fakeCluster is the state of a cluster in which every pod has its owner.
type fakeCluster struct {
	daemonSet  appsv1.DaemonSet
	namespaces map[string]*metav1.PartialObjectMetadata
	nodes      map[string]corev1.ResourceList
	classes    map[string]priorityClass
	limits     []corev1.LimitRangeItem
	err        error
	crash      bool
	policies   *policy.Policies
}

func (c *fakeCluster) owner(context.Context, string, *metav1.OwnerReference) (*appsv1.DaemonSet, error) {
	if c.crash {
		panic("index out of range")
	}
	return &c.daemonSet, c.err
}

func (c *fakeCluster) namespace(_ context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	if c.namespaces == nil {
		return &metav1.PartialObjectMetadata{}, nil
	}
	if namespace, ok := c.namespaces[name]; ok {
		return namespace, nil
	}
	return nil, errors.New("no such namespace")
}

func (c *fakeCluster) allocatable(_ context.Context, node string) corev1.ResourceList {
	return c.nodes[node]
}

func (c *fakeCluster) priorityClass(_, name string) priorityClass {
	if class, ok := c.classes[name]; ok {
		return class
	}
	return priorityClass{forbidden: "it does not exist"}
}

func (c *fakeCluster) limitsOf(string) []corev1.LimitRangeItem { return c.limits }

func (c *fakeCluster) admission() *admission {
	return &admission{cluster: c, policies: func() *policy.Policies { return cmp.Or(c.policies, &policy.Policies{}) }}
}

// reviewOf returns an AdmissionReview for the creation of pod, changed by edit.
func reviewOf(tb testing.TB, pod *corev1.Pod, edit func(*admissionv1.AdmissionReview)) []byte {
	tb.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		tb.Fatal(err)
	}
	r := &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       "review",
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: "default",
			Operation: admissionv1.Create,
			Object:    runtime.RawExtension{Raw: raw},
		},
	}
	if edit != nil {
		edit(r)
	}
	body, err := json.Marshal(r)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// post sends a request to a handler.
func post(tb testing.TB, handler http.Handler, contentType string, body []byte) *httptest.ResponseRecorder {
	tb.Helper()
	request := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/mutate/pods?timeout=2s", bytes.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	newInFlight().limit(handler).ServeHTTP(recorder, request)
	return recorder
}

// response decodes the answer to a review.
func response(tb testing.TB, recorder *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	tb.Helper()
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		tb.Fatalf("status %d, body %q: %v", recorder.Code, recorder.Body, err)
	}
	if answer.APIVersion != "admission.k8s.io/v1" || answer.Kind != "AdmissionReview" || answer.Response == nil {
		tb.Fatalf("the answer is no AdmissionReview: %s", recorder.Body)
	}
	return answer.Response
}

func TestReviewsAreAllowed(t *testing.T) {
	registerMetrics()
	agent := daemonsettest.Make("agent").Obj()
	tests := map[string]struct {
		world       fakeCluster
		pod         *corev1.Pod
		edit        func(*admissionv1.AdmissionReview)
		wantPatch   bool
		wantWarning string
		wantReason  reason
	}{
		"a bound pod":                        {pod: daemonsettest.BoundPod(agent, "a"), wantPatch: true},
		"a pod that needs none":              {pod: daemonsettest.Pod(agent, "a")},
		"a pod without a DaemonSet":          {world: fakeCluster{err: errors.New("no such DaemonSet")}, pod: st.MakePod().Name("check").Obj()},
		"a pod whose owner is not known":     {world: fakeCluster{err: errors.New("no such DaemonSet")}, pod: daemonsettest.Pod(agent, "a"), wantWarning: "no such DaemonSet", wantReason: reasonOwner},
		"a pod whose namespace is not known": {world: fakeCluster{namespaces: map[string]*metav1.PartialObjectMetadata{"another": nil}}, pod: daemonsettest.BoundPod(agent, "a"), wantWarning: "no such namespace", wantReason: reasonNamespace},
		"a pod that makes us crash":          {world: fakeCluster{crash: true}, pod: daemonsettest.Pod(agent, "a"), wantWarning: "internal error", wantReason: reasonInternal},
		"another resource": {
			pod: &corev1.Pod{}, wantWarning: "handles [CREATE] of pods only", wantReason: reasonRequest,
			edit: func(r *admissionv1.AdmissionReview) { r.Request.Resource.Resource = "services" }},
		"a subresource": {
			pod: &corev1.Pod{}, wantWarning: "pods/eviction", wantReason: reasonRequest,
			edit: func(r *admissionv1.AdmissionReview) { r.Request.SubResource = "eviction" }},
		"an update": {
			pod: &corev1.Pod{}, wantWarning: "it was sent UPDATE", wantReason: reasonRequest,
			edit: func(r *admissionv1.AdmissionReview) { r.Request.Operation = admissionv1.Update }},
		"an object that is no pod": {
			// The JSON library varies how its messages begin.
			pod: &corev1.Pod{}, wantWarning: `unmarshal JSON number into Go struct within "/request/object/spec"`, wantReason: reasonRequest,
			edit: func(r *admissionv1.AdmissionReview) { r.Request.Object.Raw = []byte(`{"spec": 1}`) }},
		"no object": {
			pod: &corev1.Pod{}, wantWarning: "the request has no object", wantReason: reasonRequest,
			edit: func(r *admissionv1.AdmissionReview) { r.Request.Object.Raw = nil }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			body := reviewOf(t, tc.pod, tc.edit)
			wantResult := resultUnchanged
			switch {
			case tc.wantReason != "":
				wantResult = resultFailed
			case tc.wantPatch:
				wantResult = resultMutated
			}
			answers, troubles := counted(t, wantResult, tc.wantReason)
			got := response(t, post(t, tc.world.admission().mutatePods(), "application/json", body))
			if !got.Allowed || got.UID != "review" {
				t.Errorf("allowed is %v, UID %q", got.Allowed, got.UID)
			}
			if hasPatch := len(got.Patch) > 0; hasPatch != tc.wantPatch {
				t.Errorf("patch is %s, want one: %v", got.Patch, tc.wantPatch)
			}
			if (got.PatchType != nil) != (len(got.Patch) > 0) {
				t.Error("a patch and its type come together or not at all")
			}
			if warnings := strings.Join(got.Warnings, "\n"); tc.wantWarning == "" && warnings != "" ||
				!strings.Contains(warnings, tc.wantWarning) {
				t.Errorf("warnings are %q, want %q", warnings, tc.wantWarning)
			}
			nowAnswers, nowTroubles := counted(t, wantResult, tc.wantReason)
			if nowAnswers != answers+1 || (nowTroubles != troubles) != (tc.wantReason != "") {
				t.Errorf("the metrics count %d requests more that are %s, and %v more for reason %q", nowAnswers-answers, wantResult, nowTroubles-troubles, tc.wantReason)
			}
		})
	}
}

// counted returns how many requests had that result, and how often less was done for
// that reason, according to the metrics.
func counted(t *testing.T, result result, reason reason) (requests uint64, times float64) {
	t.Helper()
	requests, err := testutil.GetHistogramMetricCount(requestDuration.WithLabelValues("pods", string(result)))
	if err != nil {
		t.Fatal(err)
	}
	if reason != "" {
		if times, err = testutil.GetCounterMetricValue(problems.WithLabelValues("pods", string(reason))); err != nil {
			t.Fatal(err)
		}
	}
	return requests, times
}

func TestWhatIsNoReviewIsRefused(t *testing.T) {
	valid := reviewOf(t, &corev1.Pod{}, nil)
	tests := map[string]struct {
		contentType string
		body        []byte
		wantStatus  int
		wantError   string
	}{
		"no JSON by its type": {"text/plain", valid, http.StatusUnsupportedMediaType, `content type is "text/plain", want application/json`},
		"no type":             {"", valid, http.StatusUnsupportedMediaType, `content type is ""`},
		"an empty body":       {"application/json", nil, http.StatusBadRequest, "not an AdmissionReview: jsontext: unexpected EOF"},
		"no JSON":             {"application/json", []byte("hello"), http.StatusBadRequest, "not an AdmissionReview: jsontext: invalid character 'h'"},
		"a pod":               {"application/json", []byte(`{"apiVersion": "v1", "kind": "Pod"}`), http.StatusBadRequest, `of apiVersion "v1" and kind "Pod", want admission.k8s.io/v1 and AdmissionReview`},
		"an older version":    {"application/json", []byte(`{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}`), http.StatusBadRequest, "admission.k8s.io/v1beta1"},
		"no request":          {"application/json", reviewOf(t, &corev1.Pod{}, func(r *admissionv1.AdmissionReview) { r.Request = nil }), http.StatusBadRequest, "has no request"},
		"too much":            {"application/json", append(valid, bytes.Repeat([]byte(" "), maxBody)...), http.StatusRequestEntityTooLarge, "the request has more than 7340032 bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := post(t, (&fakeCluster{}).admission().mutatePods(), tc.contentType, tc.body)
			if got.Code != tc.wantStatus || !strings.Contains(got.Body.String(), tc.wantError) {
				t.Errorf("answer is %d %q, want %d %q", got.Code, got.Body, tc.wantStatus, tc.wantError)
			}
		})
	}
}

func TestDeadlineIsTheAPIServers(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"?timeout=2s": 2 * time.Second, "": 10 * time.Second, "?timeout=soon": 10 * time.Second,
		"?timeout=-1s": 10 * time.Second, "?timeout=1h": 10 * time.Second, "?timeout=30s": 30 * time.Second,
	} {
		before := time.Now()
		ctx, cancel := withDeadline(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mutate/pods"+query, http.NoBody))
		cancel()
		deadline, _ := ctx.Deadline()
		if got := deadline.Sub(before); got < want || got > want+time.Second {
			t.Errorf("%q gives %s, want %s", query, got, want)
		}
	}
}

// FuzzReview sends anything to the handlers: they must never crash, whatever is a
// review of a pod must be allowed, and patches must apply: the API server refuses the
// object otherwise.
func FuzzReview(f *testing.F) {
	agent := daemonsettest.Agent("agent")
	daemonSet, err := json.Marshal(agent)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reviewOf(f, st.MakePod().Node("a").Obj(), nil))
	f.Add(reviewOf(f, daemonsettest.Pod(agent, "a"), nil))
	f.Add(reviewOf(f, &corev1.Pod{}, func(r *admissionv1.AdmissionReview) { r.Request.Operation = admissionv1.Delete }))
	f.Add(reviewOf(f, &corev1.Pod{}, func(r *admissionv1.AdmissionReview) {
		r.Request.Resource = metav1.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
		r.Request.Object.Raw = daemonSet
	}))
	f.Add([]byte(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}`))
	f.Add([]byte(`[]`))
	policies, err := policy.Parse([]byte(`
apiVersion: config.everynode.dev/v1alpha1
kind: WebhookConfiguration
policies:
  - name: all
    annotations: {everynode.dev/gate: "true", everynode.dev/resources: '{"agent": {"cpu": "2%"}, "main": {"memory": "1%"}}'}
    pod: {tolerations: [{key: a, operator: Exists}], schedulerName: another, priorityClassName: class}
    daemonSet: {tolerations: [{key: a, operator: Exists}], schedulerName: another, priorityClassName: class}
`))
	if err != nil {
		f.Fatal(err)
	}
	w := &fakeCluster{
		policies: policies, classes: map[string]priorityClass{"class": {}},
		nodes: map[string]corev1.ResourceList{"a": daemonset.Resources{MilliCPU: 8000, Memory: 32 << 30}.List()},
	}
	handlers := []http.Handler{w.admission().mutatePods(), w.admission().mutateDaemonSets(), w.admission().validateDaemonSets()}
	f.Fuzz(func(t *testing.T, body []byte) {
		for i, handler := range handlers {
			got := post(t, handler, "application/json", body)
			switch got.Code {
			case http.StatusBadRequest:
				continue
			case http.StatusOK:
			default:
				t.Fatalf("status is %d: %s", got.Code, got.Body)
			}
			answer := response(t, got)
			if !answer.Allowed && i < 2 {
				t.Errorf("not allowed: %s", got.Body)
			}
			if len(answer.Patch) == 0 {
				continue
			}
			var sent admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &sent); err != nil {
				// We read more than others do, such as a name twice.
				continue
			}
			patch, err := jsonpatch.DecodePatch(answer.Patch)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := patch.Apply(asTheAPIServerSends(t, sent.Request.Object.Raw, i == 0)); err != nil {
				t.Errorf("the patch does not apply: %v\n%s", err, answer.Patch)
			}
		}
	})
}

// asTheAPIServerSends returns an object as it looks when the API server has read and
// written it: with the fields that it always writes.
func asTheAPIServerSends(t *testing.T, raw []byte, isPod bool) []byte {
	t.Helper()
	var object any = &appsv1.DaemonSet{}
	if isPod {
		object = &corev1.Pod{}
	}
	if err := json.Unmarshal(raw, object); err != nil {
		t.Skip("others cannot read it")
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// BenchmarkHandler answers reviews of a pod of 15 kB that is bound, tolerates nothing
// and is sized after its node.
func BenchmarkHandler(b *testing.B) {
	agent := daemonsettest.Agent("agent")
	body := reviewOf(b, daemonsettest.BoundPod(agent, "node"), nil)
	w := &fakeCluster{nodes: map[string]corev1.ResourceList{"node": daemonset.Resources{MilliCPU: 8000, Memory: 32 << 30}.List()}}
	w.daemonSet.Annotations = map[string]string{daemonset.ResourcesAnnotation: `{"agent": {"cpu": "2%", "memory": "1%"}}`}
	handler := w.admission().mutatePods()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		post(b, handler, "application/json", body)
	}
}
