package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/envoy/lint"
	"github.com/hookauthz/hookauthz/envoy/lint/mutation"
	"github.com/hookauthz/hookauthz/policy"
)

const (
	example  = "../../examples/envoy.yaml"
	policies = "../../examples/policies"
	maxBody  = 4 << 20
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// load loads the example policies, and one more file where it is given.
func load(t testing.TB, more string) *policy.Set {
	t.Helper()
	dir := policies
	if more != "" {
		dir = t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(policies)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "more.yaml"), []byte(more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := policy.Load(dir, policy.LoadOptions{Secrets: policy.SkipSecrets})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func run(t testing.TB, c lint.Config) *lint.Report {
	t.Helper()
	r, err := lint.Lint(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// found lists findings as "rule line:column path".
func found(r *lint.Report) []string {
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s %d:%d", f.Rule, f.Place.Line, f.Place.Column))
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func mutations(t testing.TB) *mutation.Set {
	t.Helper()
	set, err := mutation.All()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestExampleIsClean(t *testing.T) {
	for _, set := range []*policy.Set{nil, load(t, "")} {
		r := run(t, lint.Config{Name: example, Text: read(t, example), Policies: set, MaxBody: maxBody})
		if len(r.Findings) > 0 {
			t.Errorf("with policies %v: %v", set != nil, r.Findings)
		}
		if r.Listeners != 1 || r.Guarded != 8 {
			t.Errorf("got %d listeners and %d guarded routes, want 1 and 8", r.Listeners, r.Guarded)
		}
	}
}

// Every mutation is found by its rule, at its place, and nothing else is.
func TestMutations(t *testing.T) {
	config, all := read(t, example), mutations(t)
	for _, m := range all.Mutations {
		t.Run(strings.ReplaceAll(m.Rule+" "+m.Name, "/", "-"), func(t *testing.T) {
			text, err := all.Apply(config, m)
			if err != nil {
				t.Fatal(err)
			}
			c := lint.Config{Name: "envoy.yaml", Text: text}
			if m.Policies {
				c.Policies, c.MaxBody = load(t, m.Policy), maxBody
			}
			r := run(t, c)
			var want []string
			for _, w := range append([]mutation.Finding{{Rule: m.Rule, Place: m.Where()}}, m.Also...) {
				line, column, err := all.Position(text, w.Place)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprintf("%s %d:%d", w.Rule, line, column))
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, found(r)); diff != "" {
				t.Errorf("(-want +got):\n%s%v", diff, join(r.Findings))
			}
		})
	}
}

func join(findings []lint.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%v @ %s\n", f, f.Place.Path)
	}
	return b.String()
}

// Every rule is proven by a mutation, but those that need a running Envoy.
func TestEveryRuleHasAMutation(t *testing.T) {
	proven := map[string]bool{"HA025": true} // by TestOldEnvoy: the version stands in dumps only
	for _, m := range mutations(t).Mutations {
		proven[m.Rule] = true
	}
	for _, r := range lint.Rules() {
		if !proven[r.ID] {
			t.Errorf("no mutation proves %s %s", r.ID, r.Name)
		}
	}
}
