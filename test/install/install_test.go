// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

// Two releases in two namespaces are installed, one with a scheduler that behaves as
// Kubernetes 1.35. They do all their work with no other rights than the chart gives them,
// and are removed with nothing left.
func TestTwoReleases(t *testing.T) {
	t.Parallel()
	c := newCluster(t, localcluster.Stock)
	c.kubectl("create", "namespace", "team-blue")
	c.kubectl("create", "namespace", "team-green")
	// The strictest standard, which the pods have to meet.
	c.kubectl("label", "namespace", "team-blue", "team-green", "pod-security.kubernetes.io/enforce=restricted")
	c.eventually("the namespaces have what every namespace has", func(ctx context.Context) error {
		for _, namespace := range []string{"team-blue", "team-green"} {
			_, errAccount := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			_, errRoot := c.Client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			if err := errors.Join(errAccount, errRoot); err != nil {
				return err
			}
		}
		return nil
	})
	before := clustertest.Objects(t, c.Cluster)

	n := c.startNode()
	releases := []*release{n.install("blue", chart), n.install("green", chart, "--set", "scheduler.emulatedVersion=1.35")}
	// Each of them places its own pods.
	for _, r := range releases {
		r.eventually("a scheduler of "+r.name+" leads", func(ctx context.Context) error {
			_, err := r.leader(ctx)
			return err
		})
		c.apply(r.daemonSet("agent-" + r.name))
		c.eventually("the DaemonSet of "+r.name+" is complete", c.complete("agent-"+r.name))
	}
	blue := releases[0]
	blue.check()
	blue.work()
	blue.makeRoom()
	blue.repair()
	blue.outage()
	blue.upgrade()

	for _, component := range []string{"scheduler", "webhook"} {
		blue.checkRights(component)
	}
	for _, r := range releases {
		c.helm("uninstall", r.name, "--namespace", r.namespace, "--wait")
	}
	// What the test itself has made.
	c.kubectl("delete", "--all", "daemonsets,deployments,pods,persistentvolumeclaims,resourceclaims", "--wait=false")
	c.kubectl("delete", "persistentvolume/disk", "storageclass/exists", "storageclass/made", "deviceclass/device", "resourceslice/node-1", "priorityclass/important", "--wait=false")
	c.eventually("nothing is left", func(context.Context) error {
		if diff := cmp.Diff(before, clustertest.Objects(t, c.Cluster)); diff != "" {
			return fmt.Errorf("(-before, +after):\n%s", diff)
		}
		return nil
	})
	// DaemonSets keep working, on the stock path.
	c.apply(strings.Replace(blue.daemonSet("after"), "schedulerName: "+blue.object("scheduler"), "", 1))
	c.eventually("a DaemonSet is complete without everynode", c.complete("after"))
}

// leader returns who holds the release's own lease.
func (r *release) leader(ctx context.Context) (string, error) {
	lease, err := r.Client.CoordinationV1().Leases(r.namespace).Get(ctx, r.object("scheduler"), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.New("nobody does")
	}
	return *lease.Spec.HolderIdentity, nil
}

