// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// maxBody limits a request. An object in etcd has at most 1.5 MiB by default and
// 3 MiB at most (the API server's limit on a request, MaxRequestBodyBytes). An UPDATE
// carries two of them; the rest of a review is less than 1 MiB.
const maxBody = 7 << 20

// handler answers AdmissionReviews of one resource.
type handler struct {
	// name is for logs and metrics.
	name       string
	resource   metav1.GroupVersionResource
	operations []admissionv1.Operation
	decide     func(context.Context, *admissionv1.AdmissionRequest) (decision, error)
}

// decision is what becomes of an object.
type decision struct {
	mutation
	// Denied says why the object can never work; empty admits it.
	Denied string
	// Warnings are shown to whoever sent the object.
	Warnings []string
}

// unable is an error that says why nothing can be decided.
type unable struct {
	reason reason
	error
}

// ServeHTTP reads a review and writes it back with the response. What is no
// review gets an HTTP error; what is one is allowed whatever goes wrong.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := withDeadline(r)
	defer cancel()
	began := time.Now()

	review, err := readReview(w, r)
	if err != nil {
		observe(h.name, resultRefused, began)
		klog.FromContext(ctx).Error(err, "Refused a request", "webhook", h.name, "remote", r.RemoteAddr)
		http.Error(w, err.Error(), err.status)
		return
	}
	response, result := h.respond(ctx, review.Request)
	observe(h.name, result, began)
	w.Header().Set("Content-Type", "application/json")
	answer := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}
	if err := json.NewEncoder(w).Encode(&answer); err != nil {
		// The API server has gone away; it has admitted the object by its failurePolicy.
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
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxBody)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", maxBody)
	} else if err != nil {
		return refuse(http.StatusBadRequest, "reading the request: %w", err)
	}
	var review admissionv1.AdmissionReview
	if err := decode(body.Bytes(), &review); err != nil {
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

// respond decides about the request. If it cannot, it admits the object unchanged and
// says why, to the log and to whoever sent it.
func (h *handler) respond(ctx context.Context, request *admissionv1.AdmissionRequest) (response *admissionv1.AdmissionResponse, result result) {
	logger := klog.FromContext(ctx).WithValues("webhook", h.name, "uid", request.UID,
		"object", klog.KRef(request.Namespace, request.Name), "user", request.UserInfo.Username)
	defer func() {
		if crash := recover(); crash != nil {
			logger.Error(nil, "Panic", "panic", crash, "stack", string(debug.Stack()))
			response, result = h.unchanged(logger, request, &unable{reasonInternal, errors.New("internal error, see the log of everynode-webhook")})
		}
	}()

	if request.Resource != h.resource || request.SubResource != "" || !slices.Contains(h.operations, request.Operation) {
		return h.unchanged(logger, request, &unable{reasonRequest,
			fmt.Errorf("it was sent %s of %s/%s, but handles %v of %s only: check the rules of the webhook configuration",
				request.Operation, request.Resource.Resource, request.SubResource, h.operations, h.resource.Resource)})
	}
	decided, err := h.decide(ctx, request)
	if err != nil {
		return h.unchanged(logger, request, err)
	}
	response, result, err = h.answer(request, &decided)
	if err != nil {
		return h.unchanged(logger, request, err)
	}
	logger.V(4).Info("Answered", "result", result, "changes", decided.Audit, "denied", decided.Denied)
	return response, result
}

func (h *handler) unchanged(logger klog.Logger, request *admissionv1.AdmissionRequest, err error) (*admissionv1.AdmissionResponse, result) {
	reason := reasonInternal
	if known := (*unable)(nil); errors.As(err, &known) {
		reason = known.reason
	}
	problems.WithLabelValues(h.name, string(reason)).Inc()
	logger.Error(err, "Admitted an object unchanged")
	return &admissionv1.AdmissionResponse{
		UID: request.UID, Allowed: true, Warnings: []string{"everynode left the object unchanged: " + err.Error()},
	}, resultFailed
}

// answer puts a decision into the API's words.
func (h *handler) answer(request *admissionv1.AdmissionRequest, decided *decision) (*admissionv1.AdmissionResponse, result, error) {
	response := &admissionv1.AdmissionResponse{
		UID: request.UID, Allowed: decided.Denied == "", Warnings: decided.Warnings, AuditAnnotations: decided.Audit,
	}
	for _, problem := range decided.Problems {
		problems.WithLabelValues(h.name, string(problem.Reason)).Inc()
		response.Warnings = append(response.Warnings, "everynode: "+problem.Message)
	}
	if decided.Denied != "" {
		response.Result = &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: decided.Denied,
		}
		return response, resultDenied, nil
	}
	if len(decided.Patch) == 0 {
		return response, resultUnchanged, nil
	}
	patch, err := json.Marshal(decided.Patch)
	if err != nil {
		return nil, resultFailed, fmt.Errorf("encoding the patch: %w", err)
	}
	patchType := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &patchType
	return response, resultMutated, nil
}
