// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what an installation of everynode is made of, for the
// programs that install it.
package deploy

import _ "embed"

// Namespace is where everynode is installed.
const Namespace = "everynode-system"

// NamespaceManifest makes it.
//
//go:embed base/scheduler/namespace.yaml
var NamespaceManifest []byte

// ReplaceConfig is the scheduler's configuration in place of kube-scheduler.
//
//go:embed scheduler-config/replace.yaml
var ReplaceConfig []byte

// StaticPodRBAC is what everynode-scheduler needs besides the rights of kube-scheduler,
// as whose user it runs in its place.
//
//go:embed static-pod/rbac.yaml
var StaticPodRBAC []byte

// WebhookRBAC is the webhook's service account and its rights.
//
//go:embed base/webhook/rbac.yaml
var WebhookRBAC []byte

// Webhook is the configuration that has the API server send DaemonSet pods to us.
//
//go:embed base/webhook/webhook.yaml
var Webhook []byte