// daemonSet returns a manifest of one that the release's scheduler places.
func (r *release) daemonSet(name string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      schedulerName: %[2]s
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "example/main:1.0", resources: {requests: {cpu: 100m}}}]
`, name, r.object("scheduler"))
}

// complete returns a check that a DaemonSet has a ready pod on both nodes.
func (c *cluster) complete(name string) func(context.Context) error {
	return c.completeIn("default", name)
}

func (c *cluster) completeIn(namespace, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		ds, err := c.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && (ds.Status.DesiredNumberScheduled != 2 || ds.Status.NumberReady != 2) {
			err = fmt.Errorf("it wants %d pods and has %d", ds.Status.DesiredNumberScheduled, ds.Status.NumberReady)
		}
		return err
	}
}

// check runs helm test. It fails where the API server does not reach the webhook, and is done
// by a pod that everynode places.
func (r *release) check() {
	r.Helper()
	test := []string{"test", r.name, "--namespace", r.namespace, "--timeout", "1m"}
	pods, name := r.Client.CoreV1().Pods(r.namespace), r.name+"-everynode-check"
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// kwok would have the pod run for ever.
	go wait.UntilWithContext(ctx, func(ctx context.Context) {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil || pod.Spec.SchedulerName != r.object("scheduler") || pod.Spec.NodeName == "":
			return
		case pod.DeletionTimestamp != nil:
			// kwok may not have seen that.
			_ = pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
			return
		case pod.Status.Phase == corev1.PodSucceeded:
			return
		}
		pod.Status.Phase = corev1.PodSucceeded
		// A conflict is tried again at the next poll.
		_, _ = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}, 100*time.Millisecond)

	mutating := "mutatingwebhookconfiguration/" + r.name + "-everynode"
	// The last webhook is the one for the check.
	last := len(strings.Fields(r.kubectl("get", mutating, "--output=jsonpath={.webhooks[*].name}"))) - 1
	port := r.kubectl("get", mutating, fmt.Sprintf("--output=jsonpath={.webhooks[%d].clientConfig.service.port}", last))
	setPort := func(port string) {
		r.kubectl("patch", mutating, "--type=json", "-p",
			fmt.Sprintf(`[{"op": "replace", "path": "/webhooks/%d/clientConfig/service/port", "value": %s}]`, last, port))
	}
	setPort("1")
	r.eventually("without the webhook the check fails", func(ctx context.Context) error {
		_, err := r.Helm(ctx, test...)
		switch {
		case err == nil:
			return errors.New("it succeeds")
		case !strings.Contains(err.Error(), "check.everynode.dev"):
			return err
		}
		return nil
	})
	setPort(port)
	r.eventually("with the webhook the check succeeds", func(ctx context.Context) error {
		_, err := r.Helm(ctx, test...)
		return err
	})
	r.eventually("its pod has gone", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			err = fmt.Errorf("it is %s, deleted at %v", pod.Status.Phase, pod.DeletionTimestamp)
		}
		return err
	})
}

// work has the scheduler place pods with volumes and devices.
func (r *release) work() {
	r.Helper()
	manifests, err := os.ReadFile("testdata/work.yaml")
	if err != nil {
		r.Fatal(err)
	}
	r.apply(strings.ReplaceAll(string(manifests), "SCHEDULER", r.object("scheduler")))
	for _, name := range []string{"with-volumes", "with-claim", "with-device"} {
		r.eventually(name+" has a node", func(ctx context.Context) error {
			pod, err := r.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			if err == nil && pod.Spec.NodeName == "" {
				err = fmt.Errorf("it waits: %v", pod.Status.Conditions)
			}
			return err
		})
	}
	// Nobody makes the volume; that it shall be made is what the scheduler says.
	r.eventually("the new volume has a node", func(ctx context.Context) error {
		claim, err := r.Client.CoreV1().PersistentVolumeClaims("default").Get(ctx, "made", metav1.GetOptions{})
		if err == nil && claim.Annotations["volume.kubernetes.io/selected-node"] == "" {
			err = errors.New("it has not")
		}
		return err
	})
	// Somebody reads the metrics who may: a token is looked at, and so is what it allows.
	token := strings.TrimSpace(r.kubectl("-n", "kube-system", "create", "token", "default"))
	metrics := func(ctx context.Context) error {
		pods, err := r.schedulers(ctx)
		if err != nil {
			return err
		}
		return get(ctx, r.port(&pods[0]), "/metrics", token)
	}
	if err := metrics(r.Context()); err == nil {
		r.Error("anybody may read the scheduler's metrics")
	}
	r.kubectl("create", "clusterrole", "test-metrics", "--verb=get", "--non-resource-url=/metrics")
	r.kubectl("create", "clusterrolebinding", "test-metrics", "--clusterrole=test-metrics", "--serviceaccount=kube-system:default")
	defer r.kubectl("delete", "clusterrole,clusterrolebinding", "test-metrics")
	r.eventually("its metrics can be read by who may", metrics)
}

// makeRoom has the scheduler evict a pod of the same priority, and then one of lower
// priority.
func (r *release) makeRoom() {
	r.Helper()
	filler := func(name, node, class string) string {
		return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      schedulerName: %[2]s
      priorityClassName: %[4]q
      # A pod that could run nowhere else is not evicted for one of its own priority.
      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[3]s]}]}}]}}
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "example/main:1.0", resources: {requests: {cpu: "3.2"}}}]
---
`, name, r.object("scheduler"), node, class)
	}
	evicted := func(app string) func(context.Context) error {
		return func(ctx context.Context) error {
			pods, err := r.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
			if err != nil {
				return err
			}
			for i := range pods.Items {
				if pods.Items[i].Spec.NodeName != "" {
					return fmt.Errorf("%s is on %s", pods.Items[i].Name, pods.Items[i].Spec.NodeName)
				}
			}
			return nil
		}
	}
	placed := func(app string) func(context.Context) error {
		return func(ctx context.Context) error {
			if evicted(app)(ctx) == nil {
				return fmt.Errorf("%s has no node", app)
			}
			return nil
		}
	}
	r.apply(filler("filler-1", "node-1", "") + filler("filler-2", "node-2", ""))
	r.eventually("node-1 is full", placed("filler-1"))
	r.eventually("node-2 is full", placed("filler-2"))
	r.apply(strings.Replace(r.daemonSet("large"), "cpu: 100m", "cpu: '0.5'", 1))
	r.eventually("the DaemonSet takes room of its own priority", r.complete("large"))
	r.kubectl("delete", "daemonset", "large")
	r.eventually("node-1 is full again", placed("filler-1"))
	r.eventually("node-2 is full again", placed("filler-2"))
	r.apply(filler("important", "node-1", "important"))
	r.eventually("the important pod takes the room of a lower one", placed("important"))
	r.eventually("that one waits", func(ctx context.Context) error {
		// They may have changed places.
		first, second := evicted("filler-1")(ctx), evicted("filler-2")(ctx)
		if first != nil && second != nil {
			return errors.Join(first, second)
		}
		return nil
	})
	r.kubectl("delete", "deployments", "--all")
}

