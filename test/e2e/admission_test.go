// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/test/localcluster"
)

// policyFile is a configuration of the webhook that a test can change.
type policyFile string

func newPolicyFile(t *testing.T, policies string) policyFile {
	t.Helper()
	file := policyFile(filepath.Join(t.TempDir(), "config.yaml"))
	file.write(t, policies)
	return file
}

func (f policyFile) write(t *testing.T, policies string) {
	t.Helper()
	content := "apiVersion: config.everynode.dev/v1alpha1\nkind: WebhookConfiguration\npolicies:\n" + policies
	if err := os.WriteFile(string(f), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// used has a cluster's webhook read the file.
func (f policyFile) used(o *localcluster.Options) {
	o.Args = map[string][]string{localcluster.EverynodeWebhook: {"--config=" + string(f)}}
}

// warnings collects what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// createDaemonSet sends a manifest and returns what the API server says to it.
func (c *cluster) createDaemonSet(manifest string) ([]string, error) {
	c.t.Helper()
	var said warnings
	config := rest.CopyConfig(c.Config)
	config.WarningHandler = &said
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		c.t.Fatal(err)
	}
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(strings.TrimSuffix(strings.TrimSpace(manifest), "---")), &ds); err != nil {
		c.t.Fatal(err)
	}
	_, err = client.AppsV1().DaemonSets("default").Create(c.t.Context(), &ds, metav1.CreateOptions{})
	return said.text, err
}

// annotate returns a manifest of a DaemonSet with an annotation.
func annotate(manifest, name, annotation string) string {
	return strings.Replace(manifest, "metadata: {name: "+name+"}", "metadata: {name: "+name+", annotations: {"+annotation+"}}", 1)
}

// cpuRequests returns what the main containers of an app's pods request, by node.
func (c *cluster) cpuRequests(ctx context.Context, name string) (map[string]string, error) {
	pods, err := c.pods(ctx, app(name))
	if err != nil {
		return nil, err
	}
	requests := make(map[string]string)
	for _, pod := range bound(pods) {
		requests[pod.Spec.NodeName] = container(&pod, "main").Resources.Requests.Cpu().String()
	}
	return requests, nil
}

// A16: pods ask for a share of their node, and what the scheduler holds for them
// is that share; it survives deletes and rollouts. A node that nobody knows of yet, or
// no webhook at all, leaves the template's values.
func TestA16Sizes(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			nodes := localcluster.Nodes(1, 3)
			for i, cpu := range []string{"2", "8", "64"} {
				nodes[i].Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
			}
			c.addNodes(nodes...)
			sizes := `everynode.dev/resources: '{"main": {"cpu": "2%", "min": {"cpu": "50m"}, "max": {"cpu": "1"}}}'`
			c.apply(annotate(daemonSet("agent", "cpu: 10m", ""), "agent", sizes))
			running, want := int32(3), "map[node-1:50m node-2:160m node-3:1]"
			sized := func(ctx context.Context) error {
				if err := c.complete(ctx, "default", "agent", running); err != nil {
					return err
				}
				requests, err := c.cpuRequests(ctx, "agent")
				if err == nil && fmt.Sprint(requests) != want {
					err = fmt.Errorf("requests are %v, want %s", requests, want)
				}
				return err
			}
			c.eventually(30*time.Second, "each pod has the size of its node", sized)

			// The controller makes its pod as soon as there is a node: we may not have heard of it.
			large := localcluster.Nodes(4, 1)
			large[0].Capacity = nodes[2].Capacity
			c.addNodes(large...)
			running, want = 4, "map[node-1:50m node-2:160m node-3:1 node-4:1]"
			c.eventually(30*time.Second, "and that of a new node", sized)

			before := c.boundUIDs("agent")
			c.kubectl("delete", "pod", "-l", "app=agent", "--wait=false")
			c.eventually(30*time.Second, "so do their successors", func(ctx context.Context) error {
				if len(c.gone("agent", before)) < 4 {
					return errors.New("not all pods have been replaced")
				}
				return sized(ctx)
			})
			before = c.boundUIDs("agent")
			c.kubectl("rollout", "restart", "daemonset/agent")
			c.kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
			c.eventually(30*time.Second, "and those of a rollout", func(ctx context.Context) error {
				if len(c.gone("agent", before)) < 4 {
					return errors.New("not all pods have been replaced")
				}
				return sized(ctx)
			})

			c.Process(localcluster.EverynodeWebhook).Kill()
			c.kubectl("delete", "pod", "-l", "app=agent", "--wait=false")
			want = "map[node-1:10m node-2:10m node-3:10m node-4:10m]"
			c.eventually(30*time.Second, "without the webhook pods have the template's size", sized)
		})
	}
}

