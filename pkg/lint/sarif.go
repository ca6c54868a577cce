// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Result is what was found in one DaemonSet.
type Result struct {
	// File is where the manifest comes from, a path or a URL.
	File string `json:"file"`
	// Line is where the manifest begins in File, from 1. 0 if that is not known.
	Line int `json:"line,omitempty"`
	// Namespace is empty if the manifest does not say.
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name"`
	Findings  []Finding `json:"findings"`
}

// object is a part of a log: its properties by their names in the format.
type object = map[string]any

// WriteSARIF writes results as a log of the Static Analysis Results Interchange
// Format 2.1.0, which code hosts show beside the lines. version is everynode's.
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
func WriteSARIF(w io.Writer, version string, results []Result) error {
	driver := object{"name": "everynode", "rules": sarifRules()}
	if version != "" {
		driver["version"] = version
	}
	found := []object{}
	for i := range results {
		for _, finding := range results[i].Findings {
			found = append(found, sarifResult(&results[i], finding))
		}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object{
		"$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		"version": "2.1.0",
		"runs":    []object{{"tool": object{"driver": driver}, "results": found}},
	}); err != nil {
		return fmt.Errorf("writing findings as SARIF: %w", err)
	}
	return nil
}

// home is where the documentation begins.
const home = "https://everynode.dev/everynode/"

// sarifLevel writes a severity as SARIF does.
func sarifLevel(severity Severity) string {
	if severity == Info {
		return "note"
	}
	return string(severity)
}

func sarifRules() []object {
	var converted []object
	for _, rule := range rules() {
		help := rule.Reason + "\n\n" + rule.Fix
		if rule.Example != "" {
			help += "\n\n```yaml\n" + rule.Example + "\n```"
		}
		converted = append(converted, object{
			"id":                   rule.ID,
			"shortDescription":     object{"text": rule.Title + "."},
			"fullDescription":      object{"text": rule.Reason},
			"help":                 object{"text": rule.Reason + " " + rule.Fix, "markdown": help},
			"helpUri":              home + rule.Doc(),
			"defaultConfiguration": object{"level": sarifLevel(rule.Severity)},
		})
	}
	return converted
}

func sarifResult(result *Result, finding Finding) object {
	name := result.Name
	if result.Namespace != "" {
		name = result.Namespace + "/" + name
	}
	location := object{"artifactLocation": object{"uri": fileURI(result.File)}}
	if line := max(finding.Line, result.Line); line > 0 {
		location["region"] = object{"startLine": line}
	}
	return object{
		"ruleId":    finding.Rule,
		"ruleIndex": slices.IndexFunc(rules(), func(rule Rule) bool { return rule.ID == finding.Rule }),
		"level":     sarifLevel(finding.Severity),
		"message":   object{"text": fmt.Sprintf("DaemonSet %s: %s: %s. %s", name, finding.Field, finding.Message, finding.Fix)},
		"locations": []object{{
			"physicalLocation": location,
			"logicalLocations": []object{{"name": finding.Field, "fullyQualifiedName": name + "/" + finding.Field}},
		}},
		// Findings may share a line; this tells them apart, and finds them again when lines move.
		"partialFingerprints": object{"field/v1": name + "/" + finding.Field},
	}
}

// fileURI returns the URI of a file that is named on a command line.
func fileURI(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	uri := url.URL{Path: filepath.ToSlash(name)}
	if filepath.IsAbs(name) {
		uri.Scheme = "file"
	}
	return uri.String()
}
