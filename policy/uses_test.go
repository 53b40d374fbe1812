package policy_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// seen are the uses of an engine in words.
func seen(e *policy.Engine) (words []string) {
	for _, u := range e.Uses() {
		last := "never"
		if !u.LastUsed.IsZero() {
			last = u.LastUsed.UTC().Format("15:04:05")
		}
		words = append(words, fmt.Sprintf("%s/%s %d %s", u.Endpoint, u.Version, u.Matches, last))
	}
	return words
}

// Which deliveries count as a use of which version, and what stays over a reload.
func TestUses(t *testing.T) {
	const both = `scheme: stripe, secrets: [{version: new, env: SECRET}, {version: old, env: OTHER%s}]`
	in := func(old string) *policy.Set { return load(t, webhook(fmt.Sprintf(both, old), "failures: unlimited")) }
	e := policy.NewEngine(in(""), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	at := now
	send := func(version, want string, change func(*policy.Request)) {
		t.Helper()
		at = at.Add(time.Second)
		d, err := e.Set().Sign("hook", policy.SignOptions{Time: at, Body: []byte("{}"), Version: version})
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, d, false)
		r.Time = at
		if change != nil {
			change(r)
		}
		if got := verdict(e.Decide(t.Context(), r)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, seen(e)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	check("hook/new 0 never", "hook/old 0 never")
	send("old", "allow ok", nil)
	send("old", "allow ok", nil)
	send("new", "allow ok", nil)
	check("hook/new 1 12:00:03", "hook/old 2 12:00:02")

	// What nobody signed, or somebody kept, is no use.
	send("old", "deny signature_mismatch 401", func(r *policy.Request) { r.Body = [][]byte{[]byte("[]")} })
	send("old", "deny timestamp_out_of_tolerance 401", func(r *policy.Request) { r.Time = r.Time.Add(time.Hour) })
	check("hook/new 1 12:00:03", "hook/old 2 12:00:02")

	// One that is decided late does not set the moment back.
	send("old", "allow ok", nil)
	at = now.Add(-10 * time.Second)
	send("old", "allow ok", nil)
	at = now.Add(6 * time.Second)
	check("hook/new 1 12:00:03", "hook/old 4 12:00:06")

	// A version that is no longer good is still seen.
	e.Swap(in(", revoked: true"))
	send("old", "deny secret_expired 401", nil)
	check("hook/new 1 12:00:03", "hook/old 5 12:00:07")

	// One that was gone for a moment is known when it is back; that of another name is not.
	e.Swap(load(t, webhook(`scheme: stripe, secrets: [{version: new, env: SECRET}]`)))
	check("hook/new 1 12:00:03")
	e.Swap(load(t, webhook(`scheme: stripe, secrets: [{version: other, env: SECRET}]`)))
	check("hook/other 0 never")
	e.Swap(in(""))
	check("hook/new 1 12:00:03", "hook/old 5 12:00:07")

	// In shadow mode too.
	e.Swap(load(t, webhook(fmt.Sprintf(both, ", decoy: true"), "mode: shadow")))
	send("old", "allow shadow(secret_expired)", nil)
	check("hook/new 1 12:00:03", "hook/old 6 12:00:08")
}

// Reloads and deliveries at once lose no count.
func TestUsesConcurrently(t *testing.T) {
	set := load(t, webhook(githubScheme))
	e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	r := signed(t, e, "hook", now, "{}")
	var all sync.WaitGroup
	const senders, deliveries = 4, 200
	for range senders {
		all.Go(func() {
			for range deliveries {
				r := *r
				e.Decide(t.Context(), &r)
			}
		})
	}
	all.Go(func() {
		for range 100 {
			e.Swap(set.Reread())
		}
	})
	all.Wait()
	if diff := cmp.Diff([]string{fmt.Sprintf("hook/1 %d 12:00:00", senders*deliveries)}, seen(e)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
