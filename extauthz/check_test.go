package extauthz

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/hookauthz/hookauthz/policy"
)

// checkTest is one delivery through the RPC, after others that may come before it.
type checkTest struct {
	name string
	yaml string
	// store stands in for the embedded one.
	store policy.Store
	// signedWith are the policies that the delivery is signed by; default: yaml.
	signedWith string
	before     int // times that the same delivery is sent before, each on a stream of its own
	change     func(*delivery)
	want       string // decision and reason
	status     int
	code       string
	retryAfter string
	// metadata beside endpoint, decision, reason and policy_revision; default: only those.
	metadata map[string]string
	// noEndpoint: no policy was found.
	noEndpoint bool
	// text is that of an answer.
	text string
}

// checkTests hold every reason that policy.Engine gives; the remaining ones are our own and have tests of their own below.
var checkTests = []checkTest{
	{name: "unknown path", yaml: webhook(githubScheme), change: func(d *delivery) { d.path = "/other" },
		want: "deny no_policy", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "path in the query only", yaml: webhook(githubScheme), change: func(d *delivery) { d.path = "/?x=/hook" },
		want: "deny no_policy", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "extension without a name", yaml: webhook(githubScheme), change: func(d *delivery) { d.extension = map[string]string{"hookauthz.endpoint": ""} },
		want: "deny no_policy", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "extension that names no policy", yaml: webhook(githubScheme), change: func(d *delivery) { d.extension = map[string]string{"hookauthz.endpoint": "hoook"} },
		want: "deny no_policy", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "ambiguous path", yaml: webhook(githubScheme), change: func(d *delivery) { d.path = "//hook" },
		want: "deny ambiguous_path", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "no path", yaml: webhook(githubScheme), change: func(d *delivery) { d.path = "" },
		want: "deny ambiguous_path", status: 403, code: "not_found_or_forbidden", noEndpoint: true},
	{name: "paused", yaml: webhook(githubScheme, "pausedUntil: 2026-11-24T12:01:30.5Z"),
		want: "deny paused", status: 503, code: "unavailable", retryAfter: "91"},
	{name: "paused for ever", yaml: webhook(githubScheme, "pausedUntil: 9999-12-31T00:00:00Z"),
		want: "deny paused", status: 503, code: "unavailable", retryAfter: "86400"},
	{name: "no peer", yaml: webhook(githubScheme), change: func(d *delivery) { d.peer = "" },
		want: "deny source_unknown", status: 403, code: "forbidden_source"},
	{name: "peer with a zone", yaml: webhook(githubScheme), change: func(d *delivery) { d.peer = "fe80::1%eth0" },
		want: "deny source_unknown", status: 403, code: "forbidden_source"},
	{name: "other address", yaml: webhook(githubScheme, "source: {allow: [198.51.100.0/24]}"),
		want: "deny source_denied", status: 403, code: "forbidden_source"},
	{name: "forged forwarded address", yaml: webhook(githubScheme, "source: {allow: [198.51.100.0/24]}"),
		change: func(d *delivery) { d.add("x-forwarded-for", "198.51.100.1").add("x-real-ip", "198.51.100.1") },
		want:   "deny source_denied", status: 403, code: "forbidden_source"},
	{name: "method", yaml: webhook(githubScheme), change: func(d *delivery) { d.method = "PUT" },
		want: "deny method_not_allowed", status: 405, code: "invalid_request"},
	{name: "media type", yaml: webhook(githubScheme, "body: {contentTypes: [application/json]}"), change: func(d *delivery) { d.with("content-type", "text/plain") },
		want: "deny unsupported_media_type", status: 415, code: "invalid_request"},
	{name: "upgrade", yaml: webhook(githubScheme), change: func(d *delivery) { d.add("upgrade", "websocket") },
		want: "deny upgrade_refused", status: 400, code: "invalid_request"},
	{name: "connect", yaml: webhook(githubScheme, "body: {allowEmpty: true}"), change: func(d *delivery) { d.add(":protocol", "websocket") },
		want: "deny upgrade_refused", status: 400, code: "invalid_request"},
	{name: "partial body", yaml: webhook(githubScheme), change: func(d *delivery) { d.partial = "true" },
		want: "deny body_partial", status: 413, code: "payload_too_large"},
	{name: "nobody says that the body is whole", yaml: webhook(githubScheme), change: func(d *delivery) { d.partial = "-" },
		want: "deny body_partial", status: 413, code: "payload_too_large"},
	{name: "two words on the body", yaml: webhook(githubScheme), change: func(d *delivery) { d.add(partialBodyHeader, "false") },
		want: "deny body_partial", status: 413, code: "payload_too_large"},
	{name: "large body", yaml: webhook(githubScheme, "body: {maxBytes: 16}"), signedWith: webhook(githubScheme),
		want: "deny body_too_large", status: 413, code: "payload_too_large"},
	{name: "text body", yaml: webhook(githubScheme), change: func(d *delivery) { d.text = true },
		want: "deny body_not_raw", status: 503, code: "unavailable", retryAfter: "1"},
	{name: "length below the body", yaml: webhook(githubScheme), change: func(d *delivery) { d.with("content-length", "1") },
		want: "deny body_length_mismatch", status: 400, code: "invalid_request"},
	{name: "two lengths", yaml: webhook(githubScheme), change: func(d *delivery) { d.add("content-length", d.value("content-length")) },
		want: "deny body_length_mismatch", status: 400, code: "invalid_request"},
	{name: "body that Envoy did not buffer", yaml: webhook(githubScheme, "body: {allowEmpty: true}"), change: func(d *delivery) { d.body = nil },
		want: "deny body_length_mismatch", status: 400, code: "invalid_request"},
	{name: "no body", yaml: webhook(githubScheme), change: func(d *delivery) { d.body = nil; d.without("content-length") },
		want: "deny body_missing", status: 400, code: "invalid_request"},

	{name: "no signature", yaml: webhook(githubScheme), change: func(d *delivery) { d.without("x-hub-signature-256") },
		want: "deny signature_missing", status: 401, code: "invalid_signature"},
	{name: "signature under another spelling", yaml: webhook(githubScheme),
		change: func(d *delivery) {
			d.add("x_hub_signature_256", d.value("x-hub-signature-256")).without("x-hub-signature-256")
		},
		want: "deny signature_missing", status: 401, code: "invalid_signature"},
	{name: "half a signature", yaml: webhook(githubScheme), change: func(d *delivery) { d.with("x-hub-signature-256", d.value("x-hub-signature-256")[:40]) },
		want: "deny signature_malformed", status: 401, code: "invalid_signature"},
	{name: "the signature twice", yaml: webhook(githubScheme), change: func(d *delivery) { d.add("x-hub-signature-256", d.value("x-hub-signature-256")) },
		want: "deny signature_malformed", status: 401, code: "invalid_signature"},
	{name: "signature with obs-text", yaml: webhook(githubScheme), change: func(d *delivery) { d.with("x-hub-signature-256", "sha256=\xff\xfe") },
		want: "deny signature_malformed", status: 401, code: "invalid_signature"},
	{name: "another body", yaml: webhook(githubScheme), change: func(d *delivery) { d.body = []byte(strings.Replace(string(d.body), "opened", "closed", 1)) },
		want: "deny signature_mismatch", status: 401, code: "invalid_signature"},
	{name: "no timestamp", yaml: webhook(stripeScheme), change: func(d *delivery) {
		_, signature, _ := strings.Cut(d.value("stripe-signature"), ",")
		d.with("stripe-signature", signature)
	},
		want: "deny timestamp_missing", status: 401, code: "invalid_signature"},
	{name: "timestamp with a sign", yaml: webhook(stripeScheme), change: func(d *delivery) {
		d.with("stripe-signature", strings.Replace(d.value("stripe-signature"), "t=", "t=+", 1))
	},
		want: "deny timestamp_malformed", status: 401, code: "invalid_signature"},
	{name: "old", yaml: webhook(stripeScheme), change: nil, signedWith: "old",
		want: "deny timestamp_out_of_tolerance", status: 401, code: "invalid_signature", metadata: map[string]string{"secret_version": "1"}},
	{name: "revoked secret", yaml: webhook(`scheme: github, secrets: [{version: "new", env: OTHER}, {version: "leaked", env: SECRET, revoked: true}]`), signedWith: webhook(githubScheme),
		want: "deny secret_expired", status: 401, code: "invalid_signature", metadata: map[string]string{"secret_version": "leaked"}},
	{name: "secret that cannot be read", yaml: webhook(`scheme: github, secrets: [{version: "1", env: ABSENT}]`), signedWith: webhook(githubScheme),
		want: "deny secret_unavailable", status: 503, code: "unavailable", retryAfter: "1"},
	{name: "budget of failures", yaml: webhook(githubScheme, "failures: {limit: 2/minute}"), before: 2, change: func(d *delivery) { d.body = []byte(`{"action":"forged"}`); d.without("content-length") },
		want: "deny too_many_failures", status: 429, code: "rate_limited", retryAfter: "30"},

	{name: "replayed", yaml: webhook(githubScheme, "replay: {onDuplicate: deny, window: 1h}"), before: 1,
		want: "deny replayed", status: 409, code: "duplicate", metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "in flight", yaml: webhook(githubScheme, "replay: {confirm: outcome, reservation: 45s}"), before: 1,
		want: "deny in_flight", status: 503, code: "unavailable", retryAfter: "45", metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "rate", yaml: webhook(githubScheme, "rateLimits: [{limit: 2/minute}]", "replay: {onDuplicate: allow}"), before: 2,
		want: "deny rate_limited", status: 429, code: "rate_limited", retryAfter: "30", metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "store down", yaml: webhook(githubScheme, "onStoreFailure: deny"), store: brokenStore{},
		want: "deny store_unavailable", status: 503, code: "unavailable", retryAfter: "1",
		metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*", "degraded": "true"}},

	{name: "good", yaml: webhook(githubScheme), want: "allow ok", metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "named by the route", yaml: webhook(githubScheme), change: func(d *delivery) { d.extension = map[string]string{"hookauthz.endpoint": "hook"} },
		want: "allow ok", metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "reserved", yaml: webhook(githubScheme, "replay: {confirm: outcome}"), want: "allow ok",
		metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*", "reservation": "*"}},
	{name: "tagged duplicate", yaml: webhook(githubScheme), before: 1, want: "allow duplicate",
		metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*"}},
	{name: "store down and allowed", yaml: webhook(githubScheme, "onStoreFailure: allow"), store: brokenStore{}, want: "allow degraded",
		metadata: map[string]string{"secret_version": "1", "delivery_id": "*", "event_type": "*", "degraded": "true"}},
	{name: "shadow", yaml: webhook(githubScheme, "mode: shadow"), change: func(d *delivery) { d.without("x-hub-signature-256") },
		want: "allow shadow", metadata: map[string]string{"shadow": "signature_missing"}},
	{name: "handshake", yaml: webhook(`scheme: dropbox, secrets: [{version: "1", env: SECRET}]`, "handshake: {enabled: true}"), change: asking("/hook?challenge=3eZbrw1aBm2r"),
		want: "answer handshake", status: 200, text: "3eZbrw1aBm2r"},
	{name: "handshake with a wrong code", yaml: webhook(`scheme: fitbit, secrets: [{version: "1", env: SECRET}]`, "handshake: {enabled: true, verifyToken: {env: OTHER}}"), change: asking("/hook?verify=guess"),
		want: "answer handshake", status: 404},
	{name: "handshake that nobody enabled", yaml: webhook(`scheme: dropbox, secrets: [{version: "1", env: SECRET}]`), change: asking("/hook?challenge=3eZbrw1aBm2r"),
		want: "deny method_not_allowed", status: 405, code: "invalid_request"},
	{name: "paused in shadow", yaml: webhook(githubScheme, "mode: shadow", "pausedUntil: 2026-11-24T12:00:05Z"),
		want: "deny paused", status: 503, code: "unavailable", retryAfter: "5"},
}

// asking makes a GET of a delivery.
func asking(path string) func(*delivery) {
	return func(d *delivery) {
		d.method, d.path, d.body = "GET", path, nil
		d.headers = []policy.Header{{Name: "x-request-id", Value: "request-1"}}
	}
}

// pullRequest is the body of every delivery of checkTests.
const pullRequest = `{"action":"opened","number":1}`

// Every reason reaches the sender as its status and a coarse code, and Envoy's metadata exactly, in both forms of headers.
func TestCheckReasons(t *testing.T) {
	seen := reasonsSeen{}
	for _, form := range headerForms {
		for _, tt := range checkTests {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				set := policies(t, tt.yaml)
				config := policy.EngineConfig{Store: tt.store}
				if tt.store == nil {
					config.Store = newStore()
				}
				conn := dial(t, Config{Decider: policy.NewEngine(set, config)})
				d := tt.delivery(t, set)
				for range tt.before {
					d.id += "-before"
					ask(t, conn, d.request(form.merged))
				}
				d.id = "stream-last"
				tt.compare(t, ask(t, conn, d.request(form.merged)), set)
				seen.add(tt.want)
			})
		}
	}
	// Those that the engine does not give by itself.
	for _, r := range []policy.Reason{policy.InternalError, policy.DeadlineExceeded, policy.Overloaded} {
		seen.add("deny " + r.String())
	}
	seen.complete(t)
}

func (tt *checkTest) delivery(t *testing.T, set *policy.Set) *delivery {
	t.Helper()
	at := noon
	switch tt.signedWith {
	case "":
	case "old":
		at = noon.Add(-301 * time.Second)
	default:
		set = policies(t, tt.signedWith)
	}
	d := signed(t, set, at, pullRequest)
	if strings.Contains(tt.yaml, "github") {
		d.with("x-github-delivery", "delivery-1").with("x-github-event", "pull_request")
	}
	if tt.change != nil {
		tt.change(d)
	}
	return d
}

func (tt *checkTest) compare(t *testing.T, response *authv3.CheckResponse, set *policy.Set) {
	t.Helper()
	decision, reason, _ := strings.Cut(tt.want, " ")
	want := reply{}
	switch decision {
	case "answer":
		want = reply{Code: int32(codes.PermissionDenied), Status: tt.status, Type: "text/plain", Nosniff: "nosniff", Text: tt.text}
	case "deny":
		want = reply{Code: int32(codes.PermissionDenied), Status: tt.status, Error: tt.code, Message: messageOf(t, reason), RequestID: "request-1", RetryAfter: tt.retryAfter, Type: "application/json"}
	}
	if diff := cmp.Diff(want, replyOf(t, response)); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	metadata := map[string]string{"decision": decision, "reason": reason, "policy_revision": set.Revision()}
	if !tt.noEndpoint {
		metadata["endpoint"] = "hook"
	}
	got := notes(t, response)
	for name, value := range tt.metadata {
		if value == "*" && got[name] != "" { // whatever it is
			value = got[name]
		}
		metadata[name] = value
	}
	if diff := cmp.Diff(metadata, got); diff != "" {
		t.Errorf("dynamic metadata (-want +got):\n%s", diff)
	}
}

// messageOf is the sentence that goes with a reason.
func messageOf(t *testing.T, reason string) string {
	t.Helper()
	for _, r := range policy.Reasons() {
		if r.String() == reason {
			return r.Message()
		}
	}
	t.Fatalf("there is no reason %q", reason)
	return ""
}

// reasonsSeen are the reasons that a test met.
type reasonsSeen map[string]bool

func (s reasonsSeen) add(verdict string) {
	_, reason, _ := strings.Cut(verdict, " ")
	s[reason] = true
}

// complete fails the test unless every reason was met.
func (s reasonsSeen) complete(t *testing.T) {
	t.Helper()
	for _, r := range policy.Reasons() {
		if !s[r.String()] {
			t.Errorf("no test has the reason %s", r)
		}
	}
}

// An acknowledged duplicate is answered here; the application does not see it again.
func TestAcknowledgedDuplicate(t *testing.T) {
	for _, form := range headerForms {
		t.Run(form.name, func(t *testing.T) {
			e := newEngine(t, webhook(githubScheme, "replay: {onDuplicate: acknowledge, confirm: outcome}"))
			conn := dial(t, Config{Decider: e})
			d := signed(t, e.Set(), noon, pullRequest)
			first := ask(t, conn, d.request(form.merged))
			settle(t, e, notes(t, first)["reservation"], true)
			d.id = "stream-2"
			got := ask(t, conn, d.request(form.merged))
			want := reply{Code: int32(codes.PermissionDenied), Status: 200, Type: "application/json", Nosniff: "nosniff", Text: `{"status":"duplicate"}`}
			if diff := cmp.Diff(want, replyOf(t, got)); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			if n := notes(t, got); n["decision"] != "answer" || n["reason"] != "duplicate" {
				t.Errorf("metadata %v", n)
			}
		})
	}
}

func settle(t *testing.T, e *policy.Engine, reservation string, confirmed bool) {
	t.Helper()
	token, ok := parseToken(reservation)
	if !ok {
		t.Fatalf("the reservation %q is no token", reservation)
	}
	if done, err := e.Settle(t.Context(), noon, "hook", token, confirmed); !done || err != nil {
		t.Fatalf("settling: %v, %v", done, err)
	}
}

// Our own faults are denials with RPC OK, too.
func TestCheckOwnFaults(t *testing.T) {
	denied := func(code string, status int, retryAfter string) reply {
		message := map[string]string{"internal_error": "Internal error", "unavailable": "Temporarily unavailable"}[code]
		return reply{Code: int32(codes.PermissionDenied), Status: status, Error: code, Message: message, RequestID: "request-1", RetryAfter: retryAfter, Type: "application/json"}
	}
	tests := []struct {
		name   string
		decide func(ctx context.Context, r *policy.Request) policy.Decision
		want   reply
		reason string
	}{
		{"zero decision", func(context.Context, *policy.Request) policy.Decision { return policy.Decision{} }, denied("internal_error", 500, ""), "internal_error"},
		{"panic", func(_ context.Context, r *policy.Request) policy.Decision { panic(r) }, denied("internal_error", 500, ""), "internal_error"},
		{"allow for a denial's reason", func(context.Context, *policy.Request) policy.Decision {
			return policy.Decision{Outcome: policy.Allow, Reason: policy.SignatureMismatch}
		}, denied("internal_error", 500, ""), "internal_error"},
		{"allow without a reason", func(context.Context, *policy.Request) policy.Decision { return policy.Decision{Outcome: policy.Allow} }, denied("internal_error", 500, ""), "internal_error"},
		{"unknown outcome", func(context.Context, *policy.Request) policy.Decision {
			return policy.Decision{Outcome: 3, Reason: policy.OK}
		}, denied("internal_error", 500, ""), "internal_error"},
		{"denial with status 200", func(context.Context, *policy.Request) policy.Decision {
			return policy.Decision{Reason: policy.SourceDenied, Status: 200}
		}, denied("internal_error", 500, ""), "internal_error"},
		{"answer without a status", func(context.Context, *policy.Request) policy.Decision {
			return policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake}
		}, denied("internal_error", 500, ""), "internal_error"},
	}
	for _, form := range headerForms {
		for _, tt := range tests {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				conn := dial(t, Config{Decider: decides(tt.decide)})
				d := signed(t, policies(t, webhook(githubScheme)), noon, pullRequest)
				got := ask(t, conn, d.request(form.merged))
				if diff := cmp.Diff(tt.want, replyOf(t, got)); diff != "" {
					t.Errorf("reply (-want +got):\n%s", diff)
				}
				if n := notes(t, got); n["decision"] != "deny" || n["reason"] != tt.reason {
					t.Errorf("metadata %v", n)
				}
			})
		}
	}
}

