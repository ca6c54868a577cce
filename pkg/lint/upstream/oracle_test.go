// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/controller"
	daemonutil "k8s.io/kubernetes/pkg/controller/daemon/util"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/lint/upstream"
)

// manifest is a DaemonSet, with what is written in some places of it in place of what is there else.
type manifest map[string]string

// manifests are of careless and of hostile users.
var manifests = map[string]manifest{
	"good":                                      {},
	"no name":                                   {"name": ""},
	"name with capitals":                        {"name": "name: Agent"},
	"generateName":                              {"name": "generateName: agent-"},
	"bad generateName":                          {"name": "generateName: Agent_"},
	"long name":                                 {"name": "name: " + strings.Repeat("a", 64)},
	"very long name":                            {"name": "name: " + strings.Repeat("a", 250)},
	"too long name":                             {"name": "name: " + strings.Repeat("a", 254)},
	"name with dots":                            {"name": "name: agent.example.com"},
	"bad namespace":                             {"meta": "namespace: Logging"},
	"bad label":                                 {"meta": "labels: {\"a b\": c}"},
	"generation annotation":                     {"meta": "annotations: {deprecated.daemonset.template.generation: x}"},
	"negative generation":                       {"meta": "annotations: {deprecated.daemonset.template.generation: \"-5\"}"},
	"huge annotations":                          {"meta": "annotations: {a: " + strings.Repeat("x", 1<<18+1) + "}"},
	"finalizer":                                 {"meta": "finalizers: [x]"},
	"owner":                                     {"meta": "ownerReferences: [{kind: X}]"},
	"kubectl get -o yaml":                       {"meta": "uid: x\n  resourceVersion: \"5\"\n  creationTimestamp: \"2020-01-01T00:00:00Z\"\n  generation: 7\n  managedFields: [{manager: x, operation: Update, apiVersion: apps/v1, fieldsType: FieldsV1, fieldsV1: {}}]"},
	"resourceVersion":                           {"meta": "resourceVersion: \"5\""},
	"selector mismatch":                         {"selector": "selector: {matchLabels: {app: other}}"},
	"no selector":                               {"selector": ""},
	"empty selector":                            {"selector": "selector: {}"},
	"bad selector":                              {"selector": "selector: {matchExpressions: [{key: app, operator: Is, values: [a]}]}"},
	"selector value":                            {"selector": "selector: {matchLabels: {app: \"a b\"}}"},
	"negative maxUnavailable":                   {"spec": "updateStrategy: {rollingUpdate: {maxUnavailable: -1}}"},
	"maxUnavailable 100%":                       {"spec": "updateStrategy: {rollingUpdate: {maxUnavailable: 100%}}"},
	"maxUnavailable 101%":                       {"spec": "updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}"},
	"maxUnavailable text":                       {"spec": "updateStrategy: {rollingUpdate: {maxUnavailable: all}}"},
	"maxUnavailable 0":                          {"spec": "updateStrategy: {rollingUpdate: {maxUnavailable: 0}}"},
	"maxSurge alone":                            {"spec": "updateStrategy: {rollingUpdate: {maxSurge: 1}}"},
	"maxSurge instead":                          {"spec": "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"},
	"maxSurge with a host port":                 {"spec": "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", "container": "ports: [{containerPort: 80, hostPort: 80}]"},
	"both":                                      {"spec": "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}"},
	"unknown strategy":                          {"spec": "updateStrategy: {type: Recreate}"},
	"OnDelete with parameters":                  {"spec": "updateStrategy: {type: OnDelete, rollingUpdate: {maxUnavailable: 0}}"},
	"negative minReadySeconds":                  {"spec": "minReadySeconds: -1"},
	"negative history":                          {"spec": "revisionHistoryLimit: -1"},
	"replicas":                                  {"spec": "replicas: 3"},
	"templateGeneration":                        {"spec": "templateGeneration: 3"},
	"status":                                    {"top": "status: {numberReady: -4, x: 1}"},
	"restart policy":                            {"pod": "restartPolicy: Never"},
	"activeDeadlineSeconds":                     {"pod": "activeDeadlineSeconds: 5"},
	"ephemeral containers":                      {"pod": "ephemeralContainers: [{name: debug, image: busybox}]"},
	"no containers":                             {"containers": ""},
	"empty containers":                          {"containers": "containers: []"},
	"null container":                            {"containers": "containers: [null]"},
	"two containers of a name":                  {"another": "- {name: agent, image: x}"},
	"container without image":                   {"another": "- {name: b}"},
	"container name":                            {"another": "- {name: B_c, image: x}"},
	"image with spaces":                         {"another": "- {name: b, image: \" x \"}"},
	"image template":                            {"another": "- {name: b, image: \"{{ .Values.image }}\"}"},
	"pull policy":                               {"container": "imagePullPolicy: Sometimes"},
	"probe without handler":                     {"container": "livenessProbe: {periodSeconds: 5}"},
	"probe with two handlers":                   {"container": "livenessProbe: {tcpSocket: {port: 80}, exec: {command: [a]}}"},
	"probe port 0":                              {"container": "livenessProbe: {tcpSocket: {port: 0}}"},
	"probe port 70000":                          {"container": "livenessProbe: {tcpSocket: {port: 70000}}"},
	"probe port name too long":                  {"container": "livenessProbe: {tcpSocket: {port: this-is-too-long-for-a-port}}"},
	"probe port number as text":                 {"container": "livenessProbe: {httpGet: {path: /, port: \"8080\"}}"},
	"probe port by absent name":                 {"container": "readinessProbe: {httpGet: {path: /, port: metrics}}"},
	"hook port by absent name":                  {"container": "lifecycle: {preStop: {httpGet: {path: /, port: metrics}}}"},
	"liveness successThreshold 2":               {"container": "livenessProbe: {tcpSocket: {port: 80}, successThreshold: 2}"},
	"negative period":                           {"container": "livenessProbe: {tcpSocket: {port: 80}, periodSeconds: -2}"},
	"grpc probe":                                {"container": "livenessProbe: {grpc: {port: 80}}"},
	"probe on a port of UDP":                    {"container": "ports: [{name: dns, containerPort: 53, protocol: UDP}]\n        livenessProbe: {tcpSocket: {port: dns}}"},
	"init container with restartPolicy":         {"pod": "initContainers: [{name: s, image: x, restartPolicy: Always, readinessProbe: {tcpSocket: {port: web}}}]"},
	"init container OnFailure":                  {"pod": "initContainers: [{name: s, image: x, restartPolicy: OnFailure}]"},
	"init container with a probe":               {"pod": "initContainers: [{name: s, image: x, livenessProbe: {tcpSocket: {port: 80}}}]"},
	"init container with lifecycle":             {"pod": "initContainers: [{name: s, image: x, lifecycle: {preStop: {exec: {command: [a]}}}}]"},
	"container with restartPolicy":              {"container": "restartPolicy: Always"},
	"restartPolicyRules":                        {"container": "restartPolicy: Never\n        restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [5]}}]"},
	"init name equals container":                {"pod": "initContainers: [{name: agent, image: x}]"},
	"host port without host network":            {"container": "ports: [{containerPort: 80, hostPort: 8080}]"},
	"host port mismatch":                        {"pod": "hostNetwork: true", "container": "ports: [{containerPort: 80, hostPort: 8080}]"},
	"host ports twice":                          {"container": "ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}]"},
	"host network ports twice":                  {"pod": "hostNetwork: true", "container": "ports: [{containerPort: 80}, {name: x, containerPort: 80}]"},
	"host network of init and main":             {"pod": "hostNetwork: true\n      initContainers: [{name: s, image: x, restartPolicy: Always, ports: [{containerPort: 80}]}]", "container": "ports: [{containerPort: 80}]"},
	"ports twice":                               {"container": "ports: [{containerPort: 80}, {containerPort: 80}]"},
	"port names twice":                          {"container": "ports: [{name: a, containerPort: 80}, {name: a, containerPort: 81}]"},
	"port name":                                 {"container": "ports: [{name: this-is-far-too-long, containerPort: 80}]"},
	"port 0":                                    {"container": "ports: [{containerPort: 0}]"},
	"protocol":                                  {"container": "ports: [{containerPort: 80, protocol: tcp}]"},
	"host IP":                                   {"container": "ports: [{containerPort: 80, hostPort: 80, hostIP: localhost}]"},
	"master toleration":                         {"pod": "tolerations: [{key: node-role.kubernetes.io/master, effect: NoSchedule}]"},
	"toleration operator":                       {"pod": "tolerations: [{key: a, operator: Exists, value: b}]"},
	"toleration without key":                    {"pod": "tolerations: [{effect: NoSchedule}]"},
	"toleration effect":                         {"pod": "tolerations: [{key: a, operator: Exists, effect: NoRun}]"},
	"toleration seconds":                        {"pod": "tolerations: [{key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 5}]"},
	"toleration Gt":                             {"pod": "tolerations: [{key: a, operator: Gt, value: \"5\", effect: NoSchedule}]"},
	"absent priority class":                     {"pod": "priorityClassName: no-such-class"},
	"priority class name":                       {"pod": "priorityClassName: No_Such"},
	"system class":                              {"pod": "priorityClassName: system-node-critical"},
	"priority":                                  {"pod": "priority: 5"},
	"preemption policy":                         {"pod": "preemptionPolicy: Sometimes"},
	"env twice":                                 {"container": "env: [{name: A, value: a}, {name: A, value: b}]"},
	"env name":                                  {"container": "env: [{name: \"A B\", value: a}]"},
	"env name with =":                           {"container": "env: [{name: \"A=B\", value: a}]"},
	"env value and valueFrom":                   {"container": "env: [{name: A, value: a, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]"},
	"env fieldRef":                              {"container": "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodename}}}]"},
	"env bool":                                  {"container": "env: [{name: A, value: true}]"},
	"env number":                                {"container": "env: [{name: A, value: 5}]"},
	"env map":                                   {"container": "env: {A: b}"},
	"Windows":                                   {"pod": "os: {name: windows}\n      nodeSelector: {kubernetes.io/os: windows}"},
	"Windows with Linux fields":                 {"pod": "os: {name: windows}\n      hostPID: true"},
	"Windows host process":                      {"pod": "os: {name: windows}\n      hostNetwork: true\n      securityContext: {windowsOptions: {hostProcess: true, runAsUserName: \"NT AUTHORITY\\\\SYSTEM\"}}"},
	"Windows host process without host network": {"pod": "os: {name: windows}\n      securityContext: {windowsOptions: {hostProcess: true}}"},
	"other OS":                                  {"pod": "os: {name: plan9}"},
	"quantity 1e10Gi":                           {"container": "resources: {requests: {memory: 1e10Gi}}"},
	"quantity m of memory":                      {"container": "resources: {requests: {memory: 100m}, limits: {memory: 100m}}"},
	"quantity text":                             {"container": "resources: {requests: {cpu: much}}"},
	"quantity negative":                         {"container": "resources: {requests: {cpu: -1}}"},
	"quantity 1.5.1":                            {"container": "resources: {requests: {cpu: 1.5.1}}"},
	"quantity KB":                               {"container": "resources: {requests: {memory: 5KB}}"},
	"quantity 0.0001":                           {"container": "resources: {requests: {cpu: 0.0001}}"},
	"quantity huge":                             {"container": "resources: {requests: {cpu: 1e100}}"},
	"requests over limits":                      {"container": "resources: {requests: {cpu: 2}, limits: {cpu: 1}}"},
	"gpu requests without limits":               {"container": "resources: {requests: {nvidia.com/gpu: 1}}"},
	"gpu half":                                  {"container": "resources: {limits: {nvidia.com/gpu: 500m}}"},
	"resource name":                             {"container": "resources: {limits: {gpu: 1}}"},
	"pod resources":                             {"pod": "resources: {limits: {memory: 1Gi}}"},
	"pod resources below":                       {"pod": "resources: {limits: {memory: 1Mi}}", "container": "resources: {limits: {memory: 1Gi}}"},
	"mount without volume":                      {"container": "volumeMounts: [{name: x, mountPath: /x}]"},
	"mount twice":                               {"pod": "volumes: [{name: x, emptyDir: {}}]", "container": "volumeMounts: [{name: x, mountPath: /x}, {name: x, mountPath: /x}]"},
	"volume twice":                              {"pod": "volumes: [{name: x, emptyDir: {}}, {name: x, emptyDir: {}}]"},
	"volume of two kinds":                       {"pod": "volumes: [{name: x, emptyDir: {}, hostPath: {path: /}}]"},
	"volume of no kind":                         {"pod": "volumes: [{name: x}]"},
	"hostPath ..":                               {"pod": "volumes: [{name: x, hostPath: {path: /a/../b}}]"},
	"hostPath type":                             {"pod": "volumes: [{name: x, hostPath: {path: /a, type: Folder}}]"},
	"bidirectional unprivileged":                {"pod": "volumes: [{name: x, hostPath: {path: /a}}]", "container": "volumeMounts: [{name: x, mountPath: /x, mountPropagation: Bidirectional}]"},
	"privileged":                                {"container": "securityContext: {privileged: true}"},
	"privileged, no escalation":                 {"container": "securityContext: {privileged: true, allowPrivilegeEscalation: false}"},
	"user -1":                                   {"container": "securityContext: {runAsUser: -1}"},
	"sysctl":                                    {"pod": "securityContext: {sysctls: [{name: \"Net..x\", value: \"1\"}]}"},
	"seccomp":                                   {"pod": "securityContext: {seccompProfile: {type: Localhost}}"},
	"procMount":                                 {"container": "securityContext: {procMount: Unmasked}"},
	"hostUsers with host network":               {"pod": "hostUsers: false\n      hostNetwork: true"},
	"share and host PID":                        {"pod": "shareProcessNamespace: true\n      hostPID: true"},
	"affinity without terms":                    {"pod": "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}"},
	"affinity operator":                         {"pod": "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Equals, values: [b]}]}]}}}"},
	"affinity Gt text":                          {"pod": "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: [b]}]}]}}}"},
	"affinity weight":                           {"pod": "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 500, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}"},
	"affinity by field":                         {"pod": "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a, b]}]}]}}}"},
	"anti-affinity without topology":            {"pod": "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}}"},
	"matchLabelKeys":                            {"pod": "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: agent}}, topologyKey: kubernetes.io/hostname, matchLabelKeys: [controller-revision-hash]}]}}"},
	"spread twice":                              {"pod": "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"},
	"nodeSelector number":                       {"pod": "nodeSelector: {disk: 5}"},
	"nodeSelector bool":                         {"pod": "nodeSelector: {gpu: true}"},
	"nodeSelector bad value":                    {"pod": "nodeSelector: {disk: \"a b\"}"},
	"nodeName":                                  {"pod": "nodeName: node-1"},
	"scheduling gates":                          {"pod": "schedulingGates: [{name: example.com/x}]"},
	"gates and node name":                       {"pod": "nodeName: node-1\n      schedulingGates: [{name: example.com/x}]"},
	"dnsPolicy":                                 {"pod": "dnsPolicy: Host"},
	"dnsPolicy None":                            {"pod": "dnsPolicy: None"},
	"hostAliases":                               {"pod": "hostAliases: [{ip: x, hostnames: [a]}]"},
	"hostname":                                  {"pod": "hostname: a.b"},
	"hostname fine":                             {"pod": "hostname: agent"},
	"subdomain":                                 {"pod": "subdomain: A"},
	"hostnameOverride":                          {"pod": "hostnameOverride: agent"},
	"service account":                           {"pod": "serviceAccountName: A_b"},
	"grace":                                     {"pod": "terminationGracePeriodSeconds: -5"},
	"grace 0":                                   {"pod": "terminationGracePeriodSeconds: 0"},
	"overhead":                                  {"pod": "overhead: {cpu: 1}"},
	"runtime class":                             {"pod": "runtimeClassName: A_b"},
	"resource claims":                           {"pod": "resourceClaims: [{name: a}]"},
	"resource claim of none":                    {"container": "resources: {claims: [{name: a}]}"},
	"claim of a pod":                            {"pod": "resourceClaims: [{name: a, resourceClaimName: b}]", "container": "resources: {claims: [{name: a}]}"},
	"image pull secrets":                        {"pod": "imagePullSecrets: [a]"},
	"image pull secret empty":                   {"pod": "imagePullSecrets: [{}]"},
	"template name":                             {"template": "name: X_y"},
	"template namespace":                        {"template": "namespace: other"},
	"template finalizers":                       {"template": "finalizers: [foregroundDeletion]"},
	"template bad finalizer":                    {"template": "finalizers: [x]"},
	"template owner":                            {"template": "ownerReferences: [{kind: X}]"},
	"template label":                            {"labels": "labels: {app: agent, b: \"c d\"}"},
	"template generateName":                     {"template": "generateName: X_"},
	"template annotation":                       {"template": "annotations: {\"a b\": c}"},
	"template annotations number":               {"template": "annotations: {a: 5}"},
	"AppArmor annotation":                       {"template": "annotations: {container.apparmor.security.beta.kubernetes.io/none: runtime/default}"},
	"AppArmor mismatch":                         {"template": "annotations: {container.apparmor.security.beta.kubernetes.io/agent: unconfined}", "container": "securityContext: {appArmorProfile: {type: RuntimeDefault}}"},
	"mirror annotation":                         {"template": "annotations: {kubernetes.io/config.mirror: x}"},
	"tolerations annotation":                    {"template": "annotations: {scheduler.alpha.kubernetes.io/tolerations: x}"},
	"deletion cost":                             {"template": "annotations: {controller.kubernetes.io/pod-deletion-cost: x}"},
	"command text":                              {"container": "command: run"},
	"args numbers":                              {"container": "args: [5, true]"},
	"workingDir":                                {"container": "workingDir: \"\""},
	"terminationMessagePolicy":                  {"container": "terminationMessagePolicy: x"},
	"lifecycle two":                             {"container": "lifecycle: {preStop: {exec: {command: [a]}, sleep: {seconds: 5}}}"},
	"preStop sleep over grace":                  {"container": "lifecycle: {preStop: {sleep: {seconds: 500}}}"},
	"stopSignal":                                {"container": "lifecycle: {stopSignal: SIGTERM}"},
	"resizePolicy":                              {"container": "resizePolicy: [{resourceName: cpu, restartPolicy: Never}]"},
	"envFrom prefix":                            {"container": "envFrom: [{prefix: \"1=\", configMapRef: {name: a}}]"},
	"unknown field":                             {"pod": "toleration: []"},
	"field in another place":                    {"container": "hostNetwork: true"},
	"wrong capital":                             {"container": "Image: x"},
	"workload":                                  {"pod": "workloadRef: {name: x}"},
	"service links":                             {"pod": "enableServiceLinks: \"no\""},
	"projected token":                           {"pod": "volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 5}}]}}]"},
	"ephemeral volume":                          {"pod": "volumes: [{name: t, ephemeral: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}}}]"},
	"ephemeral volume good":                     {"pod": "volumes: [{name: t, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]"},
	"image volume":                              {"pod": "volumes: [{name: t, image: {reference: a:1}}]"},
	"gitRepo":                                   {"pod": "volumes: [{name: t, gitRepo: {repository: x}}]"},
	"long volume name":                          {"pod": "volumes: [{name: " + strings.Repeat("a", 64) + ", emptyDir: {}}]"},
	"fsGroup with empty":                        {"pod": "securityContext: {fsGroup: -1}"},
	"a field behind a feature gate":             {"pod": "schedulingGroup: {podGroupName: A_b}"},
	"old role in the node selector":             {"pod": "nodeSelector: {node-role.kubernetes.io/master: \"\"}"},
	"host port of two protocols":                {"container": "ports: [{containerPort: 53, hostPort: 53}, {name: x, containerPort: 53, hostPort: 53, protocol: UDP}]"},
	"host port of sidecar and container":        {"pod": "initContainers: [{name: s, image: x, restartPolicy: Always, ports: [{containerPort: 80, hostPort: 80}]}]", "container": "ports: [{containerPort: 80, hostPort: 80}]"},
}

