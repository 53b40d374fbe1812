package test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	egv1alpha1 "github.com/envoyproxy/gateway/api/v1alpha1"
	contourv1 "github.com/projectcontour/contour/apis/projectcontour/v1"
	contourv1alpha1 "github.com/projectcontour/contour/apis/projectcontour/v1alpha1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// manifest is a Kubernetes object as its project's own types read it, unknown keys refused.
func manifest(doc string) (kind string, err error) {
	text, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		return "", err
	}
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
		Spec             json.RawMessage
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return "", err
	}
	kind = head.APIVersion + " " + head.Kind
	// Istio's own reading of JSON passes over unknown keys, so its messages are read by protojson, which does not.
	messages := map[string]proto.Message{
		"security.istio.io/v1 AuthorizationPolicy": new(securityv1beta1.AuthorizationPolicy),
		"networking.istio.io/v1 VirtualService":    new(networkingv1alpha3.VirtualService),
		"networking.istio.io/v1 DestinationRule":   new(networkingv1alpha3.DestinationRule),
		"networking.istio.io/v1alpha3 EnvoyFilter": new(networkingv1alpha3.EnvoyFilter),
	}
	if m := messages[kind]; m != nil {
		return kind, protojson.Unmarshal(head.Spec, m)
	}
	objects := map[string]any{
		"gateway.networking.k8s.io/v1 HTTPRoute":             new(gatewayv1.HTTPRoute),
		"gateway.networking.k8s.io/v1beta1 ReferenceGrant":   new(gatewayv1beta1.ReferenceGrant),
		"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":      new(egv1alpha1.SecurityPolicy),
		"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy": new(egv1alpha1.ClientTrafficPolicy),
		"gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy":    new(egv1alpha1.EnvoyPatchPolicy),
		"projectcontour.io/v1 HTTPProxy":                     new(contourv1.HTTPProxy),
		"projectcontour.io/v1alpha1 ExtensionService":        new(contourv1alpha1.ExtensionService),
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return kind, d.Decode(objects[kind]) // a kind that is not known has nothing to be read into, which is an error
}

// kinds are those of each format, with a key whose misspelling must be found.
var kinds = map[string]map[string]string{
	"istio": {
		"security.istio.io/v1 AuthorizationPolicy": "provider:",
		"networking.istio.io/v1 VirtualService":    "gateways:",
		"networking.istio.io/v1 DestinationRule":   "trafficPolicy:",
		"networking.istio.io/v1alpha3 EnvoyFilter": "applyTo:",
	},
	"envoy-gateway": {
		"gateway.networking.k8s.io/v1 HTTPRoute":             "hostnames:",
		"gateway.networking.k8s.io/v1beta1 ReferenceGrant":   "from:",
		"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":      "failOpen:",
		"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy": "withUnderscoresAction:",
		"gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy":    "jsonPath:",
	},
	"contour": {
		"projectcontour.io/v1 HTTPProxy":              "packAsBytes:",
		"projectcontour.io/v1alpha1 ExtensionService": "protocol:",
	},
}

// What `envoy render` writes for meshes is what their own types take, and a misspelt key in any of it is found.
func TestRenderedManifests(t *testing.T) {
	for format, want := range kinds {
		t.Run(format, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, "envoy", "testdata", "mesh", format+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]bool)
			for _, doc := range strings.Split(string(text), "\n---\n")[1:] {
				kind, err := manifest(doc)
				if err != nil || want[kind] == "" {
					t.Errorf("%s: not expected, or not valid: %v\n%s", kind, err, doc)
					continue
				}
				seen[kind] = true
				broken := strings.ReplaceAll(doc, want[kind], "x"+want[kind])
				if _, err := manifest(broken); err == nil || broken == doc {
					t.Errorf("%s: no error with %q for %q", kind, "x"+want[kind], want[kind])
				}
			}
			for kind := range want {
				if !seen[kind] {
					t.Errorf("no %s", kind)
				}
			}
		})
	}
}

// shownMeshConfig is Istio's own configuration, which stands in a comment.
func shownMeshConfig(text string) string {
	var block strings.Builder
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "#     "); ok {
			block.WriteString(rest)
		}
	}
	return block.String()
}

func TestRenderedMeshConfig(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "envoy", "testdata", "mesh", "istio.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	block := shownMeshConfig(string(text))
	config := meshConfig(t, block)
	if len(config.ExtensionProviders) != 1 {
		t.Fatalf("%d providers, want 1:\n%s", len(config.ExtensionProviders), block)
	}
	p := config.ExtensionProviders[0].GetEnvoyExtAuthzGrpc()
	if p.GetFailOpen() || p.GetStatusOnError() != "503" || !p.GetIncludeRequestBodyInCheck().GetPackAsBytes() || p.GetIncludeRequestBodyInCheck().GetAllowPartialMessage() {
		t.Errorf("provider %v, want one that fails closed with 503 and hands whole, raw bodies over", p)
	}
}
