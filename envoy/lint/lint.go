// Package lint finds the ways around an external authorizer in Envoy's configuration. It reads a bootstrap or what an admin interface
// dumps, follows what a request can do, and reports every way to the application that no Check guards, and everything that makes a
// Check worth less. What it cannot read it reports, and judges the rest.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hookauthz/hookauthz/policy"
)

// Severity says how bad a finding is.
type Severity string

const (
	// Error is a way around the authorizer, or something that an attacker can forge.
	Error Severity = "error"
	// Warning is about availability and hygiene.
	Warning Severity = "warning"
)

// Place is where a finding is. Path leads there through the names of the fields; Line and Column are in the text that was read.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Path   string `json:"path"`
}

// Finding is one thing that is wrong.
type Finding struct {
	Rule     string   `json:"rule"`
	Name     string   `json:"name"`
	Severity Severity `json:"severity"`
	Place    Place    `json:"place"`
	What     string   `json:"what"` // what is there
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // as configuration
}

// String is one line. In a dump the path is the place: the lines of an answer are nobody's file.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s %s %s: %s", f.Place.File, f.Place.Line, f.Place.Column, f.Severity, f.Rule, f.Name, f.What)
}

// Report is what was found.
type Report struct {
	Source    string    `json:"source"`
	Dump      bool      `json:"dump"`      // the source is a config_dump
	Listeners int       `json:"listeners"` // that were read
	Guarded   int       `json:"guarded"`   // routes that a Check guards
	Findings  []Finding `json:"findings"`
}

// Count is the number of findings of a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Config says what to judge.
type Config struct {
	// Name is what places name: a file or a URL.
	Name string
	// Text is YAML or JSON: a bootstrap, or the answer of an admin interface to /config_dump.
	Text []byte
	// Policies adds the rules that need them; nil: they are left out.
	Policies *policy.Set
	// MaxBody is the server's --max-body. It counts where there are Policies.
	MaxBody int64
}

// ErrNotEnvoy is the error about a text that is no configuration of Envoy.
var ErrNotEnvoy = errors.New("it is no Envoy configuration")

// Lint judges a configuration. The error is about a text that is none.
func Lint(c Config) (*Report, error) {
	l := newLinter(c)
	root, err := parse(c.Text)
	if err == nil {
		err = l.read(root)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotEnvoy, err)
	}
	l.judge()
	return l.finish(), nil
}

// linter is one run.
type linter struct {
	config Config
	source *source
	rules  map[string]Rule
	view
	decoder
	policies policyFacts

	ways []*way
	// reach and reachUnchecked hold what clusters reach, once it has been asked for.
	reach, reachUnchecked map[string]map[string]bool

	chains   []*chain
	findings []Finding
	told     map[string]bool // by rule, place and text
}

func newLinter(c Config) *linter {
	l := &linter{config: c, source: &source{name: c.Name}, rules: make(map[string]Rule), told: make(map[string]bool), reach: make(map[string]map[string]bool), reachUnchecked: make(map[string]map[string]bool)}
	for _, r := range table {
		l.rules[r.ID] = r
	}
	l.decoder = newDecoder(l.source, l.report)
	return l
}

// report adds a finding, once.
func (l *linter) report(rule string, at spot, what string) {
	p := at.place()
	key := fmt.Sprint(rule, p.Line, p.Column, what)
	if p.Line == 0 {
		key += p.Path
	}
	if l.told[key] {
		return
	}
	l.told[key] = true
	r := l.rules[rule]
	l.findings = append(l.findings, Finding{Rule: r.ID, Name: r.Name, Severity: r.Severity, Place: p, What: what, Why: r.Why, Fix: r.Fix})
}

// reportf is report with a text that is put together.
func (l *linter) reportf(rule string, at spot, format string, args ...any) {
	l.report(rule, at, fmt.Sprintf(format, args...))
}

func (l *linter) finish() *Report {
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column), strings.Compare(a.Rule, b.Rule), strings.Compare(a.What, b.What))
	})
	r := &Report{Source: l.config.Name, Dump: l.source.dump, Listeners: len(l.listeners), Findings: append([]Finding{}, l.findings...)}
	seen := make(map[any]bool)
	for _, w := range l.ways {
		if w.guarded && !seen[w.route] {
			seen[w.route] = true
			r.Guarded++
		}
	}
	return r
}
