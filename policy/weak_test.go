package policy_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/secret"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// publishedElsewhere are examples of documentation pages that no vector has.
var publishedElsewhere = []string{
	"8f742231b10e8888abcd99yyyzzz85a5",       // Slack, "Verifying requests from Slack"
	"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", // Standard Webhooks, libraries
	"whsec_plJ3nmyCDGBKInavdOK15jsl",         // Svix, "Verifying payloads"
	"your-webhook-secret", "your-secret-key",
}

// published are the shared secrets of everything that is published and known here, by their fingerprints.
func published(t *testing.T) []string {
	t.Helper()
	file, err := os.ReadFile("signature/testdata/vectors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Vectors []struct {
			Preset, Secret string
			Secrets        []string
		}
	}
	if err := yaml.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	secrets := slices.Clone(publishedElsewhere)
	for _, v := range f.Vectors {
		if s, ok := signature.Preset(v.Preset); !ok || !s.NeedsPublicKey() {
			secrets = append(append(secrets, v.Secret), v.Secrets...)
		}
	}
	for _, p := range signature.Presets() {
		if s, _ := signature.Preset(p.Name); !s.NeedsPublicKey() {
			secrets = append(secrets, p.SecretExample)
		}
	}
	var sums []string
	for _, s := range secrets {
		if strings.TrimSpace(s) != "" {
			sums = append(sums, secret.Fingerprint(s))
		}
	}
	slices.Sort(sums)
	return slices.Compact(sums)
}

func TestPublished(t *testing.T) {
	const path = "secret/published.txt"
	want := strings.Join(published(t), "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("published.txt is not what the catalogue and the vectors make; run this test with -update (-want +got):\n%s", diff)
	}
	for s, want := range map[string]bool{"It's a Secret to Everybody": true, "It's a Secret to Everybody\n": true, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": true,
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": true, "it's a secret to everybody": false, "9f2b8c1d7e6a5f4b3c2d1e0f9a8b7c6d": false, "": false} {
		if got := secret.New([]byte(s)).Published(); got != want {
			t.Errorf("%q: got %t, want %t", s, got, want)
		}
	}
}

// What is said of each secret, and of which it is said. The value is in none of it.
func TestSecretWarnings(t *testing.T) {
	const good, better = "XdkZ8Qf0pB7mC2vT9yRw5LhJ", "uW3nE6sK1aG4tY8cP0iO2zVx"
	values := map[string]string{"GOOD": good, "BETTER": better, "SHORT": "hunter2", "DULL": "my-secret-webhook-token", "KNOWN": "It's a Secret to Everybody",
		"WHSEC": "whsec_aHVudGVyMmh1bnRlcg==", "WHSECGOOD": "whsec_WGRrWjhRZjBwQjdtQzJ2VDl5Unc1TGhK"} // base64 of 13 bytes, and of GOOD
	for _, tt := range []struct {
		name, signature, other string
		want                   []string
	}{
		{"good", `scheme: github, secrets: [{version: "1", env: GOOD}, {version: "2", env: BETTER}]`, "", nil},
		{"short", `scheme: github, secrets: [{version: "1", env: SHORT}]`, "", []string{
			`webhook "hook": the secret of version "1" is weak: it is shorter than 16 bytes; take another: hookauthz secrets new --scheme github`}},
		{"dull", `scheme: gitlab-token, secrets: [{version: "1", env: DULL}]`, "", []string{
			`webhook "hook": the secret of version "1" is weak: it is easy to guess, being made of words, or of few characters that repeat or follow each other; take another: hookauthz secrets new --scheme gitlab-token`}},
		{"published", `scheme: github, secrets: [{version: "1", env: KNOWN}]`, "", []string{
			`webhook "hook": the secret of version "1" is an example that is published: everybody knows it; take another: hookauthz secrets new --scheme github`}},
		{"short once decoded", `scheme: standard-webhooks, secrets: [{version: "1", env: WHSEC}]`, "", []string{
			`webhook "hook": the secret of version "1" is weak: it is shorter than 16 bytes; take another: hookauthz secrets new --scheme standard-webhooks`}},
		{"weak and revoked", `scheme: github, secrets: [{version: "1", env: SHORT, revoked: true}, {version: "2", env: GOOD}]`, "", nil},
		{"twice", `scheme: github, secrets: [{version: "1", env: GOOD}, {version: "2", env: GOOD}]`, "", []string{
			`webhook "hook": the secret of version "2" is that of version "1" too; take a new secret for a new version`}},
		{"revoked and in use", `scheme: github, secrets: [{version: "1", env: GOOD}, {version: "2", env: GOOD, revoked: true}]`, "", []string{
			`webhook "hook": the secret of version "2" is that of version "1" too, and one of them is revoked or a decoy: what it is to stop goes on; take another secret for the version that is in use`}},
		{"of two webhooks, written in two ways", `scheme: github, secrets: [{version: "1", env: GOOD}]`, `scheme: standard-webhooks, secrets: [{version: "7", env: WHSECGOOD}]`, []string{
			`webhook "other": the secret of version "7" is that of version "1" of the webhook "hook" too: whoever has one can send to all of them; take one for each where the sender lets you`}},
		{"of many webhooks", `scheme: github, secrets: [{version: "1", env: GOOD}]`, `scheme: github, secrets: [{version: "7", env: GOOD}, {version: "8", env: GOOD}, {version: "9", env: GOOD}]`, []string{
			`webhook "other": the secret of version "7" is that of version "1" of the webhook "hook" too, and of 2 more: whoever has one can send to all of them; take one for each where the sender lets you`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := []string{"a.yaml", webhook(tt.signature)}
			if tt.other != "" {
				files = append(files, "b.yaml", strings.NewReplacer("/hook", "/other", "{name: hook}", "{name: other}").Replace(webhook(tt.other)))
			}
			dir := folder(t, files...)
			set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: func(name string) (string, bool) { v, ok := values[name]; return v, ok }})
			if err != nil {
				t.Fatal(err)
			}
			for _, set := range []*policy.Set{set, set.Reread()} {
				var got []string
				for _, w := range set.SecretWarnings() {
					_, text, _ := strings.Cut(w.String(), ": ")
					got = append(got, text)
					for _, v := range values {
						if strings.Contains(w.String()+w.Shown, v) {
							t.Errorf("a secret is in %q", w)
						}
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}
