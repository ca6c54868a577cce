// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/clustertest"
	"everynode.dev/everynode/test/localcluster"
)

var (
	binDir  = flag.String("bin", "../../bin", "folder with the programs that make build makes, and prometheus")
	picture = flag.String("picture", "", "SVG file that receives a picture of the dashboard")
)

func TestMain(m *testing.M) { clustertest.Main(m, binDir, "prometheus", "test-dashboard") }

const (
	// patience is how long anything may take on a busy machine.
	patience = 2 * time.Minute
	// pictured is how much of the past a picture shows.
	pictured = 2 * time.Minute
)

// panel is a part of the dashboard.
type panel struct {
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		Expr         string
		LegendFormat string
	}
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
}

// panels returns those of the dashboard, with their queries as Grafana asks them when
// everything is chosen and rates are those over an interval.
func panels(t *testing.T, interval string) []panel {
	t.Helper()
	content, err := os.ReadFile("../../deploy/components/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$namespace", ".*", "$__rate_interval", interval)
	for i := range dashboard.Panels {
		for j := range dashboard.Panels[i].Targets {
			target := &dashboard.Panels[i].Targets[j]
			target.Expr = variables.Replace(target.Expr)
		}
	}
	return dashboard.Panels
}

func TestEveryPanelShowsSomething(t *testing.T) {
	c := newCluster(t)
	api := startPrometheus(t, c)
	c.eventually("everything is read", func(ctx context.Context) error {
		targets, err := api.Targets(ctx)
		for _, target := range targets.Active {
			if target.Health != prometheus.HealthGood {
				err = errors.Join(err, fmt.Errorf("%s is %s: %s", target.ScrapePool, target.Health, target.LastError))
			}
		}
		return err
	})
	began := time.Now()
	c.work()
	for _, panel := range panels(t, "10m") {
		for _, target := range panel.Targets {
			c.eventually(fmt.Sprintf("%s shows something: %s", panel.Title, target.Expr), func(ctx context.Context) error {
				value, warnings, err := api.Query(ctx, target.Expr, time.Now())
				if err != nil {
					return err
				}
				if len(warnings) > 0 {
					return fmt.Errorf("warnings: %q", warnings)
				}
				vector, ok := value.(model.Vector)
				if !ok || !slices.ContainsFunc(vector, func(sample *model.Sample) bool { return !math.IsNaN(float64(sample.Value)) }) {
					// What was over before somebody looked is in no rate.
					c.stir()
					return fmt.Errorf("the answer is %q", value)
				}
				return nil
			})
		}
	}
	if *picture == "" {
		return
	}
	for time.Since(began) < pictured {
		c.stir()
		// What is to be seen takes its time.
		select {
		case <-time.After(pictured / 8):
		case <-t.Context().Done():
		}
	}
	draw(t, api, began)
}

// cluster is a cluster for one test. Its methods fail the test themselves.
type cluster struct {
	*localcluster.Cluster
	*testing.T
	// replica is the port of a second webhook, which makes its certificates itself.
	replica int
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	started, err := localcluster.Start(t.Context(), localcluster.Options{
		BinDir:  *binDir,
		Webhook: true,
		Args:    map[string][]string{localcluster.EverynodeScheduler: {"--leader-elect=true"}},
	})
	t.Cleanup(started.Stop)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Cluster: started, T: t}
	// The API server is to go on trusting the first one, so this one is to look after
	// other configurations, and has to be allowed to.
	c.apply(others)
	if c.replica, err = c.StartReplica(t.Context(), "everynode-webhook-2", "--webhook-configuration=others"); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits until check returns nil.
func (c *cluster) eventually(what string, check func(context.Context) error) {
	c.Helper()
	clustertest.Eventually(c, patience, what, check)
}

// output returns what kubectl prints.
func (c *cluster) output(args ...string) string {
	c.Helper()
	return strings.TrimSpace(clustertest.Kubectl(c, c.Cluster, args...))
}

// apply applies manifests.
func (c *cluster) apply(manifests string) {
	c.Helper()
	clustertest.Apply(c, c.Cluster, manifests)
}

// work has everynode do all that it has metrics for: there are more pods than room,
// DaemonSets miss pods or wait for others to be ready, one takes room of its own
// priority, and one asks for what the webhook does not understand.
func (c *cluster) work() {
	c.Helper()
	for i := range 4 {
		if err := c.AddNodes(c.Context(), localcluster.Nodes(3*i+1, 3)...); err != nil {
			c.Fatal(err)
		}
		if i == 0 {
			c.apply(workload)
		}
	}
	c.eventually("ordinary pods run", func(context.Context) error {
		if running := c.output("get", "pods", "--selector=app=ordinary", "--field-selector=status.phase=Running", "--output=name"); running == "" {
			return errors.New("none do")
		}
		return nil
	})
	c.apply(late)
}

// stir has everynode do some of it again.
func (c *cluster) stir() {
	c.Helper()
	c.output("delete", "daemonset", "metrics")
	c.output("delete", "pods", "--selector=app=logs")
	c.apply(late)
}

// startPrometheus has a Prometheus read the metrics of everynode every second, as the
// shipped ServiceMonitors say, and returns its API.
func startPrometheus(t *testing.T, c *cluster) prometheus.API {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c.apply(reader)
	token := file("token", c.output("create", "token", "prometheus", "--namespace", deploy.Namespace))
	var ca string
	c.eventually("the webhook has made its certificate", func(context.Context) error {
		ca = c.output("get", "secret", "--namespace", deploy.Namespace, "everynode-webhook-tls", "--ignore-not-found", `--output=go-template={{index .data "ca.crt" | base64decode}}`)
		if ca == "" {
			return errors.New("there is no Secret")
		}
		return nil
	})
	scheduler, webhook := c.Address(localcluster.EverynodeScheduler), c.Address(localcluster.EverynodeWebhook)
	config := file("prometheus.yaml", fmt.Sprintf(`
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: scheduler
    scheme: https
    honor_labels: true
    authorization: {credentials_file: %q}
    tls_config: {insecure_skip_verify: true}
    static_configs: [{targets: [%q]}]
  - job_name: webhook
    scheme: https
    honor_labels: true
    tls_config: {insecure_skip_verify: true}
    static_configs: [{targets: [%q]}]
  - job_name: webhook-2
    scheme: https
    honor_labels: true
    tls_config: {server_name: everynode-webhook.%s.svc, ca_file: %q}
    static_configs: [{targets: ["127.0.0.1:%d"]}]
`, token, scheduler, webhook, deploy.Namespace, file("ca.crt", ca), c.replica))
	return runPrometheus(t, config, filepath.Join(dir, "data"))
}
