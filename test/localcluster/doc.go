// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package localcluster runs a real Kubernetes control plane on one machine, for
// trying everynode and for its end-to-end tests.
//
// etcd, kube-apiserver, kube-controller-manager and, if wanted, the stock
// kube-scheduler are one binary, cmd/localcluster, that starts itself again
// under those names. kwok plays the kubelets: nodes are objects, pods become
// Ready without a container. RBAC, service accounts and TLS are on. Every port
// is a free one, everything is in one folder, and when the process that started
// a cluster ends, however it ends, the cluster ends with it (on Linux).
//
// With Options.RealNodes nodes are machines of their own (package machine) with
// containerd, a kubelet and kube-proxy, and so is the control plane, which has to
// be on their network. It is served at the same addresses on the host as ever.
package localcluster
