package extauthz

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
)

// oddReasons are all reasons and some numbers that are none.
func oddReasons() []policy.Reason {
	all := policy.Reasons()
	return append(all, policy.Reason(len(all)), policy.Reason(len(all)+1), 255)
}

var oddOutcomes = []policy.Outcome{policy.Deny, policy.Allow, policy.Answer, 3, 4, 255}

var oddStatuses = []int{math.MinInt32, -200, -1, 0, 1, 99, 100, 199, 200, 201, 204, 208, 209, 226, 299, 302, 399, 400, 401, 403, 404, 405, 409, 413, 415, 429, 451, 499, 500, 503, 511, 599, 600, 1000,
	math.MaxInt32}

// mayAllow lists the only decisions that may let a delivery through.
func mayAllow(d *policy.Decision) bool {
	if d.Outcome != policy.Allow {
		return false
	}
	switch d.Reason {
	case policy.OK, policy.Duplicate, policy.Degraded:
		return true
	case policy.Shadow:
		switch d.Shadow {
		case policy.InternalError, policy.OK, policy.Shadow, policy.Degraded:
			return false
		}
		return true
	}
	return false
}

// checkReply looks at what must hold of every reply, whatever the decision is.
func checkReply(t rapid.TB, d policy.Decision, m *authv3.CheckResponse) {
	t.Helper()
	if _, err := proto.Marshal(m); err != nil {
		t.Fatalf("%+v: the reply cannot be sent: %v", d, err)
	}
	if err := m.ValidateAll(); err != nil {
		t.Fatalf("%+v: Envoy's own rules refuse the reply: %v", d, err)
	}
	metadata := m.GetDynamicMetadata().GetFields()
	outcome := metadata["decision"].GetStringValue()
	if metadata["reason"].GetStringValue() == "" || outcome == "" {
		t.Fatalf("%+v: no decision or no reason in %v", d, metadata)
	}
	if mayAllow(&d) {
		if m.GetStatus() == nil || m.GetStatus().GetCode() != 0 || m.GetOkResponse() == nil || outcome != "allow" {
			t.Fatalf("%+v: not an allow: %v", d, m)
		}
		return
	}
	denied := m.GetDeniedResponse()
	if m.GetStatus().GetCode() == 0 || denied == nil || outcome == "allow" {
		t.Fatalf("%+v: Envoy would let it through: %v", d, m)
	}
	status := int(denied.GetStatus().GetCode())
	if d.Outcome == policy.Answer && outcome == "answer" {
		if status != d.Status || (status > 299 && (d.Reason != policy.Handshake || status != 404)) || status < 200 {
			t.Fatalf("%+v: an answer with status %d", d, status)
		}
		return
	}
	if status < 400 || status > 599 || outcome != "deny" {
		t.Fatalf("%+v: a denial with status %d", d, status)
	}
}

// Envoy allows on a missing status or status 0, so everything but an allow in due form carries another and its HTTP status.
func TestRespondAllowsOnlyAllows(t *testing.T) {
	allows, answers := 0, 0
	for _, outcome := range oddOutcomes {
		for _, reason := range oddReasons() {
			shadows := []policy.Reason{policy.InternalError}
			if reason == policy.Shadow {
				shadows = oddReasons()
			}
			for _, shadow := range shadows {
				for _, status := range append(oddStatuses, reason.Status()) {
					d := policy.Decision{Outcome: outcome, Reason: reason, Shadow: shadow, Status: status, Endpoint: "hook"}
					m := respondMessage(t, &d, &policy.Request{})
					checkReply(t, d, m)
					switch {
					case m.GetStatus().GetCode() == 0:
						allows++
					case m.GetDeniedResponse().GetStatus().GetCode() < 300:
						answers++
					}
				}
			}
		}
	}
	if allows == 0 || answers == 0 {
		t.Errorf("%d allows and %d answers: the test looked at neither", allows, answers)
	}
	checkReply(t, policy.Decision{}, respondMessage(t, &policy.Decision{}, &policy.Request{}))
}

// The decision that is reported is the one that was answered.
func TestCheckedAgreesWithRespond(t *testing.T) {
	for _, outcome := range oddOutcomes {
		for _, reason := range oddReasons() {
			d := policy.Decision{Outcome: outcome, Reason: reason, Status: reason.Status(), Shadow: policy.RateLimited, Endpoint: "hook", Revision: "r"}
			safe := checked(d)
			got := respondMessage(t, &d, &policy.Request{}).GetDynamicMetadata().GetFields()["decision"].GetStringValue()
			if got != safe.Outcome.String() {
				t.Errorf("%v for %v: answered as %s, reported as %s", outcome, reason, got, safe.Outcome)
			}
			if safe.Endpoint != "hook" || safe.Revision != "r" {
				t.Errorf("%v for %v: reported for endpoint %q of revision %q", outcome, reason, safe.Endpoint, safe.Revision)
			}
		}
	}
}

