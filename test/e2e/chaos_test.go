// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	chaosSeeds = flag.Int("chaos-seeds", 3, "how many storms to test, seeds 1 and up")
	chaosSeed  = flag.Int("chaos-seed", 0, "test the storm of this seed only")
)

// settled is how long all has to be well: components may just be about to act.
const settled = 2 * time.Second

// Chaos: random clusters as in TestRandomClusters, whose components are killed, halted
// and cut off meanwhile. In the end all is as if nothing had failed; no pod was bound
// twice, and none was refused because of the webhook.
//
// What happens and when comes from the seed alone. How it ends depends on the machine,
// too: a seed that failed may take several runs to fail again.
func TestChaos(t *testing.T) {
	t.Parallel()
	for seed := 1; seed <= *chaosSeeds || seed <= *chaosSeed; seed++ {
		if *chaosSeed != 0 && seed != *chaosSeed {
			continue
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("to repeat it: make test-chaos SEED=%d", seed)
				}
			})
			random := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // nothing secret
			s := newStorm(t, chaosLease, nil)
			check := newChecker(s.cluster)
			check.blind = true
			s.apply(inEveryRandomCluster + localVolumes())
			s.endure(random, check, "all has come", 14, 12*time.Second, s.drawSteps(random)...)

			first := ""
			for i := range 2 {
				what, change := s.drawChange(random)
				// The second change may need the DaemonSet that the first would delete.
				for what == first || i == 0 && strings.Contains(what, "deleted") {
					what, change = s.drawChange(random)
				}
				first = what
				check.rememberNodes()
				s.endure(random, check, what, 5, 4*time.Second, change)
			}
		})
	}
}

// endure takes steps in a storm of n faults, and checks that in the end all is as it
// should be.
func (s *storm) endure(random *rand.Rand, check *checker, what string, n int, within time.Duration, steps ...func()) {
	s.t.Helper()
	faults := drawFaults(random, n, within)
	for _, f := range faults {
		s.t.Logf("until %s: %s", what, f)
	}
	s.rage(faults, within, steps...)
	began := time.Now()
	var well time.Time
	s.eventually(2*time.Minute, "the cluster is as it should be when "+what, func(ctx context.Context) error {
		for _, check := range []func(context.Context) error{s.isBack, s.controllersAreDone, check.noNodeHasTwo, check.everyPodIsWhereItShouldBe} {
			if err := check(ctx); err != nil {
				well = time.Time{}
				return err
			}
		}
		if well.IsZero() {
			well = time.Now()
		}
		if lasts := time.Since(well); lasts < settled {
			return fmt.Errorf("all is well for %s only", lasts)
		}
		return nil
	})
	s.t.Logf("when %s, all is well %.1fs after the last fault; so far %d pods were bound and %d evicted",
		what, well.Sub(began).Seconds(), check.log.bound(), len(s.evictions()))
	for _, problem := range check.wrongEvictions(s.t.Context()) {
		s.t.Error(problem)
	}
	check.log.mu.Lock()
	defer check.log.mu.Unlock()
	for _, moved := range check.log.moved {
		s.t.Errorf("a pod was bound twice: %s", moved)
	}
	events, err := s.Client.EventsV1().Events("").List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range events.Items {
		if e := &events.Items[i]; e.Reason == "FailedCreate" && strings.Contains(e.Note, "webhook") {
			s.t.Errorf("%s %s was refused because of a webhook: %s", e.Regarding.Kind, e.Regarding.Name, e.Note)
		}
	}
}

// isBack checks that every component is at work again.
func (s *storm) isBack(ctx context.Context) error {
	for _, link := range s.fromAPI {
		if err := s.service.isReady(link.Port); err != nil {
			return err
		}
	}
	for _, name := range []string{localcluster.ControllerManager, localcluster.KubeScheduler} {
		lease, err := s.Client.CoordinationV1().Leases("kube-system").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ago := time.Since(lease.Spec.RenewTime.Time); ago > 3*time.Second {
			return fmt.Errorf("the lease %s was renewed %s ago", name, ago)
		}
	}
	return s.stir(ctx)
}

// stirPeriod is how long kwok and the node lifecycle controller have to finish something.
const stirPeriod = 3 * time.Second

// stir has kwok and the node lifecycle controller look again at what they have not
// finished. They do not try again when a request has failed, until the object changes.
func (s *storm) stir(ctx context.Context) error {
	for _, node := range s.nodes(ctx) {
		for _, taint := range node.Spec.Taints {
			if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
				return s.touch(ctx, "nodes", &node.ObjectMeta, "has the taint "+taint.Key)
			}
		}
	}
	pods, err := s.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		ends := pod.DeletionTimestamp != nil && !isStuck(pod)
		starts := pod.DeletionTimestamp == nil && pod.Spec.NodeName != "" && !clustertest.IsReady(pod) && ownerKind(pod) != "Job"
		if ends || starts {
			return s.touch(ctx, "pods", &pod.ObjectMeta, "neither runs nor has ended")
		}
	}
	return nil
}

// touch changes an object that is not as it should be, once in a while, and returns an
// error that says so.
func (s *storm) touch(ctx context.Context, resource string, object *metav1.ObjectMeta, why string) error {
	if now := time.Now(); now.Sub(s.touched) > stirPeriod {
		s.touched = now
		patch := fmt.Appendf(nil, `{"metadata": {"annotations": {"example.com/touched": %q}}}`, now)
		request := s.Client.CoreV1().RESTClient().Patch(types.MergePatchType).Resource(resource).Name(object.Name).Body(patch)
		if object.Namespace != "" {
			request = request.Namespace(object.Namespace)
		}
		if err := request.Do(ctx).Error(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s %s %s", resource, object.Name, why)
}

// controllersAreDone checks that controllers have seen all and made all pods that are not
// refused.
func (s *storm) controllersAreDone(ctx context.Context) error {
	apps := s.Client.AppsV1()
	deployments, err := apps.Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		if want := ptr.Deref(d.Spec.Replicas, 1); d.Status.ObservedGeneration < d.Generation || d.Status.Replicas != want {
			return fmt.Errorf("deployment %s has %d pods, want %d", d.Name, d.Status.Replicas, want)
		}
	}
	daemonSets, err := apps.DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range daemonSets.Items {
		if ds := &daemonSets.Items[i]; ds.DeletionTimestamp != nil || ds.Status.ObservedGeneration < ds.Generation {
			return fmt.Errorf("the DaemonSet controller has not seen %s", ds.Name)
		}
	}
	return nil
}

// noNodeHasTwo checks that no node has two pods of a DaemonSet.
func (c *checker) noNodeHasTwo(ctx context.Context) error {
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	type place struct {
		owner types.UID
		node  string
	}
	first := make(map[place]string)
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !isDaemonPod(pod) || pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
			continue
		}
		at := place{ownerUID(pod), pod.Spec.NodeName}
		if other := first[at]; other != "" {
			return fmt.Errorf("node %s has two pods of a DaemonSet: %s and %s", at.node, other, pod.Name)
		}
		first[at] = pod.Name
	}
	return nil
}
