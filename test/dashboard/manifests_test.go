// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

// reader may read the scheduler's metrics: what a Prometheus in a cluster needs.
const reader = `
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: everynode-system, name: prometheus}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, namespace: everynode-system, name: prometheus}]
`

// others are the webhook configurations of the second webhook.
const others = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: others}
rules:
  - apiGroups: [admissionregistration.k8s.io]
    resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
    resourceNames: [others]
    verbs: [get, list, watch, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: others}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: others}
subjects: [{kind: ServiceAccount, namespace: everynode-system, name: everynode-webhook}]
`

// workload has room held (somebody keeps the pods of storage from being scheduled), a
// gate that stays closed (network never becomes ready in its zone), more ordinary pods
// than fit, and a pod that only says that it is a DaemonSet's.
const workload = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: storage}
spec:
  selector: {matchLabels: {app: storage}}
  template:
    metadata: {labels: {app: storage}}
    spec:
      schedulingGates: [{name: example.com/licence}]
      containers: [{name: main, image: storage, resources: {requests: {cpu: "1", memory: 4Gi}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: network, annotations: {everynode.dev/gate: "true"}}
spec:
  selector: {matchLabels: {app: network}}
  template:
    metadata: {labels: {app: network}}
    spec:
      nodeSelector: {topology.kubernetes.io/zone: us-east-1a}
      containers: [{name: main, image: "network:non-existent", resources: {requests: {cpu: 100m, memory: 128Mi}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: logs}
spec:
  selector: {matchLabels: {app: logs}}
  template:
    metadata: {labels: {app: logs}}
    spec:
      containers: [{name: main, image: logs, resources: {requests: {cpu: 300m, memory: 256Mi}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ordinary}
spec:
  replicas: 100
  selector: {matchLabels: {app: ordinary}}
  template:
    metadata: {labels: {app: ordinary}}
    spec:
      containers: [{name: main, image: ordinary, resources: {requests: {cpu: 500m, memory: 512Mi}}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: forged
  ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: logs, uid: 00000000-0000-0000-0000-000000000000, controller: true}]
spec:
  containers: [{name: main, image: forged}]
`

// late comes when the nodes are full.
const late = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: metrics}
spec:
  selector: {matchLabels: {app: metrics}}
  template:
    metadata: {labels: {app: metrics}}
    spec:
      containers: [{name: main, image: metrics, resources: {requests: {cpu: 1500m, memory: 512Mi}}}]
`
