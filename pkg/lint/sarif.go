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

// WriteSARIF writes results as a log of the Static Analysis Results Interchange
// Format 2.1.0, which code hosts show beside the lines. version is everynode's.
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
func WriteSARIF(w io.Writer, version string, results []Result) error {
	run := sarifRun{
		Tool:    sarifTool{Driver: sarifDriver{Name: "everynode", Version: version, Rules: sarifRules()}},
		Results: []sarifResult{},
	}
	for i := range results {
		for _, finding := range results[i].Findings {
			run.Results = append(run.Results, sarifResultOf(&results[i], finding))
		}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}}); err != nil {
		return fmt.Errorf("writing findings as SARIF: %w", err)
	}
	return nil
}

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID                   string             `json:"id"`
	ShortDescription     sarifText          `json:"shortDescription"`
	FullDescription      sarifText          `json:"fullDescription"`
	Help                 sarifText          `json:"help"`
	HelpURI              string             `json:"helpUri"`
	DefaultConfiguration sarifConfiguration `json:"defaultConfiguration"`
}

type sarifText struct {
	Text     string `json:"text"`
	Markdown string `json:"markdown,omitempty"`
}

type sarifConfiguration struct {
	Level string `json:"level"`
}

type sarifResult struct {
	RuleID              string            `json:"ruleId"`
	RuleIndex           int               `json:"ruleIndex"`
	Level               string            `json:"level"`
	Message             sarifText         `json:"message"`
	Locations           []sarifLocation   `json:"locations"`
	PartialFingerprints map[string]string `json:"partialFingerprints"`
}

type sarifLocation struct {
	PhysicalLocation sarifPhysicalLocation  `json:"physicalLocation"`
	LogicalLocations []sarifLogicalLocation `json:"logicalLocations"`
}

type sarifPhysicalLocation struct {
	ArtifactLocation sarifArtifactLocation `json:"artifactLocation"`
	Region           *sarifRegion          `json:"region,omitempty"`
}

type sarifArtifactLocation struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

type sarifLogicalLocation struct {
	Name               string `json:"name"`
	FullyQualifiedName string `json:"fullyQualifiedName"`
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

func sarifRules() []sarifRule {
	var converted []sarifRule
	for _, rule := range rules() {
		help := rule.Reason + "\n\n" + rule.Fix
		if rule.Example != "" {
			help += "\n\n```yaml\n" + rule.Example + "\n```"
		}
		converted = append(converted, sarifRule{
			ID:                   rule.ID,
			ShortDescription:     sarifText{Text: rule.Title + "."},
			FullDescription:      sarifText{Text: rule.Reason},
			Help:                 sarifText{Text: rule.Reason + " " + rule.Fix, Markdown: help},
			HelpURI:              home + rule.Doc(),
			DefaultConfiguration: sarifConfiguration{Level: sarifLevel(rule.Severity)},
		})
	}
	return converted
}

func sarifResultOf(result *Result, finding Finding) sarifResult {
	object := result.Name
	if result.Namespace != "" {
		object = result.Namespace + "/" + object
	}
	location := sarifPhysicalLocation{ArtifactLocation: sarifArtifactLocation{URI: fileURI(result.File)}}
	if line := max(finding.Line, result.Line); line > 0 {
		location.Region = &sarifRegion{StartLine: line}
	}
	return sarifResult{
		RuleID:    finding.Rule,
		RuleIndex: slices.IndexFunc(rules(), func(rule Rule) bool { return rule.ID == finding.Rule }),
		Level:     sarifLevel(finding.Severity),
		Message:   sarifText{Text: fmt.Sprintf("DaemonSet %s: %s: %s. %s", object, finding.Field, finding.Message, finding.Fix)},
		Locations: []sarifLocation{{
			PhysicalLocation: location,
			LogicalLocations: []sarifLogicalLocation{{Name: finding.Field, FullyQualifiedName: object + "/" + finding.Field}},
		}},
		// The findings of one manifest share its line; this tells them apart, and finds them again when lines move.
		PartialFingerprints: map[string]string{"field/v1": object + "/" + finding.Field},
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
