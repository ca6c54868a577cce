// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/version"
	"k8s.io/utils/clock"

	"everynode.dev/everynode/pkg/explain"
)

// ErrFindings says that a verb did its work and found something that a script wants to
// hear of by the exit code. It is no failure, and needs no message.
var ErrFindings = errors.New("there are findings")

// Exit codes.
const (
	exitFindings = 1
	exitError    = 2
)

// ExitCode returns the exit code of the program for an error of a command.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrFindings):
		return exitFindings
	default:
		return exitError
	}
}

// NewCommand returns the command kubectl everynode.
func NewCommand(streams genericiooptions.IOStreams, clock clock.WithTicker) *cobra.Command {
	return newCommand(&environment{IOStreams: streams, clock: clock, config: newConnection()})
}

func newCommand(e *environment) *cobra.Command {
	command := &cobra.Command{
		Use:   "kubectl-everynode",
		Short: "Why does a DaemonSet not run on a node?",
		Long: `kubectl everynode says why the pods of a DaemonSet are, or are not, running on each
node of a cluster, what would happen if a DaemonSet were applied, and how all of
them fare. It works with any scheduler, and changes nothing.`,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl everynode"},
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Version:           version.Get().GitVersion,
	}
	command.SetIn(e.In)
	command.SetOut(e.Out)
	command.SetErr(e.ErrOut)
	e.flags = pflag.NewFlagSet("", pflag.ContinueOnError)
	e.config.addFlags(e.flags)
	command.PersistentFlags().AddFlagSet(e.flags)
	command.PersistentFlags().StringVar(&e.color, "color", colorAuto, "When to colour: auto (on a terminal), always or never.")
	command.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains([]string{colorAuto, colorAlways, colorNever}, e.color) {
			return fmt.Errorf("--color is %q, must be auto, always or never", e.color)
		}
		return nil
	}
	command.AddCommand(newDoctorCommand(e), newExplainCommand(e), newLintCommand(e), newMapCommand(e), newPlanCommand(e), newStatusCommand(e))
	command.InitDefaultHelpCmd()
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
	color    string
	// from are the files of a cluster that is not there, and asOf when they were written.
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

// connect returns a client of the cluster that the flags lead to.
func (e *environment) connect() (kubernetes.Interface, error) {
	if e.client != nil {
		return e.client, nil
	}
	config, err := e.config.restConfig()
	if err != nil {
		return nil, err
	}
	// A few lists, each of many pages, are no danger to a server that protects itself
	// by priority and fairness.
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return kubernetes.NewForConfig(config)
}

// kubectl returns how to call kubectl so that it comes to the same cluster, "" if that
// cannot be written.
func (e *environment) kubectl() string {
	flags, ok := e.clusterFlags()
	if !ok {
		return ""
	}
	return strings.Join(append([]string{"kubectl"}, flags...), " ")
}

// explainCommand returns the command that explains a DaemonSet, "" if it cannot be
// written. Flags follow the name of a plugin.
func (e *environment) explainCommand(namespace, name string) string {
	flags, ok := e.clusterFlags()
	if !ok {
		return ""
	}
	return strings.Join(append([]string{"kubectl everynode explain", "ds/" + explain.Quote(name), "-n", explain.Quote(namespace)}, flags...), " ")
}

// Connection flags that commands don't repeat: the first lead to no other cluster, and
// with one of the last no commands are printed, because it is a secret or kubectl has
// another one of its name.
var (
	otherFlags  = []string{"namespace", "request-timeout", "disable-compression"}
	secretFlags = []string{"token", "proxy-url"}
)

