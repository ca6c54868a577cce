// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/localcluster"
)

// inEveryRandomCluster is created first: a namespace whose quota refuses all pods, and the
// LimitRange and RuntimeClass that admission applies to pods.
const inEveryRandomCluster = priorityClasses + `
apiVersion: v1
kind: Namespace
metadata: {name: refused}
---
apiVersion: v1
kind: ResourceQuota
metadata: {namespace: refused, name: pods}
spec: {hard: {pods: "0"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, defaultRequest: {cpu: 300m, memory: 256Mi}}]}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: sandbox}
handler: sandbox
overhead: {podFixed: {cpu: 200m, memory: 64Mi}}
scheduling: {nodeSelector: {disktype: ssd}}
---
`

func pick[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

func drawNode(random *rand.Rand, number int) localcluster.Node {
	node := localcluster.Nodes(number, 1)[0]
	node.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(pick(random, "2", "4", "8")),
		corev1.ResourceMemory: resource.MustParse(pick(random, "4Gi", "8Gi")),
		corev1.ResourcePods:   resource.MustParse(pick(random, "6", "12", "30")),
	}
	node.Labels["disktype"] = pick(random, "ssd", "tape")
	if random.IntN(4) == 0 {
		node.Taints = []corev1.Taint{{Key: "team", Value: "data", Effect: corev1.TaintEffectNoSchedule}}
	}
	return node
}

// drawSpec returns what daemon pods and ordinary pods have in common.
func drawSpec(random *rand.Rand) string {
	lines := []string{
		pick(random, "", "", "priorityClassName: low", "priorityClassName: middle"),
		pick(random, "", "", "nodeSelector: {disktype: ssd}", "nodeSelector: {topology.kubernetes.io/zone: us-east-1a}"),
		pick(random, "", "tolerations: [{key: team, operator: Exists}]"),
	}
	return strings.Join(lines, "\n      ")
}

func drawDaemonSet(random *rand.Rand, number int) string {
	requests := fmt.Sprintf("cpu: %dm, memory: %dMi", 100*(1+random.IntN(15)), 128*(1+random.IntN(10)))
	manifest := daemonSet(fmt.Sprintf("daemons-%d", number), requests, drawSpec(random))
	if random.IntN(4) == 0 {
		manifest = strings.Replace(manifest, "name: main,", "name: main, ports: [{containerPort: 9100, hostPort: 9100}],", 1)
	}
	return manifest
}

func drawDeployment(random *rand.Rand, number int) string {
	requests := fmt.Sprintf("cpu: %dm, memory: %dMi", 100*(1+random.IntN(10)), 128*random.IntN(8))
	manifest := deployment(fmt.Sprintf("web-%d", number), 1+random.IntN(15), requests)
	spec := drawSpec(random)
	if random.IntN(8) == 0 {
		spec = strings.Replace(spec, "priorityClassName: middle", "priorityClassName: high", 1)
	}
	return restrict(manifest, spec)
}

// oneIn says yes once in n times.
func oneIn(random *rand.Rand, n int) bool { return random.IntN(n) == 0 }

// drawSteps returns what comes to a random cluster, in any order.
func (c *cluster) drawSteps(random *rand.Rand) []func() {
	var steps []func()
	for i := range 2 + random.IntN(4) {
		steps = append(steps, c.drawNodeStep(random, i+1))
	}
	for i := range 2 + random.IntN(4) {
		manifest := drawDaemonSetKind(random, i)
		steps = append(steps, func() { c.apply(manifest) })
	}
	for i := range 2 + random.IntN(5) {
		manifest := drawDeploymentKind(random, i)
		steps = append(steps, func() { c.apply(manifest) })
	}
	random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	return steps
}

// drawNodeStep adds a node: sometimes a virtual one, one whose devices come later or one with
// a local volume; sometimes with pods that another scheduler or no scheduler has placed.
func (c *cluster) drawNodeStep(random *rand.Rand, number int) func() {
	node := drawNode(random, number)
	if devices := pick(random, "", "", "0", "4"); devices != "" {
		node.Capacity[device] = resource.MustParse(devices)
	}
	if oneIn(random, 8) {
		node.Labels[fargate] = "fargate"
	}
	var then []func()
	for _, drawn := range []struct {
		rare int
		step func()
	}{
		{3, func() { c.mirrorPod(node.Name) }},
		{3, func() { c.apply(localVolumes(node.Name)) }},
		{6, func() { c.stuckPod(node.Name) }},
		{6, func() {
			name := "other-" + node.Name
			c.apply(restrict(deployment(name, 1, "cpu: 200m"), otherScheduler))
			c.bind(name, node.Name)
		}},
	} {
		if oneIn(random, drawn.rare) {
			then = append(then, drawn.step)
		}
	}
	return func() {
		if err := c.AddNodes(c.t.Context(), node); err != nil {
			c.t.Fatal(err)
		}
		for _, step := range then {
			step()
		}
	}
}

