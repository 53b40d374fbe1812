package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// What the manifests of a mesh put into Envoy fits into a gateway as that mesh makes it: Envoy loads the result, and lint finds in it
// what the mesh cannot express, and nothing else.
func TestMeshesInEnvoy(t *testing.T) {
	_, _, certs := mutants(t)
	tests := []struct {
		mesh   string
		kind   string
		apply  func(gateway, resource map[string]any) (applied int, err error)
		want   int // patches
		closed []string
		left   []string
	}{
		{"istio", "EnvoyFilter", applyEnvoyFilter, 3,
			[]string{"HA038", "HA041", "HA044", "HA084", "HA085", "HA087", "HA088", "HA089"},
			[]string{"HA008", "HA011", "HA097"}},
		{"envoy-gateway", "EnvoyPatchPolicy", applyPatchPolicy, 8,
			[]string{"HA032", "HA038"},
			[]string{"HA011", "HA064", "HA084", "HA085", "HA088", "HA097"}},
	}
	for _, tt := range tests {
		scenario(t, tt.mesh, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "mesh", tt.mesh+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			var gateway map[string]any
			if err := yaml.Unmarshal(text, &gateway); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(slices.Sorted(slices.Values(slices.Concat(tt.closed, tt.left))), rulesIn(t, gateway)); diff != "" {
				t.Errorf("without the manifests (-want +got):\n%s", diff)
			}
			applied, err := tt.apply(gateway, manifest(t, tt.mesh, tt.kind))
			if err != nil || applied != tt.want {
				t.Fatalf("%d patches apply (error %v), want %d", applied, err, tt.want)
			}
			if diff := cmp.Diff(tt.left, rulesIn(t, gateway)); diff != "" {
				t.Errorf("with the manifests (-want +got):\n%s", diff)
			}
			out, err := json.Marshal(gateway)
			if err != nil {
				t.Fatal(err)
			}
			if said, err := loads(t, bytes.ReplaceAll(out, []byte("/run/hookauthz-tls"), []byte(certs))); err != nil {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}

func rulesIn(t *testing.T, config map[string]any) []string {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	findings, _ := lint(t, file)
	return lintRules(findings)
}

// manifest is the resource of a kind among what render writes for a mesh.
func manifest(t *testing.T, mesh, kind string) map[string]any {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "envoy", "testdata", "mesh", mesh+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewDecoder(f); ; {
		var resource map[string]any
		if err := d.Decode(&resource); errors.Is(err, io.EOF) {
			t.Fatalf("no %s for %s", kind, mesh)
		} else if err != nil {
			t.Fatal(err)
		}
		if resource["kind"] == kind {
			return resource
		}
	}
}

// manager is the connection manager of a gateway's only listener.
func manager(gateway map[string]any) map[string]any {
	listener := gateway["static_resources"].(map[string]any)["listeners"].([]any)[0].(map[string]any)
	return listener["filter_chains"].([]any)[0].(map[string]any)["filters"].([]any)[0].(map[string]any)
}

// httpFilter is the HTTP filter of a name, or nil.
func httpFilter(gateway map[string]any, name string) map[string]any {
	for _, f := range manager(gateway)["typed_config"].(map[string]any)["http_filters"].([]any) {
		if f := f.(map[string]any); f["name"] == name {
			return f
		}
	}
	return nil
}

// applyEnvoyFilter does what Istio documents for the operations that render uses.
func applyEnvoyFilter(gateway, resource map[string]any) (applied int, err error) {
	for _, p := range resource["spec"].(map[string]any)["configPatches"].([]any) {
		p := p.(map[string]any)
		patch := p["patch"].(map[string]any)
		value := patch["value"].(map[string]any)
		h := manager(gateway)
		match := p["match"].(map[string]any)["listener"].(map[string]any)["filterChain"].(map[string]any)["filter"].(map[string]any)
		if match["name"] != h["name"] {
			continue
		}
		switch what := fmt.Sprint(p["applyTo"], " ", patch["operation"]); what {
		case "NETWORK_FILTER MERGE":
			merge(h, value)
		case "HTTP_FILTER INSERT_FIRST":
			config := h["typed_config"].(map[string]any)
			config["http_filters"] = slices.Concat([]any{value}, config["http_filters"].([]any))
		case "HTTP_FILTER MERGE":
			f := httpFilter(gateway, match["subFilter"].(map[string]any)["name"].(string))
			if f == nil {
				continue
			}
			merge(f, value)
		default:
			return applied, fmt.Errorf("a patch of another kind: %s", what)
		}
		applied++
	}
	return applied, nil
}

// merge merges as Protocol Buffers does: lists grow, what is single is replaced.
func merge(into, from map[string]any) {
	for k, v := range from {
		switch v := v.(type) {
		case map[string]any:
			if inner, ok := into[k].(map[string]any); ok {
				merge(inner, v)
				continue
			}
			into[k] = maps.Clone(v)
		case []any:
			old, _ := into[k].([]any)
			into[k] = slices.Concat(old, v)
		default:
			into[k] = v
		}
	}
}

// filterPath is the form of the JSONPath that render uses.
var filterPath = regexp.MustCompile(`^\.\.http_filters\[\?\(@\.name=='([^']+)'\)\]\.(.+)$`)

// applyPatchPolicy adds what an EnvoyPatchPolicy adds.
func applyPatchPolicy(gateway, resource map[string]any) (applied int, err error) {
	listener := gateway["static_resources"].(map[string]any)["listeners"].([]any)[0].(map[string]any)
	for _, p := range resource["spec"].(map[string]any)["jsonPatches"].([]any) {
		p := p.(map[string]any)
		operation := p["operation"].(map[string]any)
		at := filterPath.FindStringSubmatch(operation["jsonPath"].(string))
		if at == nil || operation["op"] != "add" || !strings.HasSuffix(p["type"].(string), ".Listener") {
			return applied, fmt.Errorf("a patch of another kind: %v", p)
		}
		filter := httpFilter(gateway, at[1])
		if p["name"] != listener["name"] || filter == nil {
			continue
		}
		var node any = filter
		for _, step := range strings.Split(at[2], ".") {
			node = node.(map[string]any)[step]
		}
		node.(map[string]any)[operation["path"].(string)] = operation["value"]
		applied++
	}
	return applied, nil
}
