// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/term"
	"k8s.io/component-base/version/verflag"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/config"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

const program = "everynode-scheduler"

// newCommand returns kube-scheduler's command with further plugins. It differs from app.NewSchedulerCommand in two
// things, for which upstream has no option: events have limits of their own, and a program that is newer than the API
// server says so and ends.
func newCommand(registry frameworkruntime.Registry) *cobra.Command {
	opts := options.NewOptions()
	cmd := &cobra.Command{
		Use:               program,
		Long:              "everynode-scheduler is kube-scheduler with plugins that know what DaemonSets need.",
		Args:              cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { return opts.ComponentGlobalsRegistry.Set() },
		RunE:              func(cmd *cobra.Command, _ []string) error { return run(cmd, opts, registry) },
	}
	flags := opts.Flags
	verflag.AddFlags(flags.FlagSet("global"))
	globalflag.AddGlobalFlags(flags.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, set := range flags.FlagSets {
		cmd.Flags().AddFlagSet(set)
	}
	columns, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, *flags, columns)
	return cmd
}

// run is runCommand of k8s.io/kubernetes/cmd/kube-scheduler/app.
func run(cmd *cobra.Command, opts *options.Options, registry frameworkruntime.Registry) (err error) {
	verflag.PrintAndExitIfRequested()
	gates := opts.ComponentGlobalsRegistry.FeatureGateFor(compatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(opts.Logs, gates); err != nil {
		return err
	}
	cliflag.PrintFlags(cmd.Flags())
	if opts.InformerName, err = cache.NewInformerName(program); err != nil {
		return err
	}
	ctx := server.SetupSignalContext()
	cc, sched, err := setUp(ctx, opts, registry)
	if err != nil {
		return err
	}
	emulated := opts.ComponentGlobalsRegistry.EffectiveVersionFor(compatibility.DefaultKubeComponent).EmulationVersion()
	go func() {
		if err := checkAPIServer(ctx, cc.Client.Discovery(), emulated); err != nil {
			klog.FromContext(ctx).Error(err, "This is not the right version for the API server")
			klog.FlushAndExit(klog.ExitFlushTimeout, 1)
		}
	}()
	gates.(featuregate.MutableFeatureGate).AddMetrics()
	opts.ComponentGlobalsRegistry.AddMetrics()
	return app.Run(ctx, cc, sched)
}

// setUp is app.Setup, but for the events.
func setUp(ctx context.Context, opts *options.Options, registry frameworkruntime.Registry) (*config.CompletedConfig, *scheduler.Scheduler, error) {
	var err error
	if opts.ComponentConfig, err = latest.Default(); err != nil {
		return nil, nil, err
	}
	if errs := opts.Validate(); len(errs) > 0 {
		return nil, nil, errors.NewAggregate(errs)
	}
	c, err := opts.Config(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := slowEvents(ctx, c); err != nil {
		return nil, nil, err
	}
	cc := c.Complete()
	limit := newEventLimit(eventConfig(cc.KubeConfig).QPS)
	var profiles []schedulerapi.KubeSchedulerProfile
	sched, err := scheduler.New(ctx, cc.Client, cc.InformerFactory, cc.DynInformerFactory,
		func(name string) events.EventRecorderLogger {
			return &limitedRecorder{cc.EventBroadcaster.NewRecorder(name), limit}
		},
		scheduler.WithComponentConfigVersion(cc.ComponentConfig.APIVersion),
		scheduler.WithKubeConfig(cc.KubeConfig),
		scheduler.WithProfiles(cc.ComponentConfig.Profiles...),
		scheduler.WithPercentageOfNodesToScore(cc.ComponentConfig.PercentageOfNodesToScore),
		scheduler.WithFrameworkOutOfTreeRegistry(registry),
		scheduler.WithPodMaxBackoffSeconds(cc.ComponentConfig.PodMaxBackoffSeconds),
		scheduler.WithPodInitialBackoffSeconds(cc.ComponentConfig.PodInitialBackoffSeconds),
		scheduler.WithPodMaxInUnschedulablePodsDuration(cc.PodMaxInUnschedulablePodsDuration),
		scheduler.WithExtenders(cc.ComponentConfig.Extenders...),
		scheduler.WithParallelism(cc.ComponentConfig.Parallelism),
		scheduler.WithBuildFrameworkCapturer(func(profile schedulerapi.KubeSchedulerProfile) { profiles = append(profiles, profile) }),
	)
	if err != nil {
		return nil, nil, err
	}
	return &cc, sched, options.LogOrWriteConfig(klog.FromContext(ctx), opts.WriteConfigTo, &cc.ComponentConfig, profiles)
}
