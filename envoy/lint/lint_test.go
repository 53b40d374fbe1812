package lint_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/envoy/lint"
)

// Right configurations of other styles give no alarm.
func TestRightConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/right/*")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files (error %v), want 4 and more", len(files), err)
	}
	golden, err := filepath.Glob("../testdata/golden/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, golden...) {
		if strings.HasPrefix(filepath.Base(file), "filter-") {
			continue // a part of a configuration
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			var want []string
			switch filepath.Base(file) {
			case "pass.yaml": // lets others through to the application, and says so
				want = []string{"HA003"}
			case "unpinned.yaml": // believes the PROXY protocol of anybody
				want = []string{"HA054"}
			case "inner.yaml": // a control plane may deliver another filter than the default
				want = []string{"HA903"}
			case "underscored.yaml": // a scheme of its policies needs it, which only the policies say
				want = []string{"HA044"}
			}
			r := run(t, lint.Config{Name: file, Text: read(t, file)})
			var got []string
			for _, f := range r.Findings {
				got = append(got, f.Rule)
			}
			if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, join(r.Findings))
			}
			if r.Guarded == 0 {
				t.Error("no route is guarded: nothing was judged")
			}
		})
	}
}

// A configuration with nothing left of its meaning, in each case with one clear line.
func TestNoConfiguration(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "it is empty"},
		{"blank", "\n# nothing\n", "it is empty"},
		{"words", "hello", "it is not a map"},
		{"list", "[1, 2]", "it is not a map"},
		{"null", "null", "it is not a map"},
		{"policy", "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy", "none of its keys"},
		{"empty map", "{}", "none of its keys"},
		{"empty dump", `{"configs": []}`, "no part of a config_dump"},
		{"other dump", `{"configs": [{"@type": "type.googleapis.com/acme.Dump"}]}`, "no part of a config_dump"},
		{"page of a web server", "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>\n<p>a: b</p></body></html>", "it is a page of HTML"},
		{"other admin page: clusters", `{"cluster_statuses": [{"name": "app"}]}`, "none of its keys"},
		{"other admin page: server_info", `{"version": "x/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", "hot_restart_version": "11.104", "command_line_options": {}, "node": {"id": "a"}, "uptime_current_epoch": "1s"}`, "most of its keys"},
		{"other admin page: stats", "cluster.app.upstream_rq_total: 0\nserver.live: 1\n", "none of its keys"},
		{"other admin page: help", "admin commands are:\n  /: Admin home page\n  /certs: print certs on machine\n", ""},
		{"listeners as text", "hooks::127.0.0.1:8443\n", "it is not a map"},
		{"truncated dump", `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {`, "neither YAML nor JSON"},
		{"binary", "\x00\x01\x02\xff", "neither YAML nor JSON"},
		{"aliases in the runtime", runtimeBomb(), "too large"},
		{"broken YAML", "a: [", "neither YAML nor JSON"},
		{"broken JSON", `{"admin": `, "neither YAML nor JSON"},
		{"two documents", "admin: {}\n---\nadmin: {}", "several documents"},
		{"its own alias", "admin: {access_log: [{filter: &f {and_filter: {filters: [*f]}}}]}", "nested too deeply"},
		{"many aliases", bomb(), "too large"},
		{"deep", "admin: " + strings.Repeat("{address: ", 5000) + strings.Repeat("}", 5000), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := lint.Lint(lint.Config{Name: "x", Text: []byte(c.text)})
			if c.want == "" {
				return // must only end
			}
			if !errors.Is(err, lint.ErrNotEnvoy) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

// bomb is a file that is large once its aliases are expanded.
func bomb() string {
	repeat := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+", ", n), ", ") }
	return "admin:\n  allow_paths: &p [" + repeat("{exact: a}", 3000) + "]\n" +
		"static_resources:\n  listeners: [" + repeat("{stats_matcher: {inclusion_list: {patterns: *p}}}", 3000) + "]\n"
}

// runtimeBomb is as large, where values have no types.
func runtimeBomb() string {
	b := "layered_runtime:\n  layers:\n  - name: a\n    static_layer:\n      k0: &k0 {a: 1}\n"
	for i := range 9 {
		b += fmt.Sprintf("      k%d: &k%d {", i+1, i+1)
		for j := range 10 {
			b += fmt.Sprintf("n%d: *k%d, ", j, i)
		}
		b += "}\n"
	}
	return b
}

// The release stands in a dump only.
func TestOldEnvoy(t *testing.T) {
	dump := func(minor, patch int) []byte {
		return fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"user_agent_build_version": {"version": {"major_number": 1, "minor_number": %d, "patch": %d}}}}}]}`, minor, patch)
	}
	for _, c := range []struct {
		minor, patch int
		old          bool
	}{{38, 5, true}, {39, 0, true}, {39, 1, false}, {40, 0, false}, {41, 0, false}} {
		r := run(t, lint.Config{Name: "dump.json", Text: dump(c.minor, c.patch)})
		got := slices.ContainsFunc(r.Findings, func(f lint.Finding) bool {
			return f.Rule == "HA025" && f.Place.Path == "configs[0].bootstrap.node.user_agent_build_version.version"
		})
		if got != c.old {
			t.Errorf("1.%d.%d: found %v, want %v: %v", c.minor, c.patch, got, c.old, r.Findings)
		}
	}
}

// What a control plane delivers is judged where a dump holds it: listeners, routes, filters and endpoints.
func TestDeliveredConfiguration(t *testing.T) {
	text := read(t, "testdata/dump.json")
	r := run(t, lint.Config{Name: "dump.json", Text: text})
	want := []string{
		`HA003 configs[3].dynamic_route_configs[0].route_config.virtual_hosts[0].routes[1].typed_per_filter_config["envoy.filters.http.ext_authz"].disabled`,
		`HA005 configs[4].ecds_filters[0].ecds_filter.typed_config.failure_mode_allow`,
		`HA001 configs[2].dynamic_listeners[1].warming_state.listener.filter_chains[0].filters[0].typed_config.http_filters`,
	}
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.Rule+" "+f.Place.Path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A dump of ?resource= has its listeners one by one.
func TestListenersOneByOne(t *testing.T) {
	const listener = `{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "a"}`
	text := `{"configs": [
		{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener", "active_state": {"listener": ` + listener + `}},
		{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.StaticListener", "listener": ` + listener + `}]}`
	if r := run(t, lint.Config{Name: "dump.json", Text: []byte(text)}); r.Listeners != 2 || !r.Dump {
		t.Errorf("got %d listeners, dump: %t; want 2 of a dump", r.Listeners, r.Dump)
	}
}

// A report for code scanning names a rule of its list for every result, and a place within the file.
func TestSARIF(t *testing.T) {
	all, config := mutations(t), read(t, example)
	text, err := all.Apply(config, all.Mutations[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(run(t, lint.Config{Name: "envoy.yaml", Text: text}).SARIF("v1"))
	if err != nil {
		t.Fatal(err)
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Rules []struct{ ID string }
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine, StartColumn int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out, &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(log.Runs[0].Results) != 1 || len(log.Runs[0].Tool.Driver.Rules) != len(lint.Rules()) {
		t.Fatalf("got %s", out)
	}
	result := log.Runs[0].Results[0]
	if rule := log.Runs[0].Tool.Driver.Rules[result.RuleIndex].ID; rule != result.RuleID || result.RuleID != "HA001" || result.Level != "error" {
		t.Errorf("result %+v points to rule %s, want HA001", result, rule)
	}
	if at := result.Locations[0].PhysicalLocation; at.ArtifactLocation.URI != "envoy.yaml" || at.Region.StartLine == 0 || at.Region.StartColumn == 0 {
		t.Errorf("the place is %+v", at)
	}
}

// A configuration that is wrapped and says nothing is an empty one.
func TestTypedStructWithoutValue(t *testing.T) {
	text := bytes.Replace(read(t, example), []byte("          - name: envoy.filters.http.router\n"), []byte(`          - name: script
            typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}
          - name: envoy.filters.http.router
`), 1)
	if r := run(t, lint.Config{Name: example, Text: text}); len(r.Findings) > 0 || !bytes.Contains(text, []byte("TypedStruct")) {
		t.Errorf("got\n%s", join(r.Findings))
	}
}

// A dump says where its keys are as a file does: JSON is not read by the rules of YAML.
func TestPlacesInJSON(t *testing.T) {
	text := "{\n\t\"admin\": {\"address\":\n\t\t{\"socket_address\": {\"address\": \"0.0.0.0\", \"port_value\": 1}}}}"
	r := run(t, lint.Config{Name: "x.json", Text: []byte(text)})
	i := slices.IndexFunc(r.Findings, func(f lint.Finding) bool { return f.Rule == "HA023" })
	if i < 0 {
		t.Fatalf("got %v", r.Findings)
	}
	if got, want := r.Findings[i].Place, (lint.Place{File: "x.json", Line: 2, Column: 12, Path: "admin.address"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

var sentence = regexp.MustCompile(`^([A-Z%]|x_|gRPC|hookauthz ).*\.$`)

// Rules are complete, ordered, and their texts are what the page and the terminal can show.
func TestRules(t *testing.T) {
	names := make(map[string]bool)
	last := ""
	for _, r := range lint.Rules() {
		if r.ID <= last {
			t.Errorf("%s comes behind %s", r.ID, last)
		}
		last = r.ID
		if names[r.Name] || r.Name == "" || r.Severity != lint.Error && r.Severity != lint.Warning {
			t.Errorf("%+v: a name of its own and a severity are wanted", r)
		}
		names[r.Name] = true
		if !sentence.MatchString(r.Why) || strings.Contains(r.Why, ". ") || r.Fix == "" || strings.Contains(r.Fix, "\n") {
			t.Errorf("%s: why is to be one sentence, the fix one line: %q, %q", r.ID, r.Why, r.Fix)
		}
	}
}

// Nothing that is read makes lint panic, and it gives the same report twice.
func FuzzLint(f *testing.F) {
	all, config := mutations(f), read(f, example)
	f.Add(config)
	for i, m := range all.Mutations {
		if text, err := all.Apply(config, m); err == nil && i%5 == 0 {
			f.Add(text)
		}
	}
	files, _ := filepath.Glob("testdata/right/*")
	for _, name := range append(files, "testdata/dump.json") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	set := load(f, "")
	f.Fuzz(func(t *testing.T, text []byte) {
		c := lint.Config{Name: "x", Text: text, Policies: set, MaxBody: maxBody}
		r, err := lint.Lint(c)
		if err != nil {
			if !errors.Is(err, lint.ErrNotEnvoy) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := lint.Lint(c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("two runs differ:\n%s", diff)
		}
		for _, f := range r.Findings {
			if f.Rule == "" || f.What == "" || f.Why == "" {
				t.Errorf("an incomplete finding: %+v", f)
			}
		}
	})
}

// Changing any one value of a right configuration to another kind never makes lint panic.
func TestEveryValueReplaced(t *testing.T) {
	lines := bytes.Split(read(t, example), []byte("\n"))
	for i, line := range lines {
		key, _, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			continue
		}
		for _, value := range []string{"{}", "[]", "null", "'x'", "-1", "[{}]", "{a: {b: [c]}}", "1e400"} {
			changed := slices.Clone(lines)
			changed[i] = fmt.Appendf(nil, "%s: %s", key, value)
			_, err := lint.Lint(lint.Config{Name: "x", Text: bytes.Join(changed, []byte("\n"))})
			if err != nil && !errors.Is(err, lint.ErrNotEnvoy) {
				t.Errorf("line %d as %s: %v", i+1, value, err)
			}
		}
	}
}

// A cluster that holds itself, twice, is judged once.
func TestClusterWithinItself(t *testing.T) {
	text := bytes.ReplaceAll(read(t, example), []byte("cluster_name: webhook_authz, authority"), []byte("cluster_name: both, authority"))
	text = bytes.Replace(text, []byte("  clusters:\n"), []byte(`  clusters:
  - {name: both, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [both, both, webhook_authz]}}}
`), 1)
	if r := run(t, lint.Config{Name: example, Text: text}); len(r.Findings) > 0 || r.Guarded == 0 {
		t.Errorf("got\n%s", join(r.Findings))
	}
}
