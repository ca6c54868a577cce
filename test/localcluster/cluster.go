// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/version"

	"everynode.dev/everynode/deploy"
)

// Scheduler says which scheduler places a cluster's pods.
type Scheduler string

// The schedulers to choose from.
const (
	Everynode Scheduler = "everynode"
	Stock     Scheduler = "stock"
	None      Scheduler = "none"
)

// Options say what a cluster is made of.
type Options struct {
	// Dir receives certificates, kubeconfigs, data and logs. Default: a new folder
	// of its own, which Stop removes.
	Dir string
	// BinDir holds localcluster, everynode-scheduler, everynode-webhook, kwok and
	// kubectl. Default: the folder of the running program.
	BinDir string
	// Kubernetes is the minor version of the control plane, such as "1.36": one of
	// Versions. It takes what make build-versions makes, and no real nodes. Default:
	// that of the modules that this package is built with.
	Kubernetes string
	// Scheduler is the scheduler. Default: Everynode.
	Scheduler Scheduler
	// SchedulerConfig is the KubeSchedulerConfiguration of the scheduler, without profiles where that is Stock.
	// Default: deploy/scheduler-config/replace.yaml for everynode, and Kubernetes' defaults for Stock.
	SchedulerConfig []byte
	// PluginArgs are further args of everynode-scheduler's plugins, by plugin and name,
	// for all profiles. They override those of SchedulerConfig. Default: none.
	PluginArgs map[string]map[string]any
	// Webhook says whether everynode-webhook runs and is registered.
	Webhook bool
	// Chart is the folder of the chart, if everynode is to be what it installs: with its
	// arguments, its configuration and the rights of its ServiceAccounts. It takes helm,
	// which make build-helm makes. Default: everynode has the shipped configuration, and
	// the rights of the static pod.
	Chart string
	// ChartValues are values of the chart, in YAML.
	ChartValues []byte
	// RealNodes is the number of nodes that are machines of their own with a kubelet,
	// containerd and kube-proxy: 1 to 100. The cluster starts with them, and kwok
	// does not run. Default: none, and kwok plays the kubelets of the nodes that are
	// added. It takes what MissingForRealNodes looks for.
	RealNodes int
	// Autoscaler buys nodes for the pods that wait: Karpenter, which make build-karpenter makes. Default: none.
	Autoscaler string
	// Images are files with container images, as ctr imports them, for all real nodes.
	Images []string
	// Args are further flags by the name of the component.
	Args map[string][]string
	// Progress is told of every component that has become ready. Default: nobody.
	Progress func(component string, took time.Duration)
}

// Cluster is a running cluster.
type Cluster struct {
	// Kubeconfig is the path of the administrator's kubeconfig.
	Kubeconfig string
	// Config is the administrator's client configuration, without rate limit.
	Config *rest.Config
	// Client is the administrator's client.
	Client kubernetes.Interface

	options   Options
	dir       string
	temporary bool
	self      string
	ca        *authority
	http      *http.Client

	apiServerPort, schedulerPort, webhookPort *port
	serverVersion                             string // of the API server

	// machines is nil where kwok plays the kubelets.
	machines *machines

	mu           sync.Mutex // protects the rest
	processes    []*Process
	replicaPorts []*port
}

// Start starts a cluster, without nodes if they are not to be real, and waits until
// every component is ready. The caller has to Stop it, also after an error.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	c := &Cluster{options: options}
	if c.options.Scheduler == "" {
		c.options.Scheduler = Everynode
	}
	if c.options.RealNodes > 0 {
		c.machines = &machines{nodes: realNodes(c.options.RealNodes)}
	}
	if err := c.prepare(); err != nil {
		return c, fmt.Errorf("preparing the cluster: %w", err)
	}
	if err := c.startAll(ctx); err != nil {
		return c, fmt.Errorf("starting the cluster: %w", err)
	}
	return c, nil
}

