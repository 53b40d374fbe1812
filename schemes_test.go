package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// The policy that schemes shows loads as it stands, and so does the scheme written inline.
func TestStartingPoliciesLoad(t *testing.T) {
	presets := signature.Presets()
	if len(presets) == 0 {
		t.Fatal("no presets")
	}
	for _, info := range presets {
		t.Run(info.Name, func(t *testing.T) {
			d, err := describe(info)
			if err != nil {
				t.Fatal(err)
			}
			inline := strings.Replace(d.Policy, "    scheme: "+d.Name+"\n", "    scheme:\n"+indented(indented(indented(d.written))), 1)
			if info.BodySigned != nil && *info.BodySigned {
				// What the catalogue knows beside the templates, one who writes the scheme inline must say.
				inline += "    acceptUnsignedBody: true\n"
			}
			for name, text := range map[string]string{"preset": d.Policy, "inline": inline} {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				set, err := policy.Load(dir, policy.LoadOptions{Secrets: policy.SkipSecrets})
				if err != nil {
					t.Errorf("%s:\n%s\n%v", name, text, err)
				} else if set.Len() != 1 {
					t.Errorf("%s: %d webhooks, want 1", name, set.Len())
				}
			}
		})
	}
}
