package policy_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// versions are those of the first endpoint with what can be said of them, and the faults of its secrets.
func versions(set *policy.Set) (names, faults []string) {
	for _, v := range set.Endpoints()[0].Versions {
		name := v.Name
		if !v.Available {
			name += " unavailable"
		}
		names = append(names, name)
	}
	for _, f := range set.SecretFaults() {
		faults = append(faults, f.Problem)
	}
	return names, faults
}

// The files in a folder are the versions, whatever happens to them while a server runs.
func TestSecretFolder(t *testing.T) {
	const key, other = "XdkZ8Qf0pB7mC2vT9yRw5LhJ", "uW3nE6sK1aG4tY8cP0iO2zVx"
	for _, c := range []struct {
		name     string
		entries  string // of secrets; default the folder alone
		do       func(f secretFolder)
		versions []string
		faults   []string
	}{
		{name: "as Kubernetes mounts them", versions: []string{"2026-04", "2026-10"}},
		{name: "beside a version of its own", entries: `{version: "2025-10", env: SECRET, revoked: true}, {dir: keys}`, versions: []string{"2025-10", "2026-04", "2026-10"}},
		{name: "one appears", do: func(f secretFolder) { f.write("2027-01", key) }, versions: []string{"2026-04", "2026-10", "2027-01"}},
		{name: "one vanishes", do: func(f secretFolder) { f.remove("2026-04") }, versions: []string{"2026-10"}},
		{name: "one is empty", do: func(f secretFolder) { f.remove("2026-04"); f.write("2026-04", "\n") },
			versions: []string{"2026-04 unavailable", "2026-10"}, faults: []string{`the secret file "keys/2026-04" is empty`}},
		{name: "a link leads nowhere", do: func(f secretFolder) { f.remove("..2026_1/2026-04") },
			versions: []string{"2026-04 unavailable", "2026-10"}, faults: []string{`the secret file "keys/2026-04" cannot be read: no such file or directory`}},
		{name: "folders and hidden files are none", do: func(f secretFolder) { f.write("inner/2027-01", key); f.write(".2027-02", key) }, versions: []string{"2026-04", "2026-10"}},
		{name: "a backup copy is none", do: func(f secretFolder) { f.write("2026-04~", key) }, versions: []string{"2026-04", "2026-10"},
			faults: []string{`the file "2026-04~" in the folder "keys" is not named as a version`}},
		{name: "the folder is gone", do: func(f secretFolder) { f.remove("") }, faults: []string{`the folder "keys" cannot be read: no such file or directory`}},
		{name: "the folder is empty", do: func(f secretFolder) { f.remove("2026-04"); f.remove("2026-10") }, faults: []string{`the folder "keys" holds no secret`}},
		{name: "the folder is a file", do: func(f secretFolder) {
			f.remove("")
			if err := os.WriteFile(string(f), []byte(key), 0o600); err != nil {
				f.fail(err)
			}
		}, faults: []string{`the folder "keys" cannot be read: not a directory`}},
		{name: "the same name twice", entries: `{dir: keys}, {version: "2026-04", env: SECRET, revoked: true}`, versions: []string{"2026-04", "2026-10"},
			faults: []string{`the version "2026-04" occurs twice, once as a file in the folder "keys", which does not count`}},
		{name: "more than an endpoint may have", do: func(f secretFolder) {
			for i := range 31 {
				f.write(fmt.Sprintf("2025-%02d", i), key)
			}
		}, faults: []string{`the version "2026-10" in the folder "keys" is one more than 32 and does not count`}},
		{name: "more than anybody reads", do: func(f secretFolder) {
			for i := range 1025 {
				f.write(fmt.Sprint(".", i), "")
			}
		}, faults: []string{`the folder "keys" holds more than 1024 files`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			entries := c.entries
			if entries == "" {
				entries = "{dir: keys}"
			}
			dir := folder(t, "policy.yaml", webhook("scheme: github, secrets: ["+entries+"]"))
			keys := secretFolder(filepath.Join(dir, "keys"))
			keys.write("..2026_1/2026-04", key)
			keys.write("..2026_1/2026-10", other)
			for _, link := range [][2]string{{"..2026_1", "..data"}, {"..data/2026-04", "2026-04"}, {"..data/2026-10", "2026-10"}} {
				if err := os.Symlink(link[0], filepath.Join(string(keys), link[1])); err != nil {
					t.Fatal(err)
				}
			}
			before, err := policy.Load(dir, policy.LoadOptions{LookupEnv: lookup, Secrets: policy.TolerateMissingSecrets})
			if err != nil {
				t.Fatal(err)
			}
			if c.do != nil {
				c.do(keys)
			}
			set := before.Reread()
			names, faults := versions(set)
			if diff := cmp.Diff(c.faults, faults); diff != "" {
				t.Errorf("faults of secrets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.versions, names); diff != "" && (c.versions != nil || len(names) != 0 && len(names) != 32) {
				t.Errorf("versions (-want +got):\n%s", diff)
			}
			if _, err := policy.Load(dir, policy.LoadOptions{LookupEnv: lookup}); (err != nil) != (c.faults != nil) {
				t.Errorf("validate says %v", err)
			} else if err != nil && !errors.As(err, new(policy.Faults)) {
				t.Errorf("got %v, want faults", err)
			}
			// A folder without any is told of by itself: it has no version that could be.
			folders := set.Endpoints()[0].EmptyFolders
			if want := c.versions == nil && len(names) == 0; want != slices.Equal(folders, []string{"dir keys"}) || !want && len(folders) > 0 {
				t.Errorf("empty folders %q with %d versions", folders, len(names))
			}
			// What the folder is watched by.
			if files := strings.Join(set.SecretFiles(), " "); !strings.Contains(files+" ", string(keys)+" ") {
				t.Errorf("the folder is not among the files to watch: %s", files)
			}
		})
	}
}

// secretFolder is a folder of secrets to change as deployments do.
type secretFolder string

func (secretFolder) fail(err error) { panic(err) }

func (f secretFolder) write(name, text string) {
	path := filepath.Join(string(f), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.fail(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.fail(err)
	}
}

func (f secretFolder) remove(name string) {
	if err := os.RemoveAll(filepath.Join(string(f), name)); err != nil {
		f.fail(err)
	}
}

// The key that a file holds decides under the file's name; an endpoint whose folder is empty answers 503, and its neighbour goes on.
func TestSecretFolderDecides(t *testing.T) {
	dir := folder(t, "a.yaml", webhook("scheme: github, secrets: [{dir: keys}]"), "b.yaml", strings.NewReplacer("/hook", "/other", "hook}", "other}").Replace(webhook("scheme: github, secrets: [{version: \"1\", env: SECRET}]")))
	keys := secretFolder(filepath.Join(dir, "keys"))
	keys.write("2026-04", "XdkZ8Qf0pB7mC2vT9yRw5LhJ")
	set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: lookup, Secrets: policy.TolerateMissingSecrets})
	if err != nil {
		t.Fatal(err)
	}
	e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	names := set.Endpoints()
	if len(names) != 2 {
		t.Fatalf("%d endpoints", len(names))
	}
	r := signed(t, e, names[0].Name, now, "{}")
	d := e.Decide(t.Context(), r)
	if got := verdict(d); got != "allow ok" || d.SecretVersion != "2026-04" {
		t.Fatalf("got %q by %q, want allow ok by 2026-04", got, d.SecretVersion)
	}
	keys.remove("2026-04")
	e.Swap(set.Reread())
	if got := verdict(e.Decide(t.Context(), r)); got != "deny secret_unavailable 503" {
		t.Errorf("got %q, want deny secret_unavailable 503", got)
	}
	if report := e.Rotation(policy.RotationOptions{Now: now}); len(report) != 2 || report[0].Version != "dir keys" || report[0].State != policy.VersionUnavailable || report[0].Note == "" {
		t.Errorf("got %+v, want the folder as unavailable", report)
	}
	if got := verdict(e.Decide(t.Context(), signed(t, e, names[1].Name, now, "{}"))); got != "allow ok" {
		t.Errorf("the other endpoint: got %q, want allow ok", got)
	}
}

// Public keys may stand in a folder too.
func TestPublicKeyFolder(t *testing.T) {
	dir := folder(t, "policy.yaml", webhook("scheme: discord, tolerance: 5m, publicKeys: [{dir: keys, environments: [here]}]"))
	keys := secretFolder(filepath.Join(dir, "keys"))
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys.write("first", hex.EncodeToString(public)+"\n")
	keys.write("second", "no key")
	for environment, want := range map[string][]string{"here": {"first", "second unavailable"}, "elsewhere": nil} {
		set, err := policy.Load(dir, policy.LoadOptions{Secrets: policy.TolerateMissingSecrets, Environment: environment})
		if err != nil {
			t.Fatal(err)
		}
		names, faults := versions(set)
		if diff := cmp.Diff(want, names); diff != "" || (len(faults) > 0) != (want != nil) {
			t.Errorf("%s: versions (-want +got):\n%s%q", environment, diff, faults)
		}
	}
}