// repair deletes what the programs fill in: they make it anew.
func (r *release) repair() {
	r.Helper()
	secrets := r.Client.CoreV1().Secrets(r.namespace)
	r.kubectl("-n", r.namespace, "delete", "secret/"+r.object("webhook-tls"), "lease/"+r.object("scheduler"), "lease/"+r.object("webhook"))
	r.eventually("the Secret is made anew", func(ctx context.Context) error {
		secret, err := secrets.Get(ctx, r.object("webhook-tls"), metav1.GetOptions{})
		if err == nil && len(secret.Data["ca.crt"]) == 0 {
			err = errors.New("it is empty")
		}
		return err
	})
	r.eventually("the lease is made anew", func(ctx context.Context) error {
		_, err := r.leader(ctx)
		return err
	})
}

// outage takes the release's schedulers away: the webhook binds pods of a DaemonSet that asks for it.
func (r *release) outage() {
	r.Helper()
	scale := func(replicas int) {
		r.kubectl("-n", r.namespace, "scale", "deployment", r.object("scheduler"), fmt.Sprintf("--replicas=%d", replicas))
	}
	scale(0)
	r.eventually("the schedulers have gone", func(ctx context.Context) error {
		pods, err := r.schedulers(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d are left", len(pods))
		}
		return err
	})
	r.apply(strings.Replace(r.daemonSet("outage"), "{name: outage}", "{name: outage, annotations: {everynode.dev/scheduling: auto}}", 1))
	r.eventually("the webhook binds without a scheduler", r.complete("outage"))
	scale(2)
	r.eventually("a scheduler leads again", func(ctx context.Context) error {
		_, err := r.leader(ctx)
		return err
	})
}