// anyText draws what a sender might send: any bytes, long ones too.
func anyText() *rapid.Generator[string] {
	return rapid.Map(rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 600),
		rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
		rapid.SampledFrom([][]byte{nil, []byte("push"), []byte("\xff"), []byte(strings.Repeat("ä", 200)), []byte(strings.Repeat("a\xff", 200)), []byte("a\r\nx-admin: 1"), []byte("\u2028\x7f\u0085")}),
	), func(b []byte) string { return string(b) })
}

// Whatever a sender writes into ids, events and headers, the reply can be sent, sets only printable values and never removes what it sets.
func TestRespondSends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := policy.Decision{
			Outcome:          rapid.SampledFrom(oddOutcomes).Draw(t, "outcome"),
			Reason:           rapid.SampledFrom(oddReasons()).Draw(t, "reason"),
			Shadow:           rapid.SampledFrom(oddReasons()).Draw(t, "shadow"),
			Status:           rapid.SampledFrom(oddStatuses).Draw(t, "status"),
			RetryAfter:       time.Duration(rapid.Int64().Draw(t, "retry after")),
			Endpoint:         anyText().Draw(t, "endpoint"),
			Scheme:           anyText().Draw(t, "scheme"),
			SecretVersion:    anyText().Draw(t, "version"),
			DeliveryID:       anyText().Draw(t, "id"),
			DeliveryIDSigned: rapid.Bool().Draw(t, "id signed"),
			Event:            anyText().Draw(t, "event"),
			EventSigned:      rapid.Bool().Draw(t, "event signed"),
			Duplicate:        rapid.Bool().Draw(t, "duplicate"),
			Degraded:         rapid.Bool().Draw(t, "degraded"),
			Reservation:      anyText().Draw(t, "reservation"),
			Revision:         anyText().Draw(t, "revision"),
			Reply:            policy.Reply{ContentType: anyText().Draw(t, "type"), Body: []byte(anyText().Draw(t, "body"))},
		}
		switch rapid.IntRange(0, 3).Draw(t, "form") { // most decisions are as they should be
		case 0:
			d.Outcome, d.Reason = policy.Allow, rapid.SampledFrom([]policy.Reason{policy.OK, policy.Shadow, policy.Duplicate, policy.Degraded}).Draw(t, "allow")
		case 1:
			d.Outcome, d.Status = policy.Deny, d.Reason.Status()
		case 2:
			d.Outcome, d.Reason, d.Status = policy.Answer, policy.Handshake, 200
		}
		spelling := rapid.Custom(func(t *rapid.T) string {
			name := []byte(rapid.SampledFrom(ourHeaders[:]).Draw(t, "name"))
			for i := range name {
				if name[i] == '-' && rapid.Bool().Draw(t, "underscore") {
					name[i] = '_'
				}
			}
			return string(name)
		})
		r := &policy.Request{RequestID: anyText().Draw(t, "request id")}
		for _, name := range rapid.SliceOf(rapid.OneOf(spelling, anyText())).Draw(t, "headers") {
			r.Headers = append(r.Headers, policy.Header{Name: name, Value: "forged"})
		}
		m := respondMessage(t, &d, r)
		checkReply(t, d, m)
		for name, v := range m.GetDynamicMetadata().GetFields() {
			if s := v.GetStringValue(); len(s) > maxValue {
				t.Fatalf("metadata %s has %d bytes", name, len(s))
			}
		}
		if ok := m.GetOkResponse(); ok != nil {
			checkForwarded(t, &d, ok, r)
		}
	})
}