// clusterFlags are the flags that led to the cluster. A command with some of them would
// lead to another one, so it is all of them or no command.
func (e *environment) clusterFlags() (flags []string, ok bool) {
	// What was dumped may be gone, or never have been within reach.
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

// engine returns the engine for a cluster that has just been read.
func (e *environment) engine(command *cobra.Command, cluster *explain.Cluster) (*explain.Engine, error) {
	return explain.New(command.Context(), cluster, explain.Options{Now: e.now(), Kubectl: e.kubectl(), Patience: e.patience})
}

// addPatienceFlag is for the verbs that tell trouble from what is on its way.
func (e *environment) addPatienceFlag(command *cobra.Command) {
	command.Flags().DurationVar(&e.patience, "patience", explain.DefaultPatience, "How long a gap may take to close by itself before it counts as trouble.")
}

// addFromFlag is for the verbs that look at a cluster.
func (e *environment) addFromFlag(command *cobra.Command) {
	command.Flags().StringArrayVar(&e.from, "from", nil, "Look at what is in files and folders in place of a cluster: what kubectl cluster-info dump, a must-gather or kubectl get -o json have written.")
}

// words are the ways in which kubectl lets resources be written.
var words = map[string][]string{
	"ds":   {"ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"},
	"pod":  {"po", "pod", "pods"},
	"node": {"no", "node", "nodes"},
}

// resourceName begins the name of a DaemonSet as kubectl prints it.
const resourceName = "daemonset.apps/"

// kindOf returns the resource that a word means, "" for a word that is none.
func kindOf(word string) string {
	for kind, all := range words {
		if slices.Contains(all, strings.ToLower(word)) {
			return kind
		}
	}
	return ""
}

// splitResource puts a slash between resource and names where they are words of their
// own, as kubectl takes them.
func splitResource(args []string) []string {
	if len(args) < 2 || kindOf(args[0]) == "" {
		return args
	}
	joined := make([]string, 0, len(args)-1)
	for _, name := range args[1:] {
		joined = append(joined, args[0]+"/"+name)
	}
	return joined
}

// parseName returns resource and name in ds/NAME. The resource may be left out.
func parseName(arg string, kinds ...string) (kind, name string, err error) {
	resource, name, found := strings.Cut(arg, "/")
	if !found {
		return "ds", arg, nil
	}
	write := strings.Join(kinds, "/NAME or ") + "/NAME"
	switch kind = kindOf(resource); {
	case !slices.Contains(kinds, kind):
		return "", "", fmt.Errorf("%q is of another kind: write %s", arg, write)
	case name == "":
		return "", "", fmt.Errorf("%q has no name: write %s", arg, write)
	}
	return kind, name, nil
}

// selection is the DaemonSets that a verb is about: those of a namespace, or of all, or
// those that are named.
type selection struct {
	all      bool
	selector string
	labels   labels.Selector
	names    []string
	space    string
}

func (s *selection) addFlag(command *cobra.Command) {
	command.Flags().StringVarP(&s.selector, "selector", "l", "", "Show the DaemonSets with these labels, as in kubectl get -l.")
	command.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "Show the DaemonSets of all namespaces.")
}

func (s *selection) complete(e *environment, args []string) (err error) {
	switch {
	case s.all && len(args) > 0:
		return errors.New("a name belongs to one namespace: leave out --all-namespaces")
	case s.selector != "" && len(args) > 0:
		return errors.New("names and --selector exclude each other: leave one out")
	}
	if s.labels, err = labels.Parse(s.selector); err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	for _, arg := range splitResource(args) {
		_, name, err := parseName(arg, "ds")
		if err != nil {
			return err
		}
		s.names = append(s.names, name)
	}
	if !s.all {
		s.space, err = e.config.namespace()
	}
	return err
}

// choose returns the DaemonSets that were asked for.
func (s *selection) choose(engine *explain.Engine) ([]*appsv1.DaemonSet, error) {
	if len(s.names) == 0 {
		return slices.DeleteFunc(engine.DaemonSets(), func(ds *appsv1.DaemonSet) bool {
			return !s.all && ds.Namespace != s.space || !s.labels.Matches(labels.Set(ds.Labels))
		}), nil
	}
	chosen := make([]*appsv1.DaemonSet, 0, len(s.names))
	for _, name := range s.names {
		ds, err := find(engine, s.space, name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, ds)
	}
	return chosen, nil
}

// nothing says that there is nothing to choose from.
func (s *selection) nothing() string {
	switch {
	case s.selector != "":
		return "There are no DaemonSets with the labels " + s.selector + "."
	case s.all:
		return "The cluster has no DaemonSets."
	}
	return fmt.Sprintf("There are no DaemonSets in namespace %s: -A shows those of all namespaces.", s.space)
}

// find returns the DaemonSet that a user has named.
func find(engine *explain.Engine, namespace, name string) (*appsv1.DaemonSet, error) {
	if ds := engine.Find(namespace, name); ds != nil {
		return ds, nil
	}
	var elsewhere []string
	for _, ds := range engine.DaemonSets() {
		if ds.Name == name {
			elsewhere = append(elsewhere, ds.Namespace)
		}
	}
	if len(elsewhere) > 0 {
		return nil, fmt.Errorf("there is no DaemonSet %s in namespace %s, but in %s: add -n %s", name, namespace, strings.Join(elsewhere, ", "), elsewhere[0])
	}
	return nil, fmt.Errorf("there is no DaemonSet %s in any namespace", name)
}
