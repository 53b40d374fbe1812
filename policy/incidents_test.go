package policy_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/incident"
)

// on puts actions in force at an engine, at the moment now.
func on(t testing.TB, e *policy.Engine, actions ...incident.Action) {
	t.Helper()
	book, err := incident.Open(context.Background(), incident.Config{Apply: e.Hold, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		if a.Why == "" {
			a.Why = "test"
		}
		if _, err := book.Do(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIncidents(t *testing.T) {
	two := `scheme: github, secrets: [{version: "1", env: SECRET}, {version: "2", env: OTHER}]`
	pause := incident.Action{Do: "pause", Endpoint: "hook", For: time.Hour}
	revoke := incident.Action{Do: "revoke", Endpoint: "hook", Version: "1"}
	block := incident.Action{Do: "block", Address: netip.MustParsePrefix("192.0.2.0/24"), For: time.Hour}
	other := incident.Action{Do: "pause", Endpoint: "other", For: time.Hour}
	tests := []struct {
		name  string
		yaml  string
		do    []incident.Action
		after time.Duration
		want  string
	}{
		{"nothing", webhook(two), nil, 0, "allow ok"},
		{"paused", webhook(two), []incident.Action{pause}, 0, "deny paused 503"},
		{"paused until", webhook(two), []incident.Action{pause}, time.Hour - 1, "deny paused 503"},
		{"the pause ends by itself", webhook(two), []incident.Action{pause}, time.Hour, "allow ok"},
		{"another endpoint", webhook(two), []incident.Action{other}, 0, "allow ok"},
		{"paused in shadow mode", webhook(two, "mode: shadow"), []incident.Action{pause}, 0, "deny paused 503"},
		{"the later pause counts", webhook(two, "pausedUntil: 2026-11-24T14:00:00Z"), []incident.Action{pause}, time.Hour, "deny paused 503"},
		{"revoked", webhook(two), []incident.Action{revoke}, 0, "deny secret_expired 401"},
		{"revoked for ever", webhook(two), []incident.Action{revoke}, 9000 * time.Hour, "deny secret_expired 401"},
		{"restored", webhook(two), []incident.Action{revoke, {Do: "restore", Endpoint: "hook", Version: "1"}}, 0, "allow ok"},
		{"another version", webhook(two), []incident.Action{{Do: "revoke", Endpoint: "hook", Version: "2"}}, 0, "allow ok"},
		{"revoked in shadow mode", webhook(two, "mode: shadow"), []incident.Action{revoke}, 0, "allow shadow(secret_expired)"},
		{"blocked", webhook(two), []incident.Action{block}, 0, "deny source_denied 403"},
		{"the block ends by itself", webhook(two), []incident.Action{block}, time.Hour, "allow ok"},
		{"blocked although allowed", webhook(two, "source: {allow: [192.0.2.10]}"), []incident.Action{block}, 0, "deny source_denied 403"},
		{"blocked in shadow mode", webhook(two, "mode: shadow"), []incident.Action{block}, 0, "deny source_denied 403"},
		{"another address", webhook(two), []incident.Action{{Do: "block", Address: netip.MustParsePrefix("192.0.2.11/32"), For: time.Hour}}, 0, "allow ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(t, tt.yaml)
			on(t, e, tt.do...)
			e.Swap(e.Set().Reread()) // policies that change leave incidents in force
			d, err := e.Set().Sign("hook", policy.SignOptions{Time: now.Add(tt.after), Version: "1", Body: []byte(`{}`)})
			if err != nil {
				t.Fatal(err)
			}
			r := signed(t, e, "hook", now.Add(tt.after), `{}`)
			for _, h := range d.Headers {
				header(r, h.Name, h.Value)
			}
			got := e.Decide(t.Context(), r)
			if verdict(got) != tt.want {
				t.Errorf("got %s, want %s", verdict(got), tt.want)
			}
			if left := time.Hour - tt.after; got.Reason == policy.Paused && tt.name == "paused" && got.RetryAfter != left {
				t.Errorf("retry after %v, want %v", got.RetryAfter, left)
			}
		})
	}
}

// What holds for a blocked delivery in shadow mode holds for none after it.
func TestBlockedIsForgotten(t *testing.T) {
	e := engine(t, webhook(githubScheme, "mode: shadow"))
	on(t, e, incident.Action{Do: "block", Address: netip.MustParsePrefix("192.0.2.0/24"), For: time.Hour})
	for range 5 {
		if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "deny source_denied 403" {
			t.Fatalf("from a blocked address: got %s", got)
		}
		forged := signed(t, e, "hook", now, "{}")
		forged.Body, forged.Peer = [][]byte{[]byte("[]")}, netip.MustParseAddr("198.51.100.1")
		if got := verdict(e.Decide(t.Context(), forged)); got != "allow shadow(signature_mismatch)" {
			t.Fatalf("from another: got %s", got)
		}
	}
}

// A version that leaves the policies and comes back is as revoked as it was, and its endpoint as paused.
func TestIncidentsOutliveWhatTheyAreAbout(t *testing.T) {
	yaml := webhook(`scheme: github, secrets: [{version: "1", env: SECRET}, {version: "2", env: OTHER}]`)
	e := engine(t, yaml)
	on(t, e, incident.Action{Do: "revoke", Endpoint: "hook", Version: "1"})
	r := signed(t, e, "hook", now, "{}") // by version 1, which the policies alone take
	for _, step := range []struct{ name, yaml, want string }{
		{"revoked", yaml, "deny secret_expired 401"},
		{"without the version", webhook(`scheme: github, secrets: [{version: "2", env: OTHER}]`), "deny signature_mismatch 401"},
		{"without the endpoint", strings.Replace(yaml, "name: hook", "name: other", 1), "allow ok"},
		{"back again", yaml, "deny secret_expired 401"},
	} {
		e.Swap(load(t, step.yaml))
		if got := verdict(e.Decide(t.Context(), r)); got != step.want {
			t.Errorf("%s: got %s, want %s", step.name, got, step.want)
		}
	}
}
