package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"sigs.k8s.io/yaml"
)

// The releases of Kubernetes whose schemas are in the folder schemas.
var releases = []string{"1.30.0", "1.37.0"}

func validators(t *testing.T) []validator.Validator {
	t.Helper()
	var all []validator.Validator
	for _, r := range releases {
		v, err := validator.New([]string{
			"schemas/{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json",
			"schemas/custom/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json",
		}, validator.Opts{KubernetesVersion: r, Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// Kinds whose project publishes Go types and no schema.
var typed = map[string]func() any{
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(monitoringv1.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return new(monitoringv1.PrometheusRule) },
}

// conform says what is wrong with an object, by the schema or the type of its kind.
func conform(all []validator.Validator, o object) error {
	doc, err := yaml.Marshal(o)
	if err != nil {
		return err
	}
	if into := typed[o.kind()]; into != nil {
		text, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			return err
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		return d.Decode(into())
	}
	for i, v := range all {
		if r := v.ValidateResource(resource.Resource{Bytes: doc}); r.Status != validator.Valid {
			return fmt.Errorf("Kubernetes %s: %w", releases[i], r.Err)
		}
	}
	return nil
}

// everything is each manifest that we ship or render, by where it is from.
func everything(t *testing.T) map[string][]object {
	t.Helper()
	all := make(map[string][]object)
	for name, text := range charts(t) {
		all["helm "+name] = objects(t, text)
	}
	for name, text := range kustomizations(t) {
		all["kustomize "+name] = objects(t, text)
	}
	for _, file := range shipped(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(file, root+"/")] = objects(t, string(text))
	}
	return all
}

// shipped are the files of manifests to apply as they are.
func shipped(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"istio/*.yaml", "envoy-gateway/*.yaml", "contour/*.yaml", "secrets/*/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, "deploy", pattern))
		if err != nil {
			t.Fatalf("no file deploy/%s (%v)", pattern, err)
		}
		all = append(all, found...)
	}
	return slices.DeleteFunc(all, func(file string) bool { return strings.HasSuffix(file, "-values.yaml") }) // values of a chart
}

func TestManifestsConform(t *testing.T) {
	all := validators(t)
	for from, manifests := range everything(t) {
		for _, o := range manifests {
			if err := conform(all, o); err != nil {
				t.Errorf("%s: %s: %v", from, o, err)
			}
		}
	}
}

// Each kind that is in use has a file of broken manifests, of which each document is refused.
func TestBrokenManifestsAreRefused(t *testing.T) {
	all := validators(t)
	used := make(map[string]bool)
	for _, manifests := range everything(t) {
		for _, o := range manifests {
			used[o.kind()] = true
		}
	}
	broken := make(map[string]bool)
	for name, content := range files(t, "testdata/broken/*.yaml") {
		for i, doc := range strings.Split("\n"+content, "\n---\n") {
			for _, o := range objects(t, doc) {
				broken[o.kind()] = true
				err := conform(all, o)
				for _, want := range wanted(t, name, doc) {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s, document %d: error %v, want %q in it", name, i+1, err, want)
					}
				}
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(broken)), slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) {
		t.Errorf("broken manifests of %q\nwant those that are in use: %q", got, want)
	}
}
