package policy_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// now is the moment of every test that does not say otherwise.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// engine is an Engine over an embedded store for the given policy text.
func engine(t testing.TB, yaml string) *policy.Engine {
	t.Helper()
	return policy.NewEngine(load(t, yaml), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
}

// webhook is a policy for POST /hook with the given lines under spec.
func webhook(signature string, lines ...string) string {
	return "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: hook}\nspec:\n  match: {paths: [/hook]}\n  signature: {" +
		signature + "}\n  " + strings.Join(lines, "\n  ") + "\n"
}

const (
	githubScheme = `scheme: github, secrets: [{version: "1", env: SECRET}]`
	stripeScheme = `scheme: stripe, secrets: [{version: "1", env: SECRET}]`
	tokenScheme  = `scheme: gitlab-token, secrets: [{version: "1", env: SECRET}]`
)

// signed is a delivery that the policy of e takes at the moment at.
func signed(t testing.TB, e *policy.Engine, endpoint string, at time.Time, body string) *policy.Request {
	t.Helper()
	d, err := e.Set().Sign(endpoint, policy.SignOptions{Time: at, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	_, target, _ := strings.Cut(d.URL, "://")
	host, path, _ := strings.Cut(target, "/")
	return &policy.Request{
		Time: at, Method: d.Method, Host: host, Path: "/" + path, Peer: netip.MustParseAddr("192.0.2.10"),
		Headers:   append([]policy.Header{{Name: "content-length", Value: strconv.Itoa(len(body))}}, d.Headers...),
		Body:      [][]byte{[]byte(body)},
		BodyState: policy.WholeBody,
	}
}

// header sets a header, or adds one where there is none.
func header(r *policy.Request, name, value string) {
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			r.Headers[i].Value = value
			return
		}
	}
	r.Headers = append(r.Headers, policy.Header{Name: name, Value: value})
}

func without(r *policy.Request, name string) {
	var kept []policy.Header
	for _, h := range r.Headers {
		if h.Name != name {
			kept = append(kept, h)
		}
	}
	r.Headers = kept
}

// verdict is the short form of a decision: "deny body_missing 400", "allow ok".
func verdict(d policy.Decision) string {
	s := d.Outcome.String() + " " + d.Reason.String()
	if d.Reason == policy.Shadow {
		s += "(" + d.Shadow.String() + ")"
	}
	if d.Status != 0 {
		s += " " + strconv.Itoa(d.Status)
	}
	return s
}

// Each step of a decision, one change to a valid delivery at a time.
func TestDecide(t *testing.T) {
	const everything = `body: {maxBytes: 1KiB, contentTypes: [application/json]}`
	tests := []struct {
		name   string
		yaml   string
		change func(r *policy.Request)
		want   string
	}{
		{"valid", webhook(githubScheme), func(*policy.Request) {}, "allow ok"},
		{"valid with a query", webhook(githubScheme), func(r *policy.Request) { r.Path += "?a=//..%2f;" }, "allow ok"},

		{"unknown path", webhook(githubScheme), func(r *policy.Request) { r.Path = "/other" }, "deny no_policy 403"},
		{"path in the query", webhook(githubScheme), func(r *policy.Request) { r.Path = "/other?/hook" }, "deny no_policy 403"},
		{"path with another case", webhook(githubScheme), func(r *policy.Request) { r.Path = "/Hook" }, "deny no_policy 403"},
		{"path with a slash at its end", webhook(githubScheme), func(r *policy.Request) { r.Path = "/hook/" }, "deny no_policy 403"},
		{"empty path", webhook(githubScheme), func(r *policy.Request) { r.Path = "" }, "deny ambiguous_path 403"},
		{"named", webhook(githubScheme), func(r *policy.Request) { r.Named, r.Endpoint = true, "hook" }, "allow ok"},
		{"named empty", webhook(githubScheme), func(r *policy.Request) { r.Named = true }, "deny no_policy 403"},
		{"named unknown", webhook(githubScheme), func(r *policy.Request) { r.Named, r.Endpoint = true, "hok" }, "deny no_policy 403"},
		{"named on another path", webhook(githubScheme), func(r *policy.Request) { r.Named, r.Endpoint, r.Path = true, "hook", "/other" }, "deny no_policy 403"},
		{"named on an ambiguous path", webhook(githubScheme), func(r *policy.Request) { r.Named, r.Endpoint, r.Path = true, "hook", "//hook" }, "deny ambiguous_path 403"},

		{"paused", webhook(githubScheme, "pausedUntil: 2026-11-24T12:00:01Z"), func(*policy.Request) {}, "deny paused 503"},
		{"pause over", webhook(githubScheme, "pausedUntil: 2026-11-24T12:00:00Z"), func(*policy.Request) {}, "allow ok"},

		{"no peer", webhook(githubScheme), func(r *policy.Request) { r.Peer = netip.Addr{} }, "deny source_unknown 403"},
		{"allowed address", webhook(githubScheme, "source: {allow: [192.0.2.0/28]}"), func(*policy.Request) {}, "allow ok"},
		{"other address", webhook(githubScheme, "source: {allow: [192.0.2.0/30]}"), func(*policy.Request) {}, "deny source_denied 403"},
		{"denied address", webhook(githubScheme, "source: {allow: [192.0.2.0/24], deny: [192.0.2.10]}"), func(*policy.Request) {}, "deny source_denied 403"},
		{"forged forwarded header", webhook(githubScheme, "source: {allow: [198.51.100.1]}"), func(r *policy.Request) { header(r, "x-forwarded-for", "198.51.100.1") }, "deny source_denied 403"},
		{"forwarded by a proxy", webhook(githubScheme, "source: {allow: [198.51.100.1]}", "clientAddress: {from: xForwardedFor, trustedProxies: [192.0.2.10]}"),
			func(r *policy.Request) { header(r, "x-forwarded-for", "203.0.113.5, 198.51.100.1") }, "allow ok"},
		{"every element trusted", webhook(githubScheme, "clientAddress: {from: xForwardedFor, trustedProxies: [192.0.2.10]}"), func(*policy.Request) {}, "deny source_unknown 403"},

		{"method", webhook(githubScheme), func(r *policy.Request) { r.Method = "PUT" }, "deny method_not_allowed 405"},
		{"media type", webhook(githubScheme, everything), func(r *policy.Request) { header(r, "content-type", "text/plain") }, "deny unsupported_media_type 415"},
		{"media type with a parameter", webhook(githubScheme, everything), func(r *policy.Request) { header(r, "content-type", "Application/JSON; charset=utf-8") }, "allow ok"},
		{"no media type", webhook(githubScheme, everything), func(r *policy.Request) { without(r, "content-type") }, "deny unsupported_media_type 415"},
		{"two media types", webhook(githubScheme, everything), func(r *policy.Request) {
			r.Headers = append(r.Headers, policy.Header{Name: "content-type", Value: "application/json"})
		}, "deny unsupported_media_type 415"},
		{"upgrade", webhook(githubScheme), func(r *policy.Request) { header(r, "upgrade", "websocket") }, "deny upgrade_refused 400"},
		{"extended connect", webhook(githubScheme), func(r *policy.Request) { header(r, ":protocol", "websocket") }, "deny upgrade_refused 400"},

		{"partial body", webhook(githubScheme), func(r *policy.Request) { r.BodyState = policy.PartialBody }, "deny body_partial 413"},
		{"body of unknown state", webhook(githubScheme), func(r *policy.Request) { r.BodyState = policy.NoBody }, "deny body_partial 413"},
		{"body above the maximum", webhook(githubScheme, everything), func(r *policy.Request) { r.Body = [][]byte{make([]byte, 1025)} }, "deny body_too_large 413"},
		{"text body", webhook(githubScheme), func(r *policy.Request) { r.BodyState = policy.TextBody }, "deny body_not_raw 503"},
		{"length above the body", webhook(githubScheme), func(r *policy.Request) { header(r, "content-length", "99") }, "deny body_length_mismatch 400"},
		{"length with a sign", webhook(githubScheme), func(r *policy.Request) { header(r, "content-length", "+2") }, "deny body_length_mismatch 400"},
		{"length of no body", webhook(githubScheme), func(r *policy.Request) { r.Body, r.BodyState = nil, policy.NoBody }, "deny body_length_mismatch 400"},
		{"two lengths", webhook(githubScheme), func(r *policy.Request) {
			r.Headers = append(r.Headers, policy.Header{Name: "content-length", Value: "2"})
		}, "deny body_length_mismatch 400"},
		{"no length", webhook(githubScheme), func(r *policy.Request) { without(r, "content-length") }, "allow ok"},
		{"no body", webhook(githubScheme), func(r *policy.Request) {
			without(r, "content-length")
			r.Body, r.BodyState = nil, policy.NoBody
		}, "deny body_missing 400"},

		{"no signature", webhook(githubScheme), func(r *policy.Request) { without(r, "x-hub-signature-256") }, "deny signature_missing 401"},
		{"odd signature", webhook(githubScheme), func(r *policy.Request) { header(r, "x-hub-signature-256", "sha256=xyz") }, "deny signature_malformed 401"},
		{"two signatures", webhook(githubScheme), func(r *policy.Request) {
			r.Headers = append(r.Headers, policy.Header{Name: "x-hub-signature-256", Value: "sha256=" + strings.Repeat("0", 64)})
		}, "deny signature_malformed 401"},
		{"other body", webhook(githubScheme), func(r *policy.Request) { r.Body = [][]byte{[]byte("[]")} }, "deny signature_mismatch 401"},
		{"revoked", webhook(`scheme: github, secrets: [{version: "1", env: OTHER}, {version: "2", env: SECRET, revoked: true}]`), func(*policy.Request) {}, "deny secret_expired 401"},
		{"expired", webhook(`scheme: github, secrets: [{version: "1", env: SECRET, notAfter: 2026-11-24T12:00:00Z}]`), func(*policy.Request) {}, "deny secret_expired 401"},
		{"not yet", webhook(`scheme: github, secrets: [{version: "1", env: SECRET, notBefore: 2026-11-24T12:00:01Z}]`), func(*policy.Request) {}, "deny secret_expired 401"},
		{"decoy", webhook(`scheme: github, secrets: [{version: "1", env: OTHER}, {version: "2", env: SECRET, decoy: true}]`), func(*policy.Request) {}, "deny secret_expired 401"},
		{"other environment", webhook(`scheme: github, secrets: [{version: "1", env: SECRET, environments: [production]}]`), func(*policy.Request) {}, "deny secret_unavailable 503"},
		{"second version", webhook(`scheme: github, secrets: [{version: "1", env: OTHER}, {version: "2", env: SECRET}]`), func(*policy.Request) {}, "allow ok"},

		{"timestamp at the edge", webhook(stripeScheme), func(r *policy.Request) { r.Time = now.Add(300*time.Second + 900*time.Millisecond) }, "allow ok"},
		{"timestamp too old", webhook(stripeScheme), func(r *policy.Request) { r.Time = now.Add(301 * time.Second) }, "deny timestamp_out_of_tolerance 401"},
		{"timestamp ahead", webhook(stripeScheme), func(r *policy.Request) { r.Time = now.Add(-301 * time.Second) }, "deny timestamp_out_of_tolerance 401"},
		{"no timestamp", webhook(stripeScheme), func(r *policy.Request) { header(r, "stripe-signature", "v1="+strings.Repeat("0", 64)) }, "deny timestamp_missing 401"},
		{"odd timestamp", webhook(stripeScheme), func(r *policy.Request) { header(r, "stripe-signature", "t=+1,v1="+strings.Repeat("0", 64)) }, "deny timestamp_malformed 401"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(t, tt.yaml)
			signer := engine(t, webhook(githubScheme))
			if strings.Contains(tt.yaml, "stripe") {
				signer = engine(t, webhook(stripeScheme))
			}
			r := signed(t, signer, "hook", now, "{}")
			tt.change(r)
			d := e.Decide(t.Context(), r)
			if got := verdict(d); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			explained, steps := e.Explain(t.Context(), r)
			if explained.Outcome != d.Outcome && explained.Reason != policy.Duplicate && explained.Reason != policy.Replayed {
				t.Errorf("explained as %s", verdict(explained))
			}
			if last := steps[len(steps)-1]; d.Outcome == policy.Deny && last.Result != d.Reason.String() {
				t.Errorf("the last step is %+v", last)
			}
		})
	}
}

