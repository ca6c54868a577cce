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
	"testing"
	"time"

	"github.com/google/pprof/profile"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/localcluster"
)

var churn = flag.Duration("churn", 0, "how long nodes and DaemonSets come and go in the churn test; 0 skips it")

// usage is what the scheduler takes. Events are those parts of the heap that client-go
// keeps of every event for six to twelve minutes, with any scheduler.
type usage struct {
	goroutines, heap, events, resident float64
}

func (u usage) String() string {
	return fmt.Sprintf("%.0f goroutines, %.1f MiB of heap and %.1f MiB of events, %.1f MiB resident",
		u.goroutines, u.heap/(1<<20), u.events/(1<<20), u.resident/(1<<20))
}

// Nodes and DaemonSets come and go for a while: in the end the scheduler takes no
// more than in the beginning.
func TestChurn(t *testing.T) {
	if *churn == 0 {
		t.Skip("-churn says how long")
	}
	t.Parallel()
	c := newCluster(t, nil)
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // nothing secret
	c.apply(priorityClasses + deployment("web", 100, "cpu: 300m"))

	const quarters = 4
	var used [quarters]usage
	rounds := 0
	for quarter := range used {
		ctx, cancel := context.WithTimeout(t.Context(), *churn/quarters)
		err := wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			rounds++
			c.churnOnce(ctx, random, rounds)
			return false, nil
		})
		over := ctx.Err() != nil
		cancel()
		if !over {
			t.Fatal(err)
		}
		used[quarter] = c.schedulerUsage(fmt.Sprintf("heap-%d.pprof", quarter+1))
		t.Logf("after %d rounds: %s", rounds, used[quarter])
	}
	// The first quarter fills caches. Work that is still under way ends soon.
	before := used[1]
	c.eventually(time.Minute, "the scheduler takes no more than before", func(context.Context) error {
		switch after := c.schedulerUsage("heap.pprof"); {
		case after.goroutines > before.goroutines+10:
			return fmt.Errorf("goroutines have grown from %.0f to %.0f", before.goroutines, after.goroutines)
		case after.heap > before.heap+8<<20:
			return fmt.Errorf("the heap has grown from %.1f to %.1f MiB", before.heap/(1<<20), after.heap/(1<<20))
		default:
			return nil
		}
	})
}

// churnOnce adds or removes a node and a DaemonSet, of twenty of each.
func (c *cluster) churnOnce(ctx context.Context, random *rand.Rand, round int) {
	c.t.Helper()
	node := localcluster.Nodes(1+round%20, 1)[0]
	if _, err := c.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{}); err == nil {
		err = c.RemoveNode(ctx, node.Name)
		c.tolerate(ctx, err)
	} else {
		c.tolerate(ctx, c.AddNodes(ctx, node))
	}
	name := fmt.Sprintf("daemons-%d", random.IntN(20))
	if _, err := c.Client.AppsV1().DaemonSets("default").Get(ctx, name, metav1.GetOptions{}); err == nil {
		c.tolerate(ctx, c.Client.AppsV1().DaemonSets("default").Delete(ctx, name, metav1.DeleteOptions{}))
	} else {
		_, err := c.Kubectl(ctx, []byte(daemonSet(name, fmt.Sprintf("cpu: %dm", 50*(1+random.IntN(10))), drawSpec(random))), "apply", "-f", "-")
		c.tolerate(ctx, err)
	}
}

// tolerate fails the test unless the time is over, or the object has gone by itself.
func (c *cluster) tolerate(ctx context.Context, err error) {
	c.t.Helper()
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// schedulerUsage returns what the scheduler takes when its garbage has been collected.
// What of, is among the logs that are kept.
func (c *cluster) schedulerUsage(file string) usage {
	c.t.Helper()
	get := func(path string) string {
		c.t.Helper()
		content, err := c.Get(c.t.Context(), localcluster.EverynodeScheduler, path)
		if err != nil {
			c.t.Fatal(err)
		}
		return content
	}
	heap := get("/debug/pprof/heap?gc=1")
	if *artifacts != "" {
		dir := filepath.Join(*artifacts, c.t.Name())
		if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, file), []byte(heap), 0o600)); err != nil {
			c.t.Fatal(err)
		}
	}
	metrics := get("/metrics")
	value := func(name string) float64 {
		match := regexp.MustCompile("(?m)^" + name + " ([0-9.e+]+)$").FindStringSubmatch(metrics)
		if match == nil {
			c.t.Fatalf("the scheduler does not serve %s", name)
		}
		number, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			c.t.Fatal(err)
		}
		return number
	}
	events, all := c.eventsIn(heap)
	// The profile is made of samples: only the share is taken from it.
	total := value("go_memstats_heap_alloc_bytes")
	return usage{value("go_goroutines"), total * (1 - events/all), total * events / all, value("process_resident_memory_bytes")}
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
