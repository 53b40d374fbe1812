package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	egv1alpha1 "github.com/envoyproxy/gateway/api/v1alpha1"
	contourconfig "github.com/projectcontour/contour/pkg/config"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

// What `envoy render` writes of policies, by the file in deploy/ that shows it.
var rendered = map[string][]string{
	"istio/webhooks.yaml":         {"--policies", "examples/policies", "--format", "istio", "--upstream", "app:8080", "--authz", "hookauthz.security:9001", "--namespace", "webhooks", "--gateway", "webhooks"},
	"envoy-gateway/webhooks.yaml": {"--policies", "examples/policies", "--format", "envoy-gateway", "--upstream", "app:8080", "--authz", "hookauthz.security:9001", "--namespace", "webhooks", "--gateway", "webhooks"},
	"contour/webhooks.yaml":       {"--policies", "examples/policies", "--format", "contour", "--upstream", "app:8080", "--authz", "hookauthz.security:9001", "--namespace", "webhooks", "--tls-secret", "hooks-tls"},
	"kustomize/overlays/uds-sidecar/envoy.yaml": {
		"--policies", "deploy/kustomize/base/policies", "--upstream", "receiver.webhooks.svc:8080", "--listen", "0.0.0.0:8443",
		"--tls-cert", "/run/envoy-tls/tls.crt", "--tls-key", "/run/envoy-tls/tls.key", "--authz", "unix:/run/hookauthz/authz.sock",
	},
}

func TestRenderedFilesAreUpToDate(t *testing.T) {
	for file, args := range rendered {
		full := []string{"envoy", "render"}
		for i, a := range args {
			if i > 0 && args[i-1] == "--policies" {
				a = filepath.Join(root, a)
			}
			full = append(full, a)
		}
		out, code := run(t, full...)
		if code != 0 {
			t.Fatalf("%s: exit code %d:\n%s", file, code, out)
		}
		golden(t, filepath.Join(root, "deploy", file), out)
	}
}

func TestSidecarEnvoyIsClean(t *testing.T) {
	dir := filepath.Join(root, "deploy", "kustomize")
	out, code := run(t, "envoy", "lint", filepath.Join(dir, "overlays", "uds-sidecar", "envoy.yaml"), "--policies", filepath.Join(dir, "base", "policies"))
	if code != 0 || strings.Count(strings.TrimSpace(out), "\n") > 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func readShipped(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func meshConfig(t *testing.T, text string) *meshv1alpha1.MeshConfig {
	t.Helper()
	shown, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	config := new(meshv1alpha1.MeshConfig)
	if err := protojson.Unmarshal(shown, config); err != nil {
		t.Fatal(err)
	}
	return config
}

// The values for istiod are Istio's own configuration, and what `envoy render` shows in its comment.
func TestIstiodValues(t *testing.T) {
	var values struct {
		MeshConfig map[string]any `json:"meshConfig"`
	}
	if err := yaml.UnmarshalStrict([]byte(readShipped(t, "istio/istiod-values.yaml")), &values, yaml.DisallowUnknownFields); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(values.MeshConfig)
	if err != nil {
		t.Fatal(err)
	}
	got, want := meshConfig(t, string(text)), meshConfig(t, shownMeshConfig(readShipped(t, "istio/webhooks.yaml")))
	if !proto.Equal(got, want) {
		t.Errorf("istiod-values.yaml says %v\nand webhooks.yaml shows %v", got, want)
	}
}

// The values for Envoy Gateway hold its own configuration, unknown keys refused.
func TestEnvoyGatewayValues(t *testing.T) {
	var values struct {
		Config struct {
			EnvoyGateway egv1alpha1.EnvoyGatewaySpec `json:"envoyGateway"`
		} `json:"config"`
	}
	text := readShipped(t, "envoy-gateway/envoy-gateway-values.yaml")
	if err := yaml.UnmarshalStrict([]byte(text), &values, yaml.DisallowUnknownFields); err != nil {
		t.Fatal(err)
	}
	if apis := values.Config.EnvoyGateway.ExtensionAPIs; apis == nil || !apis.EnableEnvoyPatchPolicy {
		t.Error("patches are not in force")
	}
	broken := strings.Replace(text, "enableEnvoyPatchPolicy", "enableEnvoyPatchPolicies", 1)
	if err := yaml.UnmarshalStrict([]byte(broken), &values, yaml.DisallowUnknownFields); err == nil {
		t.Error("no error for a misspelt key")
	}
}

// Contour's configuration file is what Contour itself reads.
func TestContourConfig(t *testing.T) {
	text := text(only(t, objects(t, readShipped(t, "contour/contour.yaml")), "ConfigMap"), "data", "contour.yaml")
	config, err := contourconfig.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !config.DisableMergeSlashes {
		t.Error("slashes are merged")
	}
	if _, err := contourconfig.Parse(strings.NewReader(strings.Replace(text, "disableMerge", "disabledMerge", 1))); err == nil {
		t.Error("no error for a misspelt key")
	}
}