func TestAmbiguousPaths(t *testing.T) {
	e := engine(t, strings.Replace(webhook(githubScheme), "[/hook]", "[/*]", 1))
	ambiguous := []string{
		"/a%2fb", "/a%2Fb", "/a%5cb", "/a%5C", "/%2e%2e/a", "/a%2eb", "//a", "/a//b", "/./a", "/a/.", "/..", "/a/../b", "/a;x=1", "/a\\b", "/a#b", "/a\x00",
		"/a%00", "/a%3bx", "/a%23x", "/a%", "/a%2", "/a%zz", "/%61dmin", "/a%25", "/a b", "/\xff", "a", "*", "", "http://x/a", "/a?b#c", "/a%3f", "/a%7E",
	}
	for _, path := range ambiguous {
		r := signed(t, e, "hook", now, "{}")
		r.Path = path
		if got := verdict(e.Decide(t.Context(), r)); got != "deny ambiguous_path 403" {
			t.Errorf("path %q: got %s", path, got)
		}
	}
	for _, path := range []string{"/", "/a", "/a/", "/a/b.c", "/a/...", "/.well-known/x", "/a%20b", "/a%C3%A9", "/a?b=%2f..//;", "/a~b", "/a:b@c", "/a?"} {
		r := signed(t, e, "hook", now, path)
		r.Path = path
		if got := verdict(e.Decide(t.Context(), r)); got != "allow ok" {
			t.Errorf("path %q: got %s", path, got)
		}
	}
}

