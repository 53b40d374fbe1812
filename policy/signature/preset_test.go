package signature

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestCatalogueIsRead(t *testing.T) {
	c, err := readCatalogue(presetFile)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(c.infos), 186; got < want { // 185 of the first catalogue and the guide's own
		t.Errorf("%d presets, want at least %d", got, want)
	}
	for _, name := range []string{"github", "gitlab-token", "stripe", "slack", "standard-webhooks", "svix", "shopify", "zoom", "paddle", "x-webhook-signature", "connectwise", "connectwise (static key)",
		"convoy-simple-sha256-base64", "convoy-simple-base64", "convoy-advanced-sha256-base64", "convoy-advanced-base64"} {
		if s, ok := Preset(name); !ok || s.Name() == "" {
			t.Errorf("there is no preset %q", name)
		}
	}
	if _, ok := Preset(""); ok {
		t.Error("the empty name is a preset")
	}
	if !slices.IsSortedFunc(Presets(), func(a, b Info) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the catalogue is not sorted by name")
	}
}

func TestReadCatalogueFaults(t *testing.T) {
	const scheme = `scheme: {alg: hmac-sha256, sign: ['{body}'], sig: {in: [header:X], enc: hex}}`
	tests := []struct{ name, file, want string }{
		{"format", "format: presets/2\npresets: []", `the format is "presets/2"`},
		{"unknown key", "format: presets/1\npresets:\n- {name: a, nme: b, " + scheme + "}", "field nme not found"},
		{"unknown key of a scheme", "format: presets/1\npresets:\n- {name: a, scheme: {algorithm: x}}", "field algorithm not found"},
		{"fault", "format: presets/1\npresets:\n- {name: a, scheme: {alg: x}}", `preset "a": alg: no algorithm is named "x"`},
		{"name twice", "format: presets/1\npresets:\n- {name: a, " + scheme + "}\n- {name: b, alias: a, " + scheme + "}", `two presets are named "a"`},
		{"two documents", "format: presets/1\npresets: []\n---\nformat: presets/1", "more than one document"},
		{"not YAML", "\t", "reading presets"},
	}
	for _, tt := range tests {
		if _, err := readCatalogue([]byte(tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestPresetFacts checks what a preset must state.
func TestPresetFacts(t *testing.T) {
	confidences := []string{"source", "docs", "source+docs", "third-party", "memory"}
	for _, info := range Presets() {
		s, _ := Preset(info.Name)
		if info.Provider == "" || !slices.Contains(confidences, info.Confidence) || info.Secret == "" {
			t.Errorf("%s: provider %q, confidence %q, secret %q", info.Name, info.Provider, info.Confidence, info.Secret)
		}
		if u, err := url.Parse(info.Documentation); info.Documentation != "" && (err != nil || u.Scheme != "https") {
			t.Errorf("%s: documentation %q", info.Name, info.Documentation)
		}
		if (info.BodySigned == nil) != (info.BodySignedWhy == "") {
			t.Errorf("%s: states bodySigned without a reason, or the other way round", info.Name)
		}
		if info.BodySigned != nil && len(info.Spec.Only) == 0 {
			t.Errorf("%s: states bodySigned without a guard", info.Name)
		}
		if s.HasTimestamp() && !s.TimestampSigned() {
			t.Errorf("%s: its timestamp is not signed", info.Name)
		}
		if s.FreshPerAttempt() && (!s.TimestampSigned() || info.Retries == "") {
			t.Errorf("%s: fresh per attempt without a signed timestamp, or without saying how", info.Name)
		}
		if s.Nonce() && s.BodySigned() {
			t.Errorf("%s: a nonce says nothing where the body is signed", info.Name)
		}
		if info.SecretExample == "" {
			if !s.NeedsPublicKey() {
				t.Errorf("%s: no example of its secret", info.Name)
			}
			continue
		}
		make := s.NewKey
		if s.NeedsPublicKey() {
			make = s.NewPublicKey
		}
		if _, err := make([]byte(info.SecretExample)); err != nil {
			t.Errorf("%s: its example of a secret: %v", info.Name, err)
		}
	}
}

// TestUnsignedBodies lists the presets of which a policy must accept that the body is not signed.
func TestUnsignedBodies(t *testing.T) {
	var got []string
	for _, info := range Presets() {
		if s, _ := Preset(info.Name); !s.BodySigned() && !s.IsToken() {
			got = append(got, info.Name)
		}
	}
	if want := []string{"dropbox-sign", "mailgun", "mailgun-form", "mailomat", "mercado-pago", "paypal", "paypal-sandbox", "plivo-v2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