// What is held for a missing pod is the share of the node that it will ask for.
func TestHeldRoomFollowsSizes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.apply(annotate(daemonSet("agent", "cpu: 10m", ""), "agent", `everynode.dev/resources: '{"main": {"cpu": "50%"}}'`) +
		deployment("web", 4, "cpu: '1'"))
	c.eventually(20*time.Second, "the web pods wait for a node", c.allTried("web", 4, 0, "no nodes available"))
	resume := c.openNodeWithoutControllers()
	c.eventually(20*time.Second, "two cores of four are held", c.allTried("web", 4, 2, "node(s) had cpu held for DaemonSet pods"))
	resume()
	c.eventually(30*time.Second, "the daemon pod runs", c.running("agent", 1))
	if evicted := c.evictions(); len(evicted) > 0 {
		t.Errorf("evicted: %v", evicted)
	}
}

// A17: a policy's priority class, scheduler and tolerations reach the pods, with the
// values that belong to them; its annotations and template changes reach the DaemonSet.
// A new file counts at once, one that is not valid does not.
func TestA17Policies(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := newPolicyFile(t, `
  - name: agents
    match: {namespaces: [default], selector: {matchLabels: {tier: agents}}}
    annotations: {everynode.dev/gate: "true"}
    pod:
      priorityClassName: system-node-critical
      tolerations: [{key: for-pods, operator: Exists}]
    daemonSet:
      tolerations: [{key: dedicated, operator: Exists}]
`)
			c := newCluster(t, file.used)
			// Without it the webhook does not set a system class outside of kube-system.
			c.apply(`
apiVersion: v1
kind: ResourceQuota
metadata: {name: system-classes}
spec:
  hard: {pods: "100"}
  scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [system-node-critical]}]}
`)
			nodes := localcluster.Nodes(1, 2)
			nodes[1].Taints = []corev1.Taint{{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}}
			c.addNodes(nodes...)
			labelled := func(name string) string {
				return strings.Replace(daemonSet(name, "", ""), "metadata: {name: "+name+"}", "metadata: {name: "+name+", labels: {tier: agents}}", 1)
			}
			c.apply(priorityClasses + labelled("agent") + daemonSet("other", "", ""))
			c.eventually(30*time.Second, "the template's toleration brings pods to the tainted node", func(ctx context.Context) error {
				return c.runsOn(ctx, app("agent"), "node-1", "node-2")
			})
			c.eventually(30*time.Second, "another DaemonSet is left alone", func(ctx context.Context) error { return c.runsOn(ctx, app("other"), "node-1") })
			pods, err := c.pods(t.Context(), app("agent"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range pods {
				spec := &pods[i].Spec
				if spec.PriorityClassName != "system-node-critical" || *spec.Priority != 2000001000 {
					t.Errorf("pod %s has class %q, priority %d", pods[i].Name, spec.PriorityClassName, *spec.Priority)
				}
				if !slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == "for-pods" }) {
					t.Errorf("pod %s has tolerations %v", pods[i].Name, spec.Tolerations)
				}
			}
			if gate := c.kubectl("get", "daemonset", "agent", "-o", `jsonpath={.metadata.annotations.everynode\.dev/gate}`); gate != "true" {
				t.Errorf("the DaemonSet's gate is %q", gate)
			}

			valid := func(want string) func(context.Context) error {
				return func(ctx context.Context) error {
					metrics, err := c.Get(ctx, localcluster.EverynodeWebhook, "/metrics")
					if err == nil && !strings.Contains(metrics, "\neverynode_webhook_config_valid "+want+"\n") {
						err = fmt.Errorf("everynode_webhook_config_valid is not %s", want)
					}
					return err
				}
			}
			reload := func(policies string) {
				t.Helper()
				// A file that is not valid comes first, so that it shows when the next one is read.
				file.write(t, "  - pod: {priorityClassName: middle}")
				c.eventually(20*time.Second, "a file that is not valid is noticed", valid("0"))
				if policies != "" {
					file.write(t, policies)
					c.eventually(20*time.Second, "a valid file is read", valid("1"))
				}
			}
			reload("")
			c.apply(labelled("second"))
			c.eventually(30*time.Second, "the policies before are kept", c.hasPriority("second", 2000001000))
			reload("  - {name: all, pod: {priorityClassName: middle}}")
			c.apply(labelled("third"))
			c.eventually(30*time.Second, "a new policy counts", c.hasPriority("third", 1000))
			reload("  - {name: all, pod: {priorityClassName: unheard-of}}")
			c.apply(labelled("fourth"))
			c.eventually(30*time.Second, "a class that does not exist keeps no pod away", c.hasPriority("fourth", 0))
		})
	}
}

