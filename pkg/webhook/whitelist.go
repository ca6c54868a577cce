// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// whitelistAnnotation on a namespace lists the tolerations that its pods may have. The
// admission plugin PodTolerationRestriction refuses pods with others, also if it was
// us who added them.
const whitelistAnnotation = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"

// whitelist are the tolerations that pods may have; none means that all are allowed.
type whitelist []corev1.Toleration

// parseWhitelist reads the annotation of a namespace. What cannot be parsed allows
// nothing: the plugin refuses all pods there.
func parseWhitelist(annotations map[string]string) whitelist {
	value := annotations[whitelistAnnotation]
	if value == "" {
		return nil
	}
	var list whitelist
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		return whitelist{{Key: "unreadable", Operator: corev1.TolerationOpEqual}}
	}
	return list
}

// covers repeats VerifyAgainstWhitelist of k8s.io/kubernetes/pkg/util/tolerations.
func (w whitelist) covers(t *corev1.Toleration) bool {
	if len(w) == 0 {
		return true
	}
	for i := range w {
		if supersedes(&w[i], t) {
			return true
		}
	}
	return false
}

// supersedes says whether super tolerates all that t does.
func supersedes(super, t *corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(super, t) {
		return true
	}
	if super.Key != t.Key && (super.Key != "" || super.Operator != corev1.TolerationOpExists) ||
		super.Effect != t.Effect && super.Effect != "" {
		return false
	}
	if super.Effect == corev1.TaintEffectNoExecute && super.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *super.TolerationSeconds) {
		return false
	}
	if super.Operator == corev1.TolerationOpExists {
		return true
	}
	return (super.Operator == corev1.TolerationOpEqual || super.Operator == "") && t.Operator == corev1.TolerationOpEqual && t.Value == super.Value
}