// Selection goes by host and within it by path, the most specific first.
func TestSelection(t *testing.T) {
	var b strings.Builder
	for name, match := range map[string]string{
		"exact-exact":   `hosts: [a.example.com], paths: [/x/y]`,
		"exact-prefix":  `hosts: [a.example.com], paths: [/x/*]`,
		"exact-longer":  `hosts: [a.example.com], paths: [/x/y/*]`,
		"suffix":        `hosts: ["*.example.com"], paths: [/x/*]`,
		"suffix-longer": `hosts: ["*.b.example.com"], paths: [/x/*]`,
		"any":           `paths: [/x/*, /only]`,
		"address":       `hosts: ["[2001:db8::1]", 192.0.2.1], paths: [/address]`,
	} {
		fmt.Fprintf(&b, "---\napiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: %s}\nspec:\n  match: {%s}\n  signature: {%s}\n", name, match, githubScheme)
	}
	e := engine(t, strings.TrimPrefix(b.String(), "---\n"))
	tests := []struct{ host, path, want string }{
		{"a.example.com", "/x/y", "exact-exact"},
		{"A.Example.COM:8443", "/x/y", "exact-exact"},
		{"a.example.com", "/x/z", "exact-prefix"},
		{"a.example.com", "/x/", "exact-prefix"},
		{"a.example.com", "/x/y/z", "exact-longer"},
		{"a.example.com", "/x", ""},
		{"a.example.com", "/only", "any"},
		{"c.example.com", "/x/y", "suffix"},
		{"c.b.example.com", "/x/y", "suffix-longer"},
		{"b.example.com", "/x/y", "suffix"},
		{"example.com", "/x/y", "any"},
		{"", "/x/y", "any"},
		{"a@a.example.com:1:2", "/x/y", "any"},
		{"[::1]:443", "/x/y", "any"},
		{"[2001:DB8::1]:443", "/address", "address"},
		{"[2001:db8::1]", "/address", "address"},
		{"192.0.2.1:80", "/address", "address"},
		{"other.test", "/y", ""},
	}
	for _, tt := range tests {
		r := &policy.Request{Time: now, Host: tt.host, Path: tt.path, Method: "POST", Peer: netip.MustParseAddr("192.0.2.1")}
		if got := e.Decide(t.Context(), r).Endpoint; got != tt.want {
			t.Errorf("%s%s: got %q, want %q", tt.host, tt.path, got, tt.want)
		}
	}
}

