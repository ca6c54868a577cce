// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // into legacyscheme
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // into legacyscheme
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/capabilities"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/lint"
)

// good is a DaemonSet that nothing is wrong with.
const good = `
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: agent
  namespace: logging
spec:
  selector:
    matchLabels:
      app: agent
  template:
    metadata:
      labels:
        app: agent
    spec:
      serviceAccountName: agent
      priorityClassName: daemons
      tolerations:
        - {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
      containers:
        - name: agent
          image: example/agent:1.0
          ports:
            - containerPort: 8080
          resources:
            requests: {cpu: 50m, memory: 50Mi}
            limits: {memory: 100Mi}
          readinessProbe:
            httpGet: {path: /ready, port: 8080}
          livenessProbe:
            httpGet: {path: /healthz, port: 8080}
            initialDelaySeconds: 10
`

func TestMain(m *testing.M) {
	// The flag --allow-privileged of the API server, for its validation.
	capabilities.Setup(true, 0)
	os.Exit(m.Run())
}

func decode(tb testing.TB, manifest string) *appsv1.DaemonSet {
	tb.Helper()
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(manifest), &ds); err != nil {
		tb.Fatal(err)
	}
	return &ds
}

// The builders below change a good DaemonSet.
type change = func(ds *appsv1.DaemonSet)

// all makes several changes.
func all(changes ...change) change {
	return func(ds *appsv1.DaemonSet) {
		for _, change := range changes {
			change(ds)
		}
	}
}

func annotated(key, value string) change {
	return func(ds *appsv1.DaemonSet) { metav1.SetMetaDataAnnotation(&ds.ObjectMeta, key, value) }
}

func podAnnotated(key, value string) change {
	return func(ds *appsv1.DaemonSet) { metav1.SetMetaDataAnnotation(&ds.Spec.Template.ObjectMeta, key, value) }
}

// pod changes the template's spec.
func pod(change func(spec *corev1.PodSpec)) change {
	return func(ds *appsv1.DaemonSet) { change(&ds.Spec.Template.Spec) }
}

// main changes the first container.
func main(change func(c *corev1.Container)) change {
	return pod(func(spec *corev1.PodSpec) { change(&spec.Containers[0]) })
}

func hostNetwork(spec *corev1.PodSpec) { spec.HostNetwork = true }

// another adds a second container, as good as the first one.
func another(ports ...corev1.ContainerPort) change {
	return pod(func(spec *corev1.PodSpec) {
		c := spec.Containers[0].DeepCopy()
		c.Name, c.Ports = "other", ports
		spec.Containers = append(spec.Containers, *c)
	})
}

// initContainer adds an init container, or a sidecar.
func initContainer(sidecar bool, change func(c *corev1.Container)) change {
	return pod(func(spec *corev1.PodSpec) {
		c := corev1.Container{Name: "init", Image: "example/init:1.0"}
		if sidecar {
			always := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
			c.Resources = spec.Containers[0].Resources
		}
		change(&c)
		spec.InitContainers = append(spec.InitContainers, c)
	})
}

// rolling sets the parameters of rolling updates.
func rolling(maxUnavailable, maxSurge string) change {
	return func(ds *appsv1.DaemonSet) {
		unavailable, surge := intstr.Parse(maxUnavailable), intstr.Parse(maxSurge)
		ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &unavailable, MaxSurge: &surge}
	}
}

func hostPort(port int32) change {
	return main(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: port, HostPort: port}} })
}

func selector(expressions ...metav1.LabelSelectorRequirement) change {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Selector.MatchExpressions = expressions }
}

func nodeTerms(terms ...corev1.NodeSelectorTerm) change {
	return pod(func(spec *corev1.PodSpec) {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	})
}

// term returns a term of requirements written as "key operator value value ...".
func term(requirements ...string) corev1.NodeSelectorTerm {
	var term corev1.NodeSelectorTerm
	for _, requirement := range requirements {
		words := strings.Fields(requirement)
		r := corev1.NodeSelectorRequirement{Key: words[0], Operator: corev1.NodeSelectorOperator(words[1]), Values: words[2:]}
		if r.Key == metav1.ObjectNameField {
			term.MatchFields = append(term.MatchFields, r)
		} else {
			term.MatchExpressions = append(term.MatchExpressions, r)
		}
	}
	return term
}

func antiAffinity(changes ...func(term *corev1.PodAffinityTerm)) change {
	return pod(func(spec *corev1.PodSpec) {
		term := corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agent"}}}
		for _, change := range changes {
			change(&term)
		}
		spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	})
}

func spread(when corev1.UnsatisfiableConstraintAction) change {
	return pod(func(spec *corev1.PodSpec) {
		spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: when, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agent"}},
		}}
	})
}

func tolerates(tolerations ...corev1.Toleration) change {
	return pod(func(spec *corev1.PodSpec) { spec.Tolerations = tolerations })
}

// mounts mounts a folder of the host.
func mounts(path string, readOnly bool) change {
	return pod(func(spec *corev1.PodSpec) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}})
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "host", MountPath: "/host", ReadOnly: readOnly})
	})
}

// hostFolder adds a volume of the host alone.
func hostFolder(path string) change {
	return pod(func(spec *corev1.PodSpec) {
		name := fmt.Sprintf("host-%d", len(spec.Volumes))
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}})
	})
}

// mountsForHost mounts a folder of the host, and passes on what is mounted there.
func mountsForHost(path string) change {
	return all(mounts(path, false), main(func(c *corev1.Container) {
		isPrivileged(c)
		c.VolumeMounts[0].MountPropagation = new(corev1.MountPropagationBidirectional)
	}))
}

// beside requires pods of app web in the same topology.
func beside(topology string) change {
	return pod(func(spec *corev1.PodSpec) {
		spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: topology, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		}}}
	})
}

func isPrivileged(c *corev1.Container) {
	yes := true
	c.SecurityContext = &corev1.SecurityContext{Privileged: &yes}
}

func image(name string) change {
	return main(func(c *corev1.Container) { c.Image = name })
}

func resources(requests, limits corev1.ResourceList) change {
	return main(func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	})
}

var (
	cpu    = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}
	memory = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("50Mi")}
)

