package test

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

var chart = filepath.Join(root, "deploy", "helm", "hookauthz")

// helm renders the chart as `helm template hooks --namespace security` does, each file laid over the one before.
func helm(t *testing.T, values ...string) (manifests, notes string, err error) {
	t.Helper()
	c, err := loader.LoadDir(chart)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, text := range values {
		var v map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		all = loader.MergeMaps(all, v)
	}
	v, err := util.ToRenderValues(c, all, common.ReleaseOptions{Name: "hooks", Namespace: "security", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return "", "", err
	}
	rendered, err := engine.Engine{Strict: true}.RenderWithContext(t.Context(), c, v)
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		text := strings.TrimSpace(rendered[name])
		switch {
		case path.Base(name) == "NOTES.txt":
			notes = text
		case !strings.HasPrefix(path.Base(name), "_") && text != "":
			b.WriteString("---\n# Source: " + name + "\n" + strings.TrimPrefix(text, "---\n") + "\n")
		}
	}
	return b.String(), notes, nil
}

// charts are what the chart makes of each good file of values.
func charts(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for name, values := range goodValues(t) {
		all[name] = chartOf(t, values)
	}
	return all
}

func chartOf(t *testing.T, values string) string {
	t.Helper()
	text, _, err := helm(t, values)
	if err != nil {
		t.Fatalf("%v with:\n%s", err, values)
	}
	return text
}

// goodValues are those of testdata, and those that stand beside the manifests that they belong to.
func goodValues(t *testing.T) map[string]string {
	t.Helper()
	all := files(t, "testdata/helm/good/*.yaml")
	for _, pattern := range []string{"*/hookauthz-values.yaml", "secrets/*/hookauthz-values.yaml"} {
		paths, err := filepath.Glob(filepath.Join(root, "deploy", pattern))
		if err != nil || len(paths) < 3 {
			t.Fatalf("%d values at deploy/%s (%v)", len(paths), pattern, err)
		}
		for _, p := range paths {
			all[filepath.Base(filepath.Dir(p))] = files(t, p)["hookauthz-values"]
		}
	}
	return all
}

func TestHelmGolden(t *testing.T) {
	noOthers(t, "testdata/helm/golden/*.yaml", goodValues(t))
	for name, values := range goodValues(t) {
		t.Run(name, func(t *testing.T) {
			text, notes, err := helm(t, values)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "helm", "golden", name+".yaml"), text+"---\n# NOTES\n#\n# "+strings.ReplaceAll(notes, "\n", "\n# ")+"\n")
		})
	}
}

// Each bad file is laid over good/mtls.yaml, and says what is told of it.
func TestHelmRefuses(t *testing.T) {
	base := files(t, "testdata/helm/good/mtls.yaml")["mtls"]
	for name, values := range files(t, "testdata/helm/bad/*.yaml") {
		t.Run(name, func(t *testing.T) {
			_, _, err := helm(t, base, values)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range wanted(t, name, values) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q tells the password", err)
			}
		})
	}
}

// The chart alone is refused, and all that is missing is told at once.
func TestHelmNothing(t *testing.T) {
	_, _, err := helm(t)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"image.repository", "policies", "listener.tls.secretName", "listener.clientSANs", "networkPolicy.envoy"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, want %s in it", err, want)
		}
	}
}

func TestHelmLint(t *testing.T) {
	for name, text := range goodValues(t) {
		var values map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		for _, m := range lint.RunAll(chart, values, "security").Messages {
			if m.Severity > support.InfoSev { // it would have an icon
				t.Errorf("%s: %s", name, m)
			}
		}
	}
}

// The first example of the README stands on its own, and each later one is laid over it.
func TestHelmReadme(t *testing.T) {
	var base string
	laid := 0
	for _, part := range strings.Split(files(t, filepath.Join(chart, "README.md"))["README"], "\n```yaml\n")[1:] {
		example, _, _ := strings.Cut(part, "\n```")
		switch {
		case base == "":
			base = example
		case strings.HasPrefix(example, "sidecar.istio.io/"): // an annotation
			continue
		}
		laid++
		if _, _, err := helm(t, base, example); err != nil {
			t.Errorf("%v with:\n%s", err, example)
		}
	}
	if laid < 4 {
		t.Errorf("%d examples, want those of every section", laid)
	}
}

// The alert rules that we ship are what a PrometheusRule takes.
func TestHelmAlertRules(t *testing.T) {
	rules := files(t, filepath.Join(root, "deploy", "prometheus", "rules.yaml"))["rules"]
	values, err := yaml.Marshal(map[string]any{"prometheusRule": map[string]any{"enabled": true, "rules": rules}})
	if err != nil {
		t.Fatal(err)
	}
	o := only(t, objects(t, chartOf(t, goodValues(t)["mtls"]+string(values))), "PrometheusRule")
	if err := conform(nil, o); err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Unmarshal([]byte(rules), &file); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(file["groups"], at(o, "spec", "groups")); diff != "" {
		t.Errorf("groups of the file (-) and of the object (+):\n%s", diff)
	}
}

// Every value is in the schema, and the schema has no more than those.
func TestHelmSchemaHasTheValues(t *testing.T) {
	var schema, values map[string]any
	for file, into := range map[string]*map[string]any{"values.schema.json": &schema, "values.yaml": &values} {
		content := files(t, filepath.Join(chart, file))
		for _, text := range content {
			if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
	}
	var compare func(at string, s, v map[string]any)
	compare = func(where string, s, v map[string]any) {
		properties, _ := s["properties"].(map[string]any)
		for name := range properties {
			if _, ok := v[name]; !ok && where+name != ".global" {
				t.Errorf("values.yaml lacks %s%s", where, name)
			}
			inner, ok := v[name].(map[string]any)
			if p := properties[name].(map[string]any); ok && p["additionalProperties"] == false {
				compare(where+name+".", p, inner)
			}
		}
		for name := range v {
			if _, ok := properties[name]; !ok {
				t.Errorf("values.schema.json lacks %s%s", where, name)
			}
		}
	}
	compare(".", schema, values)
}