// write returns the manifest in YAML.
func (m manifest) write() string {
	at := func(place, otherwise string) string {
		if text, ok := m[place]; ok {
			return text
		}
		return otherwise
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata:
  %s
  %s
spec:
  %s
  %s
  template:
    metadata:
      %s
      %s
    spec:
      %s
      %s
      %s
%s
`, at("name", "name: agent"), at("meta", ""), at("selector", "selector: {matchLabels: {app: agent}}"), at("spec", ""),
		at("labels", "labels: {app: agent}"), at("template", ""), at("pod", ""),
		at("containers", "containers:\n      - name: agent\n        image: example/agent:1\n        "+at("container", "")), at("another", ""), at("top", ""))
}

// TestAsTheAPIServer compares what is said of each manifest with what the API server does with it, and with the pods
// that the controller makes of it.
func TestAsTheAPIServer(t *testing.T) {
	t.Parallel()
	capabilities.Setup(true, 0)
	verdicts := make(map[bool]int)
	for name, m := range manifests {
		content, err := yaml.YAMLToJSON([]byte(m.write()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ds, findings, err := upstream.Decode(content, upstream.Kind)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		findings = append(append(findings, upstream.Check(t.Context(), ds)...), lint.Check(ds)...)
		by := func(rule string) bool {
			return slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Rule == rule })
		}
		if by("api-refuses") && by("host-port-twice") {
			t.Errorf("%s: it is said twice: %v", name, findings)
		}
		refused := by("api-refuses") || by("host-port-twice")
		if err := create(t.Context(), content); refused != (err != nil) {
			t.Errorf("%s: it is found refused: %v, by %v; the API server says %v", name, refused, findings, err)
		}
		verdicts[refused]++
	}
	if verdicts[true] < 100 || verdicts[false] < 50 {
		t.Errorf("%d manifests are refused, %d are not", verdicts[true], verdicts[false])
	}
}

// create does what the API server does with a DaemonSet, and then with a pod of the controller. It returns why one of
// them is refused.
func create(ctx context.Context, content []byte) error {
	object, _, err := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer().Decode(content, nil, nil)
	if err != nil {
		return err
	}
	ds, ok := object.(*appsv1.DaemonSet)
	if !ok {
		return fmt.Errorf("it is a %T", object)
	}
	ctx = genericrequest.WithNamespace(ctx, cmp.Or(ds.Namespace, metav1.NamespaceDefault))
	legacyscheme.Scheme.Default(ds)
	var internal apps.DaemonSet
	if err := legacyscheme.Scheme.Convert(ds, &internal, nil); err != nil {
		return err
	}
	if internal.Name == "" && internal.GenerateName != "" {
		internal.Name = daemonset.Strategy.GenerateName(internal.GenerateName)
	}
	rest.FillObjectMetaSystemFields(&internal)
	ctx = genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{APIGroup: "apps", APIVersion: "v1", Resource: "daemonsets"})
	if err := rest.BeforeCreate(daemonset.Strategy, ctx, &internal); err != nil {
		return err
	}
	if err := legacyscheme.Scheme.Convert(&internal, ds, nil); err != nil {
		return err
	}
	template := daemonutil.CreatePodTemplate(ds.Spec.Template, new(int64(1)), "abc")
	made, err := controller.GetPodFromTemplate(&template, ds, nil)
	if err != nil {
		return err
	}
	made.Name, made.Namespace = pod.Strategy.GenerateName(made.GenerateName), ds.Namespace
	made.Spec.Affinity = daemonutil.ReplaceDaemonSetPodNodeNameNodeAffinity(made.Spec.Affinity, "node-1")
	legacyscheme.Scheme.Default(made)
	var internalPod core.Pod
	if err := legacyscheme.Scheme.Convert(made, &internalPod, nil); err != nil {
		return err
	}
	rest.FillObjectMetaSystemFields(&internalPod)
	ctx = genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{APIVersion: "v1", Resource: "pods"})
	return rest.BeforeCreate(pod.Strategy, ctx, &internalPod)
}
