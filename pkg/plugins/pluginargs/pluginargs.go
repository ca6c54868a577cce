// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pluginargs reads the args of scheduler plugins.
package pluginargs

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Args are the args of a plugin.
type Args interface {
	// Validate returns all that is wrong with them; path is where they stand.
	Validate(path *field.Path) error
}

// None are the args of a plugin that takes none.
type None struct{}

// Validate returns nil.
func (*None) Validate(*field.Path) error {
	return nil
}

// Load decodes and validates the args of the named plugin, from its pluginConfig
// entry into the struct that args points to, which holds the defaults. Unlike
// frameworkruntime.DecodeInto it refuses unknown and repeated fields: a misspelt one
// would be ignored silently and its default used instead.
func Load(plugin string, from runtime.Object, args Args) error {
	if err := decode(from, args); err != nil {
		return fmt.Errorf("decoding the args of %s: %w", plugin, err)
	}
	if err := args.Validate(field.NewPath("args")); err != nil {
		return fmt.Errorf("args of %s: %w", plugin, err)
	}
	return nil
}

func decode(args runtime.Object, into any) error {
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