// hasPriority checks that the pods of an app run, all with that priority.
func (c *cluster) hasPriority(name string, want int32) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := c.pods(ctx, app(name))
		if err != nil {
			return err
		}
		if len(bound(pods)) == 0 {
			return fmt.Errorf("no pod of %s runs", name)
		}
		for i := range pods {
			if got := *pods[i].Spec.Priority; got != want {
				return fmt.Errorf("pod %s has priority %d, want %d", pods[i].Name, got, want)
			}
		}
		return nil
	}
}

// Other admission that has a say in what we change: nothing we do has a pod refused.
func TestAdmissionPlugins(t *testing.T) {
	t.Parallel()
	file := newPolicyFile(t, `  - {name: all, pod: {tolerations: [{key: added, operator: Exists}]}, daemonSet: {tolerations: [{key: widening, operator: Exists}]}}`)
	c := newCluster(t, func(o *localcluster.Options) {
		file.used(o)
		o.Args[localcluster.APIServer] = []string{"--enable-admission-plugins=PodTolerationRestriction"}
	})
	c.addNodes(localcluster.Nodes(1, 2)...)
	// LimitRanger gives containers requests and limits before we see them.
	c.apply(`
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, defaultRequest: {cpu: 50m}, default: {cpu: 100m}, max: {cpu: "1"}, maxLimitRequestRatio: {cpu: "2"}}]}
`)
	sized := func(name string) string {
		return annotate(daemonSet(name, "", ""), name, `everynode.dev/resources: '{"main": {"cpu": "10%"}}'`)
	}
	c.apply(sized("limited"))
	c.eventually(30*time.Second, "the limit follows the request", func(ctx context.Context) error {
		if err := c.complete(ctx, "default", "limited", 2); err != nil {
			return err
		}
		pods, err := c.pods(ctx, app("limited"))
		if err != nil {
			return err
		}
		for i := range pods {
			if r := pods[i].Spec.Containers[0].Resources; r.Requests.Cpu().String() != "400m" || r.Limits.Cpu().String() != "800m" {
				return fmt.Errorf("pod %s has %v", pods[i].Name, r)
			}
		}
		return nil
	})
	c.kubectl("delete", "limitrange", "limits")
	c.apply(sized("free"))
	c.eventually(30*time.Second, "without a LimitRange there is no limit", func(ctx context.Context) error {
		requests, err := c.cpuRequests(ctx, "free")
		if err == nil && fmt.Sprint(requests) != "map[node-1:400m node-2:400m]" {
			err = fmt.Errorf("requests are %v", requests)
		}
		return err
	})

	c.apply(daemonSet("tolerant", "", ""))
	c.eventually(30*time.Second, "the policy's tolerations are added", c.tolerates("tolerant", true))
	// What the DaemonSet controller adds itself has to be allowed.
	c.allowTolerations(whitelisted...)
	c.apply(daemonSet("restricted", "", ""))
	c.eventually(30*time.Second, "where they are not allowed they are left out", c.tolerates("restricted", false))
}