func TestReplay(t *testing.T) {
	tests := []struct {
		name   string
		yaml   string
		second string
		later  time.Duration // until it is forgotten
	}{
		{"unstamped schemes tag", webhook(githubScheme), "allow duplicate", 24*time.Hour + time.Second},
		{"stamped schemes deny", webhook(`scheme: standard-webhooks, secrets: [{version: "1", env: WHSEC}]`), "deny replayed 409", 0},
		{"deny", webhook(githubScheme, "replay: {onDuplicate: deny, window: 1h}"), "deny replayed 409", time.Hour + time.Second},
		{"allow", webhook(githubScheme, "replay: {onDuplicate: allow}"), "allow ok", 0},
		{"in flight", webhook(githubScheme, "replay: {confirm: outcome}"), "deny in_flight 503", 61 * time.Second},
		{"tokens have no memory", webhook(tokenScheme), "allow ok", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(t, tt.yaml)
			r := signed(t, e, "hook", now, "{}")
			r.StreamID = "1"
			if got := verdict(e.Decide(t.Context(), r)); got != "allow ok" {
				t.Fatalf("first: got %s", got)
			}
			if got := verdict(e.Decide(t.Context(), r)); got != "allow ok" {
				t.Errorf("Envoy's retry: got %s", got)
			}
			r.StreamID = "2"
			if got := verdict(e.Decide(t.Context(), r)); got != tt.second {
				t.Errorf("second: got %s, want %s", got, tt.second)
			}
			if tt.later > 0 {
				r.Time, r.StreamID = now.Add(tt.later), "3"
				if got := verdict(e.Decide(t.Context(), r)); got != "allow ok" {
					t.Errorf("after %s: got %s", tt.later, got)
				}
			}
		})
	}
}

