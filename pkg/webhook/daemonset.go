// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"everynode.dev/everynode/pkg/webhook/policy"
)

const templatePath = "/spec/template/spec"

// recordAnnotation on a DaemonSet has, as JSON of a record, what a policy has written to it.
const recordAnnotation = "webhook.everynode.dev/written"

// record is what a policy has written to a DaemonSet. What is not in it is the
// DaemonSet's own.
type record struct {
	Annotations       map[string]string   `json:"annotations,omitempty"`
	Tolerations       []corev1.Toleration `json:"tolerations,omitempty"`
	SchedulerName     string              `json:"schedulerName,omitempty"`
	PriorityClassName string              `json:"priorityClassName,omitempty"`
}

// mutateDaemonSet decides what to change in a DaemonSet that is created or updated.
// To apply the result and decide again changes nothing more.
//
// The DaemonSet controller decides from the template where pods belong: a toleration
// that brings pods to more nodes has to be there. A change of the template rolls the
// DaemonSet out, so nothing is changed unless a policy asks for it.
//
// What an earlier policy has written, and the policy no longer wants, is taken back,
// unless it was changed since.
//
// allowed are the tolerations of its namespace: pods with others would be refused.
func mutateDaemonSet(ds *appsv1.DaemonSet, p *policy.Policy, allowed whitelist, classes priorityClasses) mutation {
	var m mutation
	if ds.DeletionTimestamp != nil {
		return m
	}
	var before record
	if value, ok := ds.Annotations[recordAnnotation]; ok {
		if err := json.Unmarshal([]byte(value), &before); err != nil {
			m.problem(reasonAnnotation, "annotation %s: %v; what it lists is taken for the DaemonSet's own", recordAnnotation, err)
			before = record{}
		}
	}
	now, spec, annotations := record{}, ds.Spec.Template.Spec, maps.Clone(ds.Annotations)

	now.Annotations = m.keepAnnotations(annotations, before.Annotations, p.Annotations)
	m.annotate(annotations, p.Annotations, &now)

	spec.Tolerations, now.Tolerations = m.keepTolerations(spec.Tolerations, before.Tolerations, p.DaemonSet.Tolerations)
	now.Tolerations = append(now.Tolerations, m.tolerate(nil, p.DaemonSet.Tolerations, &spec, templatePath, allowed)...)

	now.SchedulerName = m.keep("scheduler", before.SchedulerName, p.DaemonSet.SchedulerName, corev1.DefaultSchedulerName, &spec.SchedulerName)
	if m.schedule(&p.DaemonSet, &spec, templatePath) {
		now.SchedulerName = p.DaemonSet.SchedulerName
	}

	now.PriorityClassName = m.keep("priorityClass", before.PriorityClassName, p.DaemonSet.PriorityClassName, "", &spec.PriorityClassName)
	if name := p.DaemonSet.PriorityClassName; name != "" && spec.PriorityClassName == "" && m.prioritize(name, &spec, templatePath, classes) {
		now.PriorityClassName = name
	}
	m.record(ds.Annotations, &now)
	return m
}

// keep gives a name in the template its default, and by the patch, if it was written and is no
// longer wanted. It returns the name if it was written and stays.
func (m *mutation) keep(what, written, wanted, byDefault string, present *string) string {
	switch path := templatePath + "/" + what + "Name"; {
	case written == "" || written != *present:
		return ""
	case written == wanted:
		return written
	case byDefault == "":
		m.remove(path)
	default:
		m.replace(path, byDefault)
	}
	m.auditRemoval(what)
	*present = byDefault
	return ""
}

// keepAnnotations removes from present, and by the patch, those that were written and are
// no longer wanted. It returns those that were written and stay.
func (m *mutation) keepAnnotations(present, written, wanted map[string]string) map[string]string {
	var kept map[string]string
	for _, key := range slices.Sorted(maps.Keys(written)) {
		if value, ok := present[key]; !ok || value != written[key] {
			continue
		}
		if value, ok := wanted[key]; ok && value == written[key] {
			if kept == nil {
				kept = make(map[string]string)
			}
			kept[key] = value
			continue
		}
		m.remove("/metadata/annotations/" + pathPart(key))
		m.auditRemoval(key)
		delete(present, key)
	}
	return kept
}

// annotate adds annotations that are missing, and records them.
func (m *mutation) annotate(present, wanted map[string]string, now *record) {
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
	if now.Annotations == nil {
		now.Annotations = missing
	} else {
		maps.Copy(now.Annotations, missing)
	}
}

// keepTolerations removes, by the patch too, those that were written and are no longer
// wanted. It returns all that stay, and those among them that were written.
func (m *mutation) keepTolerations(present, written, wanted []corev1.Toleration) (all, kept []corev1.Toleration) {
	has := func(list []corev1.Toleration, t *corev1.Toleration) bool {
		return slices.ContainsFunc(list, func(other corev1.Toleration) bool { return equality.Semantic.DeepEqual(&other, t) })
	}
	for i := range present {
		switch t := &present[i]; {
		case !has(written, t):
			all = append(all, *t)
		case has(wanted, t):
			all, kept = append(all, *t), append(kept, *t)
		default:
			// Those before it that stay are in front of it.
			m.remove(fmt.Sprintf("%s/tolerations/%d", templatePath, len(all)))
			m.auditRemoval("toleration of " + t.Key)
		}
	}
	return all, kept
}

// record writes down what the policy has written, if that has changed.
func (m *mutation) record(present map[string]string, now *record) {
	path := "/metadata/annotations/" + pathPart(recordAnnotation)
	before, recorded := present[recordAnnotation]
	// What is in it was decoded, or is of a valid policy.
	encoded, _ := encode(now)
	switch value := string(encoded); {
	case value == "{}":
		if recorded {
			m.remove(path)
		}
	case value == before:
	case present == nil && len(now.Annotations) == 0:
		m.add("/metadata/annotations", map[string]string{recordAnnotation: value})
	default:
		m.add(path, value)
	}
}
