// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"everynode.dev/everynode/test/localcluster"
)

var (
	churn           = flag.Duration("churn", 0, "how long nodes and DaemonSets come and go in the churn test; 0 skips it")
	churnAutoscaler = flag.String("churn-autoscaler", "", "who buys nodes in the churn test: karpenter, or nobody, and they come and go by hand")
)

// usage is what a program takes. Events are those parts of the scheduler's heap that
// client-go keeps of every event for six to twelve minutes, with any scheduler.
type usage struct {
	goroutines, heap, events, resident float64
}

func (u usage) String() string {
	return fmt.Sprintf("%.0f goroutines, %.1f MiB of heap and %.1f MiB of events, %.1f MiB resident",
		u.goroutines, u.heap/(1<<20), u.events/(1<<20), u.resident/(1<<20))
}

// Nodes and DaemonSets come and go for a while, DaemonSets are updated, and in the first
// half the leader among the schedulers is killed or halted again and again: in the end
// no program takes more than before, and the API server has no more watches open.
func TestChurn(t *testing.T) {
	if *churn == 0 {
		t.Skip("-churn says how long")
	}
	t.Parallel()
	// With the leases as shipped, a busy machine changes no leader.
	s := newStorm(t, 15*time.Second, func(o *localcluster.Options) { o.Autoscaler = *churnAutoscaler })
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // nothing secret
	s.apply(priorityClasses + deployment("web", 100, "cpu: 300m"))

	changing, end := context.WithTimeout(t.Context(), *churn/2)
	var changes sync.WaitGroup
	changes.Go(func() { s.changeLeaders(changing, *churn/16) })
	defer changes.Wait()
	defer end()

	const quarters = 4
	before := make(map[string]usage)
	var watches float64
	rounds := 0
	for quarter := 1; quarter <= quarters; quarter++ {
		ctx, cancel := context.WithTimeout(t.Context(), *churn/quarters)
		err := wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			rounds++
			s.churnOnce(ctx, random, rounds)
			return false, nil
		})
		over := ctx.Err() != nil
		cancel()
		if !over {
			t.Fatal(err)
		}
		if quarter == 2 {
			changes.Wait()
		}
		for _, name := range slices.Concat(schedulerReplicas(), webhookReplicas) {
			used := s.usage(name, fmt.Sprintf("%s-%d.pprof", name, quarter))
			t.Logf("after %d rounds: %s: %s", rounds, name, used)
			// The first quarter fills caches. Schedulers may have been started in the second.
			if quarter == 2 || quarter == 3 && slices.Contains(schedulerReplicas(), name) {
				before[name] = used
			}
		}
		open := s.watches()
		t.Logf("after %d rounds: %.0f open watches", rounds, open)
		if quarter <= 2 {
			// A scheduler that is just being started has not opened all of its own.
			watches = max(watches, open)
		}
	}
	// Work that is still under way ends soon. 5,000 events may wait, and 50 a second are written.
	s.eventually(2*time.Minute, "no program takes more than before", func(context.Context) error {
		for name, before := range before {
			switch after := s.usage(name, name+".pprof"); {
			case after.goroutines > before.goroutines+10:
				return fmt.Errorf("goroutines of %s have grown from %.0f to %.0f", name, before.goroutines, after.goroutines)
			case after.heap > before.heap+8<<20:
				return fmt.Errorf("the heap of %s has grown from %.1f to %.1f MiB", name, before.heap/(1<<20), after.heap/(1<<20))
			}
		}
		if open := s.watches(); open > watches+5 {
			return fmt.Errorf("open watches have become %.0f, from %.0f", open, watches)
		}
		return nil
	})
}

// changeLeaders kills the scheduler that leads, or halts it for longer than its lease
// lasts, once in a period, until ctx ends.
func (s *storm) changeLeaders(ctx context.Context, period time.Duration) {
	for n := 0; ; n++ {
		passes(ctx, period)
		if ctx.Err() != nil {
			return
		}
		for _, name := range schedulerReplicas() {
			metrics, err := s.read(ctx, name, "/metrics")
			// One that is just being started does not lead.
			if err == nil && valueOf(metrics, `leader_election_master_status\{name="kube-scheduler"\}`) == 1 {
				f := fault{component: name, kind: []faultKind{killed, halted}[n%2], lasts: 20 * time.Second}
				s.t.Log(f)
				s.suffer(ctx, f)
				break
			}
		}
	}
}

