// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
)

// The limits of Options.Lifetime. Certificates count in whole seconds, and there
// has to be time to renew one before it expires.
const (
	minLifetime = 5 * time.Second
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// Options are the flags of self-managed certificates.
type Options struct {
	// Secret is the name of the Secret that holds the certificates.
	Secret string
	// Service is the name of the Service by which the API server reaches us.
	Service string
	// Namespace is that of the Secret and the Service; empty for our own.
	Namespace string
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration and of
	// the ValidatingWebhookConfiguration whose caBundle is ours.
	WebhookConfiguration string
	// Lifetime is how long a serving certificate is valid, 5 s to 10 years.
	Lifetime time.Duration
}

// NewOptions returns the defaults.
func NewOptions() Options {
	return Options{ //nolint:gosec // the name of a Secret is no secret
		Secret:               "everynode-webhook-tls",
		Service:              "everynode-webhook",
		WebhookConfiguration: "everynode",
		Lifetime:             90 * 24 * time.Hour,
	}
}

// AddFlags adds the flags to a set.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Secret, "cert-secret", o.Secret, "Secret that holds the certificates. Made if it is not there.")
	flags.StringVar(&o.Service, "service", o.Service, "Service by which the API server reaches the webhook.")
	flags.StringVar(&o.Namespace, "namespace", o.Namespace, "Namespace of --cert-secret and --service. Empty in a cluster: the namespace of the pod.")
	flags.StringVar(&o.WebhookConfiguration, "webhook-configuration", o.WebhookConfiguration, "MutatingWebhookConfiguration and ValidatingWebhookConfiguration whose caBundle is kept right. Either may be missing.")
	flags.DurationVar(&o.Lifetime, "cert-lifetime", o.Lifetime, "How long a serving certificate is valid, 5s to 87600h. It is renewed after two thirds of that. A CA lives four times as long.")
}

// Validate returns all that is wrong, each named by its flag.
func (o *Options) Validate() []error {
	var errs []error
	check := func(flag, name string, validate func(string, bool) []string) {
		if reasons := validate(name, false); len(reasons) > 0 {
			errs = append(errs, fmt.Errorf("%s is %q: %s", flag, name, strings.Join(reasons, "; ")))
		}
	}
	check("--cert-secret", o.Secret, apivalidation.NameIsDNSSubdomain)
	check("--service", o.Service, apivalidation.NameIsDNS1035Label)
	check("--webhook-configuration", o.WebhookConfiguration, apivalidation.NameIsDNSSubdomain)
	if o.Namespace != "" {
		check("--namespace", o.Namespace, apivalidation.NameIsDNSLabel)
	}
	if o.Lifetime < minLifetime || o.Lifetime > maxLifetime {
		errs = append(errs, fmt.Errorf("--cert-lifetime is %s, must be between %s and %s", o.Lifetime, minLifetime, maxLifetime))
	}
	return errs
}

// namespaceFile is where a pod finds its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace returns the namespace that we run in, as client-go finds it. But
// outside of a cluster client-go takes "default", which nobody has asked for.
func ownNamespace(file string) (string, error) {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace, nil
	}
	content, err := os.ReadFile(file)
	if namespace := strings.TrimSpace(string(content)); err == nil && namespace != "" {
		return namespace, nil
	}
	return "", errors.New("--namespace is required outside of a cluster, or --tls-cert-file and --tls-private-key-file")
}
