package test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// object is a Kubernetes object.
type object map[string]any

// objects reads manifests. A key that is there twice is an error.
func objects(t *testing.T, text string) []object {
	t.Helper()
	var all []object
	for _, doc := range strings.Split("\n"+text, "\n---") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

func (o object) kind() string { return fmt.Sprint(o["apiVersion"], " ", o["kind"]) }

func (o object) String() string { return fmt.Sprint(o["kind"], " ", at(o, "metadata", "name")) }

// at is what stands in an object below some keys and positions, nil where there is nothing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			switch m := v.(type) {
			case object:
				v = m[p]
			case map[string]any:
				v = m[p]
			default:
				return nil
			}
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

func list(v any, path ...any) []any {
	l, _ := at(v, path...).([]any)
	return l
}

func text(v any, path ...any) string {
	s, _ := at(v, path...).(string)
	return s
}

// ofKind are the objects of one kind.
func ofKind(all []object, kind string) []object {
	return slices.DeleteFunc(slices.Clone(all), func(o object) bool { return o["kind"] != kind })
}

func only(t *testing.T, all []object, kind string) object {
	t.Helper()
	found := ofKind(all, kind)
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s, want 1", len(found), kind)
	}
	return found[0]
}

// golden compares text with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is stale; run make golden and look at the difference. Got:\n%s", file, got)
	}
}

// noOthers finds golden files that nothing makes any more.
func noOthers(t *testing.T, pattern string, made map[string]string) {
	t.Helper()
	for name := range files(t, pattern) {
		if _, ok := made[name]; !ok {
			t.Errorf("%s: nothing makes %s", pattern, name)
		}
	}
}

// files are those that a pattern names, by their names without the folder and what follows the dot.
func files(t *testing.T, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no file %s (%v)", pattern, err)
	}
	all := make(map[string]string)
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(p), filepath.Ext(p))] = string(content)
	}
	return all
}

// wanted is what a file says of the error that it leads to: its lines "# want: text".
func wanted(t *testing.T, name, content string) (all []string) {
	t.Helper()
	for line := range strings.Lines(content) {
		if w, ok := strings.CutPrefix(line, "# want: "); ok {
			all = append(all, strings.TrimSpace(w))
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s does not say what is wanted", name)
	}
	return all
}
