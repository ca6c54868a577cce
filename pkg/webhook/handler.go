// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// maxBody limits a request. An object in etcd has at most 1.5 MiB by default and
// 3 MiB at most (the API server's limit on a request, MaxRequestBodyBytes). A
// CREATE carries it once; the rest of a review is less than 1 MiB.
const maxBody = 4 << 20

// ownerSource tells who controls a pod. *owners is the one that is used.
type ownerSource interface {
	annotations(ctx context.Context, namespace string, pod *corev1.Pod) (map[string]string, error)
}

// podHandler answers AdmissionReviews of new pods.
type podHandler struct {
	owners ownerSource
}

// ServeHTTP reads a review and writes it back with the response. What is no
// review gets an HTTP error; what is one is always allowed.
func (h *podHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := withDeadline(r)
	defer cancel()
	began := time.Now()

	review, err := readReview(w, r)
	if err != nil {
		observe(resultRefused, began)
		klog.FromContext(ctx).Error(err, "Refused a request", "remote", r.RemoteAddr)
		http.Error(w, err.Error(), err.status)
		return
	}
	response, result := h.respond(ctx, review.Request)
	observe(result, began)
	w.Header().Set("Content-Type", "application/json")
	answer := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}
	if err := json.NewEncoder(w).Encode(&answer); err != nil {
		// The API server has gone away; it has admitted the pod by its failurePolicy.
		klog.FromContext(ctx).V(2).Info("Could not write a response", "err", err)
	}
}

// withDeadline returns a context that ends when the API server stops waiting: it
// says so in the query, as timeout=2s.
func withDeadline(r *http.Request) (context.Context, context.CancelFunc) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout <= 0 || timeout > 30*time.Second {
		// 30 s is the most that a webhook configuration can ask for, 10 s its default.
		timeout = 10 * time.Second
	}
	return context.WithTimeout(r.Context(), timeout)
}

// requestError is why a request is no review.
type requestError struct {
	status int
	error
}

func readReview(w http.ResponseWriter, r *http.Request) (*admissionv1.AdmissionReview, *requestError) {
	refuse := func(status int, format string, args ...any) (*admissionv1.AdmissionReview, *requestError) {
		return nil, &requestError{status, fmt.Errorf(format, args...)}
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "content type is %q, want application/json", r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", maxBody)
	} else if err != nil {
		return refuse(http.StatusBadRequest, "reading the request: %w", err)
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return refuse(http.StatusBadRequest, "the request is not an AdmissionReview: %w", err)
	}
	if want := admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"); review.GroupVersionKind() != want {
		return refuse(http.StatusBadRequest, "the request is of apiVersion %q and kind %q, want %s and %s",
			review.APIVersion, review.Kind, want.GroupVersion(), want.Kind)
	}
	if review.Request == nil {
		return refuse(http.StatusBadRequest, "the AdmissionReview has no request")
	}
	return &review, nil
}

var podsResource = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}

// respond allows the request, with a patch if there is something to change. If
// it cannot do its work it says why, to the log and to whoever made the request.
func (h *podHandler) respond(ctx context.Context, request *admissionv1.AdmissionRequest) (response *admissionv1.AdmissionResponse, result string) {
	logger := klog.FromContext(ctx).WithValues("uid", request.UID, "namespace", request.Namespace, "user", request.UserInfo.Username)
	unchanged := func(err error) (*admissionv1.AdmissionResponse, string) {
		logger.Error(err, "Admitted a pod unchanged")
		return &admissionv1.AdmissionResponse{
			UID: request.UID, Allowed: true, Warnings: []string{"everynode left the pod unchanged: " + err.Error()},
		}, resultFailed
	}
	defer func() {
		if crash := recover(); crash != nil {
			logger.Error(nil, "Panic", "panic", crash, "stack", string(debug.Stack()))
			response, result = unchanged(errors.New("internal error, see the log of everynode-webhook"))
		}
	}()

	if request.Resource != podsResource || request.SubResource != "" || request.Operation != admissionv1.Create {
		return unchanged(fmt.Errorf("it was sent %s of %s/%s, but handles CREATE of pods only: check the rules of the webhook configuration",
			request.Operation, request.Resource.Resource, request.SubResource))
	}
	var pod corev1.Pod
	if err := json.Unmarshal(request.Object.Raw, &pod); err != nil {
		return unchanged(fmt.Errorf("decoding the pod: %w", err))
	}
	annotations, err := h.owners.annotations(ctx, request.Namespace, &pod)
	if err != nil {
		return unchanged(err)
	}
	mutation := mutatePod(&pod, annotations)
	response = &admissionv1.AdmissionResponse{
		UID: request.UID, Allowed: true, Warnings: mutation.Warnings, AuditAnnotations: mutation.Audit,
	}
	if len(mutation.Patch) == 0 {
		return response, resultUnchanged
	}
	if response.Patch, err = json.Marshal(mutation.Patch); err != nil {
		return unchanged(fmt.Errorf("encoding the patch: %w", err))
	}
	patchType := admissionv1.PatchTypeJSONPatch
	response.PatchType = &patchType
	logger.V(4).Info("Mutated a pod", "pod", klog.KRef(request.Namespace, pod.GenerateName+pod.Name), "changes", mutation.Audit)
	return response, resultMutated
}
