// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir    = flag.String("bin", "../../bin", "folder with the programs that make build makes")
	artifacts = flag.String("artifacts", "", "folder that receives the logs of the clusters of failed tests")
)

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "localcluster", "build") }

// home is the home directory of one reader. No other reader has its ~/.cache, its ~/.kube or its
// clone of the repository.
type home string

// newHome returns a home with a clone. What the repository has is linked into the clone: a
// file that a page writes there is the reader's own.
func newHome(t *testing.T) home {
	t.Helper()
	h := home(t.TempDir())
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.clone(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, repository) {
		if err := os.Symlink(filepath.Join(repository, name), filepath.Join(h.clone(), name)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// clone is the folder in which the reader types the commands.
func (h home) clone() string { return filepath.Join(string(h), "everynode") }

// cache is where localcluster keeps the cluster with its default name.
func (h home) cache() string { return filepath.Join(string(h), ".cache", "everynode", "default") }

// bash runs the blocks of a page in one shell, in the reader's clone, and checks what they print. kubeconfig is that of the reader's cluster.
func (h home) bash(t *testing.T, page, kubeconfig string) {
	t.Helper()
	blocks := parse(read(t, page))
	if len(blocks) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// The programs are built: make up has only to start them.
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "make() { command make -o build \"$@\"; }\n"+script(blocks))
	command.Dir = h.clone()
	command.Env = append(os.Environ(), "HOME="+string(h), "XDG_CACHE_HOME="+filepath.Join(string(h), ".cache"),
		"KUBECONFIG="+kubeconfig, "PATH="+*binDir+string(filepath.ListSeparator)+os.Getenv("PATH"), "NO_COLOR=1")
	// What a shell leaves in the background does not hold up the test.
	command.WaitDelay = 5 * time.Second
	output, err := command.CombinedOutput()
	printed := outputs(string(output))
	for i := range blocks {
		b := &blocks[i]
		got, ran := printed[strconv.Itoa(b.line)]
		if !ran {
			continue
		}
		if missed := missing(b.want, got); len(missed) > 0 {
			t.Errorf("%s:%d: the page shows\n%s\n\nwhich was not printed:\n%s", page, b.line, strings.Join(missed, "\n"), got)
		}
	}
	if err != nil {
		all := string(output)
		t.Errorf("%s: %v; the last block that ran: %s%s", page, err, mark, all[strings.LastIndex(all, mark)+len(mark):])
	}
}

// order returns the pages of the tutorial as its first page lists them.
func order(t *testing.T, folder string) []string {
	t.Helper()
	var pages []string
	for _, link := range regexp.MustCompile(`(?m)^\d+\. .*\]\(([a-z]+\.md)\)`).FindAllStringSubmatch(read(t, filepath.Join(folder, "README.md")), -1) {
		pages = append(pages, link[1])
	}
	if len(pages) < 5 {
		t.Fatalf("%s/README.md lists %v", folder, pages)
	}
	return pages
}

// TestTutorial runs all pages, one after the other. Each leaves the cluster and the
// clone as they were, so that a reader may begin with any of them.
func TestTutorial(t *testing.T) {
	t.Parallel()
	for language, folder := range map[string]string{"en": "../../docs/tutorial", "zh": "../../docs/zh/tutorial"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			h := newHome(t)
			if err := os.MkdirAll(h.cache(), 0o700); err != nil {
				t.Fatal(err)
			}
			c := start(t, localcluster.Options{Dir: h.cache(), Scheduler: localcluster.Everynode, Webhook: true})
			addNodes(t, c)
			for _, page := range order(t, folder) {
				t.Run(page, func(t *testing.T) {
					before := state(t, c, h)
					h.bash(t, filepath.Join(folder, page), c.Kubeconfig)
					if t.Failed() {
						return // It has not cleaned up.
					}
					clustertest.Eventually(t, 2*time.Minute, "the cluster and the clone are as they were", func(context.Context) error {
						if diff := cmp.Diff(before, state(t, c, h)); diff != "" {
							return errors.New("(-before,+after):\n" + diff)
						}
						return nil
					})
				})
			}
		})
	}
}

// TestStart runs what a newcomer runs first: the kubectl plugin, on a cluster that knows
// nothing of everynode, and then a local cluster, as the Makefile starts it.
func TestStart(t *testing.T) {
	t.Parallel()
	for language, page := range map[string]string{"en": "../../docs/start.md", "zh": "../../docs/zh/start.md"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			h := newHome(t)
			download(t, filepath.Join(string(h), "Downloads"))
			c := start(t, localcluster.Options{Scheduler: localcluster.Stock})
			addNodes(t, c)
			clustertest.Kubectl(t, c, "apply", "-f", "../../examples/filebeat.yaml")
			clustertest.Kubectl(t, c, "rollout", "status", "daemonset/filebeat", "--timeout=60s")
			// A page that stops halfway leaves its cluster running.
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
				defer cancel()
				down := exec.CommandContext(ctx, filepath.Join(*binDir, "localcluster"), "down")
				down.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(string(h), ".cache"))
				_ = down.Run()
			})
			h.bash(t, page, c.Kubeconfig)
		})
	}
}

// download puts the archive of a release where a browser puts it.
func download(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(folder, "kubectl-everynode_linux_amd64.tar.gz")
	if output, err := exec.CommandContext(t.Context(), "tar", "-C", *binDir, "-czf", archive, "kubectl-everynode").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

// start starts a cluster without nodes.
func start(t *testing.T, options localcluster.Options) *localcluster.Cluster {
	t.Helper()
	options.BinDir = *binDir
	starting, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := localcluster.Start(starting, options)
	t.Cleanup(func() {
		if t.Failed() {
			clustertest.KeepLogs(t, c, *artifacts)
		}
		c.Stop()
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// addNodes adds the four nodes that localcluster up has.
func addNodes(t *testing.T, c *localcluster.Cluster) {
	t.Helper()
	if err := c.AddNodes(t.Context(), localcluster.Nodes(1, 4)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitNodesReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// state returns what a page may change and has to change back: which objects there are, the
// labels and taints of nodes, and which files the clone has.
func state(t *testing.T, c *localcluster.Cluster, h home) []string {
	t.Helper()
	nodes := clustertest.Kubectl(t, c, "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.labels} {.spec.taints}{"\n"}{end}`)
	return append(append(clustertest.Objects(t, c), nodes), files(t, h.clone())...)
}

// files returns the names of what a folder has.
func files(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