// A denial because the time is over still arrives.
func TestCheckDeadline(t *testing.T) {
	t.Parallel()
	for _, form := range headerForms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			slow := decides(func(ctx context.Context, _ *policy.Request) policy.Decision {
				<-ctx.Done() // as long as the call may take, whatever its deadline is
				late := policy.Denied(policy.DeadlineExceeded)
				late.Endpoint = "hook"
				return late
			})
			conn := dial(t, Config{Decider: slow})
			d := signed(t, policies(t, webhook(githubScheme)), noon, pullRequest)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			got, err := authv3.NewAuthorizationClient(conn).Check(ctx, d.request(form.merged))
			if err != nil {
				t.Fatalf("the denial did not arrive before the deadline: %v", err)
			}
			want := reply{Code: int32(codes.PermissionDenied), Status: 503, Error: "unavailable", Message: "Temporarily unavailable", RequestID: "request-1", RetryAfter: "1", Type: "application/json"}
			if diff := cmp.Diff(want, replyOf(t, got)); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"decision": "deny", "reason": "deadline_exceeded", "endpoint": "hook"}, notes(t, got)); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
		})
	}
}

// Deliveries for which there is no memory are denied with overloaded, in time, and those that fit are decided.
func TestCheckOverloaded(t *testing.T) {
	t.Parallel()
	for _, form := range headerForms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			const body = 1 << 20
			leave := make(chan struct{})
			open := sync.OnceFunc(func() { close(leave) })
			defer open()
			entered := make(chan struct{}, 8)
			connect := serving(t, Config{MaxBody: body, MaxInflightBytes: 8 * body, Decider: decides(func(context.Context, *policy.Request) policy.Decision {
				entered <- struct{}{}
				<-leave
				return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook"}
			})})
			d := signed(t, policies(t, webhook(githubScheme)), noon, strings.Repeat("x", body))
			first := make(chan reply, 1)
			go func() {
				m, err := check(t, connect(), time.Minute, d.request(form.merged))
				if err != nil {
					t.Errorf("the first: %v", err)
				}
				first <- replyOf(t, m)
			}()
			<-entered // the only place is taken
			m, err := check(t, connect(), 2*time.Second, d.request(form.merged))
			if err != nil {
				t.Fatalf("the RPC itself failed: %v", err)
			}
			want := reply{Code: int32(codes.PermissionDenied), Status: 503, Error: "unavailable", Message: "Temporarily unavailable", RetryAfter: "1", Type: "application/json"}
			if diff := cmp.Diff(want, replyOf(t, m)); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			if n := notes(t, m); n["reason"] != "overloaded" {
				t.Errorf("metadata %v", n)
			}
			open()
			if got := <-first; got != (reply{}) {
				t.Errorf("the first delivery got %+v", got)
			}
		})
	}
}