func checkForwarded(t rapid.TB, d *policy.Decision, ok *authv3.OkHttpResponse, r *policy.Request) {
	t.Helper()
	removed := ok.GetHeadersToRemove()
	var names []string
	for _, o := range ok.GetHeaders() {
		name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		names = append(names, name)
		if value == "" || len(value) > 256 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%s is set to %q", name, value)
		}
		if slices.Contains(removed, name) {
			t.Fatalf("%s is set and removed", name)
		}
		if d.Reason == policy.Shadow && name != headerShadowReason {
			t.Fatalf("a delivery in shadow mode carries %s", name)
		}
	}
	for _, name := range removed {
		if !strings.HasPrefix(strings.ReplaceAll(name, "_", "-"), "x-hookauthz-") {
			t.Fatalf("%q is removed, which is not ours", name)
		}
	}
	for _, h := range r.Headers {
		if slices.Contains(ourHeaders[:], strings.ReplaceAll(h.Name, "_", "-")) && !slices.Contains(removed, h.Name) && !slices.Contains(names, h.Name) {
			t.Fatalf("the forged %q stays", h.Name)
		}
	}
}

// Every status that we send is one that Envoy knows.
func TestStatusesAreKnownToEnvoy(t *testing.T) {
	for _, r := range policy.Reasons() {
		if _, known := typev3.StatusCode_name[int32(r.Status())]; !known {
			t.Errorf("%s has the status %d", r, r.Status())
		}
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		name   string
		status int
		after  time.Duration
		want   string
	}{
		{"exact", 429, 30 * time.Second, "30"},
		{"rounded up", 429, 30*time.Second + 1, "31"},
		{"at once", 429, 0, "1"},
		{"unavailable", 503, 0, "1"},
		{"negative", 503, -time.Hour, "1"},
		{"under a second", 503, time.Nanosecond, "1"},
		{"for ever", 503, math.MaxInt64, "9223372037"},
		{"never again", 403, 0, ""},
		{"our fault", 500, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := retryAfter(tt.status, tt.after); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestQuotable(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "push", "push"},
		{"at the cap", strings.Repeat("x", 256), strings.Repeat("x", 256)},
		{"over the cap", strings.Repeat("x", 257), strings.Repeat("x", 256)},
		{"cut between runes", strings.Repeat("x", 255) + "ä", strings.Repeat("x", 255)},
		{"other letters", "größe", "größe"},
		{"newline", "a\nb", "a\uFFFDb"},
		{"escape", "\x1b[2J", "\uFFFD[2J"},
		{"delete and C1", "\x7f\u0085", "\uFFFD\uFFFD"},
		{"line separators", "\u2028\u2029", "\uFFFD\uFFFD"},
		{"what turns the direction", "\u202egnp\u2066\u200f", "\uFFFDgnp\uFFFD\uFFFD"},
		{"not UTF-8", "a\xffb", "a\uFFFDb"},
		{"NUL", "\x00", "\uFFFD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := quotable(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		if got := quotable(anyText().Draw(t, "text")); len(got) > 256 || !utf8.ValidString(got) {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
	})
}

// An answer's text goes out as it is, under its type, and never as something that a browser would run.
func TestAnswer(t *testing.T) {
	tests := []struct {
		name string
		d    policy.Decision
		want reply
	}{
		{"handshake", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 200, Reply: policy.Reply{ContentType: "text/plain", Body: []byte("challenge-1")}},
			reply{Code: 7, Status: 200, Type: "text/plain", Nosniff: "nosniff", Text: "challenge-1"}},
		{"no type", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 200, Reply: policy.Reply{Body: []byte("<script>")}},
			reply{Code: 7, Status: 200, Type: "text/plain", Nosniff: "nosniff", Text: "<script>"}},
		{"no text", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 204}, reply{Code: 7, Status: 204, Type: "text/plain", Nosniff: "nosniff"}},
		{"wrong code", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 404}, reply{Code: 7, Status: 404, Type: "text/plain", Nosniff: "nosniff"}},
		{"wrong code with a text that cannot be sent", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 404, Reply: policy.Reply{Body: []byte("\xff")}},
			reply{Code: 7, Status: 500, Type: "application/json", Error: "internal_error", Message: "Internal error"}},
		{"not found, for a duplicate", policy.Decision{Outcome: policy.Answer, Reason: policy.Duplicate, Status: 404},
			reply{Code: 7, Status: 500, Type: "application/json", Error: "internal_error", Message: "Internal error"}},
		{"text that cannot be sent", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 200, Reply: policy.Reply{Body: []byte("\xff")}},
			reply{Code: 7, Status: 500, Type: "application/json", Error: "internal_error", Message: "Internal error"}},
		{"type that would split the header", policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Status: 200, Reply: policy.Reply{ContentType: "text/plain\r\nx: y"}},
			reply{Code: 7, Status: 500, Type: "application/json", Error: "internal_error", Message: "Internal error"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, replyOf(t, respondMessage(t, &tt.d, &policy.Request{}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
