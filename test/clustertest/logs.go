// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everynode.dev/everynode/test/localcluster"
)

// KeepLogs copies the logs of a cluster, and what is in it, to a folder of the test below
// artifacts, before the cluster's folder is removed. It does nothing without artifacts.
func KeepLogs(tb testing.TB, c *localcluster.Cluster, artifacts string) {
	tb.Helper()
	if artifacts == "" {
		return
	}
	dir := filepath.Join(artifacts, strings.ReplaceAll(tb.Name(), "/", "-"))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		tb.Log(err)
		return
	}
	for _, log := range c.Logs() {
		// A node's logs are in a folder of its own.
		name := strings.TrimPrefix(log, filepath.Dir(c.Kubeconfig))
		if err := copyFile(filepath.Join(dir, name), log); err != nil {
			tb.Log(err)
		}
	}
	for _, what := range []string{"pods", "events", "daemonsets", "nodes", "poddisruptionbudgets"} {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 10*time.Second)
		output, err := c.Kubectl(ctx, nil, "get", what, "-A", "-o", "yaml")
		cancel()
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, what+".yaml"), []byte(output), 0o600)); err != nil {
			tb.Log(err)
		}
	}
	tb.Logf("logs and objects are in %s", dir)
}

func copyFile(to, from string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}
