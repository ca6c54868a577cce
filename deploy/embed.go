// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what an installation of everynode is made of, for the
// programs that install it.
package deploy

import _ "embed"

// Namespace is where everynode is installed.
const Namespace = "everynode-system"

// ReplaceConfig is the scheduler's configuration in place of kube-scheduler.
//
//go:embed scheduler-config/replace.yaml
var ReplaceConfig []byte

// RBAC is the namespace with its service accounts and all rights that everynode needs.
//
//go:embed rbac.yaml
var RBAC []byte

// Webhook is the configuration that has the API server send DaemonSet pods to us.
//
//go:embed webhook.yaml
var Webhook []byte