// check sends one Check, of which the server is told that it must be answered within patience.
func check(t *testing.T, conn *grpc.ClientConn, patience time.Duration, m *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return authv3.NewAuthorizationClient(conn).Check(hurried{ctx, time.Now().Add(patience)}, m)
}

// What an allowed delivery carries, and what of the client's own it loses.
func TestCheckForwards(t *testing.T) {
	forged := func(d *delivery) {
		for _, name := range ourHeaders {
			d.add(name, "forged").add(strings.ReplaceAll(name, "-", "_"), "forged").add(strings.Replace(name, "-", "_", 1), "forged").
				add(strings.ReplaceAll(name, "-", "."), "forged").add(strings.Replace(name, "-", ".", 1), "forged").add(strings.Replace(name, "-", "~", 2), "forged")
		}
		d.add("x_hookauthz-shadow_reason", "forged").add("x_hookauthz-shadow_reason", "again").add("x-hookauthz_event", "forged").add("x-hookauthz-client-ip", "kept").add("x_hook-id", "kept").add("x.hook.id", "kept")
	}
	tests := []struct {
		name   string
		yaml   string
		store  policy.Store
		before int
		change func(*delivery)
		want   map[string]string
	}{
		{name: "nothing but the scheme's word on its key", yaml: webhook(githubScheme), // GitHub signs neither its id nor its event
			change: func(d *delivery) { d.with("x-github-delivery", "delivery-1").with("x-github-event", "push") },
			want:   map[string]string{headerEndpoint: "hook", headerScheme: "github", headerSecretVersion: "1"}},
		{name: "signed id and event", yaml: webhook(stripeScheme), // both are parts of the signed body
			want: map[string]string{headerEndpoint: "hook", headerScheme: "stripe", headerSecretVersion: "1", headerDeliveryID: "evt_1", headerEvent: "charge.failed"}},
		{name: "duplicate", yaml: webhook(githubScheme), before: 1,
			want: map[string]string{headerEndpoint: "hook", headerScheme: "github", headerSecretVersion: "1", headerDuplicate: "true"}},
		{name: "degraded", yaml: webhook(githubScheme, "onStoreFailure: allow"), store: brokenStore{},
			want: map[string]string{headerEndpoint: "hook", headerScheme: "github", headerSecretVersion: "1", headerDegraded: "true"}},
		{name: "shadow", yaml: webhook(githubScheme, "mode: shadow"), change: func(d *delivery) { d.with("x-hub-signature-256", "sha256="+strings.Repeat("0", 64)) },
			want: map[string]string{headerShadowReason: "signature_mismatch"}},
		{name: "shadow of a verified delivery", yaml: webhook(stripeScheme, "mode: shadow", "rateLimits: [{limit: 1/hour}]", "replay: {onDuplicate: allow}"), before: 1,
			want: map[string]string{headerShadowReason: "rate_limited"}},
	}
	for _, form := range headerForms {
		for _, tt := range tests {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				s := tt.store
				if s == nil {
					s = newStore()
				}
				set := policies(t, tt.yaml)
				conn := dial(t, Config{Decider: policy.NewEngine(set, policy.EngineConfig{Store: s})})
				d := signed(t, set, noon, `{"id":"evt_1","type":"charge.failed"}`)
				if tt.change != nil {
					tt.change(d)
				}
				forged(d)
				for range tt.before {
					d.id += "-before"
					ask(t, conn, d.request(form.merged))
				}
				d.id = "stream-last"
				compareForwarded(t, ask(t, conn, d.request(form.merged)), tt.want, d)
			})
		}
	}
}