// upgrade takes another version of the images, and a policy, while pods are created all
// the time: each of them is sent to a webhook. What the programs have filled in stays as it is.
func (r *release) upgrade() {
	r.Helper()
	leader, err := r.leader(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	r.upgradeUnderLoad()
	r.eventually("a scheduler of the new version leads", func(ctx context.Context) error {
		now, err := r.leader(ctx)
		if err == nil && now == leader {
			err = errors.New("the old one has the lease")
		}
		return err
	})
	r.apply(r.daemonSet("after-upgrade"))
	r.eventually("a DaemonSet is complete after the upgrade", r.complete("after-upgrade"))
}

// upgradeUnderLoad upgrades the release to the chart, another version of the images, and a policy.
func (r *release) upgradeUnderLoad() {
	r.Helper()
	before := r.filled()
	if before["ca.crt"] == "" || before["caBundle"] == "" {
		r.Fatal("the Secret or the caBundle is empty")
	}
	old := r.podNames()
	l := r.startLoad()
	r.helm("upgrade", r.name, chart, "--namespace", r.namespace, "--reuse-values", "--wait", "--timeout", "2m",
		"--set", "image.tag=next", "--set", "webhook.policies[0].name=agents", "--set", "webhook.policies[0].pod.priorityClassName=important")
	r.eventually("the pods of the old version have gone", func(context.Context) error {
		if left := slices.DeleteFunc(r.podNames(), func(name string) bool { return !slices.Contains(old, name) }); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	r.end(l)
	if diff := cmp.Diff(before, r.filled()); diff != "" {
		r.Errorf("the upgrade has changed the certificates (-before, +after):\n%s", diff)
	}
}

// filled returns what the webhook has filled in.
func (r *release) filled() map[string]string {
	r.Helper()
	secret, err := r.Client.CoreV1().Secrets(r.namespace).Get(r.Context(), r.object("webhook-tls"), metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	mutating, err := r.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(r.Context(), r.name+"-everynode", metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	return map[string]string{"ca.crt": string(secret.Data["ca.crt"]), "caBundle": string(mutating.Webhooks[0].ClientConfig.CABundle)}
}

// load is pods that are created all the time.
type load struct {
	mu sync.Mutex
	// created are the pods that were admitted, and prioritised those that got the new policy.
	created, prioritised int
	failed               []string
	stop                 func()
}

// startLoad begins to create pods of a DaemonSet. No webhook, no pod.
func (r *release) startLoad() *load {
	r.Helper()
	owner, err := r.Client.AppsV1().DaemonSets("default").Get(r.Context(), "agent-"+r.name, metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    owner.Name + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "example/main:1.0"}}},
	}
	l := &load{}
	ctx, cancel := context.WithCancel(r.Context())
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			wait.UntilWithContext(ctx, func(ctx context.Context) {
				admitted, err := r.Client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err == nil && (admitted.Spec.NodeName != "" || admitted.Spec.Affinity == nil) {
					err = errors.New("the pod was not changed")
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				switch {
				case ctx.Err() != nil:
				case err != nil:
					l.failed = append(l.failed, fmt.Sprintf("%s: %v", time.Now().Format("15:04:05.000"), err))
				default:
					l.created++
					if admitted.Spec.PriorityClassName == "important" {
						l.prioritised++
					}
				}
			}, 10*time.Millisecond)
		})
	}
	l.stop = func() {
		cancel()
		workers.Wait()
	}
	return l
}

// end stops the load and fails the test if anything has failed.
func (r *release) end(l *load) {
	r.Helper()
	l.stop()
	r.Logf("during the upgrade %d pods were admitted, %d of them by the new version; %d failed", l.created, l.prioritised, len(l.failed))
	if len(l.failed) > 0 {
		r.Errorf("the first failures:\n%s", strings.Join(l.failed[:min(len(l.failed), 10)], "\n"))
	}
	if l.prioritised == 0 || l.prioritised == l.created {
		r.Error("not both versions were asked")
	}
}