// Connect returns a cluster that another process runs, for what takes only its API.
func Connect(kubeconfig string) (*Cluster, error) {
	c := &Cluster{Kubeconfig: kubeconfig}
	if err := c.findBinaries(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(kubeconfig); err != nil {
		return nil, fmt.Errorf("it is not running: %w", err)
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

// connect makes the clients of the administrator.
func (c *Cluster) connect() (err error) {
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	c.Config.QPS = -1
	// Admission warns of what demos and tests create on purpose: not on everybody's terminal.
	c.Config.WarningHandler = rest.NoWarnings{}
	c.Client, err = kubernetes.NewForConfig(c.Config)
	return err
}

// findBinaries settles where programs are.
func (c *Cluster) findBinaries() error {
	if c.options.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c.options.BinDir = filepath.Dir(self)
	}
	c.self = c.binary("localcluster")
	return nil
}

// prepare makes all that components need to start.
func (c *Cluster) prepare() error {
	steps := []func() error{c.checkVersion, c.checkBinaries, c.checkAutoscaler, c.makeDir, c.reservePorts, c.issueCertificates, c.connect}
	if c.machines != nil {
		steps = append(steps, c.bootControlPlane)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	c.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	return nil
}

// olderVersions are those that make build-versions builds.
var olderVersions = []string{"1.35", "1.36"}

// Versions returns the minor versions of Kubernetes that a control plane can have.
func Versions() []string {
	return append(slices.Clone(olderVersions), version.DefaultKubeBinaryVersion)
}

// checkVersion checks which Kubernetes it is.
func (c *Cluster) checkVersion() error {
	if c.options.Kubernetes == version.DefaultKubeBinaryVersion {
		c.options.Kubernetes = ""
	}
	asked := c.options.Kubernetes
	if asked == "" {
		return nil
	}
	if !slices.Contains(olderVersions, asked) {
		return fmt.Errorf("no control plane is of Kubernetes %q: it must be one of %s", asked, strings.Join(Versions(), ", "))
	}
	if c.machines != nil {
		return fmt.Errorf("real nodes have the kubelet of Kubernetes %s, which must not be newer than the control plane of %s", version.DefaultKubeBinaryVersion, asked)
	}
	return nil
}

// kubernetes is the program that starts itself as the control plane's components.
func (c *Cluster) kubernetes() string {
	if c.options.Kubernetes == "" {
		return c.self
	}
	return c.binary("kubernetes-" + c.options.Kubernetes)
}

// checkBinaries finds the programs that the cluster will need.
func (c *Cluster) checkBinaries() error {
	if err := c.findBinaries(); err != nil {
		return err
	}
	if _, err := os.Stat(c.kubernetes()); err != nil && c.options.Kubernetes != "" {
		return fmt.Errorf("%w (run make build-versions)", err)
	}
	needed := []string{c.self, c.binary(Kubectl)}
	if c.machines == nil {
		needed = append(needed, c.binary(Kwok))
	}
	if c.options.Scheduler == Everynode {
		needed = append(needed, c.binary(EverynodeScheduler))
	}
	if c.options.Webhook {
		needed = append(needed, c.binary(EverynodeWebhook))
	}
	if c.options.Chart != "" {
		needed = append(needed, c.binary("helm"))
	}
	for _, program := range needed {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("%w (run make build)", err)
		}
	}
	if c.machines != nil {
		return c.checkReal()
	}
	return nil
}

// maxSocket is the longest name of a socket: sockaddr_un on Linux has room for that
// and a zero.
const maxSocket = 107

func (c *Cluster) makeDir() error {
	c.dir = c.options.Dir
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "everynode-")
		if err != nil {
			return err
		}
		c.dir, c.temporary = dir, true
	}
	if socket := c.path("etcd.sock"); len(socket) > maxSocket {
		return fmt.Errorf("the folder's name is too long for a socket in it: %s", socket)
	}
	return nil
}

