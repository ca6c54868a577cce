// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhook measures how many admission requests a second everynode-webhook
// answers, beside a server that does nothing but read and answer.
package webhook

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir   = flag.String("bin", "../../../bin", "folder with the programs that make build makes")
	pairs    = flag.Int("pairs", 5, "how often each server is measured, in turns")
	duration = flag.Duration("duration", 3*time.Second, "how long each measurement takes")
	clients  = flag.Int("clients", 8, "how many requests are under way at a time")
)

// least is what the ratio has to be. Measured were 0.59 with HTTP/2 and 0.52 with HTTP/1.1, in
// five pairs on 2 cores that much other work shared.
const least = 0.5

// idleServer makes this program the server to compare with.
const idleServer = "EVERYNODE_IDLE_SERVER"

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(idleServer) != "" {
		serveIdly()
		return
	}
	os.Exit(m.Run())
}

// serveIdly reads requests and answers that they are allowed, until its input ends.
func serveIdly() {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodGet {
			var used syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // It fails for nobody else.
			fmt.Fprintf(w, "process_cpu_seconds_total %f\n", time.Duration(used.Utime.Nano()+used.Stime.Nano()).Seconds())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "review", "allowed": true}}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	fmt.Fprintln(os.Stdout, server.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// server is one of the two that are measured.
type server struct {
	name   string
	client *http.Client
	url    string
	// changes says whether it answers with a patch.
	changes bool
	// metrics returns what it says of itself.
	metrics func() (string, error)
}

// measured is what a server did.
type measured struct {
	perSecond float64
	p50, p99  time.Duration
	// cpu is the processor time that the server took for a request.
	cpu time.Duration
}

func TestLoad(t *testing.T) {
	dir, err := filepath.Abs(*binDir)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := localcluster.Start(t.Context(), localcluster.Options{BinDir: dir, Scheduler: localcluster.None, Webhook: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	body := review(t, cluster)
	t.Logf("a request has %d bytes, %d are under way at a time", len(body), *clients)

	idle := startIdle(t)
	webhook, err := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "everynode", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// API servers speak HTTP/2 to webhooks that have a URL, as in this cluster, and
	// HTTP/1.1 behind a Service, where a request that nothing is done for costs less.
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			config := rest.CopyConfig(cluster.Config)
			config.Host = *webhook.Webhooks[0].ClientConfig.URL
			config.NextProtos = []string{protocol}
			trusted, err := rest.HTTPClientFor(config)
			if err != nil {
				t.Fatal(err)
			}
			insecure, err := rest.HTTPClientFor(&rest.Config{Host: idle, TLSClientConfig: rest.TLSClientConfig{Insecure: true, NextProtos: config.NextProtos}})
			if err != nil {
				t.Fatal(err)
			}
			nothing := &server{name: "reading and answering alone", client: insecure, url: idle, metrics: func() (string, error) { return get(t.Context(), insecure, idle) }}
			ours := &server{name: "everynode-webhook", client: trusted, url: config.Host + "?timeout=2s", changes: true, metrics: func() (string, error) {
				return cluster.Get(t.Context(), localcluster.EverynodeWebhook, "/metrics")
			}}
			if ratio := compare(t, nothing, ours, body); ratio < least {
				t.Errorf("the ratio should be at least %.2f", least)
			}
		})
	}
}

// compare measures both servers in turns, and returns the ratio of the medians of their
// requests a second.
func compare(t *testing.T, nothing, ours *server, body []byte) float64 {
	t.Helper()
	results := make(map[*server][]measured)
	calls := ours.sum(t, apiCalls)
	for range *pairs {
		for _, s := range []*server{nothing, ours} {
			results[s] = append(results[s], s.load(t, body))
		}
	}
	switch more := ours.sum(t, apiCalls) - calls; {
	case calls == 0:
		t.Error("the webhook does not count its API calls")
	case more > 10:
		t.Errorf("the webhook made %.0f API calls meanwhile: requests must not need any", more)
	default:
		t.Logf("the webhook made %.0f API calls meanwhile", more)
	}
	var ratios []float64
	for i := range *pairs {
		ratios = append(ratios, results[ours][i].perSecond/results[nothing][i].perSecond)
	}
	ratio := report(t, ours, results[ours]) / report(t, nothing, results[nothing])
	t.Logf("ratio of the medians: %.2f (of the pairs: %.2f to %.2f)", ratio, slices.Min(ratios), slices.Max(ratios))
	return ratio
}

