// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/test/localcluster"
)

// starter is what newCluster is.
type starter func(t *testing.T, edit func(*localcluster.Options)) *cluster

// companies are our webhook alone, and among other admission that has a say in the same
// objects.
var companies = map[string]starter{"alone": newCluster, "among others": newClusterOfMany}

// limitRange has LimitRanger give containers requests and limits before we see them.
// They are small, for tests that count, but no limit is in the way.
const limitRange = `
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, defaultRequest: {cpu: 1m}, default: {cpu: "1"}}]}
`

// whitelisted are the tolerations that PodTolerationRestriction allows: those that the
// DaemonSet controller adds, and those that tests add.
var whitelisted = []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeDiskPressure, corev1.TaintNodeMemoryPressure,
	corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable, corev1.TaintNodeNetworkUnavailable, "for-pods", "dedicated"}

// newClusterOfMany starts a cluster with LimitRanger and PodTolerationRestriction at
// work, and a webhook before and one after ours.
func newClusterOfMany(t *testing.T, edit func(*localcluster.Options)) *cluster {
	t.Helper()
	c := newCluster(t, func(o *localcluster.Options) {
		o.Args = make(map[string][]string)
		if edit != nil {
			edit(o)
		}
		o.Args[localcluster.APIServer] = addPlugin(o.Args[localcluster.APIServer], "PodTolerationRestriction")
	})
	c.allowTolerations(whitelisted...)
	c.apply(limitRange)
	c.otherWebhook("a-before-everynode", nil)
	c.otherWebhook("z-after-everynode", nil)
	return c
}

// addPlugin adds an admission plugin to an API server's flags.
func addPlugin(flags []string, plugin string) []string {
	const flag = "--enable-admission-plugins="
	for i := range flags {
		if strings.HasPrefix(flags[i], flag) {
			flags = slices.Clone(flags)
			flags[i] += "," + plugin
			return flags
		}
	}
	return append(flags, flag+plugin)
}

// allowTolerations has PodTolerationRestriction allow the tolerations of those taints.
func (c *cluster) allowTolerations(keys ...string) {
	c.t.Helper()
	var list []corev1.Toleration
	for _, key := range keys {
		list = append(list, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists})
	}
	encoded, err := json.Marshal(list)
	if err != nil {
		c.t.Fatal(err)
	}
	c.kubectl("annotate", "namespace", "default", "--overwrite", "scheduler.alpha.kubernetes.io/tolerationsWhitelist="+string(encoded))
}

// otherWebhook registers a webhook that puts a container in front of the others of new
// pods, as service meshes do, so that the containers that we size move; and annotates
// DaemonSets. Webhooks are asked in the order of the names of their configurations,
// and again when a later one has changed the object.
func (c *cluster) otherWebhook(name string, selector *metav1.LabelSelector) {
	c.t.Helper()
	client := serveWebhook(c.t, time.Now().Add(time.Hour), func(w http.ResponseWriter, r *http.Request) {
		answer(c.t, w, r, name)
	})
	create, update := admissionregistrationv1.Create, admissionregistrationv1.Update
	rule := func(group, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{Operations: operations, Rule: admissionregistrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}, Scope: ptr.To(admissionregistrationv1.NamespacedScope),
		}}
	}
	_, err := c.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(c.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: name + ".example.com", ClientConfig: client, AdmissionReviewVersions: []string{"v1"},
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), FailurePolicy: ptr.To(admissionregistrationv1.Fail),
			ReinvocationPolicy: ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy), ObjectSelector: selector,
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "default"}},
			Rules:             []admissionregistrationv1.RuleWithOperations{rule("", "pods", create), rule("apps", "daemonsets", create, update)},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// answer answers a review for the webhook of that name. Asked again, it changes nothing more.
func answer(t *testing.T, w http.ResponseWriter, r *http.Request, name string) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Log(err)
		return
	}
	var sent struct {
		Request struct{ Object corev1.Pod }
	}
	var review admissionv1.AdmissionReview
	for _, into := range []any{&sent, &review} {
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
			t.Error(err)
			return
		}
	}
	patch := ""
	object := &sent.Request.Object
	switch _, annotated := object.Annotations[name]; {
	case review.Request.Resource.Resource == "pods":
		if !slices.ContainsFunc(object.Spec.Containers, func(c corev1.Container) bool { return c.Name == name }) {
			patch = `[{"op": "add", "path": "/spec/containers/0", "value": {"name": "` + name + `", "image": "example/sidecar:1.0"}}]`
		}
	case object.Annotations == nil:
		patch = `[{"op": "add", "path": "/metadata/annotations", "value": {"` + name + `": "yes"}}]`
	case !annotated:
		patch = `[{"op": "add", "path": "/metadata/annotations/` + name + `", "value": "yes"}]`
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if patch != "" {
		review.Response.Patch, review.Response.PatchType = []byte(patch), ptr.To(admissionv1.PatchTypeJSONPatch)
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		t.Log(err)
	}
}

// container returns the container of that name.
func container(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return &corev1.Container{}
}
