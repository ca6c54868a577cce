// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	"everynode.dev/everynode/pkg/snapshot"
)

// planOptions are the flags of plan.
type planOptions struct {
	query
	manifests
	dryRun bool
}

func newPlanCommand(e *environment) *cobra.Command {
	o := &planOptions{query: query{environment: e}}
	command := newVerb("plan", o.complete, o.run)
	command.Args = cobra.NoArgs
	o.output.addFlag(command, formatWide, formatMarkdown)
	e.addFromFlag(command)
	o.manifests.addFlags(command.Flags())
	command.Flags().BoolVar(&o.dryRun, "dry-run-pod", true, "Ask the API server what admission would make of a pod, by creating one with a dry run.")
	return command
}

func (o *planOptions) complete(args []string) error {
	if (len(o.Filenames) > 0) == (o.Kustomize != "") {
		return errors.New("name the files with the DaemonSet in one way: --filename, or --kustomize")
	}
	return o.query.complete(args)
}

func (o *planOptions) run(command *cobra.Command) error {
	documents, err := o.readManifests(command.Context(), &o.manifests)
	if err != nil {
		return err
	}
	daemonSets, others, err := sortDaemonSets(documents, o.space)
	if err != nil {
		return err
	}
	cluster, client, err := o.cluster(command.Context(), scope{namespace: o.space, limits: true, planned: daemonSets})
	if err != nil {
		return err
	}
	for n, ds := range daemonSets {
		o.output.separate(o.Out, n)
		if cluster, err = o.plan(command, cluster, client, ds, others); err != nil {
			return err
		}
	}
	return nil
}

// sortDaemonSets returns the DaemonSets among documents and the other objects, those without a namespace in the
// given one.
func sortDaemonSets(documents []document, namespace string) (daemonSets []*appsv1.DaemonSet, others []runtime.Object, err error) {
	for _, d := range documents {
		switch object := d.object.(type) {
		case *appsv1.DaemonSet:
			for _, refusal := range d.refusals() {
				err = errors.Join(err, fmt.Errorf("%s: the API server refuses it: %s: %s", d.position(refusal.Field), refusal.Field, refusal.Message))
			}
			object.Namespace = cmp.Or(object.Namespace, namespace)
			daemonSets = append(daemonSets, object)
			continue
		case *corev1.ResourceQuota, *corev1.LimitRange:
			limits := object.(metav1.Object)
			limits.SetNamespace(cmp.Or(limits.GetNamespace(), namespace))
		}
		others = append(others, d.object)
	}
	if len(daemonSets) == 0 {
		err = errors.Join(err, errors.New("there is no DaemonSet of apps/v1 in what --filename or --kustomize names"))
	}
	return daemonSets, others, err
}

// plan prints what would happen if ds were applied, and returns the cluster as it is then.
func (o *planOptions) plan(command *cobra.Command, cluster *snapshot.Cluster, client kubernetes.Interface, ds *appsv1.DaemonSet, others []runtime.Object) (*snapshot.Cluster, error) {
	ctx := command.Context()
	changed, old := cluster.With(ds, others...)
	engine, err := o.engine(command, changed)
	if err != nil {
		return nil, err
	}
	var admitted *corev1.Pod
	var refusal error
	var unchecked []string
	if client != nil && o.dryRun {
		admitted, unchecked, refusal = admit(ctx, client, engine.NewPod(ds), others)
	}
	plan, err := engine.Plan(ctx, ds, old, admitted)
	if err != nil {
		return nil, err
	}
	plan.NotChecked = append(unchecked, plan.NotChecked...)
	if refusal != nil {
		plan.Refused = explain.DescribeRefusal(refusal)
	} else {
		changed = engine.After(plan)
	}
	if o.output.isObject() {
		return changed, o.output.printObject(o.Out, "DaemonSetPlan", plan)
	}
	p := o.printer()
	p.plan(plan)
	if diff := explain.Command(o.kubectl(), slices.Concat([]string{"diff"}, o.args(), []string{"-n", ds.Namespace})...); !slices.Contains(o.Filenames, "-") && diff != "" {
		p.line(0, "")
		p.command(2, "Next: ", diff)
	}
	return changed, nil
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
func (p *printer) plan(plan *explain.Plan) {
	kind := "new"
	if plan.Exists {
		kind = "exists"
	}
	p.heading(2, fmt.Sprintf("DaemonSet %s/%s (%s): %s", plan.Namespace, plan.Name, kind, plan.Summary()))
	p.items(plan.Room(), fmt.Sprintf("Their priority is %d.", plan.Priority))
	p.items(plan.Remarks...)
	if plan.Refused != "" {
		p.section(p.bad("REFUSED") + ": the API server would not take the pods: " + plan.Refused)
	}
	p.groups(plan.Groups)
	p.evictions(explain.Everynode, plan.Evicted.Everynode)
	p.evictions(explain.Stock, plan.Evicted.Stock)
	p.unchecked(plan.NotChecked)
}

// evictions lists whom a scheduler would evict: their owners, or each pod if all details are wanted.
func (p *printer) evictions(scheduler string, victims []explain.Pod) {
	if len(victims) == 0 {
		return
	}
	var rows [][]string
	counts := make(map[string]int)
	for n := range victims {
		pod := &victims[n]
		row := []string{pod.OwnerText(), "pod " + pod.String(), fmt.Sprintf("priority %d", pod.Priority)}
		key := row[0] + row[2]
		counts[key]++
		if p.wide || counts[key] == 1 {
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		if !p.wide {
			row[1] = explain.Count(counts[row[0]+row[2]], "pod")
		}
	}
	p.line(0, "")
	p.heading(0, "WOULD BE EVICTED by "+scheduler)
	p.titled(2, "Owner,Pods,Priority", rows)
}
