// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2/ktesting"
	fwk "k8s.io/kube-scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/pkg/plugins/binding"
)

// apiServer answers bindings when it is told to.
type apiServer struct {
	// arrived has the name of the pod of each request; answer has the codes of the answers.
	arrived chan string
	answer  chan int
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.arrived <- path.Base(path.Dir(r.URL.Path))
	select {
	case code := <-s.answer:
		w.WriteHeader(code)
	case <-r.Context().Done():
	}
}

func newBinding(t *testing.T, args string) (fwk.BindPlugin, *apiServer) {
	t.Helper()
	_, ctx := ktesting.NewTestContext(t)
	api := &apiServer{arrived: make(chan string, 100), answer: make(chan int)}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	handle, err := frameworkruntime.NewFramework(ctx, nil, nil, frameworkruntime.WithClientSet(client))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := binding.New(ctx, &runtime.Unknown{Raw: []byte(args)}, handle)
	if err != nil {
		t.Fatal(err)
	}
	return plugin.(fwk.BindPlugin), api
}

func ordinary(name string) *corev1.Pod {
	return st.MakePod().Namespace("default").Name(name).UID(name).Obj()
}

// bind binds a pod to node n and sends what became of it.
func bind(ctx context.Context, plugin fwk.BindPlugin, pod *corev1.Pod, statuses chan<- *fwk.Status) {
	go func() { statuses <- plugin.Bind(ctx, nil, pod, "n") }()
}

func TestOrdinaryPodsTakeTurns(t *testing.T) {
	plugin, server := newBinding(t, `{"maxInFlight": 2}`)
	statuses := make(chan *fwk.Status, 10)
	for i := range 5 {
		bind(t.Context(), plugin, ordinary(fmt.Sprintf("web-%d", i)), statuses)
	}
	<-server.arrived
	<-server.arrived
	daemonPod := daemonsettest.Pod(daemonsettest.Make("agent").Obj(), "n")
	bind(t.Context(), plugin, daemonPod, statuses)
	if name := <-server.arrived; name != daemonPod.Name {
		t.Fatalf("%s is bound, want the DaemonSet pod while two ordinary pods are", name)
	}
	server.answer <- http.StatusCreated
	for range 5 {
		server.answer <- http.StatusCreated
		if bound := <-statuses; !bound.IsSuccess() {
			t.Error(bound.AsError())
		}
	}
	if bound := <-statuses; !bound.IsSuccess() {
		t.Error(bound.AsError())
	}
}

// A turn ends however the binding ended.
func TestTurnsEnd(t *testing.T) {
	plugin, server := newBinding(t, `{"maxInFlight": 1}`)
	statuses := make(chan *fwk.Status, 10)
	bind(t.Context(), plugin, ordinary("first"), statuses)
	<-server.arrived

	gone := errors.New("the scheduler ends")
	ending, end := context.WithCancelCause(t.Context())
	bind(ending, plugin, ordinary("second"), statuses)
	end(gone)
	if status := <-statuses; !errors.Is(status.AsError(), gone) {
		t.Errorf("a pod whose turn has not come: %v, want %v", status.AsError(), gone)
	}

	server.answer <- http.StatusForbidden
	if status := <-statuses; status.IsSuccess() {
		t.Error("a refused binding succeeds")
	}
	bind(t.Context(), plugin, ordinary("third"), statuses)
	<-server.arrived
	server.answer <- http.StatusCreated
	if status := <-statuses; !status.IsSuccess() {
		t.Error(status.AsError())
	}
}

func TestBadArgs(t *testing.T) {
	for args, want := range map[string]string{
		`{"maxInFlight": 0}`:  "args.maxInFlight: Invalid value: 0: must be at least 1",
		`{"maxInflight": 10}`: `unknown field "maxInflight"`,
	} {
		_, err := binding.New(t.Context(), &runtime.Unknown{Raw: []byte(args)}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", args, err, want)
		}
	}
}
