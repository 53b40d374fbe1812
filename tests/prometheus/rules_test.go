package prometheus

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

// root is the checkout.
const root = "../.."

var rulesFile = filepath.Join(root, "deploy", "prometheus", "rules.yaml")

var language = parser.NewParser(parser.Options{})

func readRules(t *testing.T) *rulefmt.RuleGroups {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, language, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	return groups
}

// alerts are the alerting rules of the file by name.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	out := make(map[string]rulefmt.Rule)
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			if _, twice := out[r.Alert]; twice {
				t.Errorf("%s is there twice", r.Alert)
			}
			out[r.Alert] = r
		}
	}
	if len(out) == 0 {
		t.Fatal("no alerts")
	}
	return out
}

// Whoever is woken by an alert is told how bad it is, what it is, and where to read on.
func TestAlertsSayWhatToDo(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range alerts(t) {
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", name, r.Labels["severity"])
		}
		for _, a := range []string{"summary", "description"} {
			if len(r.Annotations[a]) < 20 {
				t.Errorf("%s has the %s %q", name, a, r.Annotations[a])
			}
		}
		if want := "https://github.com/hookauthz/hookauthz/blob/main/docs/operations.md#" + strings.ToLower(name); r.Annotations["runbook_url"] != want {
			t.Errorf("%s leads to %q, want %q", name, r.Annotations["runbook_url"], want)
		}
		if !regexp.MustCompile(`(?m)^#+ ` + name + `$`).Match(page) {
			t.Errorf("docs/operations.md has no section %s", name)
		}
	}
}

// ruleTests is a file in the language of promtool test rules, as far as it is used here.
type ruleTests struct {
	RuleFiles          []string      `yaml:"rule_files"`
	EvaluationInterval time.Duration `yaml:"evaluation_interval"`
	Tests              []ruleTest    `yaml:"tests"`
}

type ruleTest struct {
	Name        string        `yaml:"name"`
	Interval    time.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	PromqlExprTest []exprTest `yaml:"promql_expr_test"`
}

type exprTest struct {
	Expr       string        `yaml:"expr"`
	EvalTime   time.Duration `yaml:"eval_time"`
	ExpSamples []struct {
		Labels string  `yaml:"labels"`
		Value  float64 `yaml:"value"`
	} `yaml:"exp_samples"`
}

// Each alert fires where it should and is silent where it should be.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(rulesFile), "rules.test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file ruleTests
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"rules.yaml"}, file.RuleFiles); diff != "" {
		t.Fatal(diff)
	}
	fired := make(map[string]bool)
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) { test.run(t, file.EvaluationInterval, fired) })
	}
	for name := range alerts(t) {
		if !fired[name] {
			t.Errorf("no test has %s fire", name)
		}
	}
}

// run evaluates the rules over the series, minute by minute, and asks at each moment of the test.
func (r *ruleTest) run(t *testing.T, every time.Duration, fired map[string]bool) {
	load := fmt.Sprintf("load %s\n", model.Duration(r.Interval))
	for _, s := range r.InputSeries {
		load += "  " + s.Series + " " + s.Values + "\n"
	}
	suite, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{Parser: language})
	if err != nil {
		t.Fatal(err)
	}
	defer suite.Close()
	suite.SubqueryInterval = every
	query := rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage())
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: query, AppendableV2: suite.Storage(), Context: t.Context(), Parser: language, Logger: slog.New(slog.DiscardHandler),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
	})
	byName, errs := m.LoadGroups(every, labels.EmptyLabels(), "", nil, false, rulesFile)
	if errs != nil {
		t.Fatal(errs)
	}
	var groups []*rules.Group
	for _, g := range byName {
		groups = append(groups, g)
		for _, rule := range g.Rules() {
			if a, ok := rule.(*rules.AlertingRule); ok {
				a.SetRestored(true) // so that ALERTS is written
			}
		}
	}
	slices.SortFunc(groups, func(a, b *rules.Group) int { return strings.Compare(a.Name(), b.Name()) }) // what is recorded comes first
	at := time.Unix(0, 0).UTC()
	for _, test := range r.PromqlExprTest {
		for end := time.Unix(0, 0).UTC().Add(test.EvalTime); !at.After(end); at = at.Add(every) {
			suite.WithSamplesTill(at, func(err error) {
				if err != nil {
					t.Fatal(err)
				}
				for _, g := range groups {
					g.Eval(suite.Context(), at)
					for _, rule := range g.Rules() {
						if rule.LastError() != nil {
							t.Fatalf("%s at %s: %v", rule.Name(), at, rule.LastError())
						}
					}
				}
			})
		}
		got, err := query(suite.Context(), test.Expr, time.Unix(0, 0).UTC().Add(test.EvalTime))
		if err != nil {
			t.Fatal(err)
		}
		var have, want []string
		for _, s := range got {
			have = append(have, fmt.Sprint(s.Metric, " ", s.F))
			fired[s.Metric.Get("alertname")] = true
		}
		for _, s := range test.ExpSamples {
			metric, err := language.ParseMetric(s.Labels)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint(metric, " ", s.Value))
		}
		slices.Sort(have)
		slices.Sort(want)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("firing at %s (-want +got):\n%s", test.EvalTime, diff)
		}
	}
}
