// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"everynode.dev/everynode/pkg/webhook/policy"
)

// mutateDaemonSet decides what to change in a DaemonSet that is created or updated.
// To apply the result and decide again changes nothing more.
//
// The DaemonSet controller decides from the template where pods belong: a toleration
// that brings pods to more nodes has to be there. A change of the template rolls the
// DaemonSet out, so nothing is changed unless a policy asks for it.
//
// allowed are the tolerations of its namespace: pods with others would be refused.
func mutateDaemonSet(ds *appsv1.DaemonSet, p *policy.Policy, allowed whitelist, classes priorityClasses) mutation {
	var m mutation
	if ds.DeletionTimestamp != nil {
		return m
	}
	m.annotate(ds.Annotations, p.Annotations)
	spec := &ds.Spec.Template.Spec
	m.tolerate(nil, p.DaemonSet.Tolerations, spec, templatePath, allowed)
	m.apply(&p.DaemonSet, spec, templatePath, classes)
	return m
}

const templatePath = "/spec/template/spec"

// annotate adds annotations that are missing.
func (m *mutation) annotate(present, wanted map[string]string) {
	missing := maps.Clone(wanted)
	maps.DeleteFunc(missing, func(key, _ string) bool {
		_, ok := present[key]
		return ok
	})
	if len(missing) == 0 {
		return
	}
	keys := slices.Sorted(maps.Keys(missing))
	if present == nil {
		m.add("/metadata/annotations", missing)
	} else {
		for _, key := range keys {
			m.add("/metadata/annotations/"+pathPart(key), missing[key])
		}
	}
	m.audit("annotations", strings.Join(keys, ","))
}