// A forged delivery burns nothing, an upper-case spelling is still a replay.
func TestReplayIsOfTheSignedMessage(t *testing.T) {
	e := engine(t, webhook(githubScheme, "replay: {onDuplicate: deny, window: 1h}"))
	r := signed(t, e, "hook", now, "{}")
	forged := *r
	forged.Body = [][]byte{[]byte("[]")}
	if got := verdict(e.Decide(t.Context(), &forged)); got != "deny signature_mismatch 401" {
		t.Fatalf("forged: got %s", got)
	}
	if got := verdict(e.Decide(t.Context(), r)); got != "allow ok" {
		t.Fatalf("after the forged one: got %s", got)
	}
	for _, h := range r.Headers {
		if h.Name == "x-hub-signature-256" {
			header(r, h.Name, "sha256="+strings.ToUpper(strings.TrimPrefix(h.Value, "sha256=")))
		}
	}
	if got := verdict(e.Decide(t.Context(), r)); got != "deny replayed 409" {
		t.Errorf("in capitals: got %s", got)
	}
}

// A signer that has two live secrets gains nothing by signing with the other.
func TestReplayAcrossSecrets(t *testing.T) {
	both := engine(t, webhook(`scheme: github, secrets: [{version: "1", env: SECRET}, {version: "2", env: OTHER}]`, "replay: {onDuplicate: deny, window: 1h}"))
	first := signed(t, engine(t, webhook(githubScheme)), "hook", now, "{}")
	second := signed(t, engine(t, webhook(`scheme: github, secrets: [{version: "2", env: OTHER}]`)), "hook", now, "{}")
	if got := verdict(both.Decide(t.Context(), first)); got != "allow ok" {
		t.Fatalf("first: got %s", got)
	}
	if got := verdict(both.Decide(t.Context(), second)); got != "deny replayed 409" {
		t.Errorf("signed with the other secret: got %s", got)
	}
}

