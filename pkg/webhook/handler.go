// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// maxTimeout is the most that a webhook configuration can ask for; 10 s are its default.
const maxTimeout = 30 * time.Second

// handler answers AdmissionReviews of objects of one kind.
type handler[T any] struct {
	// name is for logs and metrics.
	name       string
	resource   metav1.GroupVersionResource
	operations []admissionv1.Operation
	decide     func(context.Context, *request[T]) (decision, error)
}

// decision is what is done with an object.
type decision struct {
	mutation
	// Denied says why the object is denied; empty admits it.
	Denied string
	// Warnings are shown to the user who sent the object.
	Warnings []string
}

// decisionError says why nothing can be decided about an object.
type decisionError struct {
	reason reason
	error
}

// ServeHTTP reads a review and writes it back with the response. What is no
// review gets an HTTP error; what is one is allowed whatever goes wrong.
func (h *handler[T]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := withDeadline(r)
	defer cancel()
	// A request that comes in slowly must not hold a connection for longer.
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < readTimeout {
		_ = http.NewResponseController(w).SetReadDeadline(deadline) // Only the recorders of tests cannot.
	}
	began := time.Now()
	body := bodies.Get().(*bytes.Buffer)
	defer release(body)

	review, err := h.read(r, body)
	if err != nil {
		observe(h.name, resultRefused, began)
		klog.FromContext(ctx).Error(err, "Refused a request", "webhook", h.name, "remote", r.RemoteAddr)
		http.Error(w, err.Error(), err.status)
		return
	}
	response, result := h.respond(ctx, review)
	observe(h.name, result, began)
	// What goes into it was encoded before.
	answer, _ := encode(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: review.APIVersion, Kind: review.Kind}, Response: response,
	})
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(answer); err != nil {
		// The API server has gone away; it has admitted the object by its failurePolicy.
		klog.FromContext(ctx).V(2).Info("Could not write a response", "err", err)
	}
}

// bodies are buffers for requests: they are most of what the garbage collector would
// have to do here.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release keeps a buffer for the next request, unless few will be as large.
func release(body *bytes.Buffer) {
	if body.Cap() > 64<<10 {
		return
	}
	body.Reset()
	bodies.Put(body)
}

// withDeadline returns a context that ends when the API server stops waiting: it
// says so in the query, as timeout=2s.
func withDeadline(r *http.Request) (context.Context, context.CancelFunc) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout <= 0 || timeout > maxTimeout {
		timeout = 10 * time.Second
	}
	return context.WithTimeout(r.Context(), timeout)
}

// requestError is why a request is no review.
type requestError struct {
	status int
	error
}

// read reads a review by way of body. If only its object cannot be read, the review
// says why.
func (h *handler[T]) read(r *http.Request, body *bytes.Buffer) (*review[T], *requestError) {
	refuse := func(status int, format string, args ...any) (*review[T], *requestError) {
		return nil, &requestError{status, fmt.Errorf(format, args...)}
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "content type is %q, want application/json", r.Header.Get("Content-Type"))
	}
	// A client may announce much and send nothing: beyond the size of most reviews the
	// buffer grows by what arrives.
	body.Grow(int(min(max(r.ContentLength, 0), 32<<10)) + bytes.MinRead)
	_, err := body.ReadFrom(r.Body)
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, errTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "reading the request: %w", err)
	case errors.Is(context.Cause(r.Context()), errCutOff):
		return refuse(http.StatusServiceUnavailable, "reading the request: %w", errCutOff)
	case err != nil:
		return refuse(http.StatusBadRequest, "reading the request: %w", err)
	}
	review, err := decode[T](body.Bytes())
	if err != nil {
		review, err = decodeWithout[T](body.Bytes(), err)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "the request is not an AdmissionReview: %w", err)
	}
	if want := admissionv1.SchemeGroupVersion; review.APIVersion != want.String() || review.Kind != "AdmissionReview" {
		return refuse(http.StatusBadRequest, "the request is of apiVersion %q and kind %q, want %s and AdmissionReview", review.APIVersion, review.Kind, want)
	}
	if review.Request == nil {
		return refuse(http.StatusBadRequest, "the AdmissionReview has no request")
	}
	return review, nil
}

// respond decides about the request. If it cannot, it admits the object unchanged and
// says why, to the log and to whoever sent it.
func (h *handler[T]) respond(ctx context.Context, review *review[T]) (response *admissionv1.AdmissionResponse, result result) {
	request := review.Request
	defer func() {
		if crash := recover(); crash != nil {
			h.logger(ctx, request).Error(nil, "Panic", "panic", crash, "stack", string(debug.Stack()))
			response, result = h.unchanged(ctx, request, &decisionError{reasonInternal, errors.New("internal error, see the log of everynode-webhook")})
		}
	}()

	if request.Resource != h.resource || request.SubResource != "" || !slices.Contains(h.operations, request.Operation) {
		return h.unchanged(ctx, request, &decisionError{reasonRequest,
			fmt.Errorf("it was sent %s of %s/%s, but handles %v of %s only: check the rules of the webhook configuration",
				request.Operation, request.Resource.Resource, request.SubResource, h.operations, h.resource.Resource)})
	}
	if request.objectError != nil {
		return h.unchanged(ctx, request, &decisionError{reasonRequest, fmt.Errorf("reading the object: %w", request.objectError)})
	}
	if request.Object == nil || request.OldObject == nil && request.Operation == admissionv1.Update {
		return h.unchanged(ctx, request, &decisionError{reasonRequest, errors.New("the request has no object")})
	}
	decided, err := h.decide(ctx, request)
	if err != nil {
		return h.unchanged(ctx, request, err)
	}
	response, result, err = h.answer(request, &decided)
	if err != nil {
		return h.unchanged(ctx, request, err)
	}
	if klog.FromContext(ctx).V(4).Enabled() {
		h.logger(ctx, request).V(4).Info("Answered", "result", result, "changes", decided.Audit, "denied", decided.Denied)
	}
	return response, result
}

// logger names the request in all that is logged of it. Few requests need one.
func (h *handler[T]) logger(ctx context.Context, request *request[T]) klog.Logger {
	return klog.FromContext(ctx).WithValues("webhook", h.name, "uid", request.UID,
		"object", klog.KRef(request.Namespace, request.Name), "user", request.UserInfo.Username)
}

func (h *handler[T]) unchanged(ctx context.Context, request *request[T], err error) (*admissionv1.AdmissionResponse, result) {
	reason := reasonInternal
	if known := (*decisionError)(nil); errors.As(err, &known) {
		reason = known.reason
	}
	problems.WithLabelValues(h.name, string(reason)).Inc()
	h.logger(ctx, request).Error(err, "Admitted an object unchanged")
	return &admissionv1.AdmissionResponse{
		UID: request.UID, Allowed: true, Warnings: []string{"everynode left the object unchanged: " + err.Error()},
	}, resultFailed
}

// answer puts a decision into the API's words.
func (h *handler[T]) answer(request *request[T], decided *decision) (*admissionv1.AdmissionResponse, result, error) {
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
	patch, err := encode(decided.Patch)
	if err != nil {
		return nil, resultFailed, fmt.Errorf("encoding the patch: %w", err)
	}
	patchType := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &patchType
	return response, resultMutated, nil
}
