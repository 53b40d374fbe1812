package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// Rules, dashboard and docs/metrics.md name what a running server has: metrics, labels, and values of closed lists.
func TestQueriesMeetTheServer(t *testing.T) {
	known := exposed(t)
	t.Run("docs", func(t *testing.T) { sameAsPage(t, known) })

	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			name := r.Record + r.Alert
			t.Run(name, func(t *testing.T) { meets(t, known, r.Expr) })
			if r.Record != "" {
				known[r.Record] = family{labels: grouping(t, r.Expr)}
			}
		}
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			t.Run(p.Title, func(t *testing.T) { meets(t, known, target.Expr) })
		}
	}
	for _, a := range d.Annotations.List {
		t.Run(a.Name, func(t *testing.T) { meets(t, known, a.Expr) })
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition)
		if parts == nil {
			t.Errorf("the variable %s asks %q", v.Name, v.Definition)
			continue
		}
		if f, ok := known[parts[1]]; !ok || !has(f, parts[2]) {
			t.Errorf("the variable %s asks for %s of %s", v.Name, parts[2], parts[1])
		}
	}
}

// sameAsPage holds docs/metrics.md against the server.
func sameAsPage(t *testing.T, known map[string]family) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, got := make(map[string]string), make(map[string]string)
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, " | "); len(cells) == 5 && strings.HasPrefix(line, "| `hookauthz_") {
			names := regexp.MustCompile(`\w+`).FindAllString(cells[2], -1)
			slices.Sort(names)
			got[strings.Trim(cells[0], "| `")] = fmt.Sprint(cells[1], names)
		}
	}
	for name, f := range known {
		if strings.HasPrefix(name, "hookauthz_") {
			want[name] = fmt.Sprint(f.kind, f.labels)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/metrics.md (-server +page):\n%s", diff)
	}
}

// ofTargets are labels that Prometheus adds to what it scrapes.
var ofTargets = []string{"instance", "job"}

func has(f family, label string) bool {
	return slices.Contains(f.labels, label) || slices.Contains(ofTargets, label)
}

// meets parses a query and holds each selector against what is known.
func meets(t *testing.T, known map[string]family, query string) {
	t.Helper()
	e, err := language.ParseExpr(filled(query))
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	reasons, err := os.ReadFile(filepath.Join(root, "docs", "decisions.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range selectors(e) {
		f, ok := find(known, s.Name)
		if !ok {
			if s.Name != "up" {
				t.Errorf("no server has %s", s.Name)
			}
			continue
		}
		for _, m := range s.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				continue
			}
			if !has(f, m.Name) {
				t.Errorf("%s has no label %s", s.Name, m.Name)
			}
			for _, value := range strings.Split(m.Value, "|") {
				closed := m.Name == "reason" || m.Name == "result" || m.Name == "decision"
				if closed && !strings.Contains(string(reasons), "`"+value+"`") && !strings.Contains(string(reasons), "**"+value+"**") && value != "valid" {
					t.Errorf("%s has no value %q of %s", s.Name, value, m.Name)
				}
			}
		}
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		a, ok := n.(*parser.AggregateExpr)
		if !ok {
			return nil
		}
		for _, label := range a.Grouping {
			if !slices.ContainsFunc(selectors(a.Expr), func(s *parser.VectorSelector) bool {
				f, ok := find(known, s.Name)
				return ok && has(f, label)
			}) {
				t.Errorf("nothing in %s has the label %s", a.Expr, label)
			}
		}
		return nil
	})
}

// filled is a query as Grafana sends it, with its variables in place.
func filled(query string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$endpoint", ".*", "$instance", ".*").Replace(query)
}

func selectors(e parser.Node) (out []*parser.VectorSelector) {
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			out = append(out, s)
		}
		return nil
	})
	return out
}

// find is the metric that a series belongs to.
func find(known map[string]family, series string) (family, bool) {
	if f, ok := known[series]; ok {
		return f, f.kind != "histogram"
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if f, ok := known[strings.TrimSuffix(series, suffix)]; ok && strings.HasSuffix(series, suffix) && f.kind == "histogram" {
			if suffix == "_bucket" {
				f.labels = append(slices.Clone(f.labels), "le")
			}
			return f, true
		}
	}
	return family{}, false
}

// grouping are the labels that a recording rule leaves.
func grouping(t *testing.T, expr string) []string {
	t.Helper()
	e, err := language.ParseExpr(expr)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok && out == nil {
			out = slices.DeleteFunc(slices.Clone(a.Grouping), func(l string) bool { return l == "le" })
		}
		return nil
	})
	return out
}

type dashboard struct {
	Title      string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Query, Definition string }
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ UID string }
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct {
		Expr       string
		Datasource struct{ UID string }
	}
}

func readDashboard(t *testing.T) *dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "grafana", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The variables' queries are objects, and their definitions the same as text.
	text = regexp.MustCompile(`"query": \{[^}]*\}`).ReplaceAll(text, []byte(`"query": ""`))
	d := new(dashboard)
	if err := json.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The dashboard can be imported: its data source is a variable, and no panel lies on another.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	ids, taken, rows := make(map[int]bool), make(map[[2]int]string), []string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s has the id %d of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s asks %d queries of %q", p.Title, len(p.Targets), p.Datasource.UID)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%s asks %q", p.Title, target.Datasource.UID)
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("%s lies at %+v", p.Title, p.GridPos)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if diff := cmp.Diff([]string{"Overview", "Security", "Secrets", "Store and policies", "Saturation"}, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if v := d.Templating.List[0]; v.Name != "datasource" || v.Type != "datasource" {
		t.Errorf("the first variable is %+v, want the data source", v)
	}
}