// report says what was measured of a server, and returns its median of requests a second.
func report(t *testing.T, s *server, all []measured) float64 {
	t.Helper()
	slices.SortFunc(all, func(a, b measured) int { return cmp.Compare(a.perSecond, b.perSecond) })
	median := all[len(all)/2]
	t.Logf("%s: %.0f requests/s (%.0f to %.0f), p50 %s, p99 %s, %s of processor time a request", s.name,
		median.perSecond, all[0].perSecond, all[len(all)-1].perSecond,
		median.p50.Round(10*time.Microsecond), median.p99.Round(10*time.Microsecond), median.cpu.Round(time.Microsecond))
	return median.perSecond
}

// review returns a review of a pod whose DaemonSet and node exist, so that all there
// is to do is done.
func review(t *testing.T, cluster *localcluster.Cluster) []byte {
	t.Helper()
	node := localcluster.Nodes(1, 1)
	node[0].Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8")}
	if err := cluster.AddNodes(t.Context(), node...); err != nil {
		t.Fatal(err)
	}
	agent := daemonsettest.Agent("agent")
	agent.Annotations = map[string]string{daemonset.ResourcesAnnotation: `{"agent": {"cpu": "2%", "memory": "1%"}}`}
	agent.Spec.Selector = &metav1.LabelSelector{MatchLabels: agent.Spec.Template.Labels}
	agent.UID = ""
	created, err := cluster.Client.AppsV1().DaemonSets("default").Create(t.Context(), agent, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	created.APIVersion, created.Kind = "apps/v1", "DaemonSet"
	raw, err := json.Marshal(daemonsettest.BoundPod(created, "node-1"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "review", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, Namespace: "default",
			Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// startIdle starts the server to compare with, as a process of its own.
func startIdle(t *testing.T) string {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	command.Env = append(os.Environ(), idleServer+"=1")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(stdin.Close(), command.Wait()); err != nil {
			t.Error(err)
		}
	})
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// load sends the server the request again and again.
func (s *server) load(t *testing.T, body []byte) measured {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), *duration)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	before, began := s.sum(t, processorTime), time.Now()
	for range *clients {
		group.Go(func() {
			var took []time.Duration
			for ctx.Err() == nil {
				start := time.Now()
				// A request that has begun is finished.
				if err := s.send(context.WithoutCancel(ctx), body); err != nil {
					t.Error(err)
					return
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	group.Wait()
	if len(all) == 0 {
		t.FailNow()
	}
	total := time.Since(began)
	used := time.Duration((s.sum(t, processorTime) - before) * float64(time.Second))
	slices.Sort(all)
	return measured{float64(len(all)) / total.Seconds(), all[len(all)/2], all[len(all)*99/100], used / time.Duration(len(all))}
}

func (s *server) send(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := do(s.client, request)
	if err != nil {
		return err
	}
	if strings.Contains(answer, `"patch"`) != s.changes || strings.Contains(answer, `"warnings"`) {
		return fmt.Errorf("%s answers %s", s.name, answer)
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	return do(client, request)
}

func do(client *http.Client, request *http.Request) (string, error) {
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), err
}

var (
	// apiCalls are the requests that the webhook has sent to the API server.
	apiCalls      = regexp.MustCompile(`(?m)^rest_client_requests_total\{.*\} ([0-9.e+]+)$`)
	processorTime = regexp.MustCompile(`(?m)^process_cpu_seconds_total ([0-9.e+]+)$`)
)

// sum adds up the values of a metric.
func (s *server) sum(t *testing.T, metric *regexp.Regexp) float64 {
	t.Helper()
	metrics, err := s.metrics()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, match := range metric.FindAllStringSubmatch(metrics, -1) {
		value, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	return sum
}
