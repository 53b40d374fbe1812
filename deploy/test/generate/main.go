// Generate writes deploy/test/schemas: the JSON Schemas of the kinds that our manifests are made of, out of packages of pinned versions.
//
//	cd deploy/test && go run ./generate
//
// Kubernetes' own come from the Python package that schemas/requirements.txt pins, those of other projects from the definitions of
// custom resources in their Go modules. What only people read (descriptions) is left out.
package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// The oldest Kubernetes that the chart takes, and the newest there is.
var releases = []string{"v1.30.0", "v1.37.0"}

var builtIn = []string{
	"configmap-v1", "deployment-apps-v1", "horizontalpodautoscaler-autoscaling-v2", "namespace-v1", "networkpolicy-networking-v1",
	"poddisruptionbudget-policy-v1", "service-v1", "serviceaccount-v1",
}

// source is a module with definitions of custom resources. A version that is empty is the one that go.mod requires.
type source struct {
	module, version string
	files           []string // patterns
	kinds           []string // GROUP/VERSION KIND
}

var sources = []source{
	{module: "istio.io/api", files: []string{"kubernetes/customresourcedefinitions.gen.yaml"}, kinds: []string{
		"networking.istio.io/v1 DestinationRule", "networking.istio.io/v1 Gateway", "networking.istio.io/v1 VirtualService",
		"networking.istio.io/v1alpha3 EnvoyFilter", "security.istio.io/v1 AuthorizationPolicy", "security.istio.io/v1 PeerAuthentication",
	}},
	{module: "github.com/envoyproxy/gateway", files: []string{"charts/gateway-helm/charts/crds/crds/generated/*.yaml"}, kinds: []string{
		"gateway.envoyproxy.io/v1alpha1 SecurityPolicy", "gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy", "gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy",
	}},
	{module: "sigs.k8s.io/gateway-api", files: []string{"config/crd/standard/*.yaml"}, kinds: []string{
		"gateway.networking.k8s.io/v1 Gateway", "gateway.networking.k8s.io/v1 GatewayClass", "gateway.networking.k8s.io/v1 HTTPRoute",
		"gateway.networking.k8s.io/v1beta1 ReferenceGrant",
	}},
	{module: "github.com/projectcontour/contour", files: []string{"examples/contour/01-crds.yaml"}, kinds: []string{
		"projectcontour.io/v1 HTTPProxy", "projectcontour.io/v1alpha1 ExtensionService",
	}},
	{module: "sigs.k8s.io/secrets-store-csi-driver", version: "v1.6.0", files: []string{"config/crd/bases/*.yaml"}, kinds: []string{
		"secrets-store.csi.x-k8s.io/v1 SecretProviderClass",
	}},
	{module: "github.com/external-secrets/external-secrets", version: "v1.3.2", files: []string{"config/crds/bases/*.yaml"}, kinds: []string{
		"external-secrets.io/v1 ExternalSecret", "external-secrets.io/v1 SecretStore",
	}},
}

// The providers of secret stores that the manifests use. All the others are left out, so one of them is an unknown field.
var storeProviders = []string{"aws", "azurekv", "gcpsm", "vault"}

type schema = map[string]any

