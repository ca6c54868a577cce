// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"

	"github.com/gorilla/mux"
)

// routes are the paths of the server.
type routes struct {
	mutatePods         http.Handler
	mutateDaemonSets   http.Handler
	validateDaemonSets http.Handler
	healthz            http.Handler
	readyz             http.Handler
	metrics            http.Handler
}

// handler is the only place that knows the router.
func (r routes) handler() http.Handler {
	router := mux.NewRouter()
	router.Handle("/mutate/pods", r.mutatePods).Methods(http.MethodPost)
	router.Handle("/mutate/daemonsets", r.mutateDaemonSets).Methods(http.MethodPost)
	router.Handle("/validate/daemonsets", r.validateDaemonSets).Methods(http.MethodPost)
	router.Handle("/healthz", r.healthz).Methods(http.MethodGet)
	router.Handle("/readyz", r.readyz).Methods(http.MethodGet)
	router.Handle("/metrics", r.metrics).Methods(http.MethodGet)
	return router
}
