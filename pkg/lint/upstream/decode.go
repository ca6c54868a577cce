// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"everynode.dev/everynode/pkg/lint"
)

// Kind is the kind of what Decode returns.
var Kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// IsDaemonSet says whether an object of that kind is, or is meant to be, one of Kubernetes' own DaemonSets.
func IsDaemonSet(kind schema.GroupVersionKind) bool {
	return strings.EqualFold(kind.Kind, Kind.Kind) && slices.Contains([]string{Kind.Group, "extensions", ""}, kind.Group)
}

// Decode returns the DaemonSet that content, an object in JSON, is, and why the API server
// would not read it: another kind, fields that do not exist, and values of a wrong type, which
// are left out.
func Decode(content []byte, kind schema.GroupVersionKind) (*appsv1.DaemonSet, []lint.Finding, error) {
	var findings []lint.Finding
	if kind.GroupVersion() != Kind.GroupVersion() {
		findings = append(findings, Refusal("apiVersion", "since Kubernetes 1.16 no API server has DaemonSets of another version than apps/v1"))
	}
	if kind.Kind != Kind.Kind {
		findings = append(findings, Refusal("kind", fmt.Sprintf("there is no kind %q: write DaemonSet", kind.Kind)))
	}
	ds := &appsv1.DaemonSet{}
	unknown, err := kjson.UnmarshalStrict(content, ds, kjson.DisallowUnknownFields)
	if err != nil {
		var value any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(content, &value); err != nil {
			return nil, nil, err
		}
		mistyped, _ := mistyped(value, "", func(value any) any { return value })
		findings = append(findings, mistyped...)
		if content, err = json.Marshal(value); err != nil {
			return nil, nil, err
		}
		ds = &appsv1.DaemonSet{}
		if unknown, err = kjson.UnmarshalStrict(content, ds, kjson.DisallowUnknownFields); err != nil {
			return nil, nil, err
		}
	}
	for _, err := range unknown {
		// That is the type of all of them.
		if unknown := kjson.FieldError(nil); errors.As(err, &unknown) {
			findings = append(findings, Refusal(unknown.FieldPath(), "there is no such field"))
		}
	}
	return ds, findings, nil
}

// mistyped takes the parts out of value that have a wrong type, or says that it is value itself
// that has. Each part is tried alone, as in makes a DaemonSet of it: the decoder ends at the
// first one, and does not say where in a list it is.
func mistyped(value any, path string, in func(any) any) (findings []lint.Finding, all bool) {
	refused := decodeError(in(value))
	switch value := value.(type) {
	case map[string]any:
		if refused == nil || decodeError(in(map[string]any{})) != nil {
			break
		}
		for _, key := range slices.Sorted(maps.Keys(value)) {
			found, all := mistyped(value[key], strings.TrimPrefix(path+"."+key, "."), func(part any) any { return in(map[string]any{key: part}) })
			if findings = append(findings, found...); all {
				delete(value, key)
			}
		}
		return findings, false
	case []any:
		if refused == nil || decodeError(in([]any{})) != nil {
			break
		}
		for n := range value {
			found, all := mistyped(value[n], fmt.Sprintf("%s[%d]", path, n), func(part any) any { return in([]any{part}) })
			if findings = append(findings, found...); all {
				value[n] = nil
			}
		}
		return findings, false
	}
	if refused == nil {
		return nil, false
	}
	message := refused.Error()
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(refused, &wrong) {
		message = fmt.Sprintf("its type is %s, and has to be %s", wrong.Value, wrong.Type)
	}
	return []lint.Finding{Refusal(path, message)}, true
}

// decodeError says why value is no DaemonSet.
func decodeError(value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(content, &appsv1.DaemonSet{})
}

// Refusal is a finding of what the API server refuses.
func Refusal(at, message string) lint.Finding {
	return finding(lint.Find("api-refuses"), at, message)
}
