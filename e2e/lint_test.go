package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/e2e/stack"
	"github.com/hookauthz/hookauthz/envoy/lint/mutation"
)

// lintFinding is what these tests read of what lint prints.
type lintFinding struct {
	Rule  string
	Place struct {
		Line int
		Path string
	}
}

// lint runs the command; the code is how it ended.
func lint(t *testing.T, args ...string) (findings []lintFinding, code int) {
	t.Helper()
	out, err := exec.CommandContext(within(t), binaries.Hookauthz, append([]string{"envoy", "lint", "-o", "json"}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var report struct{ Findings []lintFinding }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s (exit %d)", err, out, code)
	}
	return report.Findings, code
}

func lintRules(findings []lintFinding) []string {
	var rules []string
	for _, f := range findings {
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// mutants are the mutations, and certificates that they can be run with.
func mutants(t *testing.T) (all *mutation.Set, config []byte, certs string) {
	t.Helper()
	setup(t)
	all, err := mutation.All()
	if err != nil {
		t.Fatal(err)
	}
	if config, err = os.ReadFile(root + "/examples/envoy.yaml"); err != nil {
		t.Fatal(err)
	}
	certs = t.TempDir()
	if out, err := exec.CommandContext(within(t), binaries.Certs, certs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all, config, certs
}

// Envoy loads every configuration in which lint finds a weakening, but for those that say why it does not: nothing else than lint
// stands between them and production.
func TestMutationsLoadInEnvoy(t *testing.T) {
	all, config, certs := mutants(t)
	for _, m := range all.Mutations {
		scenario(t, strings.ReplaceAll(m.Rule+" "+m.Name, "/", "-"), func(t *testing.T) {
			text, err := all.Apply(config, m)
			if err != nil {
				t.Fatal(err)
			}
			out, err := loads(t, bytes.ReplaceAll(text, []byte("/run/hookauthz-tls"), []byte(certs)))
			if err != nil && m.Refused == "" {
				t.Errorf("%v: %s", err, out)
			}
			if err == nil && m.Refused != "" {
				t.Errorf("Envoy loads it, although %s", m.Refused)
			}
		})
	}
}

// Envoy loads the configurations of other styles in which lint finds nothing: they are right, and not just strange.
func TestRightConfigurationsLoadInEnvoy(t *testing.T) {
	_, _, certs := mutants(t)
	files, err := filepath.Glob(root + "/envoy/lint/testdata/right/*")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files (error %v), want 4 and more", len(files), err)
	}
	for _, file := range files {
		scenario(t, filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := loads(t, bytes.ReplaceAll(text, []byte("/run/hookauthz-tls"), []byte(certs))); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// loads has Envoy load a configuration without running it.
func loads(t *testing.T, config []byte) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(within(t), envoy, "--mode", "validate", "-c", file, "-l", "error").CombinedOutput()
	return string(out), err
}

// notDumped are rules that judge by what is otherwise here: the way to the authorizer and the listeners stay on this machine, the port
// of the admin interface is free, and a dump holds what a control plane delivers.
var notDumped = []string{"HA023", "HA060", "HA064", "HA065", "HA066", "HA071", "HA903"}

// What lint finds in a file it finds in what an Envoy that runs with it dumps.
func TestLintOfRunningEnvoys(t *testing.T) {
	all, config, certs := mutants(t)
	scenario(t, "the example is clean", func(t *testing.T) {
		findings, code := lint(t, "--policies", root+"/examples/policies", "http://"+runEnvoy(t, config, certs))
		if len(findings) > 0 || code != 0 {
			t.Errorf("got exit %d and %+v, want a clean dump", code, findings)
		}
	})
	for _, m := range all.Mutations {
		if slices.Contains(notDumped, m.Rule) || m.Refused != "" || m.Policies {
			continue
		}
		scenario(t, strings.ReplaceAll(m.Rule+" "+m.Name, "/", "-"), func(t *testing.T) {
			text, err := all.Apply(config, m)
			if err != nil {
				t.Fatal(err)
			}
			findings, _ := lint(t, "http://"+runEnvoy(t, text, certs))
			want := []string{m.Rule}
			for _, f := range m.Also {
				want = append(want, f.Rule)
			}
			slices.Sort(want)
			if diff := cmp.Diff(slices.Compact(want), lintRules(findings)); diff != "" {
				t.Errorf("rules (-want +got):\n%s%+v", diff, findings)
			}
			for _, f := range findings {
				if !strings.HasPrefix(f.Place.Path, "configs[") || f.Place.Line == 0 {
					t.Errorf("%s is at %+v, want a path in the dump", f.Rule, f.Place)
				}
			}
		})
	}
}

// runEnvoy runs an Envoy until the end of a test and gives the address of its admin interface.
func runEnvoy(t *testing.T, config []byte, certs string) string {
	t.Helper()
	// Nobody listens where the clusters lead; the ports tell them apart.
	ports := make(map[string]string)
	config = onLoopback(t, config, func(was string) string {
		was = was[strings.LastIndexByte(was, ':'):]
		if ports[was] == "" {
			ports[was] = fmt.Sprintf("127.0.0.1:%d", len(ports)+1)
		}
		return ports[was]
	})
	// A cluster without addresses names the application by its port alone.
	const override = `"upstream_port_override":`
	_, port, _ := strings.Cut(ports[":8080"], ":")
	return startEnvoy(t, bytes.ReplaceAll(config, []byte(override+"8080"), []byte(override+port)), certs)
}

// startEnvoy runs an Envoy with what onLoopback has made.
func startEnvoy(t *testing.T, config []byte, certs string) string {
	t.Helper()
	dir := t.TempDir()
	file, admin := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	config = bytes.ReplaceAll(config, []byte("/run/hookauthz-tls"), []byte(certs))
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := stack.Start("envoy", dir, nil, envoy, "-c", file, "--admin-address-path", admin, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(10 * time.Second); err != nil {
			t.Errorf("Envoy ended: %v\n%s", err, p.Tail(20))
		}
	})
	var address string
	eventually(t, func() error {
		if !p.Alive() {
			return stack.Final(fmt.Errorf("Envoy ended: %s", p.Tail(20)))
		}
		text, err := os.ReadFile(admin)
		if err != nil {
			return err
		}
		address = strings.TrimSpace(string(text))
		if _, err := netip.ParseAddrPort(address); err != nil {
			return err
		}
		return listening(t.Context(), address)
	})
	return address
}

// listening waits for the listeners: until clusters are ready they warm up.
func listening(ctx context.Context, admin string) error {
	out, err := exec.CommandContext(ctx, binaries.Hookauthz, "envoy", "lint", "-o", "json", "http://"+admin).Output()
	var report struct{ Listeners int }
	if json.Unmarshal(out, &report) == nil && report.Listeners > 0 {
		return nil
	}
	return fmt.Errorf("no listener yet: %w", err)
}

// onLoopback puts free ports of this machine in the place of every address to listen on, so that nothing leaves it, and other addresses
// in the place of those of the clusters.
func onLoopback(t *testing.T, config []byte, cluster func(was string) string) []byte {
	t.Helper()
	var tree map[string]any
	if err := yaml.Unmarshal(config, &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(n any, address func(string) string)
	walk = func(n any, address func(string) string) {
		switch n := n.(type) {
		case []any:
			for _, e := range n {
				walk(e, address)
			}
		case map[string]any:
			if a, ok := n["socket_address"].(map[string]any); ok {
				to, err := netip.ParseAddrPort(address(fmt.Sprintf("%v:%v", a["address"], a["port_value"])))
				if err != nil {
					t.Fatal(err)
				}
				a["address"], a["port_value"] = to.Addr().String(), int(to.Port())
			}
			for _, v := range n {
				walk(v, address)
			}
		}
	}
	free := func(string) string { return "127.0.0.1:0" }
	walk(tree["admin"], free)
	resources := tree["static_resources"].(map[string]any)
	walk(resources["listeners"], free)
	walk(resources["clusters"], cluster)
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