func main() {
	if err := generate("schemas"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	work, err := os.MkdirTemp("", "hookauthz-schemas-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	definitions, err := kubernetes(dir, work)
	if err != nil {
		return fmt.Errorf("schemas of Kubernetes: %w", err)
	}
	rows := "| " + requirement(dir) + " | Apache-2.0 | " + strings.Join(releases, ", ") + ": " + strings.Join(builtIn, ", ") + " |\n"
	for _, s := range sources {
		version, err := s.write(filepath.Join(dir, "custom"), definitions)
		if err != nil {
			return fmt.Errorf("schemas of %s: %w", s.module, err)
		}
		rows += "| " + s.module + " " + version + " | Apache-2.0 | " + strings.Join(s.kinds, ", ") + " |\n"
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(readme+rows), 0o644)
}

const readme = `# Schemas

What Kubernetes objects may look like, for the tests of the manifests. Written by ` + "`make schemas`" + ` from packages of pinned versions;
descriptions and the kinds and providers that no manifest uses are left out, unknown fields are refused, and rules in CEL are not part of a JSON Schema.
All of it is under the Apache License 2.0, the text of which is in the LICENSE file of this repository. The Python package holds Kubernetes' own
definitions (Copyright The Kubernetes Authors) as JSON Schema (Copyright Will Thames).

| from | licence | what |
|---|---|---|
`

// requirement is the Python package, without its hash.
func requirement(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, "requirements.txt"))
	name, _, _ := strings.Cut(string(text), " ")
	return name
}