// churnOnce adds or removes a node, unless an autoscaler does it, and a DaemonSet, of
// twenty of each, and updates another DaemonSet.
func (c *cluster) churnOnce(ctx context.Context, random *rand.Rand, round int) {
	c.t.Helper()
	node := localcluster.Nodes(1+round%20, 1)[0]
	switch _, err := c.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{}); {
	case *churnAutoscaler != "":
		// It buys nodes for those that wait, and removes them later. That takes it a while.
		if round%20 == 0 {
			pods := fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, random.IntN(100))
			_, err := c.Client.AppsV1().Deployments("default").Patch(ctx, "web", types.MergePatchType, pods, metav1.PatchOptions{})
			c.tolerate(ctx, err)
		}
	case err == nil:
		c.tolerate(ctx, c.RemoveNode(ctx, node.Name))
	default:
		c.tolerate(ctx, c.AddNodes(ctx, node))
	}
	daemonSets := c.Client.AppsV1().DaemonSets("default")
	name := fmt.Sprintf("daemons-%d", random.IntN(20))
	if _, err := daemonSets.Get(ctx, name, metav1.GetOptions{}); err == nil {
		c.tolerate(ctx, daemonSets.Delete(ctx, name, metav1.DeleteOptions{}))
	} else {
		_, err := c.Kubectl(ctx, []byte(daemonSet(name, fmt.Sprintf("cpu: %dm", 50*(1+random.IntN(10))), drawSpec(random))), "apply", "-f", "-")
		c.tolerate(ctx, err)
	}
	update := fmt.Appendf(nil, `{"spec": {"template": {"metadata": {"annotations": {"example.com/round": "%d"}}}}}`, round)
	_, err := daemonSets.Patch(ctx, fmt.Sprintf("daemons-%d", random.IntN(20)), types.MergePatchType, update, metav1.PatchOptions{})
	c.tolerate(ctx, err)
}

// tolerate fails the test unless the time is over, or the object has gone by itself.
func (c *cluster) tolerate(ctx context.Context, err error) {
	c.t.Helper()
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// read reads a path of a replica, with the administrator's credentials.
func (s *storm) read(ctx context.Context, name, path string) (string, error) {
	config := rest.CopyConfig(s.Config)
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", s.ports[name])
	// Webhooks have made their certificates themselves.
	config.CAData, config.CAFile, config.Insecure = nil, "", true
	config.GroupVersion, config.NegotiatedSerializer = &schema.GroupVersion{}, scheme.Codecs.WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return "", err
	}
	// A connection that stays open takes goroutines of the program that is measured.
	defer utilnet.CloseIdleConnectionsFor(client.Client.Transport)
	content, err := client.Get().RequestURI(path).Do(ctx).Raw()
	return string(content), err
}

// valueOf returns the sum of the samples of metrics whose name and labels match, or -1
// if there are none.
func valueOf(metrics, sample string) float64 {
	sum := -1.0
	for _, match := range regexp.MustCompile("(?m)^"+sample+" ([0-9.e+]+)$").FindAllStringSubmatch(metrics, -1) {
		if number, err := strconv.ParseFloat(match[1], 64); err == nil {
			sum = max(sum, 0) + number
		}
	}
	return sum
}

// watches returns how many watches the API server has open.
func (s *storm) watches() float64 {
	s.t.Helper()
	metrics, err := s.Client.Discovery().RESTClient().Get().AbsPath("/metrics").Do(s.t.Context()).Raw()
	if err != nil {
		s.t.Fatal(err)
	}
	open := valueOf(string(metrics), `apiserver_longrunning_requests\{.*verb="WATCH".*\}`)
	if open <= 0 {
		s.t.Fatal("the API server does not serve apiserver_longrunning_requests")
	}
	return open
}

// usage returns what a replica takes when its garbage has been collected. What a
// scheduler's heap is made of is among the logs that are kept.
func (s *storm) usage(name, file string) usage {
	s.t.Helper()
	get := func(path string) (content string) {
		s.t.Helper()
		// It may just be being started.
		s.eventually(30*time.Second, name+" serves "+path, func(ctx context.Context) (err error) {
			content, err = s.read(ctx, name, path)
			return err
		})
		return content
	}
	isScheduler := slices.Contains(schedulerReplicas(), name)
	var heap string
	if isScheduler {
		heap = get("/debug/pprof/heap?gc=1")
		if *artifacts != "" {
			dir := filepath.Join(*artifacts, s.t.Name())
			goroutines := get("/debug/pprof/goroutine?debug=1")
			if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, file), []byte(heap), 0o600),
				os.WriteFile(filepath.Join(dir, file+".goroutines"), []byte(goroutines), 0o600)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	metrics := get("/metrics")
	value := func(sample string) float64 {
		number := valueOf(metrics, sample)
		if number < 0 {
			s.t.Fatalf("%s does not serve %s", name, sample)
		}
		return number
	}
	used := usage{goroutines: value("go_goroutines"), resident: value("process_resident_memory_bytes")}
	if !isScheduler {
		// The next collection begins when as much again has been allocated as the last has left.
		used.heap = value("go_memstats_next_gc_bytes") / 2
		return used
	}
	events, all := s.eventsIn(heap)
	// The profile is made of samples: only the share is taken from it.
	total := value("go_memstats_heap_alloc_bytes")
	used.heap, used.events = total*(1-events/all), total*events/all
	return used
}

// eventsIn returns how many bytes of a heap profile are client-go's copies of events,
// and how many there are in all.
func (c *cluster) eventsIn(heap string) (events, all float64) {
	c.t.Helper()
	parsed, err := profile.ParseData([]byte(heap))
	if err != nil {
		c.t.Fatal(err)
	}
	inUse := slices.IndexFunc(parsed.SampleType, func(t *profile.ValueType) bool { return t.Type == "inuse_space" })
	for _, sample := range parsed.Sample {
		bytes := float64(sample.Value[inUse])
		all += bytes
		if slices.ContainsFunc(sample.Location, func(l *profile.Location) bool {
			return slices.ContainsFunc(l.Line, func(l profile.Line) bool {
				return strings.HasPrefix(l.Function.Name, "k8s.io/client-go/tools/events.")
			})
		}) {
			events += bytes
		}
	}
	return events, all
}
