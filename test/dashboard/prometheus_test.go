// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
)

// listening is what Prometheus logs when it has taken its port.
var listening = regexp.MustCompile(`msg="Listening on" .*address=(\S+)`)

// runPrometheus runs a Prometheus until the test ends.
func runPrometheus(t *testing.T, config, data string) prometheus.API {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(*binDir, "prometheus"),
		"--config.file="+config, "--storage.tsdb.path="+data, "--web.listen-address=127.0.0.1:0")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	log, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	var said strings.Builder
	go func() {
		defer close(address)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if found := listening.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
		// It ends by the interrupt that ends the test.
		_ = command.Wait()
	}()
	t.Cleanup(func() {
		for range address {
		}
		if t.Failed() {
			t.Logf("prometheus:\n%s", &said)
		}
	})
	var where string
	select {
	case where = <-address:
	case <-time.After(patience):
	}
	if where == "" {
		t.Fatal("prometheus has ended, or says nothing of its port")
	}
	client, err := api.NewClient(api.Config{Address: "http://" + where})
	if err != nil {
		t.Fatal(err)
	}
	return prometheus.NewAPI(client)
}
