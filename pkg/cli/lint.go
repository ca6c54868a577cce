// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/version"

	"everynode.dev/everynode/pkg/lint"
)

// Which findings make lint fail.
const (
	failOnError   = "error"
	failOnWarning = "warning"
	failOnNone    = "none"
)

// formatSARIF is what code hosts show beside the lines of a change.
const formatSARIF = "sarif"

// lintOptions are the arguments and flags of lint.
type lintOptions struct {
	*environment
	output output
	files  []string
	names  []string
	failOn string
}

func newLintCommand(e *environment) *cobra.Command {
	o := &lintOptions{environment: e}
	command := &cobra.Command{
		Use:   "lint -f FILE|ds/NAME...",
		Short: "Say what is wrong with the manifest of a DaemonSet",
		Long: `Check manifests of DaemonSets, in files or in the cluster, for what can never work
(errors) and for what hurts one day (warnings). docs/lint.md explains the rules.

The exit code is 0 if all is well, 1 if there are findings that --fail-on names, and
2 if something could not be read.`,
		Example: `  # A manifest, in a pipeline
  kubectl everynode lint -f filebeat.yaml

  # What the cluster has
  kubectl everynode lint ds/filebeat

  # For a code host
  kubectl everynode lint -f filebeat.yaml --fail-on=none -o sarif > findings.sarif`,
		RunE: func(command *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(command)
		},
		ValidArgsFunction: e.completeDaemonSets,
	}
	o.output.addFlag(command, formatJSON, formatYAML, formatSARIF)
	flags := command.Flags()
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "File with DaemonSets, - for the standard input. It may be given more than once.")
	flags.StringVar(&o.failOn, "fail-on", failOnError, "What makes the exit code 1: error, warning (errors too) or none.")
	// The flag exists.
	_ = command.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{failOnError, failOnWarning, failOnNone}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

func (o *lintOptions) complete(args []string) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	if (len(o.files) == 0) == (len(args) == 0) {
		return errors.New("name either files with --filename, or DaemonSets of the cluster as ds/NAME")
	}
	if !slices.Contains([]string{failOnError, failOnWarning, failOnNone}, o.failOn) {
		return fmt.Errorf("--fail-on is %q, must be one of error, warning, none", o.failOn)
	}
	for _, arg := range args {
		name, err := parseDaemonSet(arg)
		if err != nil {
			return err
		}
		o.names = append(o.names, name)
	}
	return nil
}

func (o *lintOptions) run(command *cobra.Command) error {
	results, err := o.check(command)
	if err != nil {
		return err
	}
	switch o.output.format {
	case formatSARIF:
		err = lint.WriteSARIF(o.Out, version.Get().GitVersion, results)
	case formatJSON, formatYAML:
		err = printObject(o.Out, o.output.format, "LintResultList", struct {
			Items []lint.Result `json:"items"`
		}{results})
	default:
		o.print(results)
	}
	if err != nil {
		return err
	}
	if o.fails(results) {
		return ErrFindings
	}
	return nil
}

// check returns what is wrong with the DaemonSets of the files, or of the cluster.
func (o *lintOptions) check(command *cobra.Command) ([]lint.Result, error) {
	var results []lint.Result
	for _, file := range o.files {
		documents, err := o.readDocuments(file, strict)
		if err != nil {
			return nil, err
		}
		found := len(results)
		for _, document := range documents {
			if ds, ok := document.object.(*appsv1.DaemonSet); ok {
				results = append(results, lint.Result{File: file, Line: document.line, Namespace: ds.Namespace, Name: ds.Name, Findings: lint.Check(ds)})
			}
		}
		if len(results) == found {
			return nil, noDaemonSet(file)
		}
	}
	if len(o.names) == 0 {
		return results, nil
	}
	namespace, err := o.config.namespace()
	if err != nil {
		return nil, err
	}
	client, err := o.connect()
	if err != nil {
		return nil, err
	}
	for _, name := range o.names {
		ds, err := client.AppsV1().DaemonSets(namespace).Get(command.Context(), name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		results = append(results, lint.Result{
			File:      fmt.Sprintf("apis/apps/v1/namespaces/%s/daemonsets/%s", namespace, name),
			Namespace: namespace, Name: name, Findings: lint.Check(ds),
		})
	}
	return results, nil
}

func (o *lintOptions) fails(results []lint.Result) bool {
	return slices.ContainsFunc(results, func(result lint.Result) bool {
		return slices.ContainsFunc(result.Findings, func(finding lint.Finding) bool {
			return o.failOn == failOnWarning || o.failOn == failOnError && finding.Severity == lint.Error
		})
	})
}

// print writes findings for people.
func (o *lintOptions) print(results []lint.Result) {
	p := newPrinter(o.Out)
	counts := make(map[lint.Severity]int)
	for n := range results {
		result := &results[n]
		if len(result.Findings) == 0 {
			continue
		}
		p.line(0, position(result)+"DaemonSet "+strings.TrimPrefix(result.Namespace+"/"+result.Name, "/"))
		for _, finding := range result.Findings {
			counts[finding.Severity]++
			severity := p.warn(string(finding.Severity))
			if finding.Severity == lint.Error {
				severity = p.bad(string(finding.Severity))
			}
			p.line(2, severity+" "+finding.Rule)
			p.fold(4, 2, finding.Field+": "+finding.Message)
			p.fold(4, 2, "Fix: "+finding.Fix)
		}
		p.line(0, "")
	}
	p.line(0, fmt.Sprintf("%s, %s in %s.", plural(counts[lint.Error], "error"), plural(counts[lint.Warning], "warning"), plural(len(results), "DaemonSet")))
}

// position is where editors jump to. The cluster has none.
func position(result *lint.Result) string {
	if result.Line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", result.File, result.Line)
}