func TestOutcome(t *testing.T) {
	e := engine(t, webhook(githubScheme, "replay: {onDuplicate: acknowledge, confirm: outcome, window: 1h}"))
	stream := 0
	decide := func(after time.Duration) policy.Decision {
		r := signed(t, e, "hook", now, "{}")
		stream++
		r.Time, r.StreamID = now.Add(after), strconv.Itoa(stream)
		return e.Decide(t.Context(), r)
	}
	settle := func(d policy.Decision, confirmed bool) bool {
		ok, err := e.Settle(t.Context(), now, "hook", policy.Token(unhex(t, d.Reservation)), confirmed)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	first := decide(0)
	if verdict(first) != "allow ok" || len(first.Reservation) != 32 {
		t.Fatalf("first: %s, reservation %q", verdict(first), first.Reservation)
	}
	if !settle(first, false) {
		t.Fatal("the release was not taken")
	}
	second := decide(time.Second)
	if verdict(second) != "allow ok" {
		t.Fatalf("after a release: %s", verdict(second))
	}
	if settle(first, true) {
		t.Error("a used token was taken again")
	}
	if !settle(second, true) {
		t.Fatal("the confirmation was not taken")
	}
	third := decide(2 * time.Second)
	if verdict(third) != "answer duplicate 200" || len(third.Reply.Body) == 0 {
		t.Errorf("after a confirmation: %s", verdict(third))
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRateLimits(t *testing.T) {
	e := engine(t, webhook(githubScheme, "replay: {onDuplicate: deny, window: 1h}", "rateLimits:", "  - {limit: 60/minute, burst: 2}", "  - {name: wide, limit: 1000/second}"))
	body := 0
	send := func(after time.Duration) policy.Decision {
		body++
		return e.Decide(t.Context(), signed(t, e, "hook", now.Add(after), strconv.Itoa(body)))
	}
	for range 2 {
		if got := verdict(send(0)); got != "allow ok" {
			t.Fatalf("within the burst: got %s", got)
		}
	}
	refused := send(0)
	if verdict(refused) != "deny rate_limited 429" || refused.RetryAfter != time.Second {
		t.Errorf("above the burst: got %s, retry after %s", verdict(refused), refused.RetryAfter)
	}
	body--
	if got := verdict(send(time.Second)); got != "allow ok" {
		t.Errorf("the refused delivery, a second later: got %s", got)
	}
	// A refused duplicate spends nothing: two seconds refill one.
	body--
	if got := verdict(send(2 * time.Second)); got != "deny replayed 409" {
		t.Errorf("a duplicate: got %s", got)
	}
	if got := verdict(send(2 * time.Second)); got != "allow ok" {
		t.Errorf("after the duplicate: got %s", got)
	}
}

func TestRateLimitKeys(t *testing.T) {
	e := engine(t, webhook(githubScheme, "rateLimits:", "  - {name: sender, limit: 1/hour, by: clientAddress}", "  - {name: tenant, limit: 1/hour, by: header, header: X-Tenant}"))
	tests := []struct{ peer, tenant, want string }{
		{"192.0.2.1", "a", "allow ok"},
		{"192.0.2.1", "b", "deny rate_limited 429"},
		{"192.0.2.2", "a", "deny rate_limited 429"},
		{"192.0.2.2", "b", "allow ok"},
		{"2001:db8::1", "", "allow ok"},
		{"2001:db8::ffff", "c", "deny rate_limited 429"},
		{"2001:db8:0:1::1", "c", "allow ok"},
		{"192.0.2.3", "", "deny rate_limited 429"},
	}
	for i, tt := range tests {
		r := signed(t, e, "hook", now, strconv.Itoa(i))
		r.Peer = netip.MustParseAddr(tt.peer)
		if tt.tenant != "" {
			header(r, "x-tenant", tt.tenant)
		}
		if got := verdict(e.Decide(t.Context(), r)); got != tt.want {
			t.Errorf("%d (%s, %q): got %s, want %s", i, tt.peer, tt.tenant, got, tt.want)
		}
	}
}

// An address that failed too often gets 429 for its failures; a valid delivery passes all the same.
func TestFailureBudget(t *testing.T) {
	e := engine(t, webhook(githubScheme, "failures: {limit: 2/minute}"))
	forged := signed(t, e, "hook", now, "{}")
	forged.Body = [][]byte{[]byte("[]")}
	for i, want := range []string{"deny signature_mismatch 401", "deny signature_mismatch 401", "deny too_many_failures 429"} {
		if got := verdict(e.Decide(t.Context(), forged)); got != want {
			t.Errorf("failure %d: got %s, want %s", i+1, got, want)
		}
	}
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "allow ok" {
		t.Errorf("a valid delivery from there: got %s", got)
	}
	forged.Peer = netip.MustParseAddr("192.0.2.99")
	if got := verdict(e.Decide(t.Context(), forged)); got != "deny signature_mismatch 401" {
		t.Errorf("a failure from elsewhere: got %s", got)
	}
}

// A token can be guessed, so an address over its budget is refused before the compare.
func TestFailureBudgetOfTokens(t *testing.T) {
	e := engine(t, webhook(tokenScheme, "failures: {limit: 1/minute}"))
	wrong := signed(t, e, "hook", now, "{}")
	header(wrong, "x-gitlab-token", "guess")
	if got := verdict(e.Decide(t.Context(), wrong)); got != "deny signature_mismatch 401" {
		t.Fatalf("first guess: got %s", got)
	}
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "deny too_many_failures 429" {
		t.Errorf("the right token from there: got %s", got)
	}
}

// While nothing counts the tries no token is compared, the right one neither.
func TestTokensWithoutACount(t *testing.T) {
	e := policy.NewEngine(load(t, webhook(tokenScheme, "replay: {onDuplicate: allow}")), policy.EngineConfig{Store: brokenStore{}})
	wrong := signed(t, e, "hook", now, "{}")
	header(wrong, "x-gitlab-token", "guess")
	for name, r := range map[string]*policy.Request{"right": signed(t, e, "hook", now, "{}"), "wrong": wrong} {
		if d := e.Decide(t.Context(), r); verdict(d) != "deny too_many_failures 429" || d.SecretVersion != "" {
			t.Errorf("the %s token: got %s, version %q", name, verdict(d), d.SecretVersion)
		}
	}
}

func TestFailuresUnlimited(t *testing.T) {
	e := engine(t, webhook(githubScheme, "failures: unlimited"))
	forged := signed(t, e, "hook", now, "{}")
	forged.Body = [][]byte{[]byte("[]")}
	for range 100 {
		if got := verdict(e.Decide(t.Context(), forged)); got != "deny signature_mismatch 401" {
			t.Fatalf("got %s", got)
		}
	}
}

// Shadow mode lets through what it may soften and keeps the rest.
func TestShadow(t *testing.T) {
	tests := []struct {
		name   string
		lines  []string
		change func(r *policy.Request)
		want   string
	}{
		{"valid", nil, func(*policy.Request) {}, "allow ok"},
		{"source", []string{"source: {allow: [198.51.100.1]}"}, func(*policy.Request) {}, "allow shadow(source_denied)"},
		{"source unknown", nil, func(r *policy.Request) { r.Peer = netip.Addr{} }, "allow shadow(source_unknown)"},
		{"signature", nil, func(r *policy.Request) { r.Body = [][]byte{[]byte("[]")} }, "allow shadow(signature_mismatch)"},
		{"first reason stands", []string{"source: {allow: [198.51.100.1]}"}, func(r *policy.Request) { without(r, "x-hub-signature-256") }, "allow shadow(source_denied)"},
		{"path", nil, func(r *policy.Request) { r.Path = "//hook" }, "deny ambiguous_path 403"},
		{"pause", []string{"pausedUntil: 2027-01-01T00:00:00Z"}, func(*policy.Request) {}, "deny paused 503"},
		{"method", nil, func(r *policy.Request) { r.Method = "GET" }, "deny method_not_allowed 405"},
		{"upgrade after source", []string{"source: {allow: [198.51.100.1]}"}, func(r *policy.Request) { header(r, "upgrade", "websocket") }, "deny upgrade_refused 400"},
		{"body", nil, func(r *policy.Request) { r.BodyState = policy.PartialBody }, "deny body_partial 413"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(t, webhook(githubScheme, append(tt.lines, "mode: shadow")...))
			r := signed(t, e, "hook", now, "{}")
			tt.change(r)
			if got := verdict(e.Decide(t.Context(), r)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	t.Run("replay and rate", func(t *testing.T) {
		e := engine(t, webhook(githubScheme, "mode: shadow", "replay: {onDuplicate: deny}", "rateLimits: [{limit: 1/hour}]"))
		for i, want := range []string{"allow ok", "allow shadow(replayed)"} {
			if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != want {
				t.Errorf("%d: got %s, want %s", i, got, want)
			}
		}
		if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "[]"))); got != "allow shadow(rate_limited)" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("acknowledged", func(t *testing.T) {
		e := engine(t, webhook(githubScheme, "mode: shadow", "replay: {onDuplicate: acknowledge, confirm: outcome}"))
		first := e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))
		if ok, err := e.Settle(t.Context(), now, "hook", policy.Token(unhex(t, first.Reservation)), true); !ok || err != nil {
			t.Fatalf("settled %v, %v", ok, err)
		}
		if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "allow shadow(duplicate)" {
			t.Errorf("got %s", got)
		}
	})
}

// brokenStore cannot say anything.
type brokenStore struct{}

var errBroken = errors.New("connection refused")

func (brokenStore) Take(context.Context, *policy.Take) (policy.Taken, error) {
	return policy.Taken{}, errBroken
}
func (brokenStore) Release(context.Context, *policy.Take) error { return errBroken }
func (brokenStore) Settle(context.Context, time.Time, string, policy.Token, bool) (bool, error) {
	return false, errBroken
}

func TestStoreFailure(t *testing.T) {
	tests := []struct {
		mode     string
		replicas int
		want     []string
	}{
		{"deny", 1, []string{"deny store_unavailable 503"}},
		{"allow", 1, []string{"allow degraded", "allow degraded", "allow degraded"}},
		{"local", 1, []string{"allow ok", "allow ok", "allow ok", "allow ok", "deny rate_limited 429"}},
		{"local", 2, []string{"allow ok", "allow ok", "deny rate_limited 429"}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s of %d", tt.mode, tt.replicas), func(t *testing.T) {
			set := load(t, webhook(githubScheme, "rateLimits: [{limit: 4/hour}]", "onStoreFailure: "+tt.mode))
			e := policy.NewEngine(set, policy.EngineConfig{Store: brokenStore{}, Local: store.NewMemory(store.MemoryConfig{}), Replicas: func() int { return tt.replicas }})
			for i, want := range tt.want {
				d := e.Decide(t.Context(), signed(t, e, "hook", now, strconv.Itoa(i)))
				if got := verdict(d); got != want || !d.Degraded {
					t.Errorf("%d: got %s (degraded %v), want %s", i, got, d.Degraded, want)
				}
			}
		})
	}
	t.Run("no second store", func(t *testing.T) {
		e := policy.NewEngine(load(t, webhook(githubScheme)), policy.EngineConfig{Store: brokenStore{}})
		if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "deny store_unavailable 503" {
			t.Errorf("got %s", got)
		}
	})
}

// slowStore answers after the caller's deadline.
type slowStore struct {
	policy.Store
	cancel context.CancelFunc
}

func (s slowStore) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	taken, err := s.Store.Take(ctx, t)
	s.cancel()
	return taken, err
}

// Release does nothing for a caller that has gone, as a store across a network does.
func (s slowStore) Release(ctx context.Context, t *policy.Take) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Store.Release(ctx, t)
}

