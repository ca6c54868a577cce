// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"everynode.dev/everynode/pkg/explain"
)

// planOptions are the flags of plan.
type planOptions struct {
	*environment
	output output
	file   string
	dryRun bool
	space  string
}

func newPlanCommand(e *environment) *cobra.Command {
	o := &planOptions{environment: e}
	command := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Say what would happen if a DaemonSet were applied",
		Long: `Say which nodes a DaemonSet would run on and which not, and why; how much room it
takes; who would be evicted to make room, by the rules of everynode-scheduler and by
those of kube-scheduler; and where it can never fit. PriorityClasses, namespaces, LimitRanges,
RuntimeClasses, quotas and service accounts of the same file count as if they were there.
It is said which pods are adopted, which are replaced at once, and which quota is too small.

The cluster is the one that kubectl is set to, or what is in files. Nothing is
created: the API server is asked what admission would make of a pod by a dry run.`,
		Example: `  # What would this DaemonSet do here?
  kubectl everynode plan -f filebeat.yaml

  # The same without a cluster
  kubectl get nodes -o json > nodes.json
  kubectl get pods,daemonsets,priorityclasses,poddisruptionbudgets -A -o json > pods.json
  kubectl everynode plan -f filebeat.yaml --from nodes.json --from pods.json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return o.run(command)
		},
	}
	o.output.addFlag(command, formatWide, formatMarkdown)
	e.addFromFlag(command)
	flags := command.Flags()
	flags.StringVarP(&o.file, "filename", "f", "", "File with the DaemonSet, - for the standard input.")
	flags.BoolVar(&o.dryRun, "dry-run-pod", true, "Ask the API server what admission would make of a pod, by creating one with a dry run.")
	return command
}

func (o *planOptions) complete() (err error) {
	if o.file == "" {
		return errors.New("--filename is missing: name the file with the DaemonSet, or - for the standard input")
	}
	if err := o.output.validate(); err != nil {
		return err
	}
	o.space, err = o.config.namespace()
	return err
}

func (o *planOptions) run(command *cobra.Command) error {
	daemonSets, others, err := o.readDaemonSets(o.file, o.space)
	if err != nil {
		return err
	}
	cluster, client, err := o.cluster(command.Context(), scope{namespace: o.space, limits: true})
	if err != nil {
		return err
	}
	for n, ds := range daemonSets {
		o.separate(n, &o.output)
		if err := o.plan(command, cluster, client, ds, others); err != nil {
			return err
		}
	}
	return nil
}

// separate comes before what is printed of the nth of several objects.
func (e *environment) separate(n int, o *output) {
	switch {
	case n == 0 || o.format == formatName:
	case o.format == formatYAML:
		fmt.Fprintln(e.Out, "---")
	case o.format != formatJSON:
		fmt.Fprintln(e.Out)
	}
}

func (o *planOptions) plan(command *cobra.Command, cluster *explain.Cluster, client kubernetes.Interface, ds *appsv1.DaemonSet, others []runtime.Object) error {
	ctx := command.Context()
	changed, old := cluster.With(ds, others...)
	engine, err := o.engine(command, changed)
	if err != nil {
		return err
	}
	var admitted *corev1.Pod
	var refusal error
	var unchecked []string
	if client != nil && o.dryRun {
		admitted, unchecked, refusal = admit(ctx, client, engine.NewPod(ds), others)
	}
	plan, err := engine.Plan(ctx, ds, old, admitted)
	if err != nil {
		return err
	}
	plan.NotChecked = append(unchecked, plan.NotChecked...)
	if refusal != nil {
		plan.Refused = explain.DescribeRefusal(refusal)
	}
	if o.output.isObject() {
		return o.output.printObject(o.Out, "DaemonSetPlan", plan)
	}
	p := &explanationPrinter{printer: o.newPrinter(o.Out), environment: o.environment, wide: o.output.format == formatWide}
	p.markdown = o.output.format == formatMarkdown
	p.plan(plan)
	if diff := o.kubectlCommand("diff", "-f", o.file, "-n", ds.Namespace); o.file != "-" && diff != "" {
		p.line(0, "")
		p.command(2, "Next: ", diff)
	}
	return nil
}

// admit asks the API server what admission makes of pod. unchecked says why it could
// not be asked. A service account that is in the same file will exist when the pod comes.
func admit(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, others []runtime.Object) (admitted *corev1.Pod, unchecked []string, refusal error) {
	if pod == nil {
		return nil, nil, nil
	}
	admitted, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return admitted, nil, nil
	case strings.Contains(err.Error(), `cannot create resource "pods"`):
		return nil, []string{"what admission would make of the pods (RBAC does not allow you to create pods, even with a dry run)."}, nil
	case bringsAlong(others, pod):
		return nil, []string{"what admission would make of the pods: it needs an object that the file would create."}, nil
	default:
		return nil, nil, err
	}
}

// bringsAlong says whether objects have something that pod needs.
func bringsAlong(objects []runtime.Object, pod *corev1.Pod) bool {
	return slices.ContainsFunc(objects, func(object runtime.Object) bool {
		switch object := object.(type) {
		case *corev1.Namespace:
			return object.Name == pod.Namespace
		case *corev1.ServiceAccount:
			return object.Name == pod.Spec.ServiceAccountName
		case *schedulingv1.PriorityClass:
			return object.Name == pod.Spec.PriorityClassName
		case *nodev1.RuntimeClass:
			return pod.Spec.RuntimeClassName != nil && object.Name == *pod.Spec.RuntimeClassName
		default:
			return false
		}
	})
}

// plan writes a plan for people.
func (p *explanationPrinter) plan(plan *explain.Plan) {
	kind := "new"
	if plan.Exists {
		kind = "exists"
	}
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s (%s): %s", plan.Namespace, plan.Name, kind, plan.Summary()))
	p.fold(2, 2, plan.Room())
	p.fold(2, 2, fmt.Sprintf("Their priority is %d.", plan.Priority))
	for _, remark := range plan.Remarks {
		p.fold(2, 2, remark)
	}
	if plan.Refused != "" {
		p.line(0, "")
		p.fold(0, 2, p.bad("REFUSED")+": the API server would not take the pods: "+plan.Refused)
	}
	p.groups(plan.Groups)
	p.evictions(plan)
	p.notChecked(plan.NotChecked)
}

// evictions lists who would have to go.
func (p *explanationPrinter) evictions(plan *explain.Plan) {
	for _, scheduler := range []struct {
		name    string
		victims []explain.Pod
	}{
		{explain.Everynode, plan.Evicted.Everynode},
		{explain.Stock, plan.Evicted.Stock},
	} {
		if len(scheduler.victims) == 0 {
			continue
		}
		p.line(0, "")
		p.heading(0, "WOULD BE EVICTED by "+scheduler.name)
		rows := p.victims(scheduler.victims)
		if p.markdown {
			rows = slices.Concat([][]string{{"Owner", "Pods", "Priority"}}, rows)
		}
		p.table(2, rows)
	}
}

// victims returns a row for each owner of pods, or for each pod if all details are wanted.
func (p *explanationPrinter) victims(pods []explain.Pod) [][]string {
	var rows [][]string
	var counts []int
	index := make(map[string]int)
	for n := range pods {
		pod := &pods[n]
		owner := pod.OwnerText()
		key := owner + strconv.Itoa(int(pod.Priority))
		if p.wide {
			key = pod.String()
		}
		row, ok := index[key]
		if !ok {
			row = len(rows)
			index[key] = row
			rows, counts = append(rows, []string{owner, "", fmt.Sprintf("priority %d", pod.Priority)}), append(counts, 0)
		}
		counts[row]++
		rows[row][1] = explain.Count(counts[row], "pod")
		if p.wide {
			rows[row][1] = "pod " + pod.String()
		}
	}
	return rows
}
