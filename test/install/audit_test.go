// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"everynode.dev/everynode/test/rights"
)

// unseen are rights that no test can call for at will, or that are no requests, with the reason.
var unseen = map[rights.Right]string{
	{Verb: "get", Group: "resource.k8s.io", Resource: "resourceclaims"}:            "only after somebody else has written the claim at the same moment",
	{Verb: "delete", Group: "resource.k8s.io", Resource: "resourceclaims"}:         "only if the pod cannot be bound after its claim was made",
	{Verb: "patch", Group: "resource.k8s.io", Resource: "resourceclaims/status"}:   "only if the pod cannot be bound after its claim was allocated",
	{Verb: "update", Group: "resource.k8s.io", Resource: "resourceclaims/binding"}: "the API server asks for it when a status is updated",
	{Verb: "patch", Group: "resource.k8s.io", Resource: "resourceclaims/binding"}:  "the API server asks for it when a status is patched",
	{Verb: "update", Group: "", Resource: "pods/finalizers"}:                       "an admission plugin asks for it, where it is on",
	{Verb: "get", Group: "batch", Resource: "jobs"}:                                "only before a pod of a Job is evicted",
	{Verb: "patch", Group: "events.k8s.io", Resource: "events"}:                    "only if the same event happens again within minutes",
}

// granted returns what the chart's roles allow a component.
func (r *release) granted(component string) rights.Set {
	r.Helper()
	selector := metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + r.name + ",app.kubernetes.io/component=" + component}
	clusterRoles, err := r.Client.RbacV1().ClusterRoles().List(r.Context(), selector)
	if err != nil {
		r.Fatal(err)
	}
	roles, err := r.Client.RbacV1().Roles("").List(r.Context(), selector)
	if err != nil {
		r.Fatal(err)
	}
	var rules []rbacv1.PolicyRule
	for i := range clusterRoles.Items {
		rules = append(rules, clusterRoles.Items[i].Rules...)
	}
	for i := range roles.Items {
		rules = append(rules, roles.Items[i].Rules...)
	}
	all := make(rights.Set)
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all[rights.Right{Verb: verb, Group: group, Resource: resource}] = true
				}
			}
		}
	}
	if len(all) == 0 {
		r.Fatalf("%s of %s has no rights", component, r.name)
	}
	return all
}

// checkRights compares what a component may do with what it did.
func (r *release) checkRights(component string) {
	r.Helper()
	done, denied, err := r.audit.Of(r.namespace + ":" + r.object(component))
	if err != nil {
		r.Fatal(err)
	}
	for _, right := range denied.Sorted() {
		r.Errorf("%s was not allowed to %s", component, right)
	}
	for _, right := range r.granted(component).Sorted() {
		if right.Verb == "list" && done[rights.Right{Verb: "watch", Group: right.Group, Resource: right.Resource}] {
			// Informers begin with a watch, and list where an API server cannot stream what it has.
			continue
		}
		if !done[right] && unseen[right] == "" {
			r.Errorf("%s may %s, and never did", component, right)
		}
	}
}
