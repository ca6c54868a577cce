// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"

	"everynode.dev/everynode/pkg/webhook/binder"
	"everynode.dev/everynode/pkg/webhook/certs"
	"everynode.dev/everynode/pkg/webhook/policy"
)

// Options are the flags of everynode-webhook.
type Options struct {
	// Kubeconfig is the path of a kubeconfig; empty in a cluster.
	Kubeconfig string
	// Config is the path of a file of policies; empty for none. It is read again when
	// it changes.
	Config string
	// CheckConfig is the path of such a file to check, and to do nothing else.
	CheckConfig string
	// LimitedPriorityClasses are the classes that policies set only in namespaces with a
	// ResourceQuota for them, and in kube-system.
	LimitedPriorityClasses []string
	// Binder says while which schedulers are away pods are bound without them.
	Binder binder.Options
	// BindAddress and SecurePort are where the server listens.
	BindAddress net.IP
	SecurePort  int
	// PermitPortSharing lets a second process listen on the same port.
	PermitPortSharing bool
	// TLSCertFile and TLSPrivateKeyFile are PEM files. They are read again when they
	// change. Without them Certificates says how we make our own.
	TLSCertFile, TLSPrivateKeyFile string
	Certificates                   certs.Options
	// TLSMinVersion and TLSCipherSuites limit what clients may use.
	TLSMinVersion   string
	TLSCipherSuites []string
	// ClientCAFile is a PEM file with the CAs of client certificates; empty to answer
	// the reviews of all clients. It is read again when it changes.
	ClientCAFile string
	// ShutdownDelay is how long the server goes on to take requests after it has
	// been told to end and reports that it is not ready.
	ShutdownDelay time.Duration
	// Logs are the flags that all Kubernetes components have.
	Logs *logs.Options
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		// These GKE limits, and clusters as in the documentation of limitedResources.
		LimitedPriorityClasses: []string{"system-cluster-critical", "system-node-critical"},

		Binder:        binder.NewOptions(),
		BindAddress:   net.IPv4zero,
		SecurePort:    9443,
		Certificates:  certs.NewOptions(),
		TLSMinVersion: "VersionTLS12",
		ShutdownDelay: 5 * time.Second,
		Logs:          logs.NewOptions(),
	}
}

// Flags returns the flags in groups.
func (o *Options) Flags() cliflag.NamedFlagSets {
	var groups cliflag.NamedFlagSets
	api := groups.FlagSet("API server")
	api.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "Path of a kubeconfig. Empty in a cluster: the service account is used.")

	policies := groups.FlagSet("Policies")
	policies.StringVar(&o.Config, "config", o.Config, "Path of a file of policies (kind WebhookConfiguration). Read again when it changes; if it is not valid then, the policies before are kept.")
	policies.StringVar(&o.CheckConfig, "check-config", o.CheckConfig, "Path of a file of policies to check. Nothing is served; the exit code is 1 if it is not valid.")

	policies.StringSliceVar(&o.LimitedPriorityClasses, "limited-priority-classes", o.LimitedPriorityClasses, "Priority classes that policies set only in kube-system and in namespaces with a ResourceQuota for them: some clusters refuse other pods of them.")

	o.Binder.AddFlags(groups.FlagSet("Outages of schedulers"))

	serving := groups.FlagSet("Serving")
	serving.IPVar(&o.BindAddress, "bind-address", o.BindAddress, "The address to listen on.")
	serving.IntVar(&o.SecurePort, "secure-port", o.SecurePort, "The port to listen on with HTTPS, 1-65535.")
	serving.BoolVar(&o.PermitPortSharing, "permit-port-sharing", o.PermitPortSharing, "Whether several processes may listen on the port (SO_REUSEPORT).")
	serving.StringVar(&o.TLSCertFile, "tls-cert-file", o.TLSCertFile, "PEM file with the serving certificate, followed by its intermediate ones. Read again when it changes. Default: the webhook makes its certificates itself.")
	serving.StringVar(&o.TLSPrivateKeyFile, "tls-private-key-file", o.TLSPrivateKeyFile, "PEM file with the key of --tls-cert-file.")
	serving.StringVar(&o.TLSMinVersion, "tls-min-version", o.TLSMinVersion, "The lowest TLS version to accept: VersionTLS12 or VersionTLS13.")
	serving.StringSliceVar(&o.TLSCipherSuites, "tls-cipher-suites", o.TLSCipherSuites, "Cipher suites to accept with TLS 1.2. Default: Go's. Possible values: "+strings.Join(cliflag.PreferredTLSCipherNames(), ", ")+".")
	serving.StringVar(&o.ClientCAFile, "client-ca-file", o.ClientCAFile, "PEM file with the CAs of client certificates. Reviews without such a certificate are refused. Read again when it changes. Default: the reviews of all clients are answered.")
	serving.DurationVar(&o.ShutdownDelay, "shutdown-delay", o.ShutdownDelay, "How long to go on serving after SIGTERM while /readyz fails, so that nobody is sent here any more when the server ends.")

	o.Certificates.AddFlags(groups.FlagSet("Self-managed certificates"))
	logsapi.AddFlags(o.Logs, groups.FlagSet("Logs"))
	return groups
}

// CheckConfig reads a file of policies and says on out that it is valid, or returns
// all that is wrong with it.
func CheckConfig(out io.Writer, path string) error {
	if path == "" {
		return errors.New("--check-config names no file")
	}
	source, err := policy.NewSource(path, nil)
	var problems utilerrors.Aggregate
	switch {
	case errors.As(err, &problems):
		return fmt.Errorf("--check-config: %s is not valid:\n%w", path, errors.Join(problems.Errors()...))
	case err != nil:
		return fmt.Errorf("--check-config: %w", err)
	}
	fmt.Fprintf(out, "%s is valid, policies: %d\n", path, source.Policies().Len())
	return nil
}

// Validate returns all that is wrong, each named by its flag.
func (o *Options) Validate() error {
	var errs []error
	if o.SecurePort < 1 || o.SecurePort > 65535 {
		errs = append(errs, fmt.Errorf("--secure-port is %d, must be between 1 and 65535", o.SecurePort))
	}
	if (o.TLSCertFile == "") != (o.TLSPrivateKeyFile == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file: give both, or neither to have the webhook make its certificates itself"))
	}
	errs = append(errs, o.Certificates.Validate()...)
	errs = append(errs, o.Binder.Validate()...)
	if o.TLSMinVersion != "VersionTLS12" && o.TLSMinVersion != "VersionTLS13" {
		errs = append(errs, fmt.Errorf("--tls-min-version is %q, must be VersionTLS12 or VersionTLS13", o.TLSMinVersion))
	}
	if _, err := cliflag.TLSCipherSuites(o.TLSCipherSuites); err != nil {
		errs = append(errs, fmt.Errorf("--tls-cipher-suites: %w", err))
	}
	if o.ShutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-delay is %s, must not be negative", o.ShutdownDelay))
	}
	return utilerrors.NewAggregate(errs)
}
