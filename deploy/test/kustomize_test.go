package test

import (
	"path/filepath"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kustomizations are what `kustomize build` makes of the base and of each overlay.
func kustomizations(t *testing.T) map[string]string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "deploy", "kustomize", "overlays", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no overlays (%v)", err)
	}
	all := make(map[string]string)
	for _, dir := range append(dirs, filepath.Join(root, "deploy", "kustomize", "base")) {
		m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		text, err := m.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(dir)] = string(text)
	}
	return all
}

func TestKustomizeGolden(t *testing.T) {
	builds := kustomizations(t)
	noOthers(t, "testdata/kustomize/*.yaml", builds)
	for name, text := range builds {
		golden(t, filepath.Join("testdata", "kustomize", name+".yaml"), text)
	}
}
