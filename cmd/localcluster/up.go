// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"everynode.dev/everynode/test/localcluster"
)

// upOptions are the flags of up.
type upOptions struct {
	state      state
	nodes      int
	kubernetes string
	scheduler  string
	webhook    string
	config     string
	detach     bool
	real       int
	images     []string
	// autoscaler is empty for none.
	autoscaler string
}

func newUpCommand() *cobra.Command {
	o := &upOptions{}
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster, and end it on Ctrl-C",
		Example: `  # Four nodes, everynode in place of kube-scheduler
  localcluster up

  # The same with the scheduler that Kubernetes ships, to compare
  localcluster up --scheduler stock --webhook off

  # No node but those that Karpenter buys for pods that wait
  localcluster up --autoscaler karpenter --nodes 0

  # Four nodes on Kubernetes 1.36
  localcluster up --kubernetes 1.36

  # Three nodes with real kubelets and containers
  sudo localcluster up --real 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(cmd.Flags().Changed); err != nil {
				return err
			}
			if o.detach {
				return o.runDetached(cmd.Context(), cmd.OutOrStdout())
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	flags := command.Flags()
	o.state.addFlags(flags)
	flags.IntVar(&o.nodes, "nodes", 4, "number of nodes")
	flags.StringVar(&o.kubernetes, "kubernetes", "", "version of Kubernetes: "+strings.Join(localcluster.Versions(), ", ")+" (default: the newest; the others take make build-versions)")
	flags.StringVar(&o.scheduler, "scheduler", "everynode", "who places pods: everynode, stock or none")
	flags.StringVar(&o.webhook, "webhook", "on", "whether everynode-webhook sees DaemonSet pods: on or off")
	flags.StringVar(&o.config, "scheduler-config", "", "file with the KubeSchedulerConfiguration of everynode-scheduler (default: deploy/scheduler-config/replace.yaml)")
	flags.IntVar(&o.real, "real", 0, "number of nodes with real kubelets and containers, 1-100, in place of --nodes; needs root and more, see 'localcluster needs'")
	flags.StringArrayVar(&o.images, "image", nil, "file with container images for the real nodes, which have no registry; can be repeated")
	flags.StringVar(&o.autoscaler, "autoscaler", "", "who buys nodes for pods that wait: karpenter, which 'make build-karpenter' builds (default: nobody)")
	flags.BoolVar(&o.detach, "detach", false, "leave the cluster running in the background; end it with 'localcluster down'")
	return command
}

func (o *upOptions) validate(changed func(flag string) bool) error {
	if schedulers := []string{"everynode", "stock", "none"}; !slices.Contains(schedulers, o.scheduler) {
		return fmt.Errorf("--scheduler is %q, must be one of %s", o.scheduler, strings.Join(schedulers, ", "))
	}
	if versions := localcluster.Versions(); o.kubernetes != "" && !slices.Contains(versions, o.kubernetes) {
		return fmt.Errorf("--kubernetes is %q, must be one of %s", o.kubernetes, strings.Join(versions, ", "))
	}
	if o.webhook != "on" && o.webhook != "off" {
		return fmt.Errorf("--webhook is %q, must be on or off", o.webhook)
	}
	if o.autoscaler != "" && o.autoscaler != localcluster.Karpenter {
		return fmt.Errorf("--autoscaler is %q, must be %s", o.autoscaler, localcluster.Karpenter)
	}
	if o.nodes < 0 || o.nodes > 10000 {
		return fmt.Errorf("--nodes is %d, must be between 0 and 10000", o.nodes)
	}
	if changed("real") {
		return o.validateReal(changed)
	}
	if len(o.images) > 0 {
		return errors.New("--image needs --real: the other nodes run no containers")
	}
	return nil
}

func (o *upOptions) validateReal(changed func(flag string) bool) error {
	if o.real < 1 || o.real > localcluster.MaxRealNodes {
		return fmt.Errorf("--real is %d, must be between 1 and %d", o.real, localcluster.MaxRealNodes)
	}
	if o.autoscaler != "" {
		return errors.New("--autoscaler and --real exclude each other: the nodes that are bought are played")
	}
	if changed("nodes") {
		return errors.New("--nodes and --real exclude each other: nodes are real or played")
	}
	for _, image := range o.images {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("--image: %w", err)
		}
	}
	return nil
}

// run starts the cluster and keeps it until ctx ends.
func (o *upOptions) run(ctx context.Context, out io.Writer) error {
	unlock, err := o.state.lock()
	if err != nil {
		return err
	}
	defer unlock()

	options := localcluster.Options{
		Dir:        o.state.dir(),
		Kubernetes: o.kubernetes,
		Scheduler:  localcluster.Scheduler(o.scheduler),
		Webhook:    o.webhook == "on",
		RealNodes:  o.real,
		Images:     o.images,
		Autoscaler: o.autoscaler,
		Progress: func(component string, took time.Duration) {
			fmt.Fprintf(out, "%-26s ready in %4.1fs\n", component, took.Seconds())
		},
	}
	if o.config != "" {
		if options.SchedulerConfig, err = os.ReadFile(o.config); err != nil {
			return err
		}
	}
	cluster, err := localcluster.Start(ctx, options)
	defer cluster.Stop()
	if err != nil {
		return err
	}
	if o.real == 0 && o.nodes > 0 {
		began := time.Now()
		if err := cluster.AddNodes(ctx, localcluster.Nodes(1, o.nodes)...); err != nil {
			return err
		}
		if err := cluster.WaitNodesReady(ctx); err != nil {
			return err
		}
		options.Progress(fmt.Sprintf("%d nodes", o.nodes), time.Since(began))
	}
	if err := o.state.setReady(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nexport KUBECONFIG=%s\nexport PATH=%s:$PATH\n", cluster.Kubeconfig, binDir())
	if os.Getenv(detachedEnv) == "" {
		fmt.Fprintln(out, "\nCtrl-C ends the cluster.")
	}
	return cluster.Wait(ctx)
}

// detachedEnv tells a process that it is the background half of 'up --detach'.
const detachedEnv = "LOCALCLUSTER_DETACHED"

// runDetached starts the same command in the background, shows what it prints
// until the cluster is ready, and leaves it.
func (o *upOptions) runDetached(ctx context.Context, out io.Writer) error {
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return strings.HasPrefix(arg, "--detach") })
	command := exec.Command(filepath.Join(binDir(), "localcluster"), args...) //nolint:noctx // it outlives us
	command.Env = append(os.Environ(), detachedEnv+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := o.state.clear(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(o.state.dir(), "localcluster.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()

	show, err := os.Open(log.Name())
	if err != nil {
		return err
	}
	defer show.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			_, copyErr := io.Copy(out, show)
			return errors.Join(fmt.Errorf("the cluster did not start: %w", err), copyErr)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), command.Process.Signal(syscall.SIGTERM))
		case <-tick.C:
			ready := o.state.isReady()
			if _, err := io.Copy(out, show); err != nil {
				return err
			}
			if ready {
				fmt.Fprintln(out, "\n'localcluster down' ends the cluster.")
				return nil
			}
		}
	}
}

// binDir is where this program and the others are.
func binDir() string {
	self, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(self)
}
