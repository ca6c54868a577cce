// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/localcluster/controlplane"
	"everynode.dev/everynode/test/localcluster/machine"
)

// The names of the control plane's components.
const (
	Etcd              = controlplane.Etcd
	APIServer         = controlplane.APIServer
	ControllerManager = controlplane.ControllerManager
	KubeScheduler     = controlplane.Scheduler
)

// The names of the other programs, which are looked for in Options.BinDir.
const (
	EverynodeScheduler = "everynode-scheduler"
	EverynodeWebhook   = "everynode-webhook"
	Kwok               = "kwok"
	Kubectl            = "kubectl"
)

// RunComponent runs the component that the program was started as, and returns
// its exit code. ok is false if args[1] is none.
func RunComponent(ctx context.Context, args []string) (code int, ok bool) {
	if len(args) > 1 && args[1] == machine.Component {
		return machine.Main(ctx, args[2:]), true
	}
	return controlplane.Run(args)
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	socket := c.path("etcd.sock")
	p, err := c.start(Etcd, c.kubernetes(), Etcd, c.path("etcd"), socket)
	if err != nil {
		return err
	}
	return p.waitReady(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	args := []string{APIServer,
		"--etcd-servers=unix://" + c.path("etcd.sock"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.apiServerPort.number),
		"--permit-port-sharing",
		"--tls-cert-file=" + c.ca.path("apiserver.crt"),
		"--tls-private-key-file=" + c.ca.path("apiserver.key"),
		"--client-ca-file=" + c.ca.path("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.ca.path("sa.pub"),
		"--service-account-signing-key-file=" + c.ca.path("sa.key"),
		"--service-cluster-ip-range=10.0.0.0/16",
		// Nobody proxies requests here, but the other components read these settings.
		"--requestheader-client-ca-file=" + c.ca.path("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
	}
	args = append(args, c.machines.apiServerArgs(c.ca)...)
	p, err := c.start(APIServer, c.kubernetes(), args...)
	if err != nil {
		return err
	}
	if err := p.waitReady(ctx, func(ctx context.Context) error {
		return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		return err
	}
	server, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(server.GitVersion, "v"+c.options.Kubernetes+".") && c.options.Kubernetes != "" {
		return fmt.Errorf("%s is of version %s (run make build-versions)", c.kubernetes(), server.GitVersion)
	}
	c.serverVersion = server.GitVersion
	return nil
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	kubeconfig, err := c.ca.issueKubeconfig(ControllerManager, c.server(), "system:"+ControllerManager)
	if err != nil {
		return err
	}
	args := []string{ControllerManager,
		"--kubeconfig=" + kubeconfig,
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + c.ca.path("sa.key"),
		"--root-ca-file=" + c.ca.path("ca.crt"),
		// everynode looks at the lease. It lasts until a test that halts the controllers goes on.
		"--leader-elect-lease-duration=1h",
		"--leader-elect-renew-deadline=59m",
		"--secure-port=0",
		// Its controllers wait for their turns at 20 requests a second otherwise.
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		// The default is a folder of the machine, which it would create.
		"--flex-volume-plugin-dir=" + c.path("flexvolume"),
	}
	p, err := c.start(ControllerManager, c.kubernetes(), args...)
	if err != nil {
		return err
	}
	return p.waitReady(ctx, func(ctx context.Context) error {
		// Pods of a namespace are refused until it has its service account.
		return c.exists(ctx, "serviceaccounts", "default")
	})
}

func (c *Cluster) startScheduler(ctx context.Context) error {
	name, program, args, err := c.schedulerProgram(ctx)
	if err != nil {
		return err
	}
	if err := c.ca.issueServer(name); err != nil {
		return err
	}
	args = append(args, "--tls-cert-file="+c.ca.path(name+".crt"), "--tls-private-key-file="+c.ca.path(name+".key"))
	p, err := c.start(name, program, args...)
	if err != nil {
		return err
	}
	return p.waitReady(ctx, c.getOK("https://"+c.schedulerPort.address()+"/readyz"))
}

// schedulerProgram returns the name of the scheduler, and how it is started.
func (c *Cluster) schedulerProgram(ctx context.Context) (name, program string, args []string, err error) {
	name, program = EverynodeScheduler, c.binary(EverynodeScheduler)
	switch {
	case c.options.Scheduler == Stock:
		name, program, args = KubeScheduler, c.kubernetes(), []string{KubeScheduler}
	case c.options.Chart != "":
		program, args, err = c.installedProgram(ctx, name, name, c.schedulerPort)
		return name, program, args, err
	case c.options.Kubernetes != "":
		// The chart finds this out by itself.
		args = append(args, "--emulated-version="+c.options.Kubernetes)
	}
	kubeconfig, err := c.ca.issueKubeconfig(name, c.server(), "system:kube-scheduler")
	if err != nil {
		return "", "", nil, err
	}
	config, err := c.schedulerConfig(kubeconfig)
	if err != nil {
		return "", "", nil, err
	}
	return name, program, append(args,
		"--config="+config,
		"--leader-elect=false",
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.schedulerPort.number),
		"--permit-port-sharing",
	), nil
}

// schedulerConfig writes the scheduler's configuration, completed by what every
// installation has to say for itself: how to reach the API server.
func (c *Cluster) schedulerConfig(kubeconfig string) (string, error) {
	config, err := c.everynodeConfig()
	if err != nil {
		return "", err
	}
	if c.options.Scheduler == Stock {
		// Its defaults are what we compare with.
		delete(config, "profiles")
		if c.options.SchedulerConfig == nil {
			delete(config, "clientConnection")
		}
	}
	connection, _ := config["clientConnection"].(map[string]any)
	if connection == nil {
		connection = make(map[string]any)
	}
	connection["kubeconfig"] = kubeconfig
	config["clientConnection"] = connection
	content, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := c.path("scheduler.yaml")
	return path, os.WriteFile(path, content, 0o600)
}

// everynodeConfig returns the configuration of everynode-scheduler, with PluginArgs.
func (c *Cluster) everynodeConfig() (map[string]any, error) {
	source := c.options.SchedulerConfig
	if source == nil {
		source = deploy.ReplaceConfig
	}
	var config map[string]any
	if err := yaml.Unmarshal(source, &config); err != nil {
		return nil, fmt.Errorf("scheduler configuration: %w", err)
	}
	profiles, _ := config["profiles"].([]any)
	for _, profile := range profiles {
		if profile, ok := profile.(map[string]any); ok {
			mergePluginArgs(profile, c.options.PluginArgs)
		}
	}
	return config, nil
}

// mergePluginArgs puts the args of plugins into a profile.
func mergePluginArgs(profile map[string]any, pluginArgs map[string]map[string]any) {
	entries, _ := profile["pluginConfig"].([]any)
	for plugin, args := range pluginArgs {
		i := slices.IndexFunc(entries, func(entry any) bool {
			fields, ok := entry.(map[string]any)
			return ok && fields["name"] == plugin
		})
		if i < 0 {
			i, entries = len(entries), append(entries, map[string]any{"name": plugin})
		}
		merged := make(map[string]any)
		entry := entries[i].(map[string]any)
		if before, ok := entry["args"].(map[string]any); ok {
			maps.Copy(merged, before)
		}
		maps.Copy(merged, args)
		entry["args"] = merged
	}
	if len(entries) > 0 {
		profile["pluginConfig"] = entries
	}
}

func (c *Cluster) startWebhook(ctx context.Context) error {
	installed := c.options.Chart != ""
	var args []string
	if !installed {
		if err := c.ca.issueServer(EverynodeWebhook); err != nil {
			return err
		}
		args = []string{"--tls-cert-file=" + c.ca.path(EverynodeWebhook+".crt"), "--tls-private-key-file=" + c.ca.path(EverynodeWebhook+".key")}
	}
	p, err := c.startWebhookAt(ctx, EverynodeWebhook, c.webhookPort, args...)
	if err != nil {
		return err
	}
	if err := p.waitReady(ctx, c.getOK("https://"+c.webhookPort.address()+"/readyz")); err != nil || installed {
		return err
	}
	return c.registerWebhook(ctx)
}

// startWebhookAt starts an everynode-webhook under any name, with the rights that it
// has in a cluster.
func (c *Cluster) startWebhookAt(ctx context.Context, name string, port *port, args ...string) (*Process, error) {
	if c.options.Chart != "" {
		program, installed, err := c.installedProgram(ctx, name, EverynodeWebhook, port)
		if err != nil {
			return nil, err
		}
		return c.start(name, program, append(installed, args...)...)
	}
	kubeconfig, err := c.ca.issueKubeconfig(name, c.server(), "system:serviceaccount:"+deploy.Namespace+":"+EverynodeWebhook)
	if err != nil {
		return nil, err
	}
	return c.start(name, c.binary(EverynodeWebhook), append([]string{
		"--kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port.number),
		"--permit-port-sharing",
	}, args...)...)
}

// StartReplica starts one more everynode-webhook, named after the process that it
// shall be, on a port of its own, which it returns. The replica makes its
// certificates itself unless args say otherwise, need not be ready yet, and is
// not registered.
func (c *Cluster) StartReplica(ctx context.Context, name string, args ...string) (int, error) {
	port, err := c.reserveReplicaPort()
	if err != nil {
		return 0, err
	}
	_, err = c.startWebhookAt(ctx, name, port, append([]string{"--namespace=" + deploy.Namespace}, args...)...)
	return port.number, err
}

// ReservePort returns a port of the loopback address that is the caller's until the
// cluster is stopped, for a program that is told to share it (--permit-port-sharing).
func (c *Cluster) ReservePort() (int, error) {
	port, err := c.reserveReplicaPort()
	if err != nil {
		return 0, err
	}
	return port.number, nil
}

func (c *Cluster) reserveReplicaPort() (*port, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replicaPorts = append(c.replicaPorts, port)
	return port, nil
}

// registerWebhook registers the shipped webhook configurations, unless they are there
// already. Only the address differs from an installation in a cluster: here no Service
// leads to it.
func (c *Cluster) registerWebhook(ctx context.Context) error {
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	first, second, _ := bytes.Cut(deploy.Webhook, []byte("\n---\n"))
	if err := errors.Join(yaml.UnmarshalStrict(first, &mutating), yaml.UnmarshalStrict(second, &validating)); err != nil {
		return fmt.Errorf("webhook configurations: %w", err)
	}
	local := func(client *admissionregistrationv1.WebhookClientConfig) {
		address := "https://" + c.webhookPort.address() + *client.Service.Path
		*client = admissionregistrationv1.WebhookClientConfig{URL: &address, CABundle: c.ca.caPEM()}
	}
	for i := range mutating.Webhooks {
		local(&mutating.Webhooks[i].ClientConfig)
	}
	for i := range validating.Webhooks {
		local(&validating.Webhooks[i].ClientConfig)
	}
	api := c.Client.AdmissionregistrationV1()
	_, errMutating := api.MutatingWebhookConfigurations().Create(ctx, &mutating, metav1.CreateOptions{})
	_, errValidating := api.ValidatingWebhookConfigurations().Create(ctx, &validating, metav1.CreateOptions{})
	for _, err := range []error{errMutating, errValidating} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func (c *Cluster) startKwok(context.Context) error {
	kubeconfig, err := c.ca.issueKubeconfig(Kwok, c.server(), Kwok, "system:masters")
	if err != nil {
		return err
	}
	// Kubelets are as new as the API server.
	played := bytes.ReplaceAll(stages, []byte("SERVER_VERSION"), []byte(c.serverVersion))
	if err := os.WriteFile(c.path("stages.yaml"), played, 0o600); err != nil {
		return err
	}
	_, err = c.start(Kwok, c.binary(Kwok),
		"--kubeconfig="+kubeconfig,
		"--config="+c.path("stages.yaml"),
		"--manage-all-nodes",
		"--node-lease-duration-seconds=40",
	)
	// It has no endpoint that says when it is ready; the first node does.
	return err
}

// stages tell kwok how nodes and pods live.
//
//go:embed stages.yaml
var stages []byte
