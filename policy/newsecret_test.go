package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
)

// What NewSecret makes for a preset is a secret without a fault or warning; it signs, and the delivery is allowed. Another one's is not.
func TestNewSecrets(t *testing.T) {
	made := 0
	for _, info := range signature.Presets() {
		scheme, _ := signature.Preset(info.Name)
		first, err := scheme.NewSecret()
		if scheme.NeedsPublicKey() {
			if err == nil {
				t.Errorf("%s: a secret for a scheme with a public key", info.Name)
			}
			continue
		}
		second, err2 := scheme.NewSecret()
		if err != nil || err2 != nil || first == second {
			t.Errorf("%s: %v, %v", info.Name, err, err2)
			continue
		}
		made++
		if material, err := scheme.Material([]byte(first)); err != nil || len(material) < 32 {
			t.Errorf("%s: %d bytes, %v", info.Name, len(material), err)
		}
		engine := func(value string) *policy.Engine {
			dir := folder(t, "policy.yaml", presetPolicy(info.Name, scheme))
			set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: func(string) (string, bool) { return value, true }})
			if err != nil {
				t.Fatalf("%s: loading:\n%v", info.Name, err)
			}
			if w := set.SecretWarnings(); len(w) > 0 {
				t.Errorf("%s: %s", info.Name, w)
			}
			return policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
		}
		e := engine(first)
		body := `{"type":"test"}`
		for _, source := range slices.Concat(info.Spec.Sign, info.Spec.Sig.In) {
			if strings.Contains(source, "form:") || strings.Contains(source, "{form.sorted}") {
				body = "bt_payload=dGVzdA%3D%3D"
			}
		}
		d, err := e.Set().Sign("hook", policy.SignOptions{Time: now, Body: []byte(body)})
		if err != nil {
			t.Errorf("%s: signing: %v", info.Name, err)
			continue
		}
		if got := verdict(e.Decide(t.Context(), request(t, d, false))); got != "allow ok" {
			t.Errorf("%s: got %q, want allow ok", info.Name, got)
		}
		if got := engine(second).Decide(t.Context(), request(t, d, false)); got.Outcome == policy.Allow {
			t.Errorf("%s: allowed with another secret", info.Name)
		}
	}
	if made < 150 {
		t.Errorf("%d presets, want at least 150", made)
	}
}
