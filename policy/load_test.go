package policy_test

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
)

var update = flag.Bool("update", false, "write the wanted faults of testdata/bad anew")

// lookup is the environment of the tests.
func lookup(name string) (string, bool) {
	value, ok := map[string]string{
		"SECRET": "It's a Secret to Everybody", "WHSEC": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "OTHER": "another secret, 32 bytes long....", "EMPTY": "", "BLANK": " \n",
	}[name]
	return value, ok
}

var options = policy.LoadOptions{LookupEnv: lookup}

// folder is a policy folder with the given files: name, content, name, content.
func folder(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load is the Set of a folder with one file.
func load(t testing.TB, yaml string) *policy.Set {
	t.Helper()
	set, err := policy.Load(folder(t, "policy.yaml", yaml), options)
	if err != nil {
		t.Fatalf("loading:\n%v", err)
	}
	return set
}

// Every rule of the language has a bad file with its exact message beside it.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := folder(t, name+".yaml", string(data))
			_, err = policy.Load(dir, options)
			var faults policy.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("got %v, want faults", err)
			}
			got := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "") + "\n"
			if strings.Contains(got, "TOPSECRET") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			wanted := strings.TrimSuffix(path, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(wanted, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wanted)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// All faults of all files are told at once, in their order.
func TestFaultsOfAllFiles(t *testing.T) {
	dir := folder(t,
		"b.yaml", strings.Replace(github, "github-ci", "b", 1)+"  mode: never\n",
		"a.yml", strings.Replace(github, "github-ci", "a", 1)+"  bodyy: {}\n  mode: always\n",
		".hidden.yaml", "not: a policy",
		"notes.txt", "not a policy")
	_, err := policy.Load(dir, options)
	var faults policy.Faults
	errors.As(err, &faults)
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%s:%d %s", filepath.Base(f.File), f.Line, f.Webhook))
	}
	if diff := cmp.Diff([]string{"a.yml:7 a", "a.yml:8 a", "b.yaml:5 b", "b.yaml:7 b"}, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestLoadFolder(t *testing.T) {
	tests := []struct {
		name string
		dir  string
		want string
	}{
		{"empty", folder(t), "holds no policy file"},
		{"gone", filepath.Join(folder(t), "gone"), "no such file"},
		{"only others", folder(t, "a.txt", "x", ".b.yaml", "x"), "holds no policy file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := policy.Load(tt.dir, options)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestCaps(t *testing.T) {
	big := github + "#" + strings.Repeat("x", 32<<20)
	_, err := policy.Load(folder(t, "big.yaml", big), options)
	if err == nil || !strings.Contains(err.Error(), "big.yaml:1:1: the file has more than 33554432 bytes") {
		t.Errorf("got %.200v, want a fault about the size", err)
	}
	many := strings.Repeat("a: b\n---\n", 100_001)
	if _, err := policy.Load(folder(t, "many.yaml", many), options); err == nil || !strings.Contains(err.Error(), "more than 100000 documents") {
		t.Errorf("got %.200v, want a fault about the documents", err)
	}
	if _, err := policy.Load(folder(t, "latin.yaml", "a: \xff"), options); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("got %v, want a fault about the encoding", err)
	}
}

const github = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: github-ci}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/github]}
  signature: {scheme: github, secrets: [{version: "1", env: SECRET}]}
`

// The example of the reference page loads, with every field.
func TestLoadEveryField(t *testing.T) {
	set := load(t, `
apiVersion: hookauthz.io/v1alpha1
kind: WebhookDefaults
spec:
  clientAddress: {from: xForwardedFor, trustedProxies: [10.20.30.0/28]}
  body: {maxBytes: 1MiB}
  onStoreFailure: local
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: github-ci, labels: {team: ci}}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/github], methods: [POST]}
  mode: enforce
  pausedUntil: 2026-11-24T08:00:00Z
  body: {maxBytes: 2MiB, contentTypes: [application/json], allowEmpty: false}
  source:
    allow: [192.30.252.0/22, 185.199.108.0/22, 2a0a:a440::/29]
    deny: [192.30.252.66]
  signature:
    scheme: github
    secrets:
      - {version: 2026-10, env: SECRET}
      - {version: "2026-04", file: /run/secrets/github-old, notBefore: 2026-04-01T00:00:00Z, notAfter: 2026-12-01T00:00:00Z, environments: [production]}
      - {version: 1, env: OTHER, revoked: true}
  failures: {limit: 20/minute}
  rateLimits:
    - {name: endpoint, limit: 100/minute, burst: 20}
    - {name: per-installation, limit: 10/second, by: header, header: x-github-hook-installation-target-id}
  replay: {window: 24h, onDuplicate: tag}
  handshake: {enabled: true, verifyToken: {env: META_VERIFY_TOKEN}}
  onStoreFailure: local
  log: {allowed: 1/100, audit: denied}