// tests has, for every rule, DaemonSets that it is silent on and others with what it
// says, each as "field: message".
var tests = map[string]struct {
	rule   string
	change change
	want   []string
}{
	"a good DaemonSet": {"", all(), nil},

	"surge with a host port": {"surge-host-port", all(rolling("0", "2"), hostPort(54323)), []string{
		"spec.updateStrategy.rollingUpdate.maxSurge: an update starts the new pod beside the old one, and both want host port 54323 for container agent: it never ends",
	}},
	"surge on the host network": {"surge-host-port", all(rolling("0", "10%"), pod(hostNetwork)), []string{
		"spec.updateStrategy.rollingUpdate.maxSurge: an update starts the new pod beside the old one, and both want host port 8080 for container agent: it never ends",
	}},
	"surge with a sidecar's host port": {"surge-host-port", all(rolling("0", "1"), initContainer(true, func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	})), []string{
		"spec.updateStrategy.rollingUpdate.maxSurge: an update starts the new pod beside the old one, and both want host port 80 for container init: it never ends",
	}},
	"surge with a host port of an init container, which has ended": {"surge-host-port", all(rolling("0", "1"), initContainer(false, func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	})), nil},
	"surge without a host port":                {"surge-host-port", rolling("0", "1"), nil},
	"a host port without surge":                {"surge-host-port", all(rolling("1", "0%"), hostPort(80)), nil},
	"the host network without surge":           {"surge-host-port", pod(hostNetwork), nil},
	"a surge that OnDelete does not look at":   {"surge-host-port", all(rolling("0", "1"), hostPort(80), ignoring("on-delete"), strategy("OnDelete")), nil},
	"surge on the host network without a port": {"surge-host-port", all(rolling("0", "1"), pod(hostNetwork), main(func(c *corev1.Container) { c.Ports = nil })), nil},

	"surge with an anti-affinity to itself": {"surge-anti-affinity", all(rolling("0", "1"), antiAffinity()), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: an update starts the new pod beside the old one, but this keeps two pods of the DaemonSet off one node: it never ends",
	}},
	"surge with an anti-affinity to itself in its namespace by name": {"surge-anti-affinity", all(rolling("0", "1"), antiAffinity(func(term *corev1.PodAffinityTerm) {
		term.Namespaces = []string{"logging", "other"}
	})), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: an update starts the new pod beside the old one, but this keeps two pods of the DaemonSet off one node: it never ends",
	}},
	"surge with an anti-affinity to the same revision": {"surge-anti-affinity", all(rolling("0", "1"), antiAffinity(func(term *corev1.PodAffinityTerm) {
		term.MatchLabelKeys = []string{"controller-revision-hash"}
	})), nil},
	"an anti-affinity to itself without surge":                         {"surge-anti-affinity", antiAffinity(), nil},
	"surge with an anti-affinity to itself that no scheduler looks at": {"surge-anti-affinity", all(rolling("0", "1"), antiAffinity(), annotated(daemonset.SchedulingAnnotation, "direct")), nil},

	"a port twice on the host network": {"host-port-twice", all(pod(hostNetwork), another(corev1.ContainerPort{ContainerPort: 8080})), []string{
		"spec.template.spec.containers[1].ports[0]: on the host network port 8080/TCP can be declared once only: the API server refuses every pod",
	}},
	"a port twice on the host network, once with its host port": {"host-port-twice", all(pod(hostNetwork), hostPort(8080), another(corev1.ContainerPort{ContainerPort: 8080, Protocol: corev1.ProtocolTCP})), []string{
		"spec.template.spec.containers[1].ports[0]: on the host network port 8080/TCP can be declared once only: the API server refuses every pod",
	}},
	"a port twice in an init container on the host network": {"host-port-twice", all(pod(hostNetwork), initContainer(false, func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 80}}
	})), []string{
		"spec.template.spec.initContainers[0].ports[1]: on the host network port 80/TCP can be declared once only: the API server refuses every pod",
	}},
	"a port twice off the host network":                 {"host-port-twice", another(corev1.ContainerPort{ContainerPort: 8080}), nil},
	"a port for two protocols on the host network":      {"host-port-twice", all(pod(hostNetwork), another(corev1.ContainerPort{ContainerPort: 8080, Protocol: corev1.ProtocolUDP})), nil},
	"two ports on the host network":                     {"host-port-twice", all(pod(hostNetwork), another(corev1.ContainerPort{ContainerPort: 8081})), nil},
	"a port of an init container and of a container":    {"host-port-twice", all(pod(hostNetwork), initContainer(false, func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 8080}} })), nil},
	"a port on two addresses of the node, both of them": {"host-port-twice", all(pod(hostNetwork), another(corev1.ContainerPort{ContainerPort: 8080, HostPort: 8080, HostIP: "10.0.0.1"})), nil},

	"an affinity that asks for two values at once": {"node-affinity-impossible", nodeTerms(term("zone In a", "zone In b")), []string{
		impossible + "no value of label zone meets all that is required of it",
	}},
	"an affinity that asks for a value and excludes it": {"node-affinity-impossible", nodeTerms(term("disk In ssd", "disk NotIn ssd hdd")), []string{
		impossible + "no value of label disk meets all that is required of it",
	}},
	"an affinity for a label and its absence": {"node-affinity-impossible", nodeTerms(term("disk Exists", "disk DoesNotExist")), []string{
		impossible + "no value of label disk meets all that is required of it",
	}},
	"an affinity for a number between two neighbours": {"node-affinity-impossible", nodeTerms(term("cores Gt 4", "cores Lt 5")), []string{
		impossible + "no value of label cores meets all that is required of it",
	}},
	"an affinity that compares with no number": {"node-affinity-impossible", nodeTerms(term("cores Gt four")), []string{
		impossible + "no value of label cores meets all that is required of it",
	}},
	"an affinity that contradicts the node selector": {"node-affinity-impossible", all(nodeTerms(term("disk In hdd")), pod(func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{"disk": "ssd"}
	})), []string{
		impossible + "no value of label disk meets all that is required of it",
	}},
	"an affinity for two nodes at once": {"node-affinity-impossible", nodeTerms(term("metadata.name In a", "metadata.name In b")), []string{
		impossible + "no node name meets all that is required of it",
	}},
	"an affinity of empty terms": {"node-affinity-impossible", nodeTerms(term(), term()), []string{
		impossible + "an empty term matches nothing",
	}},
	"an affinity for one of two values":                   {"node-affinity-impossible", nodeTerms(term("zone In a b", "zone NotIn b")), nil},
	"an affinity for one of two nodes":                    {"node-affinity-impossible", nodeTerms(term("metadata.name In a"), term("metadata.name In b")), nil},
	"an affinity for nodes without a label, or not of it": {"node-affinity-impossible", nodeTerms(term("disk DoesNotExist", "disk NotIn ssd")), nil},
	"an affinity for the number between two others":       {"node-affinity-impossible", nodeTerms(term("cores Gt 4", "cores Lt 6")), nil},
	"an affinity that repeats the node selector": {"node-affinity-impossible", all(nodeTerms(term("disk In ssd hdd")), pod(func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{"disk": "ssd", "zone": "a"}
	})), nil},

	"one of several terms is empty": {"dead-affinity-term", nodeTerms(term("disk In ssd"), term()), []string{
		"spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[1]: this alternative adds no node: an empty term matches nothing",
	}},
	"all of several terms can be met": {"dead-affinity-term", nodeTerms(term("disk In ssd"), term("disk DoesNotExist")), nil},

	"a selector on the revision": {"selector-on-revision", func(ds *appsv1.DaemonSet) {
		ds.Spec.Selector.MatchLabels["controller-revision-hash"] = "x"
		ds.Spec.Template.Labels["controller-revision-hash"] = "x"
	}, []string{
		"spec.selector.matchLabels[controller-revision-hash]: the controller sets label controller-revision-hash on pods itself: they don't match, and it creates more of them without end",
	}},
	"a selector on pods without a generation": {"selector-on-revision", selector(metav1.LabelSelectorRequirement{Key: "pod-template-generation", Operator: metav1.LabelSelectorOpDoesNotExist}), []string{
		"spec.selector.matchExpressions[0]: the controller sets label pod-template-generation on pods itself: they don't match, and it creates more of them without end",
	}},
	"a selector that any revision meets": {"selector-on-revision", selector(metav1.LabelSelectorRequirement{Key: "controller-revision-hash", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}), nil},

	"a misspelt gate": {"annotation-value", annotated("everynode.dev/gate", "True"), []string{
		`metadata.annotations[everynode.dev/gate]: it has no effect: "True" is not among the values true, false`,
	}},
	"a misspelt hold": {"annotation-value", annotated("everynode.dev/hold", "no"), []string{
		`metadata.annotations[everynode.dev/hold]: it has no effect: "no" is not among the values true, false`,
	}},
	"an empty preempt": {"annotation-value", annotated("everynode.dev/preempt", ""), []string{
		`metadata.annotations[everynode.dev/preempt]: it has no effect: "" is not among the values true, false`,
	}},
	"a misspelt way of scheduling": {"annotation-value", annotated("everynode.dev/scheduling", "Direct"), []string{
		`metadata.annotations[everynode.dev/scheduling]: it has no effect: "Direct" is not among the values scheduler, direct, auto`,
	}},
	"a requirement without a namespace": {"annotation-value", podAnnotated("everynode.dev/requires", "cilium"), []string{
		`spec.template.metadata.annotations[everynode.dev/requires]: no pod starts: "cilium" is not the namespace/name of a DaemonSet`,
	}},
	"a requirement of itself": {"annotation-value", podAnnotated("everynode.dev/requires", "kube-system/cilium, logging/agent"), []string{
		"spec.template.metadata.annotations[everynode.dev/requires]: no pod starts: they wait for their own DaemonSet to be Ready",
	}},
	"a size that is no percentage": {"annotation-value", annotated("everynode.dev/resources", "{\n  \"agent\": {\"cpu\": \"2\"}\n}"), []string{
		`metadata.annotations[everynode.dev/resources]: it has no effect: parsing { "agent": {"cpu": "2"} }: "2" is not a percentage from 0.001% to 100%, such as "1.5%"`,
	}},
	"annotations with values that mean something": {"annotation-value", all(annotated("everynode.dev/gate", "true"), annotated("everynode.dev/hold", "false"),
		annotated("everynode.dev/preempt", "false"), annotated("everynode.dev/scheduling", "scheduler"), podAnnotated("everynode.dev/requires", "kube-system/cilium,logging/other")), nil},

	"a misspelt annotation": {"annotation-unknown", all(annotated("everynode.dev/Gates", "true"), podAnnotated("everynode.dev/require", "a/b")), []string{
		"metadata.annotations[everynode.dev/Gates]: nobody reads it; the nearest name is everynode.dev/gate",
		"spec.template.metadata.annotations[everynode.dev/require]: nobody reads it; the nearest name is everynode.dev/requires",
	}},
	"an annotation like none":      {"annotation-unknown", annotated("everynode.dev/favourite-colour", "blue"), []string{"metadata.annotations[everynode.dev/favourite-colour]: nobody reads it"}},
	"annotations of somebody else": {"annotation-unknown", all(annotated("example.com/gates", "true"), podAnnotated("localcluster.everynode.dev/ready", "false")), nil},

	"a gate on the pods": {"annotation-misplaced", podAnnotated("everynode.dev/gate", "true"), []string{
		"spec.template.metadata.annotations[everynode.dev/gate]: nobody reads it on pods: it belongs in the DaemonSet's own metadata.annotations",
	}},
	"requirements on the DaemonSet": {"annotation-misplaced", annotated("everynode.dev/requires", "a/b"), []string{
		"metadata.annotations[everynode.dev/requires]: nobody reads it on a DaemonSet: it belongs in spec.template.metadata.annotations",
	}},
	"annotations in their places": {"annotation-misplaced", all(annotated("everynode.dev/gate", "true"), podAnnotated("everynode.dev/requires", "a/b")), nil},

	"an ignored rule that does not exist": {"ignored-unknown", ignoring("no-prioritty-class,nonsense"), []string{
		`metadata.annotations[everynode.dev/lint-ignore]: there is no rule "no-prioritty-class"; the nearest name is no-priority-class`,
		`metadata.annotations[everynode.dev/lint-ignore]: there is no rule "nonsense"`,
	}},
	"an ignored error": {"ignored-unknown", all(ignoring("annotation-value"), annotated("everynode.dev/hold", "no")), []string{
		`metadata.annotations[everynode.dev/hold]: it has no effect: "no" is not among the values true, false`,
		"metadata.annotations[everynode.dev/lint-ignore]: rule annotation-value is about what can never work, so it cannot be ignored",
	}},
	"ignored rules": {"ignored-unknown", all(ignoring(" no-priority-class, privileged,"), main(isPrivileged), pod(func(spec *corev1.PodSpec) { spec.PriorityClassName = "" })), nil},

	"a size for a container that does not exist": {"size-without-effect", annotated("everynode.dev/resources", `{"agent": {"cpu": "2%"}, "agnet": {"cpu": "2%"}}`), []string{
		`metadata.annotations[everynode.dev/resources]: it sizes container "agnet", which there is none of`,
	}},
	"a size where the pod as a whole has resources": {"size-without-effect", all(annotated("everynode.dev/resources", `{"agent": {"cpu": "2%"}}`), pod(func(spec *corev1.PodSpec) {
		spec.Resources = &corev1.ResourceRequirements{Limits: memoryLimit("1Gi")}
	})), []string{
		"metadata.annotations[everynode.dev/resources]: no container is sized, because the pod as a whole has resources",
	}},
	"sizes for a container and an init container": {"size-without-effect", all(annotated("everynode.dev/resources", `{"agent": {"cpu": "2%"}, "init": {"cpu": "1%"}}`), initContainer(false, func(*corev1.Container) {})), nil},

	"a container whose CPU is sized after its node": {"no-requests", all(annotated("everynode.dev/resources", `{"agent": {"cpu": "2%"}}`), resources(nil, memory)), nil},
	"a container whose memory is sized after its node": {"no-requests", all(annotated("everynode.dev/resources", `{"agent": {"memory": "2%"}}`), resources(nil, nil)), []string{
		"spec.template.spec.containers[0].resources.requests.cpu: container agent requests no CPU: on a busy node it gets what others leave",
		"spec.template.spec.containers[0].resources.limits.memory: a leak in container agent takes the memory of every node",
	}},
	"a container without requests": {"no-requests", resources(nil, memoryLimit("0")), []string{
		"spec.template.spec.containers[0].resources.requests: container agent requests neither CPU nor memory: no room is kept for it, and it gets the CPU that others leave",
		"spec.template.spec.containers[0].resources.limits.memory: a leak in container agent takes the memory of every node",
	}},
	"a container without a CPU request": {"no-requests", resources(memory, memory), []string{
		"spec.template.spec.containers[0].resources.requests.cpu: container agent requests no CPU: on a busy node it gets what others leave",
	}},
	"a container with a memory request of nothing": {"no-requests", resources(corev1.ResourceList{corev1.ResourceCPU: cpu[corev1.ResourceCPU], corev1.ResourceMemory: resource.MustParse("0")}, memory), []string{
		"spec.template.spec.containers[0].resources.requests.memory: container agent requests no memory: no room is kept for it, and the node can run out",
	}},
	"a sidecar without requests": {"no-requests", initContainer(true, func(c *corev1.Container) { c.Resources.Requests = nil; c.Resources.Limits = memory }), []string{
		"spec.template.spec.initContainers[0].resources.requests.cpu: container init requests no CPU: on a busy node it gets what others leave",
	}},
	"an init container without requests":     {"no-requests", initContainer(false, func(*corev1.Container) {}), nil},
	"a limit counts where a request is left": {"no-requests", resources(cpu, memory), nil},
	"requests of the pod as a whole": {"no-requests", all(resources(nil, nil), pod(func(spec *corev1.PodSpec) {
		spec.Resources = &corev1.ResourceRequirements{Requests: cpu, Limits: memory}
	})), nil},

	"a container without a memory limit": {"no-memory-limit", main(func(c *corev1.Container) { c.Resources.Limits = nil }), []string{
		"spec.template.spec.containers[0].resources.limits.memory: a leak in container agent takes the memory of every node",
	}},
	"a memory limit without a CPU limit": {"no-memory-limit", all(), nil},

	"no readiness probe": {"no-readiness-probe", main(func(c *corev1.Container) { c.ReadinessProbe = nil }), []string{
		"spec.template.spec.containers[0].readinessProbe: pods are Ready as soon as they run: a rolling update carries a broken agent to every node",
	}},
	"no readiness probe in any of two containers": {"no-readiness-probe", all(main(func(c *corev1.Container) { c.ReadinessProbe = nil }), another()), []string{
		"spec.template.spec.containers: pods are Ready as soon as they run: a rolling update carries a broken agent to every node",
	}},
	"a readiness probe in one of two containers": {"no-readiness-probe", all(another(), main(func(c *corev1.Container) { c.ReadinessProbe = nil })), nil},
	"a readiness gate instead of a probe": {"no-readiness-probe", all(main(func(c *corev1.Container) { c.ReadinessProbe = nil }), pod(func(spec *corev1.PodSpec) {
		spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/ready"}}
	})), nil},

	"a gate without a readiness probe": {"gate-without-readiness-probe", all(annotated("everynode.dev/gate", "true"), main(func(c *corev1.Container) { c.ReadinessProbe = nil })), []string{
		"spec.template.spec.containers[0].readinessProbe: pods are Ready as soon as they run, so the gate opens before the agent works",
	}},
	"a gate with a readiness probe": {"gate-without-readiness-probe", annotated("everynode.dev/gate", "true"), nil},

	"a liveness probe with the default period and threshold": {"eager-liveness-probe", main(func(c *corev1.Container) { c.LivenessProbe.InitialDelaySeconds = 0 }), nil},
	"a liveness probe after a delay that is too short": {"eager-liveness-probe", main(func(c *corev1.Container) {
		c.LivenessProbe.InitialDelaySeconds, c.LivenessProbe.PeriodSeconds = 2, 5
	}), []string{
		"spec.template.spec.containers[0].livenessProbe.initialDelaySeconds: container agent is restarted if it does not answer 12 s after its start",
	}},
	"a liveness probe of its own period": {"eager-liveness-probe", main(func(c *corev1.Container) {
		c.LivenessProbe.InitialDelaySeconds, c.LivenessProbe.PeriodSeconds, c.LivenessProbe.FailureThreshold = 0, 5, 2
	}), []string{
		"spec.template.spec.containers[0].livenessProbe.initialDelaySeconds: container agent is restarted if it does not answer 5 s after its start",
	}},
	"a liveness probe after a startup probe": {"eager-liveness-probe", main(func(c *corev1.Container) {
		c.LivenessProbe.InitialDelaySeconds, c.StartupProbe = 0, c.ReadinessProbe
	}), nil},
	"a patient liveness probe": {"eager-liveness-probe", main(func(c *corev1.Container) {
		c.LivenessProbe.InitialDelaySeconds, c.LivenessProbe.FailureThreshold = 0, 10
	}), nil},
	"no liveness probe at all": {"eager-liveness-probe", main(func(c *corev1.Container) { c.LivenessProbe = nil }), nil},

	"an image without a tag": {"floating-image", image("localhost:5000/agent"), []string{
		"spec.template.spec.containers[0].image: localhost:5000/agent is another image on another day: nodes differ, and no update can be undone",
	}},
	"the latest image, of an init container": {"floating-image", initContainer(false, func(c *corev1.Container) { c.Image = "agent:latest" }), []string{
		"spec.template.spec.initContainers[0].image: agent:latest is another image on another day: nodes differ, and no update can be undone",
	}},
	"an image with a tag, from a registry with a port": {"floating-image", image("localhost:5000/agent:1.0"), nil},
	"an image with a digest":                           {"floating-image", image("agent@sha256:" + strings.Repeat("0", 64)), nil},

	"an image that an operator fills in": {"floating-image", image("FILLED BY THE OPERATOR"), nil},

	"a probe on a port that is not there": {"probe-port", main(func(c *corev1.Container) { c.ReadinessProbe.HTTPGet.Port = intstr.FromString("metrics") }), []string{
		`spec.template.spec.containers[0].readinessProbe.httpGet.port: container agent has no port of the name "metrics", so the probe can only fail`,
	}},
	"a TCP probe on a port of another container": {"probe-port", all(another(corev1.ContainerPort{Name: "metrics", ContainerPort: 9100}), main(func(c *corev1.Container) {
		c.LivenessProbe.ProbeHandler = corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("metrics")}}
	})), []string{
		`spec.template.spec.containers[0].livenessProbe.tcpSocket.port: container agent has no port of the name "metrics", so the probe can only fail`,
	}},
	"a hook on a port that is not there": {"probe-port", main(func(c *corev1.Container) {
		handler := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("admin")}}
		c.Lifecycle = &corev1.Lifecycle{PostStart: handler, PreStop: handler}
	}), []string{
		`spec.template.spec.containers[0].lifecycle.postStart.httpGet.port: container agent has no port of the name "admin", so the hook fails and the container is killed, again and again`,
	}},
	"a hook on a port by its number": {"probe-port", main(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
	}), nil},
	"a probe on a port by its name": {"probe-port", main(func(c *corev1.Container) {
		c.Ports[0].Name, c.ReadinessProbe.HTTPGet.Port = "http", intstr.FromString("http")
	}), nil},

	"the old role": {"old-role", tolerates(corev1.Toleration{Key: "node-role.kubernetes.io/master", Operator: corev1.TolerationOpExists}), []string{
		"spec.template.spec.tolerations[0]: no node has this taint since Kubernetes 1.25: nodes of the control plane get no pod",
	}},
	"the old role beside the new one": {"old-role", tolerates(
		corev1.Toleration{Key: "node-role.kubernetes.io/master", Operator: corev1.TolerationOpExists},
		corev1.Toleration{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists}), nil},

	"the socket of Docker": {"docker-socket", mounts("/var/run/docker.sock", true), []string{
		"spec.template.spec.volumes[0].hostPath: /var/run/docker.sock is not there on nodes of today, whose kubelets do without Docker since Kubernetes 1.24",
	}},
	"the socket of containerd":                            {"docker-socket", mounts("/run/containerd/containerd.sock", true), nil},
	"the sockets of all runtimes":                         {"docker-socket", all(hostFolder("/var/run/docker.sock"), hostFolder("/run/crio/crio.sock")), nil},
	"the socket of Docker, and the folder of all sockets": {"docker-socket", all(hostFolder("/var/run/docker.sock"), hostFolder("/run/")), nil},
	"the socket of Docker, and another program's": {"docker-socket", all(hostFolder("/run/docker.sock"), hostFolder("/run/example.sock")), []string{
		"spec.template.spec.volumes[0].hostPath: /run/docker.sock is not there on nodes of today, whose kubelets do without Docker since Kubernetes 1.24",
	}},

	"a priority without a class": {"set-by-admission", pod(func(spec *corev1.PodSpec) {
		spec.PriorityClassName, spec.Priority = "system-cluster-critical", new(int32(1000))
		spec.Overhead = cpu
	}), []string{
		"spec.template.spec.priority: the API server refuses every pod: its class makes 2000000000 of the priority",
		"spec.template.spec.overhead: the API server refuses every pod: only a RuntimeClass has an overhead",
	}},
	"the priority of a class": {"set-by-admission", pod(func(spec *corev1.PodSpec) {
		spec.PriorityClassName, spec.Priority = "system-node-critical", new(int32(2000001000))
	}), nil},
	"a priority and an overhead of classes that are not known": {"set-by-admission", pod(func(spec *corev1.PodSpec) {
		spec.Priority, spec.Overhead, spec.RuntimeClassName = new(int32(1000)), cpu, new("gvisor")
	}), nil},
	"an image that is always pulled": {"image-pull-always", main(func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways }), []string{
		"spec.template.spec.containers[0].imagePullPolicy: container agent does not start while the registry is away, though its image has a fixed name",
	}},
	"an image that is pulled once": {"image-pull-always", main(func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullIfNotPresent }), nil},

	"no priority class": {"no-priority-class", pod(func(spec *corev1.PodSpec) { spec.PriorityClassName = "" }), []string{
		"spec.template.spec.priorityClassName: pods are as important as any application: they preempt nobody, and are evicted like any other",
	}},
	"a priority class": {"no-priority-class", all(), nil},

	"no service account": {"default-service-account", pod(func(spec *corev1.PodSpec) { spec.ServiceAccountName = "" }), []string{
		"spec.template.spec.serviceAccountName: every node gets a token of the default service account, whoever else uses that account",
	}},
	"the default service account": {"default-service-account", pod(func(spec *corev1.PodSpec) { spec.ServiceAccountName = "default" }), []string{
		"spec.template.spec.serviceAccountName: every node gets a token of the default service account, whoever else uses that account",
	}},
	"the service account in its old field": {"default-service-account", pod(func(spec *corev1.PodSpec) { spec.ServiceAccountName, spec.DeprecatedServiceAccount = "", "agent" }), nil},
	"no service account and no token": {"default-service-account", pod(func(spec *corev1.PodSpec) {
		no := false
		spec.ServiceAccountName, spec.AutomountServiceAccountToken = "", &no
	}), nil},

	"privileged for nothing": {"privileged", all(main(isPrivileged), mounts("/var/log", false)), []string{
		"spec.template.spec.containers[0].securityContext.privileged: container agent is root on every node, and nothing in the manifest shows a need for it",
	}},
	"privileged, with a host folder whose name only starts like one": {"privileged", all(main(isPrivileged), mounts("/device", false)), []string{
		"spec.template.spec.containers[0].securityContext.privileged: container agent is root on every node, and nothing in the manifest shows a need for it",
	}},
	"privileged for devices":         {"privileged", all(main(isPrivileged), mounts("/dev/", false)), nil},
	"privileged for the whole host":  {"privileged", all(main(isPrivileged), mounts("/", true)), nil},
	"privileged on the host network": {"privileged", all(main(isPrivileged), pod(hostNetwork)), nil},
	"privileged for a device that it claims": {"privileged", all(main(isPrivileged), pod(func(spec *corev1.PodSpec) {
		spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpus", ResourceClaimTemplateName: new("gpus")}}
		spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpus"}}
	})), nil},
	"a privileged init container":      {"privileged", initContainer(false, isPrivileged), nil},
	"privileged to mount for the host": {"privileged", mountsForHost("/mnt"), nil},

	"container logs that can be written": {"writable-host-path", mounts("/var/log/pods/", false), []string{
		"spec.template.spec.containers[0].volumeMounts[0].readOnly: container agent can write /var/log/pods of the host, which only the host itself should",
	}},
	"container logs that can be read":                      {"writable-host-path", mounts("/var/log/containers", true), nil},
	"a folder for logs, where agents keep their positions": {"writable-host-path", mounts("/var/log", false), nil},

	"a claim for all pods": {"shared-volume-claim", claim(false), []string{
		"spec.template.spec.volumes[0].persistentVolumeClaim: all pods share claim data: unless its volume can be on many nodes at once, one pod starts and no others",
	}},
	"a claim for all pods to read": {"shared-volume-claim", claim(true), nil},

	"updates on deletion": {"on-delete", strategy("OnDelete"), []string{
		"spec.updateStrategy.type: OnDelete rolls nothing out: a change reaches a node only when somebody deletes the pod there",
	}},
	"rolling updates": {"on-delete", strategy("RollingUpdate"), nil},

	"all pods unavailable": {"all-unavailable", rolling("100%", "0"), []string{
		"spec.updateStrategy.rollingUpdate.maxUnavailable: an update ends the pods of all nodes at once, and a broken one leaves no node with its agent",
	}},
	"most pods unavailable":                    {"all-unavailable", rolling("99%", "0"), nil},
	"a hundred pods unavailable":               {"all-unavailable", rolling("100", "0"), nil},
	"all pods of a storage driver unavailable": {"all-unavailable", all(rolling("100%", "0"), mountsForHost("/var/lib/example")), nil},
	"all pods of a device plugin unavailable":  {"all-unavailable", all(rolling("100%", "0"), mounts("/var/lib/kubelet/device-plugins", false)), nil},
	"all pods of a network unavailable": {"all-unavailable", all(rolling("100%", "0"), pod(hostNetwork), mountsForHost("/sys/fs/bpf"), hostFolder("/etc/cni/net.d")), []string{
		"spec.updateStrategy.rollingUpdate.maxUnavailable: an update ends the pods of all nodes at once, and a broken one leaves no node with its agent",
	}},

	"no grace period": {"no-grace-period", grace(0), []string{
		"spec.template.spec.terminationGracePeriodSeconds: pods are killed and forgotten at once: the next one may start while the process of the old one still runs",
	}},
	"no grace period for the network of a node": {"no-grace-period", all(grace(0), pod(hostNetwork)), nil},
	"a short grace period":                      {"no-grace-period", grace(1), nil},

	"a selector that only excludes": {"loose-selector", all(selector(metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"web"}}), func(ds *appsv1.DaemonSet) {
		ds.Spec.Selector.MatchLabels = nil
	}), []string{
		"spec.selector: it only excludes: the controller adopts, and may delete, every other pod of the namespace that has no controller",
	}},
	"a selector that excludes among its own": {"loose-selector", selector(metav1.LabelSelectorRequirement{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}), nil},
	"a selector by expression": {"loose-selector", all(selector(metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpExists}), func(ds *appsv1.DaemonSet) {
		ds.Spec.Selector.MatchLabels = nil
	}), nil},

	"a log agent that tolerates everything": {"wildcard-toleration", tolerates(
		corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		corev1.Toleration{Operator: corev1.TolerationOpExists}), []string{
		"spec.template.spec.tolerations[0]: no taint keeps the pods off a node, not even where nothing is meant to start yet or any more",
		"spec.template.spec.tolerations[1]: no taint drives the pods off a node, not even where nothing is meant to run",
	}},
	"a network agent that tolerates everything": {"wildcard-toleration", all(pod(hostNetwork), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a storage agent that tolerates everything": {"wildcard-toleration", all(mounts("/var/lib/kubelet/plugins", false), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a critical agent that tolerates everything": {"wildcard-toleration", all(tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists}), pod(func(spec *corev1.PodSpec) {
		spec.PriorityClassName = "system-node-critical"
	})), nil},
	"a storage agent of Windows that tolerates everything":                  {"wildcard-toleration", all(hostFolder(`C:\var\lib\kubelet\plugins\example\`), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a storage agent of Windows without a drive, that tolerates everything": {"wildcard-toleration", all(hostFolder(`\var\lib\kubelet\pods`), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"an agent of a folder of Windows that tolerates everything": {"wildcard-toleration", all(hostFolder(`D:\data`), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), []string{
		"spec.template.spec.tolerations[0]: no taint drives the pods off a node, not even where nothing is meant to run",
	}},
	"a watcher of all processes that tolerates everything":    {"wildcard-toleration", all(pod(func(spec *corev1.PodSpec) { spec.HostPID = true }), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a watcher of the host's files that tolerates everything": {"wildcard-toleration", all(mounts("/", true), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a watcher of the host's disks that tolerates everything": {"wildcard-toleration", all(hostFolder("/dev"), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a finder of hardware that tolerates everything":          {"wildcard-toleration", all(hostFolder("/sys/"), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a reader of one file of the kernel that tolerates everything": {"wildcard-toleration", all(hostFolder("/proc/swaps"), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), []string{
		"spec.template.spec.tolerations[0]: no taint drives the pods off a node, not even where nothing is meant to run",
	}},
	"an agent of chosen nodes that tolerates everything": {"wildcard-toleration", all(tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists}), pod(func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{"example.com/gpu": "present"}
	})), nil},
	"a watcher of the kernel that tolerates everything": {"wildcard-toleration", all(mounts("/dev/kmsg", true), tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists})), nil},
	"a log agent that tolerates everything for a while": {"wildcard-toleration", tolerates(forAWhile()), nil},
	"a log agent that tolerates one taint":              {"wildcard-toleration", tolerates(corev1.Toleration{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists}), nil},

	"a log agent without a toleration": {"no-tolerations", all(tolerates(), mounts("/var/log", false)), []string{
		"spec.template.spec.tolerations: the pods look after what every node has, but tolerate no taint: nodes with one, such as those of the control plane, get none",
	}},
	"a metrics agent without a toleration, for one system": {"no-tolerations", all(tolerates(), mounts("/proc", true), pod(func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{corev1.LabelOSStable: "linux"}
	})), []string{
		"spec.template.spec.tolerations: the pods look after what every node has, but tolerate no taint: nodes with one, such as those of the control plane, get none",
	}},
	"a log agent with a toleration": {"no-tolerations", all(mounts("/var/log", false), tolerates(corev1.Toleration{Key: "example.com/gpu", Operator: corev1.TolerationOpExists})), nil},
	"a log agent of some nodes only": {"no-tolerations", all(tolerates(), mounts("/var/log", false), pod(func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{"disktype": "ssd"}
	})), nil},
	"a log agent of nodes by affinity": {"no-tolerations", all(tolerates(), mounts("/var/log", false), nodeTerms(term("disktype In ssd"))), nil},
	"a storage driver": {"no-tolerations", all(tolerates(), mounts("/sys", false), pod(func(spec *corev1.PodSpec) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "plugins", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/kubelet/plugins"}}})
	})), nil},
	"a storage driver with folders of its own": {"no-tolerations", all(tolerates(), mountsForHost("/var/lib/example"), hostFolder("/proc")), nil},
	"a finder of hardware":                     {"no-tolerations", all(tolerates(), hostFolder("/sys"), hostFolder("/proc/swaps")), nil},
	"a reader of the logs of all containers": {"no-tolerations", all(tolerates(), hostFolder("/var/log/pods/")), []string{
		"spec.template.spec.tolerations: the pods look after what every node has, but tolerate no taint: nodes with one, such as those of the control plane, get none",
	}},
	"a writer of its own logs":                        {"no-tolerations", all(tolerates(), hostFolder("/var/log/example")), nil},
	"an agent that is asked by processes of the host": {"no-tolerations", all(tolerates(), pod(func(spec *corev1.PodSpec) { spec.HostPID = true })), nil},
	"an agent of a socket":                            {"no-tolerations", all(tolerates(), mounts("/run/example.sock", false)), nil},

	"a limit on the time not ready": {"toleration-seconds", tolerates(notReady(corev1.TolerationOpExists)), []string{
		"spec.template.spec.tolerations[0].tolerationSeconds: the controller tolerates node.kubernetes.io/not-ready without a limit and removes this one: the pod stays",
	}},
	"a limit that the controller does not know as its own": {"toleration-seconds", tolerates(notReady(corev1.TolerationOpEqual)), nil},

	"a node name": {"node-name", pod(func(spec *corev1.PodSpec) { spec.NodeName = "node-1" }), []string{
		"spec.template.spec.nodeName: no other node gets a pod, and stock Kubernetes binds it there without looking for room",
	}},
	"a node name that the affinity excludes": {"node-affinity-impossible", all(nodeTerms(term("metadata.name NotIn node-1")), pod(func(spec *corev1.PodSpec) { spec.NodeName = "node-1" })), []string{
		impossible + "no node name meets all that is required of it",
		"spec.template.spec.nodeName: no other node gets a pod, and stock Kubernetes binds it there without looking for room",
	}},
	"a node by its label": {"node-name", pod(func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-1"} }), nil},

	"a preference among nodes": {"preference-without-choice", pod(func(spec *corev1.PodSpec) {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: term("disk In ssd")}},
		}}
	}), []string{
		"spec.template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution: it has no effect: every pod of a DaemonSet has one node to go to, and a preference excludes none",
	}},
	"a preference for spreading": {"preference-without-choice", spread(corev1.ScheduleAnyway), []string{
		"spec.template.spec.topologySpreadConstraints[0]: it has no effect: every pod of a DaemonSet has one node to go to, and a preference excludes none",
	}},
	"a preference among pods, which concerns them too": {"preference-without-choice", pod(func(spec *corev1.PodSpec) {
		spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 1, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "batch"}}},
		}}}}
	}), nil},

	"pods beside other pods only": {"pod-affinity", beside(corev1.LabelHostname), []string{
		"spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"a part of the node beside another one": {"pod-affinity", all(pod(hostNetwork), beside(corev1.LabelHostname)), nil},
	"a part of the node in the zone of another one": {"pod-affinity", all(pod(hostNetwork), beside(corev1.LabelTopologyZone)), []string{
		"spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"a driver that waits until another one is gone": {"pod-affinity", all(mounts("/var/lib/kubelet", false), antiAffinity(func(term *corev1.PodAffinityTerm) {
		term.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "old-driver"}}
	})), nil},
	"a driver that no pod may be beside": {"pod-affinity", all(mounts("/var/lib/kubelet", false), antiAffinity(func(term *corev1.PodAffinityTerm) { term.LabelSelector = &metav1.LabelSelector{} })), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"one pod per zone": {"pod-affinity", antiAffinity(func(term *corev1.PodAffinityTerm) { term.TopologyKey = corev1.LabelTopologyZone }), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"no pod beside any other": {"pod-affinity", antiAffinity(func(term *corev1.PodAffinityTerm) { term.LabelSelector = &metav1.LabelSelector{} }), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"no pod beside those of another namespace": {"pod-affinity", antiAffinity(func(term *corev1.PodAffinityTerm) { term.Namespaces = []string{"other"} }), []string{
		"spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]: the controller creates a pod for every node whether this holds there or not, and where it does not the pod stays Pending",
	}},
	"one pod per node":                         {"pod-affinity", antiAffinity(), nil},
	"one pod per zone, and no scheduler looks": {"pod-affinity", all(annotated("everynode.dev/scheduling", "direct"), antiAffinity(func(term *corev1.PodAffinityTerm) { term.TopologyKey = corev1.LabelTopologyZone })), nil},

	"a spread over zones": {"topology-spread", spread(corev1.DoNotSchedule), []string{
		"spec.template.spec.topologySpreadConstraints[0]: there is nothing to spread with one pod per node: all it can do is to keep a pod Pending",
	}},
	"a spread over zones that no scheduler looks at": {"topology-spread", all(annotated("everynode.dev/scheduling", "direct"), spread(corev1.DoNotSchedule)), nil},
}

// impossible is what findings of node-affinity-impossible start with.
const impossible = "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: no node can match, so no pod is created: in term 0, "

func ignoring(names string) change { return annotated(lint.IgnoreAnnotation, names) }

func strategy(name appsv1.DaemonSetUpdateStrategyType) change {
	return func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy.Type = name }
}

func memoryLimit(amount string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(amount)}
}

func grace(seconds int64) change {
	return pod(func(spec *corev1.PodSpec) { spec.TerminationGracePeriodSeconds = &seconds })
}

func claim(readOnly bool) change {
	return pod(func(spec *corev1.PodSpec) {
		spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data", ReadOnly: readOnly},
		}}}
	})
}

func notReady(operator corev1.TolerationOperator) corev1.Toleration {
	seconds := int64(300)
	return corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: operator, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds}
}

func forAWhile() corev1.Toleration {
	toleration := notReady(corev1.TolerationOpExists)
	toleration.Key = ""
	return toleration
}

func TestCheck(t *testing.T) {
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := decode(t, good)
			tc.change(ds)
			before := ds.DeepCopy()
			findings := lint.Check(ds)
			var got []string
			for _, finding := range findings {
				got = append(got, finding.Field+": "+finding.Message)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings (-want,+got):\n%s", diff)
			}
			if len(findings) > 0 && !slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Rule == tc.rule }) {
				t.Errorf("none of them is of rule %s: %v", tc.rule, findings)
			}
			if diff := cmp.Diff(before, ds); diff != "" {
				t.Errorf("Check has changed the DaemonSet (-before,+after):\n%s", diff)
			}
		})
	}
}

func TestEveryRuleSpeaksAndIsSilent(t *testing.T) {
	for _, rule := range lint.Rules() {
		var speaks, silent bool
		for _, tc := range tests {
			speaks = speaks || tc.rule == rule.ID && len(tc.want) > 0
			silent = silent || tc.rule == rule.ID && len(tc.want) == 0
		}
		// TestReferences, TestNeighbours and TestNodesOfSeveralSystems are about these.
		elsewhere := []string{"absent-reference", "host-port-clash", "mixed-systems"}
		if ours := !strings.HasPrefix(rule.ID, "api-") && !slices.Contains(elsewhere, rule.ID); ours && (!speaks || !silent) {
			t.Errorf("%s: there is a case where it speaks: %v; where it is silent: %v", rule.ID, speaks, silent)
		}
	}
}

// TestNothingIsSaidTwice: what the API server refuses or warns of itself is not
// ours to find.
func TestNothingIsSaidTwice(t *testing.T) {
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := decode(t, good)
			tc.change(ds)
			internal := defaulted(t, ds)
			if errs := appsvalidation.ValidateDaemonSet(internal, corevalidation.PodValidationOptions{AllowContainerRestartPolicyRules: true, PodLevelResourcesEnabled: true}); len(errs) > 0 {
				t.Errorf("the API server refuses it: %v", errs.ToAggregate())
			}
			said := podutil.GetWarningsForPodTemplate(t.Context(), field.NewPath("spec", "template"), &internal.Spec.Template, nil)
			for _, finding := range lint.Check(ds) {
				if finding.Severity == lint.Warning && slices.ContainsFunc(said, func(warning string) bool { return strings.HasPrefix(warning, finding.Field+":") }) {
					t.Errorf("the API server warns of it too: %s\n%v", finding, said)
				}
			}
		})
	}
}

// defaulted returns what the API server makes of ds.
func defaulted(t *testing.T, ds *appsv1.DaemonSet) *apps.DaemonSet {
	t.Helper()
	ds = ds.DeepCopy()
	legacyscheme.Scheme.Default(ds)
	var internal apps.DaemonSet
	if err := legacyscheme.Scheme.Convert(ds, &internal, nil); err != nil {
		t.Fatal(err)
	}
	return &internal
}

// TestDefaultsChangeNothing: the command line sees what is in a file, the webhook
// what the API server has made of it.
func TestDefaultsChangeNothing(t *testing.T) {
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := decode(t, good)
			tc.change(ds)
			asWritten := lint.Check(ds)
			legacyscheme.Scheme.Default(ds)
			if diff := cmp.Diff(asWritten, lint.Check(ds)); diff != "" {
				t.Errorf("findings (-file,+API server):\n%s", diff)
			}
		})
	}
}

// TestPodsAreRefused: what is said of pods that the API server refuses is so, and
// what is not said too.
func TestPodsAreRefused(t *testing.T) {
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ds := decode(t, good)
			tc.change(ds)
			template := ds.Spec.Template.DeepCopy()
			pod := corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			pod.Namespace, pod.Name = "logging", "agent-12345"
			legacyscheme.Scheme.Default(&pod)
			var internal core.Pod
			if err := legacyscheme.Scheme.Convert(&pod, &internal, nil); err != nil {
				t.Fatal(err)
			}
			errs := corevalidation.ValidatePodCreate(&internal, corevalidation.PodValidationOptions{ResourceIsPod: true, PodLevelResourcesEnabled: true})
			said := slices.ContainsFunc(lint.Check(ds), func(f lint.Finding) bool { return f.Rule == "host-port-twice" })
			if said != (len(errs) > 0) {
				t.Errorf("it is said that pods are refused: %v; the API server says: %v", said, errs.ToAggregate())
			}
		})
	}
}

func TestWarningsFitOnALine(t *testing.T) {
	// The API server cuts warnings at 256 characters when there are many
	// (truncateWarnings in k8s.io/apiserver/pkg/endpoints/filters).
	for name, tc := range tests {
		ds := decode(t, good)
		tc.change(ds)
		for _, finding := range lint.Check(ds) {
			if line := finding.String(); strings.ContainsAny(line, "\n\r") || len(line) > 256+len(finding.Field) {
				t.Errorf("%s: %d characters: %s", name, len(line), line)
			}
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	b.Run("nothing wrong", func(b *testing.B) {
		ds := decode(b, good)
		b.ReportAllocs()
		for b.Loop() {
			lint.Check(ds)
		}
	})
	b.Run("typical", func(b *testing.B) {
		ds := decode(b, readFile(b, "testdata/node-exporter.yaml"))
		b.ReportAllocs()
		for b.Loop() {
			lint.Check(ds)
		}
	})
}