// compareForwarded looks at what the application would see of our headers: after Envoy's settings and then its removals only want is left.
func compareForwarded(t *testing.T, response *authv3.CheckResponse, want map[string]string, d *delivery) {
	t.Helper()
	if code := response.GetStatus().GetCode(); code != 0 || response.GetStatus() == nil || response.GetOkResponse() == nil {
		t.Fatalf("not an allow: %v", response)
	}
	ok := response.GetOkResponse()
	headers := set(t, ok.GetHeaders())
	if diff := cmp.Diff(want, headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	left := make(map[string]string)
	for _, h := range d.headers {
		left[h.Name] = h.Value
	}
	for name, value := range headers {
		left[name] = value
	}
	for _, name := range ok.GetHeadersToRemove() {
		if _, ours := headers[name]; ours {
			t.Errorf("%q is set and removed", name)
		}
		delete(left, name)
	}
	for name, value := range left {
		plain := betweenWords.ReplaceAllString(name, "-")
		if slices.Contains(ourHeaders[:], plain) && (want[name] != value || want[name] == "") {
			t.Errorf("the application sees %q: %q", name, value)
		}
	}
	for _, kept := range []string{"x-hookauthz-client-ip", "x_hook-id", "x.hook.id", "x-request-id"} {
		if _, found := left[kept]; !found {
			t.Errorf("%q was removed, which is not ours", kept)
		}
	}
	removed := ok.GetHeadersToRemove()
	for _, name := range ourHeaders {
		_, isSet := headers[name]
		if slices.Contains(removed, name) == isSet || !slices.Contains(removed, strings.ReplaceAll(name, "-", "_")) {
			t.Errorf("%q, which is set: %v, and its spelling with _ are to be removed as %v", name, isSet, removed)
		}
	}
	sorted := slices.Sorted(slices.Values(removed))
	if len(slices.Compact(sorted)) != len(removed) {
		t.Errorf("a header is removed twice: %v", removed)
	}
	//lint:ignore SA1019 Envoys before 1.37 read it
	if len(ok.GetResponseHeadersToAdd())+len(ok.GetQueryParametersToSet())+len(ok.GetQueryParametersToRemove()) > 0 || ok.GetDynamicMetadata() != nil {
		t.Errorf("the reply changes more than headers: %v", ok)
	}
}

// A delivery id or event that could not be quoted safely does not become a header.
func TestCheckForwardsPrintableOnly(t *testing.T) {
	for name, id := range map[string]string{
		"empty": "", "long": strings.Repeat("x", 257), "control": "evt\u0001", "newline": "evt\r\nx-admin: true", "umlaut": "evt-ü",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, Config{Decider: decides(func(context.Context, *policy.Request) policy.Decision {
				return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook", Scheme: "stripe", SecretVersion: "1",
					DeliveryID: id, DeliveryIDSigned: true, Event: id, EventSigned: true}
			})})
			d := signed(t, policies(t, webhook(githubScheme)), noon, pullRequest)
			got := set(t, ask(t, conn, d.request(false)).GetOkResponse().GetHeaders())
			want := map[string]string{headerEndpoint: "hook", headerScheme: "stripe", headerSecretVersion: "1"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

// A second Check of the same stream is Envoy's own retry and gets the first one's answer; another stream is a replay.
func TestCheckRetry(t *testing.T) {
	e := newEngine(t, webhook(githubScheme, "replay: {onDuplicate: deny, window: 1h}", "rateLimits: [{limit: 1/hour}]"))
	conn := dial(t, Config{Decider: e})
	d := signed(t, e.Set(), noon, pullRequest)
	for i, stream := range []string{"7", "7", "8"} {
		d.id = stream
		got := notes(t, ask(t, conn, d.request(false)))
		want := []string{"allow ok", "allow ok", "deny replayed"}[i]
		if verdict := got["decision"] + " " + got["reason"]; verdict != want {
			t.Errorf("check %d got %q, want %q", i, verdict, want)
		}
	}
}

// Check is a call of one message. Whoever sends more gets the answer to the first, and whoever sends none is denied.
func TestCheckStreams(t *testing.T) {
	var asked atomic.Int32
	conn := dial(t, Config{Decider: decides(func(_ context.Context, r *policy.Request) policy.Decision {
		asked.Add(1)
		if r.Path == "/first" {
			return policy.Denied(policy.SourceDenied)
		}
		return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook"}
	})})
	first, second := (&delivery{path: "/first"}).request(false), (&delivery{path: "/second"}).request(false)
	tests := []struct {
		name     string
		messages []*authv3.CheckRequest
		want     string
		asked    int32
	}{
		{"one", []*authv3.CheckRequest{first}, "source_denied", 1},
		{"two", []*authv3.CheckRequest{first, second}, "source_denied", 1},
		{"many", []*authv3.CheckRequest{first, second, second, second}, "source_denied", 1},
		{"none", nil, "internal_error", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Check", ClientStreams: true, ServerStreams: true}, authv3.Authorization_Check_FullMethodName)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range tt.messages {
				if err := stream.SendMsg(m); err != nil && !errors.Is(err, io.EOF) { // the server may have answered already
					t.Fatalf("sending: %v", err)
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatalf("closing: %v", err)
			}
			var m authv3.CheckResponse
			if err := stream.RecvMsg(&m); err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if got := notes(t, &m); got["reason"] != tt.want || m.GetStatus().GetCode() == 0 {
				t.Errorf("got %v, want %s", got, tt.want)
			}
			if err := stream.RecvMsg(new(authv3.CheckResponse)); !errors.Is(err, io.EOF) {
				t.Errorf("after the answer: %v", err)
			}
			if n := asked.Load(); n != tt.asked {
				t.Errorf("%d deliveries were decided, want %d", n, tt.asked)
			}
		})
	}
}
