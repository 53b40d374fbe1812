package lint

import (
	"net/url"
	"path/filepath"
	"strings"
)

// SARIF is a report in the Static Analysis Results Interchange Format 2.1.0, for code scanning.
type SARIF struct {
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
	ID      string       `json:"id"`
	Name    string       `json:"name"`
	Short   sarifText    `json:"shortDescription"`
	Help    sarifText    `json:"help"`
	Default sarifDefault `json:"defaultConfiguration"`
}

type sarifDefault struct {
	Level Severity `json:"level"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     Severity        `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	Line   int `json:"startLine"`
	Column int `json:"startColumn"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
}

// artifactURI is the name of a file as a URI; that of an answer is one already.
func artifactURI(name string) string {
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return name
	}
	return (&url.URL{Path: filepath.ToSlash(name)}).String()
}

// SARIF is the report for code scanning, with every rule. version is that of the program.
func (r *Report) SARIF(version string) SARIF {
	run := sarifRun{Tool: sarifTool{sarifDriver{Name: "hookauthz", Version: version, Rules: []sarifRule{}}}, Results: []sarifResult{}}
	indexes := make(map[string]int)
	for i, rule := range table {
		indexes[rule.ID] = i
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{rule.ID, rule.Name, sarifText{rule.Why}, sarifText{rule.Fix}, sarifDefault{rule.Severity}})
	}
	for _, f := range r.Findings {
		at := sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{artifactURI(f.Place.File)}}}
		if f.Place.Line > 0 {
			at.Physical.Region = &sarifRegion{f.Place.Line, max(f.Place.Column, 1)}
		}
		if f.Place.Path != "" {
			at.Logical = []sarifLogical{{f.Place.Path}}
		}
		run.Results = append(run.Results, sarifResult{f.Rule, indexes[f.Rule], f.Severity, sarifText{f.What + ". " + f.Why + " Fix: " + f.Fix}, []sarifLocation{at}})
	}
	return SARIF{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}