func (c *Cluster) reservePorts() error {
	for _, port := range []**port{&c.apiServerPort, &c.schedulerPort, &c.webhookPort} {
		reserved, err := reservePort()
		if err != nil {
			return err
		}
		*port = reserved
	}
	return nil
}

// issueCertificates issues what several components need.
func (c *Cluster) issueCertificates() (err error) {
	if c.ca, err = newAuthority(c.dir, "ca"); err != nil {
		return err
	}
	if _, err = newAuthority(c.dir, "front-proxy-ca"); err != nil {
		return err
	}
	if err := c.ca.issueServer("apiserver", "kubernetes", "kubernetes.default", "kubernetes.default.svc"); err != nil {
		return err
	}
	if err := c.ca.issueServiceAccountKey(); err != nil {
		return err
	}
	c.Kubeconfig, err = c.ca.issueKubeconfig("admin", c.server(), "admin", "system:masters")
	return err
}

func (c *Cluster) startAll(ctx context.Context) error {
	timed := func(component string, start func(context.Context) error) func() error {
		return func() error {
			began := time.Now()
			if err := start(ctx); err != nil {
				return err
			}
			if c.options.Progress != nil {
				c.options.Progress(component, time.Since(began))
			}
			return nil
		}
	}
	for _, step := range []func() error{
		timed(Etcd, c.startEtcd),
		timed(APIServer, c.startAPIServer),
		func() error { return c.applyManifests(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	var others errgroup.Group
	others.Go(timed(ControllerManager, c.startControllerManager))
	if c.machines == nil {
		others.Go(timed(Kwok, c.startKwok))
	} else {
		for _, node := range c.machines.nodes {
			others.Go(timed(node.name, func(ctx context.Context) error { return c.startNode(ctx, node) }))
		}
	}
	switch c.options.Scheduler {
	case Everynode:
		others.Go(timed(EverynodeScheduler, c.startScheduler))
	case Stock:
		others.Go(timed(KubeScheduler, c.startScheduler))
	case None:
	}
	if c.options.Webhook {
		others.Go(timed(EverynodeWebhook, c.startWebhook))
	}
	if c.options.Autoscaler != "" {
		others.Go(timed(c.options.Autoscaler, c.startAutoscaler))
	}
	if err := others.Wait(); err != nil || c.machines == nil {
		return err
	}
	// It has to have a node, and borrows the first one.
	return c.startKubeProxy(c.machines.controlPlane, controlPlane, c.machines.nodes[0].name)
}

// applyManifests creates what an installation of everynode brings along, unless the
// cluster is to be one without.
func (c *Cluster) applyManifests(ctx context.Context) error {
	if c.options.Chart != "" {
		return c.installChart(ctx)
	}
	if c.options.Scheduler == Stock && !c.options.Webhook {
		return nil
	}
	manifests := bytes.Join([][]byte{deploy.NamespaceManifest, deploy.StaticPodRBAC, deploy.WebhookRBAC}, []byte("---\n"))
	_, err := c.Kubectl(ctx, manifests, "apply", "-f", "-")
	return err
}

// Stop ends every component at once and forgets the cluster. It may be called
// more than once.
func (c *Cluster) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range slices.Backward(c.processes) {
		p.Kill()
	}
	c.processes = nil
	for _, port := range append(c.replicaPorts, c.apiServerPort, c.schedulerPort, c.webhookPort) {
		if port != nil {
			port.close()
		}
	}
	c.apiServerPort, c.schedulerPort, c.webhookPort, c.replicaPorts = nil, nil, nil, nil
	c.removeMachines()
	if c.temporary {
		// What cannot be removed is left to the system's own cleaning of temporary files.
		_ = os.RemoveAll(c.dir)
	}
}

// Process returns the running process of a component, or nil.
func (c *Cluster) Process(name string) *Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range slices.Backward(c.processes) {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// StartScheduler starts the scheduler again after it has been stopped or killed.
func (c *Cluster) StartScheduler(ctx context.Context) error {
	return c.startScheduler(ctx)
}

// StartAPIServer starts the API server again after it has been killed.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	return c.startAPIServer(ctx)
}

// Logs returns the files that the components write to.
func (c *Cluster) Logs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var logs []string
	for _, p := range c.processes {
		if !slices.Contains(logs, p.Log) {
			logs = append(logs, p.Log)
		}
	}
	return logs
}

// Wait returns when a component has ended, which none does by itself, or when
// ctx ends.
func (c *Cluster) Wait(ctx context.Context) error {
	c.mu.Lock()
	processes := slices.Clone(c.processes)
	c.mu.Unlock()
	ended := make(chan *Process, len(processes))
	for _, p := range processes {
		go func() {
			<-p.exited
			ended <- p
		}()
	}
	select {
	case p := <-ended:
		return fmt.Errorf("%s has ended: %w\nIts log ends with:\n%s", p.Name, p.err, p.tail(10))
	case <-ctx.Done():
		return nil
	}
}

// Kubectl runs kubectl as the administrator and returns what it prints. An error
// carries what it complains of.
func (c *Cluster) Kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	return c.runAsAdministrator(ctx, Kubectl, stdin, args...)
}

