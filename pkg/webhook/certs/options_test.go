// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		edit func(*Options)
		want string
	}{
		"the defaults":                 {func(*Options) {}, ""},
		"a Secret that is none":        {func(o *Options) { o.Secret = "A" }, `--cert-secret is "A": a lowercase RFC 1123 subdomain`},
		"no Service":                   {func(o *Options) { o.Service = "" }, `--service is "": a DNS-1035 label`},
		"a namespace with a dot":       {func(o *Options) { o.Namespace = "a.b" }, `--namespace is "a.b": must not contain dots`},
		"no webhook configuration":     {func(o *Options) { o.WebhookConfiguration = "" }, `--webhook-configuration is "": a lowercase RFC 1123 subdomain`},
		"no time to renew":             {func(o *Options) { o.Lifetime = 4 * time.Second }, "--cert-lifetime is 4s, must be between 5s and 87600h0m0s"},
		"more time than the world has": {func(o *Options) { o.Lifetime = 1<<63 - 1 }, "--cert-lifetime is 2562047h47m16.854775807s, must be between 5s and 87600h0m0s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			options := NewOptions()
			tc.edit(&options)
			got := ""
			if err := errors.Join(options.Validate()...); err != nil {
				// What the API's rules say after it is theirs.
				got = err.Error()[:min(len(err.Error()), len(tc.want))]
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

func TestOwnNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "namespace")
	t.Setenv("POD_NAMESPACE", "")
	want := "--namespace is required outside of a cluster, or --tls-cert-file and --tls-private-key-file"
	if _, err := ownNamespace(file); err == nil || err.Error() != want {
		t.Errorf("outside of a cluster: error is %v, want %s", err, want)
	}
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ownNamespace(file); err != nil || got != "from-file" {
		t.Errorf("with a service account it is %q (%v)", got, err)
	}
	t.Setenv("POD_NAMESPACE", "from-environment")
	if got, err := ownNamespace(file); err != nil || got != "from-environment" {
		t.Errorf("with POD_NAMESPACE it is %q (%v)", got, err)
	}
}
