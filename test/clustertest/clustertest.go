// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package clustertest has what the tests on clusters have in common. Its functions fail
// the test themselves.
package clustertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/metadata"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"everynode.dev/everynode/test/localcluster"
)

// Main runs the tests of a package. binDir is a flag, the folder with the programs under
// test; where needed is not in it, it says which target of the Makefile makes it. The
// path is absolute then.
func Main(m *testing.M, binDir *string, needed, target string) {
	flag.Parse()
	dir, err := filepath.Abs(*binDir)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, needed))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\nThe programs under test are missing: run make %s.\n", err, target)
		os.Exit(1)
	}
	*binDir = dir
	os.Exit(m.Run())
}

// Kubectl runs kubectl and returns what it prints.
func Kubectl(tb testing.TB, c *localcluster.Cluster, args ...string) string {
	tb.Helper()
	output, err := c.Kubectl(tb.Context(), nil, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return output
}

// Apply applies manifests.
func Apply(tb testing.TB, c *localcluster.Cluster, manifests string) {
	tb.Helper()
	if _, err := c.Kubectl(tb.Context(), []byte(manifests), "apply", "-f", "-"); err != nil {
		tb.Fatal(err)
	}
}

// Eventually waits until check returns nil, within at most the given time. The test
// fails with what was waited for, and with what check said last.
func Eventually(tb testing.TB, within time.Duration, what string, check func(context.Context) error) {
	tb.Helper()
	var last error
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		// What the deadline cuts off says nothing of the cluster.
		if err := check(ctx); ctx.Err() == nil {
			last = err
		}
		return last == nil, nil
	})
	if err != nil {
		tb.Fatalf("not within %s: %s: %v", within, what, last)
	}
}

// Objects lists every object of a cluster, sorted, but for what comes and goes by itself:
// events, and the leases that nodes renew.
func Objects(tb testing.TB, c *localcluster.Cluster) []string {
	tb.Helper()
	_, lists, err := c.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		tb.Fatal(err)
	}
	client, err := metadata.NewForConfig(c.Config)
	if err != nil {
		tb.Fatal(err)
	}
	var all []string
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			tb.Fatal(err)
		}
		for i := range list.APIResources {
			resource := &list.APIResources[i]
			if !slices.Contains(resource.Verbs, "list") || resource.Name == "events" {
				continue
			}
			found, err := client.Resource(version.WithResource(resource.Name)).List(tb.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue
			}
			if err != nil {
				tb.Fatal(err)
			}
			for j := range found.Items {
				if object := &found.Items[j]; object.Namespace != "kube-node-lease" || resource.Name != "leases" {
					all = append(all, strings.TrimPrefix(version.Group+"/", "/")+resource.Name+" "+object.Namespace+"/"+object.Name)
				}
			}
		}
	}
	slices.Sort(all)
	// Some are there in several versions.
	return slices.Compact(all)
}

// IsReady says whether a pod is Ready, and not about to end.
func IsReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && podutil.IsPodReady(pod)
}
