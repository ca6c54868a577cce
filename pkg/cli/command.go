// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/version"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/snapshot"
)

// ErrFindings says that a verb found trouble, so that scripts see it by the exit code. It is no
// failure, and needs no message.
var ErrFindings = errors.New("there are findings")

// ExitCode returns the exit code of the program for an error of a command: 1 for
// [ErrFindings], 2 for other errors.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrFindings):
		return 1
	default:
		return 2
	}
}

// What --color can be.
var colors = []string{"auto", "always", "never"}

// NewCommand returns the command kubectl everynode.
func NewCommand(streams genericiooptions.IOStreams, clock clock.WithTicker) *cobra.Command {
	return newCommand(&environment{IOStreams: streams, clock: clock, config: newConnection()})
}

func newCommand(e *environment) *cobra.Command {
	command := newVerb("root", nil, nil)
	command.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl everynode"}
	command.SilenceUsage, command.SilenceErrors, command.DisableAutoGenTag = true, true, true
	command.Version = version.Get().GitVersion
	command.SetIn(e.In)
	command.SetOut(e.Out)
	command.SetErr(e.ErrOut)
	e.flags = pflag.NewFlagSet("", pflag.ContinueOnError)
	e.config.addFlags(e.flags)
	command.PersistentFlags().AddFlagSet(e.flags)
	color := command.PersistentFlags().String("color", colors[0], "When to colour: auto (on a terminal), always or never.")
	command.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(colors, *color) {
			return fmt.Errorf("--color is %q, must be auto, always or never", *color)
		}
		// https://no-color.org
		auto := isTerminal(e.Out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		e.colored = *color == "always" || *color == "auto" && auto
		return nil
	}
	command.AddCommand(newDoctorCommand(e), newExplainCommand(e), newLintCommand(e), newMapCommand(e), newPlanCommand(e), newStatusCommand(e))
	command.InitDefaultHelpCmd()
	return command
}

//go:embed help.yaml
var helpFile []byte

// newVerb returns the command with the help of that name. It runs complete, which checks the
// arguments and flags, and then run.
func newVerb(name string, complete func(args []string) error, run func(*cobra.Command) error) *cobra.Command {
	var help map[string]struct{ Use, Short, Long, Example string }
	// The file is a part of the program, and a test reads it.
	_ = yaml.Unmarshal(helpFile, &help)
	text := help[name]
	command := &cobra.Command{Use: text.Use, Short: text.Short, Long: text.Long, Example: text.Example}
	if run != nil {
		command.RunE = func(command *cobra.Command, args []string) error {
			if err := complete(args); err != nil {
				return err
			}
			return run(command)
		}
	}
	return command
}

// environment is what all verbs share.
type environment struct {
	genericiooptions.IOStreams
	clock  clock.WithTicker
	config *connection
	// flags are those that lead to the cluster.
	flags    *pflag.FlagSet
	patience time.Duration
	colored  bool
	// from are files to read in place of a cluster, and asOf is when they were written.
	from []string
	asOf time.Time
	// client is set by tests.
	client kubernetes.Interface
}

// now is the moment at which the cluster is, or was.
func (e *environment) now() time.Time {
	if e.asOf.IsZero() {
		return e.clock.Now()
	}
	return e.asOf
}

// age returns how long ago a moment was, in words.
func (e *environment) age(at time.Time) string {
	return duration.HumanDuration(e.now().Sub(at))
}

// ageOr is age for a moment that may not be known.
func (e *environment) ageOr(at *metav1.Time, unknown string) string {
	if at.IsZero() {
		return unknown
	}
	return e.age(at.Time)
}

// ago writes how long ago a moment was, between before and after; nothing if it is not known.
func (e *environment) ago(before string, at *metav1.Time, after string) string {
	if at.IsZero() {
		return ""
	}
	return before + e.age(at.Time) + " ago" + after
}

// addFromFlag is for the verbs that look at a cluster.
func (e *environment) addFromFlag(command *cobra.Command) {
	command.Flags().StringArrayVar(&e.from, "from", nil, "Look at what is in files and folders in place of a cluster: what kubectl cluster-info dump, a must-gather or kubectl get -o json have written.")
}

// cluster returns a cluster, and its client if it is not in files.
func (e *environment) cluster(ctx context.Context, s scope) (*snapshot.Cluster, kubernetes.Interface, error) {
	if len(e.from) > 0 {
		cluster, err := e.readFiles(ctx, e.from)
		return cluster, nil, err
	}
	r, err := e.newReader()
	if err != nil {
		return nil, nil, err
	}
	cluster, err := r.read(ctx, s)
	return cluster, r.client, err
}

func (e *environment) newReader() (*reader, error) {
	client, err := e.connect()
	if err != nil {
		return nil, err
	}
	fallback, err := e.config.namespace()
	return &reader{client: client, fallback: fallback, progress: newProgress(e.ErrOut, e.clock)}, err
}

// engine returns the engine for a cluster that has just been read.
func (e *environment) engine(command *cobra.Command, cluster *snapshot.Cluster) (*explain.Engine, error) {
	return explain.New(command.Context(), cluster, explain.Options{Now: e.now(), Kubectl: e.kubectl(), Patience: e.patience})
}

// query is what the verbs that look at the DaemonSets of a cluster share.
type query struct {
	*environment
	selection
	output output
}

func (q *query) addFlags(command *cobra.Command, formats ...string) {
	q.output.addFlag(command, formats...)
	q.selection.addFlags(command)
	q.addFromFlag(command)
	command.Flags().DurationVar(&q.patience, "patience", explain.DefaultPatience, "How long a gap may take to close by itself before it counts as trouble.")
	command.ValidArgsFunction = q.completeDaemonSets
}

func (q *query) complete(args []string) error {
	if err := q.output.validate(); err != nil {
		return err
	}
	return q.selection.complete(q.environment, args)
}

// read reads the cluster that the flags lead to, or the files of one. Events are those of a
// namespace, of all if it is "".
func (q *query) read(command *cobra.Command, namespace string) (*explain.Engine, error) {
	cluster, _, err := q.cluster(command.Context(), scope{namespace: namespace, podEvents: true})
	if err != nil {
		return nil, err
	}
	return q.engine(command, cluster)
}

// look reads the cluster and returns its engine and the DaemonSets that were asked for.
func (q *query) look(command *cobra.Command) (*explain.Engine, []*appsv1.DaemonSet, error) {
	engine, err := q.read(command, q.space)
	if err != nil {
		return nil, nil, err
	}
	daemonSets, err := q.choose(engine)
	return engine, daemonSets, err
}

func (q *query) printer() *printer {
	p := q.newPrinter(q.Out)
	p.wide, p.markdown = q.output.format == formatWide, q.output.format == formatMarkdown
	return p
}
