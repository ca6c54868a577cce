// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pluginargs decodes the args of scheduler plugins.
package pluginargs

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decode decodes the args of a pluginConfig entry into the struct that into
// points to, which holds the defaults. Unlike frameworkruntime.DecodeInto it
// refuses unknown and repeated fields: a misspelt one would be ignored silently
// and its default used instead.
func Decode(args runtime.Object, into any) error {
	if args == nil {
		return nil
	}
	unknown, ok := args.(*runtime.Unknown)
	if !ok {
		return fmt.Errorf("args are of type %T, want the plain fields of the plugin", args)
	}
	raw := unknown.Raw
	if len(raw) == 0 {
		return nil
	}
	if unknown.ContentType == runtime.ContentTypeYAML {
		var err error
		if raw, err = yaml.YAMLToJSONStrict(raw); err != nil {
			return err
		}
	}
	strict, err := kjson.UnmarshalStrict(raw, into)
	return errors.Join(append(strict, err)...)
}
