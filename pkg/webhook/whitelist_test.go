// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/util/tolerations"

	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func TestParseWhitelist(t *testing.T) {
	mine := &corev1.Toleration{Key: "mine", Operator: corev1.TolerationOpExists}
	for value, want := range map[string]bool{
		"":   true,
		"[]": true,
		`[{"key": "mine", "operator": "Exists"}]`:  true,
		`[{"key": "yours", "operator": "Exists"}]`: false,
		`no JSON`: false,
	} {
		if got := parseWhitelist(map[string]string{whitelistAnnotation: value}).covers(mine); got != want {
			t.Errorf("%q allows it: %v, want %v", value, got, want)
		}
	}
}

// What the admission plugin would refuse is not added, and nothing else is left out.
func FuzzWhitelist(f *testing.F) {
	daemonsettest.Seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := daemonsettest.NewChooser(data)
		draw := func() corev1.Toleration {
			t := corev1.Toleration{
				Key:      daemonsettest.Pick(choose, "a", "b", ""),
				Operator: daemonsettest.Pick(choose, corev1.TolerationOpExists, corev1.TolerationOpEqual, ""),
				Value:    daemonsettest.Pick(choose, "", "x"),
				Effect:   daemonsettest.Pick(choose, corev1.TaintEffectNoExecute, corev1.TaintEffectNoSchedule, ""),
			}
			if choose.Bool() {
				seconds := int64(choose.Intn(3))
				t.TolerationSeconds = &seconds
			}
			return t
		}
		convert := func(from corev1.Toleration) (to core.Toleration) {
			if err := corev1conversion.Convert_v1_Toleration_To_core_Toleration(&from, &to, nil); err != nil {
				t.Fatal(err)
			}
			return to
		}
		toleration := draw()
		var list whitelist
		var theirs []core.Toleration
		for range choose.Intn(3) {
			allowed := draw()
			list, theirs = append(list, allowed), append(theirs, convert(allowed))
		}
		if got, want := list.covers(&toleration), tolerations.VerifyAgainstWhitelist([]core.Toleration{convert(toleration)}, theirs); got != want {
			t.Errorf("%+v is allowed by %+v: %v, want %v", toleration, list, got, want)
		}
	})
}