// Helm runs helm, which make build-helm makes, as the administrator and returns what it
// prints. An error carries what it complains of.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.runAsAdministrator(ctx, "helm", nil, args...)
}

func (c *Cluster) runAsAdministrator(ctx context.Context, program string, stdin []byte, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.binary(program), args...)
	// The user's own settings and plugins are none of the cluster's business.
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig,
		"HELM_CACHE_HOME="+c.path("helm"), "HELM_CONFIG_HOME="+c.path("helm"), "HELM_DATA_HOME="+c.path("helm"))
	command.Stdin = bytes.NewReader(stdin)
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Address returns where one of our own servers answers, as host:port. component is
// EverynodeScheduler or EverynodeWebhook.
func (c *Cluster) Address(component string) string {
	if component == EverynodeWebhook {
		return c.webhookPort.address()
	}
	return c.schedulerPort.address()
}

// Get reads a path of one of our own servers ("/metrics") with the
// administrator's credentials. component is that of Address.
func (c *Cluster) Get(ctx context.Context, component, path string) (string, error) {
	config := rest.CopyConfig(c.Config)
	config.Host = "https://" + c.Address(component)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return "", err
	}
	return get(ctx, client, config.Host+path)
}

// getOK returns a check that url answers 200.
func (c *Cluster) getOK(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := get(ctx, c.http, url)
		return err
	}
}

func get(ctx context.Context, client *http.Client, url string) (_ string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), nil
}

// start starts a component of the control plane with its further flags and keeps it.
func (c *Cluster) start(name, program string, args ...string) (*Process, error) {
	args = append(args, c.options.Args[name]...)
	if c.machines != nil {
		return c.launch(name, c.machines.controlPlane.Command(program, args...), c.machines.controlPlane.Start)
	}
	command := exec.Command(program, args...) //nolint:noctx // Stop and Kill end it, not the end of a call
	return c.launch(name, command, startOnLivingThread)
}

// launch has start start a command and keeps the process.
func (c *Cluster) launch(name string, command *exec.Cmd, start func(*exec.Cmd) error) (*Process, error) {
	p, err := startProcess(c.dir, name, command, start)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes = append(c.processes, p)
	return p, nil
}

func (c *Cluster) binary(name string) string { return filepath.Join(c.options.BinDir, name) }

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) server() string { return "https://" + c.apiServerPort.address() }

// exists says by its error whether an object of the default namespace exists.
func (c *Cluster) exists(ctx context.Context, resource, name string) error {
	return c.Client.CoreV1().RESTClient().Get().Namespace("default").Resource(resource).Name(name).Do(ctx).Error()
}