// drawDaemonSetKind draws a DaemonSet, sometimes of a special kind. The first one's pods are
// never refused.
func drawDaemonSetKind(random *rand.Rand, number int) string {
	manifest := drawDaemonSet(random, number)
	switch random.IntN(10) {
	case 0:
		return daemonSet(fmt.Sprintf("daemons-%d", number), "", drawSpec(random))
	case 1:
		return restrict(manifest, "runtimeClassName: sandbox")
	case 2:
		if !strings.Contains(manifest, "hostPort") {
			manifest = strings.Replace(manifest, "spec:", "spec:\n  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", 1)
		}
	case 3:
		return strings.Replace(manifest, "requests: {", "limits: {"+device+": 1}, requests: {"+device+": 1, ", 1)
	case 4, 5:
		if number > 0 {
			return inNamespace(manifest, "refused")
		}
	}
	return manifest
}

// drawDeploymentKind draws a Deployment, or another kind of workload, some of whose pods
// must not be evicted.
func drawDeploymentKind(random *rand.Rand, number int) string {
	name, manifest := fmt.Sprintf("web-%d", number), drawDeployment(random, number)
	annotated := func(annotation string) string {
		return strings.Replace(manifest, "metadata: {labels: {app: "+name+"}}", "metadata: {labels: {app: "+name+"}, annotations: {"+annotation+"}}", 1)
	}
	switch random.IntN(12) {
	case 0:
		return annotated(pick(random, `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`, `karpenter.sh/do-not-disrupt: "true"`))
	case 1:
		return `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: ` + name + `}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: ` + name + `}}}
---
` + manifest
	case 2:
		return restrict(manifest, "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "+
			"[{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1]}]}]}}}")
	case 3, 4:
		return restrict(statefulSet(name, 1+random.IntN(3), "cpu: 400m"), drawSpec(random))
	case 5:
		return oneJob(name, fmt.Sprintf("cpu: %dm", 100*(1+random.IntN(10))))
	case 6:
		return barePod(name, fmt.Sprintf("cpu: %dm", 100*(1+random.IntN(10))), "")
	default:
		return manifest
	}
}

// oneJob returns the manifest of a Job that fails if its pod is evicted. In the local
// cluster, pods of Jobs end as soon as they have started: this one never starts.
func oneJob(name, requests string) string {
	job := strings.Replace(deployment(name, 1, requests), "apiVersion: apps/v1\nkind: Deployment", "apiVersion: batch/v1\nkind: Job", 1)
	job = strings.Replace(job, "replicas: 1\n  selector: {matchLabels: {app: "+name+"}}", "backoffLimit: 0", 1)
	job = strings.Replace(job, "metadata: {labels: {app: "+name+"}}",
		"metadata: {labels: {app: "+name+"}, annotations: {localcluster.everynode.dev/start-delay: 1h}}", 1)
	return restrict(job, "restartPolicy: Never")
}

// mirrorPod creates the mirror of a static pod, as the kubelet does.
func (c *cluster) mirrorPod(nodeName string) {
	c.t.Helper()
	node, err := c.Client.CoreV1().Nodes().Get(c.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "static-" + nodeName, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: nodeName},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(node, corev1.SchemeGroupVersion.WithKind("Node"))},
		},
		Spec: corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "main", Image: "example/static:1.0", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("300m")},
		}}}},
	}
	if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// stuckPod creates a pod that has been terminating for an hour.
func (c *cluster) stuckPod(node string) {
	c.t.Helper()
	name := "stuck-" + node
	c.apply(strings.Replace(barePod(name, "cpu: 300m", "nodeName: "+node), "labels:", "finalizers: [example.com/stuck], labels:", 1))
	c.terminatingForAnHour(name)
}

// drawChange returns something that happens to a settled cluster.
func (c *cluster) drawChange(random *rand.Rand) (what string, do func()) {
	switch random.IntN(8) {
	case 0:
		return "a DaemonSet is deleted", func() { c.kubectl("delete", "daemonset", "daemons-0", "--wait=false") }
	case 1:
		disk := pick(random, "ssd", "tape")
		return "a node's label changes", func() { c.kubectl("label", "node", "node-1", "--overwrite", "disktype="+disk) }
	case 2:
		return "DaemonSets are rolled out", func() { c.kubectl("rollout", "restart", "daemonset") }
	case 3:
		return "a DaemonSet becomes larger", func() { c.kubectl("set", "resources", "daemonset/daemons-0", "--requests=cpu=1600m,memory=1Gi") }
	case 4:
		return "devices come", func() {
			for _, node := range c.nodes(c.t.Context()) {
				c.setDevices(node.Name, 4)
			}
		}
	case 5:
		return "the quota is raised", func() {
			c.kubectl("patch", "resourcequota", "pods", "--namespace=refused", "--type=merge", `-p={"spec": {"hard": {"pods": "100"}}}`)
			// The DaemonSet controller waits longer after each failure, but not after a change.
			refused, err := c.Client.AppsV1().DaemonSets("refused").List(c.t.Context(), metav1.ListOptions{})
			if err != nil {
				c.t.Fatal(err)
			}
			for i := range refused.Items {
				c.kubectl("annotate", "daemonset", refused.Items[i].Name, "--namespace=refused", "example.com/quota=raised")
			}
		}
	case 6:
		return "a node is cordoned", func() { c.kubectl("cordon", "node-1") }
	default:
		step := c.drawNodeStep(random, 100)
		return "a node comes", step
	}
}

// nodes returns all nodes.
func (c *cluster) nodes(ctx context.Context) []corev1.Node {
	c.t.Helper()
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}
