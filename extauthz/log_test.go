package extauthz

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
)

// The line of a decision, word for word: others read it.
func TestDecisionLine(t *testing.T) {
	request := &policy.Request{
		Method: "POST", Path: "/hook?token=a-secret", RequestID: "request-1", Body: [][]byte{[]byte("ab"), []byte("c")},
		Headers: []policy.Header{{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {Name: "authorization", Value: "Bearer a-secret"}},
	}
	full := policy.Decision{
		Endpoint: "github-ci", Scheme: "github", ClientAddress: netip.MustParseAddr("192.30.252.1"), SecretVersion: "2026-10", Verification: "valid",
		DeliveryID: "d-1", Event: "push", Reservation: "00112233445566778899aabbccddeeff", Revision: "3f9c",
	}
	decided := func(change func(*policy.Decision)) policy.Decision {
		d := full
		change(&d)
		return d
	}
	tests := []struct {
		name string
		d    policy.Decision
		r    *policy.Request
		want string
	}{
		{"allow", decided(func(d *policy.Decision) { d.Outcome, d.Reason = policy.Allow, policy.OK }), request,
			`{"level":"INFO","msg":"decision","endpoint":"github-ci","decision":"allow","reason":"ok","event_type":"push","delivery_id":"d-1","secret_version":"2026-10","client_address":"192.30.252.1",` +
				`"method":"POST","path":"/hook","body_bytes":3,"duration_ms":1.25,"request_id":"request-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","policy_revision":"3f9c"}`},
		{"deny", decided(func(d *policy.Decision) { d.Reason, d.Status = policy.Replayed, 409 }), request,
			`{"level":"WARN","msg":"decision","endpoint":"github-ci","decision":"deny","reason":"replayed","status":409,"event_type":"push","delivery_id":"d-1","secret_version":"2026-10","client_address":"192.30.252.1",` +
				`"method":"POST","path":"/hook","body_bytes":3,"duration_ms":1.25,"request_id":"request-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","policy_revision":"3f9c"}`},
		{"answer", decided(func(d *policy.Decision) { d.Outcome, d.Reason, d.Status = policy.Answer, policy.Duplicate, 200 }), &policy.Request{Method: "POST", Path: "/hook"},
			`{"level":"INFO","msg":"decision","endpoint":"github-ci","decision":"answer","reason":"duplicate","status":200,"event_type":"push","delivery_id":"d-1","secret_version":"2026-10","client_address":"192.30.252.1",` +
				`"method":"POST","path":"/hook","body_bytes":0,"duration_ms":1.25,"policy_revision":"3f9c"}`},
		{"shadow", decided(func(d *policy.Decision) {
			d.Outcome, d.Reason, d.Shadow = policy.Allow, policy.Shadow, policy.RateLimited
		}), &policy.Request{Method: "POST", Path: "/hook"},
			`{"level":"INFO","msg":"decision","endpoint":"github-ci","decision":"allow","reason":"shadow","event_type":"push","delivery_id":"d-1","secret_version":"2026-10","client_address":"192.30.252.1",` +
				`"method":"POST","path":"/hook","body_bytes":0,"duration_ms":1.25,"policy_revision":"3f9c","shadow":"rate_limited"}`},
		{"degraded", decided(func(d *policy.Decision) { d.Outcome, d.Reason, d.Degraded = policy.Allow, policy.OK, true }), &policy.Request{Method: "POST", Path: "/hook"},
			`{"level":"INFO","msg":"decision","endpoint":"github-ci","decision":"allow","reason":"ok","event_type":"push","delivery_id":"d-1","secret_version":"2026-10","client_address":"192.30.252.1",` +
				`"method":"POST","path":"/hook","body_bytes":0,"duration_ms":1.25,"policy_revision":"3f9c","degraded":true}`},
		{"nothing known", policy.Denied(policy.Overloaded), &policy.Request{},
			`{"level":"ERROR","msg":"decision","endpoint":"","decision":"deny","reason":"overloaded","status":503,"body_bytes":0,"duration_ms":1.25}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			newDecisionLog(&Config{Logger: j.logger()}).decided(t.Context(), &tt.d, tt.r, 1250*time.Microsecond, noon)
			if diff := cmp.Diff(tt.want+"\n", j.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	wants := map[policy.Reason]slog.Level{
		policy.InternalError: slog.LevelError, policy.BodyNotRaw: slog.LevelError, policy.SecretUnavailable: slog.LevelError, policy.StoreUnavailable: slog.LevelError,
		policy.DeadlineExceeded: slog.LevelError, policy.Overloaded: slog.LevelError,
	}
	for _, r := range policy.Reasons() {
		want, ours := wants[r]
		if !ours {
			want = slog.LevelWarn
		}
		d := policy.Denied(r)
		if r.Allows() || r.Answers() {
			d = policy.Decision{Outcome: policy.Allow, Reason: r}
			want = slog.LevelInfo
		}
		if got := levelOf(&d); got != want {
			t.Errorf("%s has the level %v, want %v", r, got, want)
		}
	}
}

// What a sender writes takes at most 256 bytes of a line, and stays one line of text.
func TestLogCaps(t *testing.T) {
	for name, long := range map[string]string{"ASCII": strings.Repeat("x", 10_000), "letters": strings.Repeat("ä", 10_000), "bytes": strings.Repeat("a\xff", 10_000), "controls": strings.Repeat("\x1b[2J\r\n", 1000)} {
		t.Run(name, func(t *testing.T) {
			var j journal
			d := policy.Decision{Outcome: policy.Allow, Reason: policy.OK, DeliveryID: long, Event: long}
			r := &policy.Request{Method: long, Path: "/" + long}
			newDecisionLog(&Config{Logger: j.logger()}).decided(t.Context(), &d, r, 0, noon)
			lines := j.lines(t)
			if len(lines) != 1 {
				t.Fatalf("%d lines", len(lines))
			}
			for _, name := range []string{"delivery_id", "event_type", "method", "path"} {
				value, _ := lines[0][name].(string)
				if len(value) < 250 || len(value) > 256 || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
					t.Errorf("%s has %d bytes: %.40q", name, len(value), value)
				}
			}
		})
	}
}

// flooding is a denial of a sender that nobody knows.
func flooding(endpoint string, r policy.Reason) *policy.Decision {
	d := policy.Denied(r)
	d.Endpoint = endpoint
	return &d
}

// summary counts lines by what they tell: "decision ci source_denied" -> lines, "suppressed ci source_denied" -> their count.
func summary(t *testing.T, j *journal) map[string]int {
	t.Helper()
	out := make(map[string]int)
	for _, line := range j.lines(t) {
		reason := line["reason"].(string)
		if s, found := line["shadow"]; found {
			reason = s.(string)
		}
		key := fmt.Sprint(line["endpoint"], " ", reason)
		switch line["msg"] {
		case "decision":
			out["decision "+key]++
		case "decisions suppressed":
			out["suppressed "+key] += int(line["count"].(float64))
		default:
			t.Errorf("the line %v", line)
		}
	}
	return out
}

// Of equal denials, ten a second are written for each endpoint and reason; the others are counted, and nothing is lost.
func TestFlood(t *testing.T) {
	var j journal
	l := newDecisionLog(&Config{Logger: j.logger()})
	decide := func(n int, d *policy.Decision, at time.Time) {
		for range n {
			l.decided(t.Context(), d, &policy.Request{}, 0, at)
		}
	}
	decide(25, flooding("ci", policy.SourceDenied), noon)
	decide(11, flooding("ci", policy.SignatureMismatch), noon.Add(500*time.Millisecond))
	decide(10, flooding("shop", policy.SourceDenied), noon.Add(999*time.Millisecond))
	want := map[string]int{"decision ci source_denied": 10, "decision ci signature_mismatch": 10, "decision shop source_denied": 10}
	if diff := cmp.Diff(want, summary(t, &j)); diff != "" {
		t.Errorf("in the first second (-want +got):\n%s", diff)
	}
	decide(1, flooding("shop", policy.SourceDenied), noon.Add(time.Second))
	want["suppressed ci source_denied"], want["suppressed ci signature_mismatch"], want["decision shop source_denied"] = 15, 1, 11
	if diff := cmp.Diff(want, summary(t, &j)); diff != "" {
		t.Errorf("in the next second (-want +got):\n%s", diff)
	}
	decide(13, flooding("", policy.NoPolicy), noon.Add(time.Second))
	l.flush(noon)
	l.flush(noon) // tells nothing twice
	want["decision  no_policy"], want["suppressed  no_policy"] = 10, 3
	if diff := cmp.Diff(want, summary(t, &j)); diff != "" {
		t.Errorf("at the end (-want +got):\n%s", diff)
	}
}

// The end of a flood is told within two seconds, although no denial follows it, and what was counted when the log ends.
func TestFloodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		m := NewMetrics("test")
		l := newDecisionLog(&Config{Logger: j.logger(), Metrics: m})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.run(ctx, time.Now) })
		decide := func(n int) {
			for range n {
				l.decided(ctx, flooding("ci", policy.SourceDenied), &policy.Request{}, 0, time.Now())
			}
		}
		decide(25)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want := map[string]int{"decision ci source_denied": 10, "suppressed ci source_denied": 15}
		if diff := cmp.Diff(want, summary(t, &j)); diff != "" {
			t.Errorf("after the flood (-want +got):\n%s", diff)
		}
		decide(12)
		stop()
		running.Wait()
		if got := series(t, m)["hookauthz_log_suppressed_total"]; got != 17 {
			t.Errorf("%v lines are counted, want 17", got)
		}
	})
}

// A call that is a little late belongs to the second that is counted; a clock that was set back starts a new one.
func TestFloodAndClock(t *testing.T) {
	var j journal
	l := newDecisionLog(&Config{Logger: j.logger()})
	for i := range 40 { // two goroutines on either side of a second
		l.decided(t.Context(), flooding("ci", policy.SourceDenied), &policy.Request{}, 0, noon.Add(-time.Duration(i%2)*time.Second))
	}
	if got := summary(t, &j)["decision ci source_denied"]; got > 11 {
		t.Errorf("%d lines around one second", got)
	}
	l.decided(t.Context(), flooding("shop", policy.SourceDenied), &policy.Request{}, 0, noon.Add(-time.Hour))
	l.decided(t.Context(), flooding("ci", policy.SourceDenied), &policy.Request{}, 0, noon.Add(-time.Hour))
	got := summary(t, &j)
	if got["decision shop source_denied"] != 1 || got["decision ci source_denied"]+got["suppressed ci source_denied"] != 41 {
		t.Errorf("after the clock was set back: %v", got)
	}
}

// Memory of floods is that of one second, whatever endpoints come and go.
func TestFloodMemory(t *testing.T) {
	l := newDecisionLog(&Config{Logger: slog.New(slog.DiscardHandler).With()}) // discarded lines are not even counted
	l.logger = (&journal{}).logger()
	for i := range 100 {
		l.decided(t.Context(), flooding(fmt.Sprint("endpoint-", i), policy.SourceDenied), &policy.Request{}, 0, noon.Add(time.Duration(i)*time.Second))
	}
	if len(l.floods) != 1 {
		t.Errorf("%d floods are remembered", len(l.floods))
	}
	for i := range 2 * maxShares {
		l.share(fmt.Sprint("endpoint-", i), 100)
	}
	if len(l.allowed) > maxShares {
		t.Errorf("%d shares are remembered", len(l.allowed))
	}
}

// Who has proved itself is written each time.
func TestVerifiedIsNotSampled(t *testing.T) {
	var j journal
	l := newDecisionLog(&Config{Logger: j.logger()})
	d := flooding("ci", policy.RateLimited)
	d.Verification = "valid"
	for range 30 {
		l.decided(t.Context(), d, &policy.Request{}, 0, noon)
	}
	if got := len(j.lines(t)); got != 30 {
		t.Errorf("%d lines of 30", got)
	}
}

// Shadow mode lets the unverified through, and they are a flood as much as if they were denied.
func TestShadowFlood(t *testing.T) {
	var j journal
	l := newDecisionLog(&Config{Logger: j.logger()})
	d := &policy.Decision{Outcome: policy.Allow, Reason: policy.Shadow, Shadow: policy.SignatureMissing, Endpoint: "ci", LogShare: 1000}
	for range 30 {
		l.decided(t.Context(), d, &policy.Request{}, 0, noon)
	}
	l.flush(noon)
	if diff := cmp.Diff(map[string]int{"decision ci signature_missing": 10, "suppressed ci signature_missing": 20}, summary(t, &j)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of allowed deliveries the share of the policy is written, the first one among them. Denials always are.
func TestLogShare(t *testing.T) {
	for share, want := range map[int]int{0: 100, 1: 100, 2: 50, 100: 1, 33: 4, 1000: 1} {
		t.Run(fmt.Sprint("1 of ", share), func(t *testing.T) {
			var j journal
			l := newDecisionLog(&Config{Logger: j.logger()})
			allowed := &policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "ci", Verification: "valid", LogShare: share}
			for range 100 {
				l.decided(t.Context(), allowed, &policy.Request{}, 0, noon)
			}
			other := *allowed
			other.Endpoint = "shop"
			l.decided(t.Context(), &other, &policy.Request{}, 0, noon)
			denied := flooding("ci", policy.Replayed)
			denied.Verification, denied.LogShare = "valid", share
			l.decided(t.Context(), denied, &policy.Request{}, 0, noon)
			if diff := cmp.Diff(map[string]int{"decision ci ok": want, "decision shop ok": 1, "decision ci replayed": 1}, summary(t, &j)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// No line of any decision holds a secret, a signature, a body, a query or a header that nobody asked for.
func TestLogTellsNoSecrets(t *testing.T) {
	var j journal
	var forbidden []string
	checks := 1 // the panic
	for _, form := range headerForms {
		for _, tt := range checkTests {
			checks += tt.before + 1
			set := policies(t, tt.yaml)
			config := policy.EngineConfig{Store: tt.store}
			if tt.store == nil {
				config.Store = newStore()
			}
			conn := dial(t, Config{Decider: policy.NewEngine(set, config), Logger: j.logger(), Metrics: NewMetrics("test")})
			d := tt.delivery(t, set)
			d.path += "?password=of-the-query"
			d.add("authorization", "Bearer of-the-header").add("cookie", "session=of-the-cookie")
			for range tt.before + 1 {
				d.id += "+"
				ask(t, conn, d.request(form.merged))
			}
			for _, name := range []string{"x-hub-signature-256", "stripe-signature"} {
				if value := d.value(name); value != "" && utf8.ValidString(value) {
					forbidden = append(forbidden, value, value[len(value)/2:])
				}
			}
		}
	}
	conn := dial(t, Config{Logger: j.logger(), Decider: decides(func(_ context.Context, r *policy.Request) policy.Decision {
		panic(fmt.Sprintf("%v %s", r.Headers, r.Body))
	})})
	d := signed(t, policies(t, webhook(githubScheme)), noon, pullRequest).add("authorization", "Bearer of-the-header")
	ask(t, conn, d.request(false))

	forbidden = append(forbidden, pullRequest, "opened", "of-the-query", "of-the-header", "of-the-cookie", d.value("x-hub-signature-256"))
	for _, secret := range environment {
		forbidden = append(forbidden, secret, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	j.wait(t, `"msg":"decision"`, checks)
	j.wait(t, `"msg":"panic"`, 1)
	text := j.String()
	for _, s := range slices.Compact(slices.Sorted(slices.Values(forbidden))) {
		if s != "" && strings.Contains(text, s) {
			t.Errorf("the log holds %q", s)
		}
	}
}
