// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"everynode.dev/everynode/pkg/explain"
)

// connection is kubectl's flags that lead to a cluster.
//
// They are client-go's. Those of k8s.io/cli-runtime/pkg/genericclioptions are the
// same, with a cache of discovery that no verb reads.
type connection struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides clientcmd.ConfigOverrides
}

func newConnection() *connection {
	return &connection{rules: clientcmd.NewDefaultClientConfigLoadingRules()}
}

func (c *connection) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.rules.ExplicitPath, clientcmd.RecommendedConfigPathFlag, "", "Path to the kubeconfig file to use for CLI requests.")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.ContextOverrideFlags.Namespace.ShortName = "n"
	names.ClusterOverrideFlags.APIServer.ShortName = "s"
	// API servers take no passwords any more, and a flag without a name is not added.
	names.AuthOverrideFlags.Username.LongName, names.AuthOverrideFlags.Password.LongName = "", ""
	clientcmd.BindOverrideFlags(&c.overrides, flags, names)
}

func (c *connection) loader() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules, &c.overrides)
}

// namespace returns the namespace that the flags or the kubeconfig name.
func (c *connection) namespace() (string, error) {
	namespace, _, err := c.loader().Namespace()
	if clientcmd.IsEmptyConfig(err) {
		return metav1.NamespaceDefault, nil
	}
	return namespace, unconfigured(err)
}

// unconfigured says what to do about an error of the loader.
func unconfigured(err error) error {
	switch {
	case err == nil:
		return nil
	case clientcmd.IsEmptyConfig(err):
		return errors.New("no cluster is configured: name a kubeconfig with --kubeconfig or the variable KUBECONFIG")
	default:
		return fmt.Errorf("no cluster is configured: %w: name another kubeconfig with --kubeconfig, or another of its contexts with --context", err)
	}
}

// connect returns a client of the cluster that the flags lead to.
func (e *environment) connect() (kubernetes.Interface, error) {
	if e.client != nil {
		return e.client, nil
	}
	config, err := e.config.loader().ClientConfig()
	if err != nil {
		return nil, unconfigured(err)
	}
	// No limit: these are a few lists, and the server protects itself by priority and fairness.
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return kubernetes.NewForConfig(config)
}

// kubectl returns the beginning of a command for the same cluster, "" if it cannot be written.
func (e *environment) kubectl() string {
	return e.toCluster("kubectl")
}

// explainCommand returns the command that explains a DaemonSet, "" if it cannot be
// written. Flags follow the name of a plugin.
func (e *environment) explainCommand(namespace, name string) string {
	return e.toCluster(explain.Command("kubectl everynode explain", "ds/"+name, "-n", namespace))
}

// toCluster adds the flags that lead to the same cluster, if they can be written.
func (e *environment) toCluster(command string) string {
	flags, ok := e.clusterFlags()
	if !ok {
		return ""
	}
	return strings.Join(append([]string{command}, flags...), " ")
}

// otherFlags do not choose the cluster, so commands leave them out. With one of secretFlags no
// commands are printed: it is a secret, or kubectl has no such flag.
var (
	otherFlags  = []string{"namespace", "request-timeout", "disable-compression"}
	secretFlags = []string{"token", "proxy-url"}
)

// clusterFlags are the flags that led to the cluster. A command with some of them would
// lead to another one, so it is all of them or no command.
func (e *environment) clusterFlags() (flags []string, ok bool) {
	// The cluster of a dump may be gone or out of reach.
	ok = len(e.from) == 0
	e.flags.VisitAll(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if slice, many := flag.Value.(pflag.SliceValue); many {
			values = slice.GetSlice()
		}
		switch {
		case !flag.Changed, slices.Contains(otherFlags, flag.Name):
		case slices.Contains(secretFlags, flag.Name):
			ok = false
		default:
			for _, value := range values {
				flags = append(flags, "--"+flag.Name+"="+explain.Quote(value))
			}
		}
	})
	return flags, ok
}
