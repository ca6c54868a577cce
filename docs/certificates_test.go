// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"everynode.dev/everynode/pkg/webhook"
)

func TestCertificatesAreComplete(t *testing.T) {
	page := read(t, "certificates.md")
	groups, flags := webhook.NewOptions().Flags(), 0
	groups.FlagSet("Self-managed certificates").VisitAll(func(flag *pflag.Flag) {
		flags++
		if !strings.Contains(page, "\n| `--"+flag.Name+"` |") {
			t.Errorf("certificates.md has no row for --%s", flag.Name)
		}
		if flag.DefValue != "" && !strings.Contains(page, "`"+strings.TrimSuffix(flag.DefValue, "0m0s")+"`") {
			t.Errorf("certificates.md does not say that --%s is %s", flag.Name, flag.DefValue)
		}
	})
	names := regexp.MustCompile(`"everynode_webhook_(certificate_\w+)"`).FindAllStringSubmatch(read(t, "../pkg/webhook/certs/metrics.go"), -1)
	for _, name := range names {
		if !strings.Contains(page, "\n| `everynode_webhook_"+name[1]+"` |") {
			t.Errorf("certificates.md has no row for the metric %s", name[1])
		}
	}
	if flags == 0 || len(names) == 0 {
		t.Errorf("%d flags and %d metrics were found", flags, len(names))
	}
}