// A deadline that ends while the store works denies, and the delivery may come again.
func TestDeadline(t *testing.T) {
	memory := store.NewMemory(store.MemoryConfig{})
	set := load(t, webhook(githubScheme, "replay: {onDuplicate: deny, confirm: outcome}"))
	ctx, cancel := context.WithCancel(t.Context())
	slow := policy.NewEngine(set, policy.EngineConfig{Store: slowStore{memory, cancel}})
	late := slow.Decide(ctx, signed(t, slow, "hook", now, "{}"))
	if got := verdict(late); got != "deny deadline_exceeded 503" {
		t.Fatalf("got %s", got)
	}
	if late.Reservation != "" {
		t.Errorf("a denial with the reservation %q, which is released", late.Reservation)
	}
	e := policy.NewEngine(set, policy.EngineConfig{Store: memory})
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "allow ok" {
		t.Errorf("the next attempt: got %s", got)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if got := verdict(e.Decide(done, signed(t, e, "hook", now, "{}"))); got != "deny deadline_exceeded 503" {
		t.Errorf("an ended context: got %s", got)
	}
}

// What was recorded here while the store is away is forgotten here.
func TestDeadlineWithoutTheStore(t *testing.T) {
	memory := store.NewMemory(store.MemoryConfig{})
	set := load(t, webhook(githubScheme, "replay: {onDuplicate: deny}"))
	ctx, cancel := context.WithCancel(t.Context())
	slow := policy.NewEngine(set, policy.EngineConfig{Store: brokenStore{}, Local: slowStore{memory, cancel}})
	if got := verdict(slow.Decide(ctx, signed(t, slow, "hook", now, "{}"))); got != "deny deadline_exceeded 503" {
		t.Fatalf("got %s", got)
	}
	e := policy.NewEngine(set, policy.EngineConfig{Store: brokenStore{}, Local: memory})
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "{}"))); got != "allow ok" {
		t.Errorf("the next attempt: got %s", got)
	}
}

