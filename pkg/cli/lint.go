// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-base/version"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/lint/upstream"
)

// failOnNone is for --fail-on: no finding makes lint fail.
const failOnNone = "none"

// What --level and --fail-on can be.
var (
	levels     = []string{string(lint.Error), string(lint.Warning), string(lint.Info)}
	failLevels = append(slices.Clip(levels), failOnNone)
)

// formatSARIF is what code hosts show beside the lines of a change.
const formatSARIF = "sarif"

// lintOptions are the arguments and flags of lint.
type lintOptions struct {
	*environment
	manifests
	output        output
	all           bool
	names         []resource
	level, failOn string
	only, skip    []string
	settings      string
	list          bool
	// nodes are those of the cluster, if its DaemonSets are checked and nodes may be listed.
	nodes []corev1.Node
}

func newLintCommand(e *environment) *cobra.Command {
	o := &lintOptions{environment: e}
	command := newVerb("lint", o.complete, o.run)
	command.PreRunE = func(command *cobra.Command, _ []string) error { return o.readSettings(command) }
	command.ValidArgsFunction = e.completeDaemonSets
	o.output.addFlag(command, formatSARIF)
	flags := command.Flags()
	o.addFlags(flags)
	flags.BoolVarP(&o.all, "all-namespaces", "A", false, "Check all DaemonSets of the cluster.")
	flags.StringVar(&o.level, "level", string(lint.Warning), "What is reported: error, warning (errors too) or info (all).")
	flags.StringVar(&o.failOn, "fail-on", string(lint.Error), "What makes the exit code 1: error, warning (errors too), info (all that is reported) or none.")
	flags.StringSliceVar(&o.only, "only", nil, "Check these rules alone.")
	flags.StringSliceVar(&o.skip, "skip", nil, "Leave these rules out.")
	flags.StringVar(&o.settings, "settings", "", "File with values for level, fail-on, only and skip, in YAML. Flags come before it.")
	flags.BoolVar(&o.list, "list", false, "List the rules.")
	var ids []string
	for _, rule := range lint.Rules() {
		ids = append(ids, rule.ID)
	}
	for name, values := range map[string][]string{"level": levels, "fail-on": failLevels, "only": ids, "skip": ids} {
		// The flag exists.
		_ = command.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return command
}

// readSettings sets the flags that are in the file of settings and not on the command line.
func (o *lintOptions) readSettings(command *cobra.Command) error {
	if o.settings == "" {
		return nil
	}
	content, err := os.ReadFile(o.settings)
	if err != nil {
		return err
	}
	var settings struct {
		Level  string   `json:"level"`
		FailOn string   `json:"fail-on"`
		Only   []string `json:"only"`
		Skip   []string `json:"skip"`
	}
	if err := yaml.UnmarshalStrict(content, &settings); err != nil {
		return fmt.Errorf("%s: %w", o.settings, err)
	}
	for name, value := range map[string]string{
		"level": settings.Level, "fail-on": settings.FailOn, "only": strings.Join(settings.Only, ","), "skip": strings.Join(settings.Skip, ","),
	} {
		if value != "" && !command.Flags().Changed(name) {
			err = errors.Join(err, command.Flags().Set(name, value))
		}
	}
	return err
}

func (o *lintOptions) complete(args []string) (err error) {
	if err := o.output.validate(); err != nil {
		return err
	}
	sources := slices.DeleteFunc([]bool{len(o.Filenames) > 0, o.Kustomize != "", len(args) > 0, o.all}, func(given bool) bool { return !given })
	if len(sources) != 1 && !o.list {
		return errors.New("name what to check in one way: --filename, --kustomize, DaemonSets of the cluster as ds/NAME, or --all-namespaces")
	}
	for name, flag := range map[string]struct {
		value  string
		values []string
	}{"level": {o.level, levels}, "fail-on": {o.failOn, failLevels}} {
		if !slices.Contains(flag.values, flag.value) {
			return fmt.Errorf("--%s is %q, must be one of %s", name, flag.value, strings.Join(flag.values, ", "))
		}
	}
	for _, id := range slices.Concat(o.only, o.skip) {
		if lint.Find(id) == nil {
			return fmt.Errorf("there is no rule %q: --list names all", id)
		}
	}
	o.names, err = parseNames(args, "ds")
	return err
}

func (o *lintOptions) run(command *cobra.Command) error {
	if o.list {
		o.printRules()
		return nil
	}
	results, unread := o.check(command.Context())
	if unread != nil && len(results) == 0 {
		return unread
	}
	var err error
	switch o.output.format {
	case formatSARIF:
		err = lint.WriteSARIF(o.Out, version.Get().GitVersion, results)
	case formatTable:
		o.print(results)
	default:
		err = o.output.printObject(o.Out, "LintResultList", list[lint.Result]{results})
	}
	fails := func(f lint.Finding) bool {
		return o.failOn != failOnNone && f.Severity.AtLeast(lint.Severity(o.failOn))
	}
	if err = errors.Join(unread, err); err == nil && slices.ContainsFunc(results, func(r lint.Result) bool { return slices.ContainsFunc(r.Findings, fails) }) {
		return ErrFindings
	}
	return err
}

// printRules lists the rules.
func (o *lintOptions) printRules() {
	rows := [][]string{{"RULE", "SEVERITY", "FINDS"}}
	for _, rule := range lint.Rules() {
		rows = append(rows, []string{rule.ID, string(rule.Severity), rule.Title})
	}
	o.newPrinter(o.Out).table(0, rows)
}

// check returns what is wrong with the DaemonSets of the files, or of the cluster. With an
// error for some files, it returns what is wrong in the others.
func (o *lintOptions) check(ctx context.Context) ([]lint.Result, error) {
	documents, unread := o.documents(ctx)
	var objects []runtime.Object
	for _, document := range documents {
		objects = append(objects, document.object)
	}
	// Never nil, so that JSON has an empty list.
	results := []lint.Result{}
	// Those of the same file, which is applied as a whole.
	before := make(map[string][]*appsv1.DaemonSet)
	for _, document := range documents {
		ds, ok := document.object.(*appsv1.DaemonSet)
		if !ok {
			continue
		}
		findings := o.findings(ctx, ds, objects, document.refusals(), slices.Concat(lint.CheckReferences(ds, objects), lint.CheckNeighbours(ds, before[document.file])))
		before[document.file] = append(before[document.file], ds)
		for n := range findings {
			findings[n].Line = document.lineOf(findings[n].Field)
		}
		results = append(results, lint.Result{File: document.file, Line: document.lineOf(""), Namespace: ds.Namespace, Name: ds.Name, Findings: findings})
	}
	return results, unread
}

// documents returns the objects of the files, or the DaemonSets of the cluster that are asked for.
func (o *lintOptions) documents(ctx context.Context) ([]document, error) {
	if len(o.names) > 0 || o.all {
		return o.clusterDocuments(ctx)
	}
	return o.readManifests(ctx, &o.manifests)
}

func (o *lintOptions) clusterDocuments(ctx context.Context) ([]document, error) {
	namespace, err := o.config.namespace()
	if err != nil {
		return nil, err
	}
	client, err := o.connect()
	if err != nil {
		return nil, err
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	switch {
	case err == nil:
		o.nodes = nodes.Items
	case !apierrors.IsForbidden(err):
		return nil, err
	}
	var documents []document
	add := func(ds *appsv1.DaemonSet) {
		documents = append(documents, document{object: ds, part: &part{file: fmt.Sprintf("apis/apps/v1/namespaces/%s/daemonsets/%s", ds.Namespace, ds.Name)}})
	}
	if o.all {
		all, err := client.AppsV1().DaemonSets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for n := range all.Items {
			add(&all.Items[n])
		}
	}
	for _, named := range o.names {
		ds, err := client.AppsV1().DaemonSets(namespace).Get(ctx, named.name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		add(ds)
	}
	return documents, nil
}

// findings returns what the API server and the rules have against ds and is asked for,
// the worst first. objects come with it, refusals are why the API server would not read it, and
// beside is what other objects have against it.
func (o *lintOptions) findings(ctx context.Context, ds *appsv1.DaemonSet, objects []runtime.Object, refusals, beside []lint.Finding) []lint.Finding {
	// What could not be read is missing, with all that is in it, which is no finding of its own.
	refused := slices.DeleteFunc(upstream.Check(ctx, ds), func(f lint.Finding) bool {
		return slices.ContainsFunc(refusals, func(refusal lint.Finding) bool {
			rest, within := strings.CutPrefix(f.Field, refusal.Field)
			return within && (rest == "" || rest[0] == '.' || rest[0] == '[')
		})
	})
	// What lint.Check returns is never nil, so that JSON has an empty list.
	findings := slices.Insert(lint.Check(ds, objects...), 0, slices.Concat(refusals, refused)...)
	findings = append(findings, slices.Concat(beside, lint.CheckNodes(ds, o.nodes))...)
	findings = slices.DeleteFunc(findings, func(f lint.Finding) bool {
		return !f.Severity.AtLeast(lint.Severity(o.level)) || len(o.only) > 0 && !slices.Contains(o.only, f.Rule) || slices.Contains(o.skip, f.Rule)
	})
	slices.SortStableFunc(findings, func(a, b lint.Finding) int {
		return slices.Index(lint.Severities(), a.Severity) - slices.Index(lint.Severities(), b.Severity)
	})
	return findings
}

// print writes findings for people.
func (o *lintOptions) print(results []lint.Result) {
	p := o.newPrinter(o.Out)
	counts := make(map[lint.Severity]int)
	for n := range results {
		result := &results[n]
		if len(result.Findings) == 0 {
			continue
		}
		position := ""
		// Editors jump to it. The cluster has none.
		if result.Line > 0 {
			position = fmt.Sprintf("%s:%d: ", result.File, result.Line)
		}
		p.line(0, position+"DaemonSet "+strings.TrimPrefix(result.Namespace+"/"+result.Name, "/"))
		for _, finding := range result.Findings {
			counts[finding.Severity]++
			severity := p.warn(string(finding.Severity))
			if finding.Severity == lint.Error {
				severity = p.bad(string(finding.Severity))
			}
			p.line(2, severity+" "+finding.Rule)
			at := ""
			if finding.Line > 0 {
				at = fmt.Sprintf("line %d: ", finding.Line)
			}
			p.fold(4, 2, at+finding.Field+": "+finding.Message)
			p.fold(4, 2, "Fix: "+finding.Fix)
		}
		p.line(0, "")
	}
	texts := []string{explain.Count(counts[lint.Error], "error"), explain.Count(counts[lint.Warning], "warning")}
	if o.level == string(lint.Info) {
		texts = append(texts, fmt.Sprintf("%d of info", counts[lint.Info]))
	}
	p.line(0, strings.Join(texts, ", ")+" in "+explain.Count(len(results), "DaemonSet")+".")
}