// kubernetes writes the built-in kinds of each release, and returns the definitions of the newest.
func kubernetes(dir, work string) (newest schema, err error) {
	pip := exec.Command("python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
		"--require-hashes", "-r", filepath.Join(dir, "requirements.txt"), "-d", work)
	pip.Stderr = os.Stderr
	if err := pip.Run(); err != nil {
		return nil, err
	}
	wheels, err := filepath.Glob(filepath.Join(work, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return nil, fmt.Errorf("%d wheels were fetched, want one (%v)", len(wheels), err)
	}
	wheel, err := zip.OpenReader(wheels[0])
	if err != nil {
		return nil, err
	}
	defer wheel.Close()
	for _, release := range releases {
		at := "kubernetes_validate/kubernetes-json-schema/" + release + "-local-strict/"
		var all struct {
			Defs schema `json:"$defs"`
		}
		if err := readZip(&wheel.Reader, at+"_definitions.json", &all); err != nil {
			return nil, err
		}
		newest = all.Defs
		for _, kind := range builtIn {
			var s schema
			if err := readZip(&wheel.Reader, at+kind+".json", &s); err != nil {
				return nil, err
			}
			if err := write(filepath.Join(dir, release, kind+".json"), inlined(s, newest)); err != nil {
				return nil, err
			}
		}
	}
	return newest, nil
}

func readZip(z *zip.Reader, name string, into any) error {
	f, err := z.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// inlined is a schema with the definitions that it refers to, and those that they refer to.
func inlined(s, definitions schema) schema {
	used := schema{}
	var visit func(v any) any
	visit = func(v any) any {
		switch v := v.(type) {
		case []any:
			for i := range v {
				v[i] = visit(v[i])
			}
		case schema:
			if ref, ok := v["$ref"].(string); ok {
				name := path.Base(ref)
				if _, done := used[name]; !done {
					used[name] = true
					used[name] = visit(copied(definitions[name]))
				}
				return schema{"$ref": "#/definitions/" + name}
			}
			for k := range v {
				v[k] = visit(v[k])
			}
		}
		return v
	}
	out := visit(trimmed(copied(s))).(schema)
	for name := range used {
		used[name] = trimmed(used[name])
	}
	if len(used) > 0 {
		out["definitions"] = used
	}
	return out
}

func copied(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it came out of JSON
	}
	var c any
	if err := json.Unmarshal(text, &c); err != nil {
		panic(err)
	}
	return c
}

// trimmed is a schema without what validates nothing. Names of properties are no keywords.
func trimmed(v any) any {
	s, ok := v.(schema)
	if !ok {
		return v
	}
	for _, k := range slices.Collect(maps.Keys(s)) {
		switch {
		case k == "description" || k == "default" || k == "example" || k == "$schema" || strings.HasPrefix(k, "x-kubernetes-"):
			delete(s, k)
		case k == "properties" || k == "definitions" || k == "patternProperties":
			for name, p := range s[k].(schema) {
				s[k].(schema)[name] = trimmed(p)
			}
		case k == "items" || k == "additionalProperties" || k == "not":
			s[k] = trimmed(s[k])
		case k == "oneOf" || k == "anyOf" || k == "allOf":
			for i, p := range s[k].([]any) {
				s[k].([]any)[i] = trimmed(p)
			}
		}
	}
	return s
}

// strict refuses unknown fields, as the API server does with fieldValidation=Strict, and writes OpenAPI's nullable as JSON Schema.
func strict(v any) {
	s, ok := v.(schema)
	if !ok {
		return
	}
	if properties, ok := s["properties"].(schema); ok {
		if _, open := s["additionalProperties"]; !open && s["x-kubernetes-preserve-unknown-fields"] != true {
			s["additionalProperties"] = false
		}
		for _, p := range properties {
			strict(p)
		}
	}
	if s["nullable"] == true {
		s["type"] = []any{s["type"], "null"}
	}
	delete(s, "nullable")
	strict(s["items"])
	strict(s["additionalProperties"])
	// Within anyOf, oneOf, allOf and not stand constraints, which may name some properties only.
}

func (s source) write(dir string, definitions schema) (version string, err error) {
	at, version, err := s.find()
	if err != nil {
		return "", err
	}
	wanted := make(map[string]bool)
	for _, k := range s.kinds {
		wanted[k] = true
	}
	for _, pattern := range s.files {
		files, err := filepath.Glob(filepath.Join(at, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			for _, doc := range strings.Split("\n"+string(text), "\n---") {
				if err := writeDefinitions(dir, doc, definitions, wanted); err != nil {
					return "", fmt.Errorf("%s: %w", file, err)
				}
			}
		}
	}
	if len(wanted) > 0 {
		return "", fmt.Errorf("it has no %v", slices.Sorted(maps.Keys(wanted)))
	}
	return version, nil
}

func writeDefinitions(dir, doc string, definitions schema, wanted map[string]bool) error {
	var d struct {
		Kind string
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
		return err
	}
	if d.Kind != "CustomResourceDefinition" {
		return nil
	}
	for _, v := range d.Spec.Versions {
		kind := d.Spec.Group + "/" + v.Name + " " + d.Spec.Names.Kind
		if !wanted[kind] {
			continue
		}
		delete(wanted, kind)
		s := v.Schema.OpenAPIV3Schema
		if d.Spec.Names.Kind == "SecretStore" {
			if err := onlyProviders(s); err != nil {
				return err
			}
		}
		strict(s)
		// A definition may leave out what is the same for every object.
		properties := s["properties"].(schema)
		properties["apiVersion"] = schema{"type": "string", "enum": []any{d.Spec.Group + "/" + v.Name}}
		properties["kind"] = schema{"type": "string", "enum": []any{d.Spec.Names.Kind}}
		properties["metadata"] = schema{"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
		s["required"] = []any{"apiVersion", "kind", "metadata", "spec"}
		if err := write(filepath.Join(dir, d.Spec.Group, strings.ToLower(d.Spec.Names.Kind)+"_"+v.Name+".json"), inlined(s, definitions)); err != nil {
			return err
		}
	}
	return nil
}

func onlyProviders(s schema) error {
	for _, at := range []string{"properties", "spec", "properties", "provider", "properties"} {
		next, ok := s[at].(schema)
		if !ok {
			return errors.New("SecretStore has no spec.provider")
		}
		s = next
	}
	maps.DeleteFunc(s, func(name string, _ any) bool { return !slices.Contains(storeProviders, name) })
	return nil
}

// find has the module fetched and says where it is.
func (s source) find() (dir, version string, err error) {
	args := []string{"mod", "download", "-json", s.module + "@" + s.version}
	if s.version == "" {
		args = []string{"list", "-m", "-json", s.module}
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return "", "", err
	}
	var m struct{ Dir, Version string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", "", err
	}
	return m.Dir, m.Version, nil
}

func write(file string, s schema) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(s); err != nil {
		return err
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}