// Exactly the burst passes, and exactly one of many equal deliveries is new.
func TestConcurrency(t *testing.T) {
	e := engine(t, webhook(githubScheme, "rateLimits: [{limit: 60/hour, burst: 20}]", "replay: {onDuplicate: deny}"))
	count := func(requests []*policy.Request) map[string]int {
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := map[string]int{}
		for _, r := range requests {
			wg.Go(func() {
				v := verdict(e.Decide(t.Context(), r))
				mu.Lock()
				defer mu.Unlock()
				got[v]++
			})
		}
		wg.Wait()
		return got
	}
	var same, different []*policy.Request
	for i := range 100 {
		same = append(same, signed(t, e, "hook", now, "{}"))
		different = append(different, signed(t, e, "hook", now, strconv.Itoa(i)))
	}
	if diff := cmp.Diff(map[string]int{"allow ok": 1, "deny replayed 409": 99}, count(same)); diff != "" {
		t.Errorf("equal deliveries (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"allow ok": 19, "deny rate_limited 429": 81}, count(different)); diff != "" {
		t.Errorf("different deliveries (-want +got):\n%s", diff)
	}
}

// Counters and memory survive a reload; the new policies hold at once.
func TestSwap(t *testing.T) {
	e := engine(t, webhook(githubScheme, "rateLimits: [{limit: 1/hour}]"))
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "1"))); got != "allow ok" {
		t.Fatalf("got %s", got)
	}
	e.Swap(load(t, webhook(githubScheme, "rateLimits: [{limit: 1/hour}]", "log: {allowed: 1/10}")))
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "2"))); got != "deny rate_limited 429" {
		t.Errorf("after a reload: got %s", got)
	}
	e.Swap(load(t, webhook(githubScheme, "pausedUntil: 2027-01-01T00:00:00Z")))
	if got := verdict(e.Decide(t.Context(), signed(t, e, "hook", now, "3"))); got != "deny paused 503" {
		t.Errorf("after a pause: got %s", got)
	}
}

// The zero values deny.
func TestZeroDenies(t *testing.T) {
	var d policy.Decision
	if d.Outcome != policy.Deny || d.Reason.Status() != 500 {
		t.Errorf("the zero decision is %s with %d", verdict(d), d.Reason.Status())
	}
	e := engine(t, webhook(githubScheme))
	if got := verdict(e.Decide(t.Context(), &policy.Request{})); got != "deny ambiguous_path 403" {
		t.Errorf("the zero request: got %s", got)
	}
	for _, r := range policy.Reasons() {
		if r.String() == "" || r.Status() < 400 || r.Code() == "" || r.Message() == "" {
			t.Errorf("reason %d: %q %d %q %q", r, r, r.Status(), r.Code(), r.Message())
		}
	}
	if policy.Reason(200).Status() != 500 {
		t.Error("an unknown reason is not an internal error")
	}
}

// A text body is taken only where the server says so and it holds no '!'.
func TestTextBody(t *testing.T) {
	set := load(t, webhook(githubScheme))
	e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), AllowStringBody: true})
	for body, want := range map[string]string{"{}": "allow ok", "{!}": "deny body_not_raw 503"} {
		r := signed(t, e, "hook", now, body)
		r.BodyState = policy.TextBody
		if got := verdict(e.Decide(t.Context(), r)); got != want {
			t.Errorf("%q: got %s, want %s", body, got, want)
		}
	}
}