`)
	want := []policy.EndpointInfo{{
		Name: "github-ci", Labels: map[string]string{"team": "ci"}, Scheme: "github", MaxBytes: 2 << 20,
		Versions: []policy.VersionInfo{{Name: "2026-10", Env: "SECRET", Available: true}, {Name: "1", Env: "OTHER", Available: true, Revoked: true}},
		Hosts:    []string{"hooks.example.com"}, Paths: []string{"/webhooks/github"},
		Headers: []string{"x-hub-signature-256", "x-github-delivery", "x-github-event"}, ClientHeader: "x-forwarded-for",
		PausedUntil: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.20.30.0/28")},
	}}
	if diff := cmp.Diff(want, set.Endpoints(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
}

// A secret that cannot be read is a fault for validate and makes only its version unavailable in serve.
func TestSecretModes(t *testing.T) {
	yaml := strings.Replace(github, `[{version: "1", env: SECRET}]`, `[{version: "1", env: SECRET}, {version: "2", env: NOT_SET}, {version: "3", file: gone}]`, 1)
	tests := []struct {
		name   string
		mode   policy.SecretMode
		faults int
		want   []bool
	}{
		{"required", policy.RequireSecrets, 2, nil},
		{"tolerated", policy.TolerateMissingSecrets, 0, []bool{true, false, false}},
		{"skipped", policy.SkipSecrets, 0, []bool{false, false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options
			o.Secrets = tt.mode
			set, err := policy.Load(folder(t, "a.yaml", yaml), o)
			var faults policy.Faults
			errors.As(err, &faults)
			if len(faults) != tt.faults {
				t.Fatalf("got %v, want %d faults", err, tt.faults)
			}
			if set == nil {
				return
			}
			var got []bool
			for _, v := range set.Endpoints()[0].Versions {
				got = append(got, v.Available)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("available (-want +got):\n%s", diff)
			}
		})
	}
}

// Reread keeps the policies and reads the secrets again: a deleted key is unavailable, a new one is good.
func TestReread(t *testing.T) {
	dir := folder(t, "key", "one\n", "a.yaml", strings.Replace(github, "env: SECRET", "file: key", 1))
	o := options
	o.Secrets = policy.TolerateMissingSecrets
	set, err := policy.Load(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(dir, "key")}, set.SecretFiles()); diff != "" {
		t.Errorf("secret files (-want +got):\n%s", diff)
	}
	available := func(s *policy.Set) bool { return s.Endpoints()[0].Versions[0].Available }
	if !available(set) {
		t.Fatal("the key is not available at first")
	}
	if err := os.Truncate(filepath.Join(dir, "key"), 0); err != nil {
		t.Fatal(err)
	}
	if next := set.Reread(); available(next) || next.Revision() != set.Revision() || len(next.SecretFaults()) != 1 {
		t.Errorf("after it turned empty: available %v, revision %s, faults %v", available(next), next.Revision(), next.SecretFaults())
	}
	if !available(set) {
		t.Error("reading again changed the old set")
	}
}

func TestLoadTenThousand(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		if i > 0 {
			b.WriteString("---\n")
		}
		fmt.Fprintf(&b, `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: hook-%d}
spec:
  match: {hosts: [hooks%d.example.com], paths: [/webhooks/%d, /prefix/%d/*]}
  signature: {scheme: github, secrets: [{version: "1", env: SECRET}]}
`, i, i%7, i, i)
	}
	start := time.Now()
	set := load(t, b.String())
	t.Logf("loaded %d in %s", set.Len(), time.Since(start))
	if set.Len() != 10_000 {
		t.Fatalf("%d webhooks, want 10000", set.Len())
	}
}

// Values keep their source text where a string is wanted.
func TestParseValues(t *testing.T) {
	durations := map[string]time.Duration{"90s": 90 * time.Second, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "24h": 24 * time.Hour}
	for text, want := range durations {
		if got, err := policy.ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "d", "-5m", "1d-5m", "5 m", "99999999d", "1h1d"} {
		if got, err := policy.ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
	sizes := map[string]int64{"512": 512, "64KiB": 64 << 10, "2MiB": 2 << 20, "1GiB": 1 << 30}
	for text, want := range sizes {
		if got, err := policy.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "2MB", "MiB", "99999999999999999999", "2 MiB"} {
		if got, err := policy.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", text, got)
		}
	}
}

// FuzzLoad feeds arbitrary files: faults or a set, never a panic, and never the secret that stands in one.
func FuzzLoad(f *testing.F) {
	bad, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, path := range bad {
		if data, err := os.ReadFile(path); err == nil {
			f.Add(string(data))
		}
	}
	f.Add(github)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := policy.Load(dir, options)
		if (set == nil) == (err == nil) {
			t.Errorf("a set %v and the error %v", set != nil, err)
		}
	})
}