// A quota counts what pods ask for on their nodes, and whoever asks why a DaemonSet has
// no pods is told of it.
func TestQuotaCountsSizes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.addNodes(localcluster.Nodes(1, 2)...)
	c.kubectl("create", "quota", "compute", "--hard=requests.cpu=1")
	used := func(want string) func(context.Context) error {
		return func(ctx context.Context) error {
			quota, err := c.Client.CoreV1().ResourceQuotas("default").Get(ctx, "compute", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if amount, known := quota.Status.Used[corev1.ResourceRequestsCPU]; !known || amount.String() != want {
				return fmt.Errorf("%s are used, want %s", amount.String(), want)
			}
			return nil
		}
	}
	c.eventually(20*time.Second, "the quota is at work", used("0"))
	sized := func(name, share string) string {
		// Without a request in the template the quota would let no pod in.
		return annotate(daemonSet(name, "", ""), name, `everynode.dev/resources: '{"main": {"cpu": "`+share+`"}}'`)
	}
	c.apply(sized("modest", "10%"))
	c.eventually(30*time.Second, "both pods run", func(ctx context.Context) error { return c.complete(ctx, "default", "modest", 2) })
	c.eventually(20*time.Second, "they use 10 % of two nodes of four cores", used("800m"))
	c.apply(sized("greedy", "20%"))
	c.eventually(30*time.Second, "the quota keeps out what is beyond it", func(context.Context) error {
		output, err := c.everynode("explain", "ds/greedy")
		if want := "used requests.cpu=800m, asked for requests.cpu=800m"; err == nil && !strings.Contains(strings.Join(strings.Fields(output), " "), want) {
			err = fmt.Errorf("it should say %q:\n%s", want, output)
		}
		return err
	})
}

// tolerates checks that the two pods of an app run with or without the tolerations that
// the policy adds to them and to their template.
func (c *cluster) tolerates(name string, want bool) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := c.running(name, 2)(ctx); err != nil {
			return err
		}
		pods, err := c.pods(ctx, app(name))
		if err != nil {
			return err
		}
		for i := range pods {
			for _, key := range []string{"added", "widening"} {
				if got := slices.ContainsFunc(pods[i].Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == key }); got != want {
					return fmt.Errorf("pod %s has the toleration of %s: %v, want %v", pods[i].Name, key, got, want)
				}
			}
		}
		return nil
	}
}

// T9, A10: a DaemonSet that can never work is refused with what to write instead, and
// what will hurt is a warning. What was there before can still be changed.
func TestA10Validation(t *testing.T) {
	t.Parallel()
	for name, newCluster := range companies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nil)
			surging := strings.Replace(daemonSet("surging", "", ""), "image:", "ports: [{containerPort: 80, hostPort: 54323}], image:", 1)
			surging = strings.Replace(surging, "  template:", "  updateStrategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 0}}\n  template:", 1)
			_, err := c.createDaemonSet(surging)
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "54323") || !strings.Contains(err.Error(), "maxSurge") {
				t.Errorf("a host port that surges: %v", err)
			}
			_, err = c.createDaemonSet(annotate(daemonSet("misspelt", "", ""), "misspelt", "everynode.dev/scheduling: Direct"))
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.annotations[everynode.dev/scheduling]") {
				t.Errorf("a misspelt annotation: %v", err)
			}
			said, err := c.createDaemonSet(daemonSet("careless", "", ""))
			if err != nil {
				t.Fatal(err)
			}
			for _, rule := range []string{"no-requests", "no-memory-limit", "no-readiness-probe", "default-service-account", "no-priority-class"} {
				if !slices.ContainsFunc(said, func(text string) bool { return strings.Contains(text, rule) }) {
					t.Errorf("nobody was warned of %s: %q", rule, said)
				}
			}

			validation := "validatingwebhookconfiguration/everynode"
			saved := c.kubectl("get", validation, "-o", "yaml")
			c.kubectl("delete", validation)
			if _, err := c.createDaemonSet(surging); err != nil {
				t.Fatalf("without the validation: %v", err)
			}
			c.apply(saved)
			c.kubectl("label", "daemonset", "surging", "changed=yes")
		})
	}
}
