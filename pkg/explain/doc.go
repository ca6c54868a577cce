// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package explain says why a DaemonSet's pod is, or is not, running on a node.
//
// It reads API objects and returns verdicts. It talks to no API server and has no
// clock of its own: [New] takes the objects of a cluster at one moment, and the
// time of that moment. What it says of the DaemonSet controller and of the
// schedulers is what their own code says when it is run on these objects:
// [daemonset.DaemonSet] for where a DaemonSet belongs, the filters and the
// preemption of kube-scheduler, and the plugins of everynode-scheduler.
//
// # Words
//
//   - verdict: what is to be said of one DaemonSet on one node ([Verdict]).
//   - inquiry: the making of a verdict.
//   - step: a link of the chain from the DaemonSet to a Ready pod ([Step]). A
//     verdict names the step at which the chain ends.
//   - reason: a verdict in one word. reasons.yaml has all that is to be said of each.
//   - cause: a reason with its arguments ([Cause]). Nodes are grouped by cause.
//   - state: what reason, age and warnings amount to ([State]).
//   - gap: a node that a DaemonSet belongs on and has no Ready pod on.
//   - blocker: a pod that has what the daemon pod needs.
//
// # Order of reading
//
// What goes in is in package snapshot. verdict.go (what comes out), reason.go, engine.go, inquiry.go, then the steps in
// their order: controller.go with taint.go, creation.go, admission.go, filters.go and preemption.go with package dryrun,
// kubelet.go; earlier.go has the pods before. What is made of verdicts: group.go, diagnosis.go, node.go, status.go,
// rollout.go, map.go, plan.go with remarks.go, remedy.go. Ordinary pods are in pod.go.
package explain
