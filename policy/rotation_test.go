package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// Each stage in the life of a secret, and what is said of it. Uses are days before now; they come from this process or from another one.
func TestRotation(t *testing.T) {
	const day = 24 * time.Hour
	type uses map[string]float64 // of a version: how many days ago
	for _, tt := range []struct {
		name     string
		versions string
		uses     uses
		want     []string
	}{
		{"one secret, not used yet", `{version: "1", env: SECRET}`, nil, []string{
			"1 in_force: no use of it is known since 2026-10-25T12:00:00Z"}},
		{"one secret in use", `{version: "1", env: SECRET}`, uses{"1": 0.1}, []string{
			"1 in_force current"}},
		{"a new one is there", `{version: "1", env: SECRET}, {version: "2", env: OTHER}`, uses{"1": 0.1}, []string{
			"1 in_force current",
			"2 in_force: no use of it is known since 2026-10-25T12:00:00Z: the sender has not come to it yet, or has left it"}},
		{"the sender has switched", `{version: "1", env: SECRET}, {version: "2", env: OTHER}`, uses{"1": 0.5, "2": 0.1}, []string{
			`1 in_force: used 12h ago; version "2" is the one used last`,
			"2 in_force current"}},
		{"and the old one is quiet", `{version: "1", env: SECRET}, {version: "2", env: OTHER}`, uses{"1": 8, "2": 0.1}, []string{
			`1 in_force safe: remove it: last used 8d ago, and version "2" is in use`,
			"2 in_force current"}},
		{"everything is quiet, so nobody knows", `{version: "1", env: SECRET}, {version: "2", env: OTHER}`, uses{"1": 29, "2": 28}, []string{
			`1 in_force: used 29d ago; version "2" is the one used last`,
			"2 in_force current"}},
		{"it ends soon, and nothing follows", `{version: "1", env: SECRET, notAfter: 2026-12-01T12:00:00Z}`, uses{"1": 0.1}, []string{
			"1 in_force current ends soon: ends in 7d and nothing follows it: add a new version and give it to the sender"}},
		{"it ends soon, and the sender still uses it", `{version: "1", env: SECRET, notAfter: 2026-12-01T12:00:00Z}, {version: "2", env: OTHER}`, uses{"1": 0.1}, []string{
			`1 in_force current ends soon: ends in 7d and is the one in use: give the sender version "2"`,
			"2 in_force: no use of it is known since 2026-10-25T12:00:00Z: the sender has not come to it yet, or has left it"}},
		{"it ends later", `{version: "1", env: SECRET, notAfter: 2026-12-09T12:00:00Z}`, uses{"1": 0.1}, []string{
			"1 in_force current"}},
		{"it has ended and is used", `{version: "1", env: SECRET, notAfter: 2026-11-20T00:00:00Z}, {version: "2", env: OTHER}`, uses{"1": 0.01, "2": 2}, []string{
			`1 expired: used 14m ago although it is expired, and denied: give the sender version "2"`,
			"2 in_force current"}},
		{"it has ended and is not used", `{version: "1", env: SECRET, notAfter: 2026-11-20T00:00:00Z}, {version: "2", env: OTHER}`, uses{"1": 8, "2": 2}, []string{
			"1 expired safe: remove it: it is expired and is not used",
			"2 in_force current"}},
		{"revoked and used", `{version: "1", env: SECRET, revoked: true}, {version: "2", env: OTHER}`, uses{"1": 1}, []string{
			`1 revoked: used 1d ago although it is revoked, and denied: give the sender version "2"`,
			"2 in_force: no use of it is known since 2026-10-25T12:00:00Z"}},
		{"revoked, without another", `{version: "1", env: SECRET, revoked: true}`, uses{"1": 1}, []string{
			"1 revoked: used 1d ago although it is revoked, and denied: give the sender a version that is in force"}},
		{"revoked, never used, and its file is gone", `{version: "1", env: ABSENT, revoked: true}, {version: "2", env: OTHER}`, uses{"2": 1}, []string{
			"1 revoked safe: remove it: it is revoked and is not used",
			"2 in_force current"}},
		{"not yet good", `{version: "1", env: SECRET}, {version: "2", env: OTHER, notBefore: 2026-11-24T13:30:00Z}`, uses{"1": 1}, []string{
			"1 in_force current",
			"2 not_yet: begins in 1h"}},
		{"a decoy", `{version: "1", env: SECRET}, {version: "bait", env: OTHER, decoy: true}`, uses{"1": 1}, []string{
			"1 in_force current",
			"bait decoy"}},
		{"a decoy that was used", `{version: "1", env: SECRET}, {version: "bait", env: OTHER, decoy: true}`, uses{"1": 1, "bait": 0.0001}, []string{
			"1 in_force current",
			"bait decoy: this decoy was used 8s ago: whoever did so has read the place where it lies"}},
		{"no key", `{version: "1", env: SECRET}, {version: "2", env: ABSENT}`, uses{"1": 1}, []string{
			"1 in_force current",
			"2 unavailable: its key cannot be read; the log of the server says why"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, "policy.yaml", webhook("scheme: github, secrets: ["+tt.versions+"]", "failures: unlimited"))
			set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: lookup, Secrets: policy.TolerateMissingSecrets})
			if err != nil {
				t.Fatal(err)
			}
			here := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
			elsewhere := map[policy.VersionID]time.Time{{Endpoint: "gone", Version: "1"}: now}
			for version, days := range tt.uses {
				at := now.Add(-time.Duration(days * float64(day)))
				elsewhere[policy.VersionID{Endpoint: "hook", Version: version}] = at
				d, err := set.Sign("hook", policy.SignOptions{Time: at, Body: []byte("{}"), Version: version})
				if err != nil {
					t.Fatal(err)
				}
				r := request(t, d, false)
				r.Time = at
				here.Decide(t.Context(), r)
			}
			options := policy.RotationOptions{Now: now, Since: now.Add(-30 * day)}
			young := options
			young.Since = now.Add(-time.Hour)
			for _, v := range here.Rotation(young) {
				if v.SafeToRemove && v.LastUsed.IsZero() {
					t.Errorf("a server of an hour, which knows of no other, says of %s: %s", v.Version, v.Note)
				}
			}
			fresh := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
			elsewhereOnly := options
			elsewhereOnly.Elsewhere = elsewhere
			for _, report := range [][]policy.SecretStatus{here.Rotation(options), fresh.Rotation(elsewhereOnly)} {
				var got []string
				for _, v := range report {
					if v.Endpoint != "hook" || v.Scheme != "github" {
						t.Errorf("got %+v", v)
					}
					words := fmt.Sprintf("%s %s", v.Version, v.State)
					for word, is := range map[string]bool{" current": v.Current, " ends soon": v.EndsSoon, " safe": v.SafeToRemove} {
						if is {
							words += word
						}
					}
					words = strings.Replace(words, " ends soon current", " current ends soon", 1)
					if v.Note != "" {
						words += ": " + v.Note
					}
					got = append(got, words)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}
