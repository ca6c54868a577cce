// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"everynode.dev/everynode/pkg/webhook/policy"
)

// operation is one operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// mutation is what is to be done to an object. Patches name single fields, never
// whole objects: an object can have fields that this program has not heard of. Each of
// them has to apply: the API server refuses an object whose patch does not, whatever
// the failurePolicy.
type mutation struct {
	Patch []operation
	// Audit says what was done, for the API server's audit log.
	Audit map[string]string
	// Problems are why less was done than was asked for.
	Problems []problem
}

// problem is why something was not done.
type problem struct {
	// Reason is for metrics, Message for whoever created the object.
	Reason  reason
	Message string
}

func (m *mutation) add(path string, value any) {
	m.Patch = append(m.Patch, operation{Op: "add", Path: path, Value: value})
}

func (m *mutation) replace(path string, value any) {
	m.Patch = append(m.Patch, operation{Op: "replace", Path: path, Value: value})
}

func (m *mutation) remove(path string) {
	m.Patch = append(m.Patch, operation{Op: "remove", Path: path})
}

func (m *mutation) audit(key, value string) {
	if m.Audit == nil {
		m.Audit = make(map[string]string)
	}
	m.Audit[key] = value
}

// auditRemoval adds to the list of what was taken back.
func (m *mutation) auditRemoval(what string) {
	m.audit("removed", strings.TrimPrefix(m.Audit["removed"]+","+what, ","))
}

func (m *mutation) problem(reason reason, format string, args ...any) {
	m.Problems = append(m.Problems, problem{reason, fmt.Sprintf(format, args...)})
}

// pathPart escapes a key for a path (RFC 6901).
func pathPart(key string) string {
	return pathEscape.Replace(key)
}

var pathEscape = strings.NewReplacer("~", "~0", "/", "~1")

// priorityClass is what pods of a namespace have to do with a PriorityClass.
type priorityClass struct {
	// isDefault says whether pods get it that name none.
	isDefault bool
	// forbidden says why the API server would refuse pods of it; empty if it would not.
	forbidden string
}

// priorityClasses looks up a PriorityClass for the pods of one namespace.
type priorityClasses func(name string) priorityClass

// schedule sets the policy's scheduler on the pod spec at path, unless it names another one.
func (m *mutation) schedule(settings *policy.Settings, spec *corev1.PodSpec, path string) bool {
	if settings.SchedulerName != "" && (spec.SchedulerName == "" || spec.SchedulerName == corev1.DefaultSchedulerName) &&
		spec.SchedulerName != settings.SchedulerName {
		m.add(path+"/schedulerName", settings.SchedulerName)
		m.audit("scheduler", settings.SchedulerName)
		return true
	}
	return false
}

// prioritize sets the priority class of a pod or template that names none.
func (m *mutation) prioritize(name string, spec *corev1.PodSpec, path string, classes priorityClasses) bool {
	if class := classes(name); class.forbidden != "" {
		// The API server would refuse the pod.
		m.problem(reasonPriorityClass, "the policy's priorityClassName %s is not set: %s", name, class.forbidden)
		return false
	}
	m.add(path+"/priorityClassName", name)
	// They were computed from the class before, and have to be computed again
	// (Priority in k8s.io/kubernetes/plugin/pkg/admission/priority refuses others).
	if spec.Priority != nil {
		m.remove(path + "/priority")
	}
	if spec.PreemptionPolicy != nil {
		m.remove(path + "/preemptionPolicy")
	}
	m.audit("priorityClass", name)
	return true
}

// tolerate adds the tolerations that a pod spec lacks, as far as the whitelist of its
// namespace allows, and returns them. Those of standard are for ever: a time limit is
// taken from them.
func (m *mutation) tolerate(standard, further []corev1.Toleration, spec *corev1.PodSpec, path string, allowed whitelist) []corev1.Toleration {
	tolerations := slices.Clone(spec.Tolerations)
	var changed []string
	for i, toleration := range slices.Concat(standard, further) {
		present := slices.IndexFunc(tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&toleration) })
		if present >= 0 && (i >= len(standard) || tolerations[present].TolerationSeconds == nil) {
			continue
		}
		name := strings.TrimSuffix(toleration.Key+":"+string(toleration.Effect), ":")
		switch {
		case !allowed.covers(&toleration):
			m.problem(reasonWhitelist, "the namespace's annotation %s does not allow the toleration of %s: it is left out", whitelistAnnotation, name)
			continue
		case present >= 0:
			m.remove(fmt.Sprintf("%s/tolerations/%d/tolerationSeconds", path, present))
		default:
			tolerations = append(tolerations, toleration)
		}
		changed = append(changed, name)
	}
	before := len(spec.Tolerations)
	added := tolerations[before:]
	switch {
	case len(added) == 0:
	case before == 0:
		m.add(path+"/tolerations", added)
	default:
		for i := range added {
			m.add(path+"/tolerations/-", added[i])
		}
	}
	if len(changed) > 0 {
		m.audit("tolerations", strings.Join(changed, ","))
	}
	return added
}
