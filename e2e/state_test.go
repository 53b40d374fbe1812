package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// Rate limits count verified deliveries, exactly.
func TestRates(t *testing.T) {
	s := setup(t)
	scenario(t, "of 100 at once the burst passes", func(t *testing.T) {
		// testdata/policies: 24/day, burst 20.
		const sent, burst = 100, 20
		transports := []*http.Transport{s.Transport(false, ""), s.Transport(true, "")}
		results := make(chan result)
		for i := range sent {
			go func() {
				d := guide("/e2e/burst", secret, fmt.Appendf(nil, "delivery %d", i))
				d.HTTP2 = i%2 == 1
				r, err := sendBy(t.Context(), transports[i%2], s, d)
				if err != nil {
					t.Error(err)
				}
				results <- r
			}()
		}
		statuses, forwarded := make(map[int]int), 0
		for range sent {
			r := <-results
			statuses[r.Status]++
			forwarded += len(arrived(t, s, r.agent))
			// A check that began a moment before the first one that counted has that moment longer to wait, which is rounded up.
			if after, err := strconv.Atoi(r.Header.Get("Retry-After")); r.Status == 429 && (err != nil || after < 1 || after > 3601) {
				t.Errorf("retry-after %q, want 1 to 3601 seconds", r.Header.Get("Retry-After"))
			}
		}
		for _, tr := range transports {
			tr.CloseIdleConnections()
		}
		if diff := cmp.Diff(statuses, map[int]int{200: burst, 429: sent - burst}); diff != "" {
			t.Errorf("statuses (-got +want):\n%s", diff)
		}
		if forwarded != burst {
			t.Errorf("%d reached the application, want %d", forwarded, burst)
		}
		denied(t, s, guide("/e2e/burst", secret, []byte("one more")), 429, "rate_limited")
		denied(t, s, guide("/e2e/burst", "guessed", []byte("a forged one")), 401, "signature_mismatch")
	})
	scenario(t, "one address spends only its own", func(t *testing.T) {
		d := guide("/e2e/per-address", secret, []byte("x"))
		d.From = "127.1.3.1"
		passes(t, s, d, "ok")
		denied(t, s, d.With(header{"X-Forwarded-For", "203.0.113.99"}), 429, "rate_limited")
		d.From = "127.1.3.2"
		passes(t, s, d, "ok")
	})
}

// An address that fails too often is told so; nobody can lock the sender out.
func TestFailures(t *testing.T) {
	s := setup(t)
	scenario(t, "too many failures", func(t *testing.T) {
		forged := guide("/e2e/failing", "guessed", []byte("x"))
		for range 3 {
			denied(t, s, forged, 401, "signature_mismatch")
		}
		denied(t, s, forged, 429, "too_many_failures")
		passes(t, s, guide("/e2e/failing", secret, []byte("x")), "ok")
		forged.From = "127.1.4.1"
		denied(t, s, forged, 401, "signature_mismatch")
	})
	scenario(t, "guessing a token", func(t *testing.T) {
		guess := func(token, from string) delivery {
			return delivery{Path: "/e2e/guessing", Body: []byte("x"), Headers: []header{{"X-Gitlab-Token", token}}, From: from}
		}
		for i := range 3 {
			denied(t, s, guess(fmt.Sprint("guess ", i), "127.1.4.2"), 401, "signature_mismatch")
		}
		denied(t, s, guess("guess 4", "127.1.4.2"), 429, "too_many_failures")
		denied(t, s, guess(secret, "127.1.4.2"), 429, "too_many_failures")
		passes(t, s, guess(secret, "127.1.4.3"), "ok")
	})
}

// A delivery that was seen before is known by what was signed.
func TestReplays(t *testing.T) {
	s := setup(t)
	scenario(t, "refused", func(t *testing.T) {
		d := guide("/e2e/once", secret, []byte("refused"))
		passes(t, s, d, "ok")
		denied(t, s, d, 409, "replayed")
		d.Headers = []header{{"x-webhook-signature", strings.ToUpper(d.Headers[0][1])}}
		denied(t, s, d, 409, "replayed")
		denied(t, s, d.With(header{"X-Delivery-Id", "new"}), 409, "replayed")
		passes(t, s, guide("/e2e/once", secret, []byte("another")), "ok")
	})
	scenario(t, "a forged one burns nothing", func(t *testing.T) {
		d := guide("/e2e/once", secret, []byte("burnt?"))
		forged := d
		forged.Headers = []header{{"X-Webhook-Signature", hexMAC("guessed", "burnt?")}}
		denied(t, s, forged, 401, "signature_mismatch")
		passes(t, s, d, "ok")
	})
	scenario(t, "of 32 at once one passes", func(t *testing.T) {
		d := guide("/e2e/once", secret, []byte("at once"))
		results := make(chan int)
		for range 32 {
			go func() {
				r, err := trySend(t.Context(), s, d)
				if err != nil {
					t.Error(err)
				}
				results <- r.Status
			}()
		}
		statuses := make(map[int]int)
		for range 32 {
			statuses[<-results]++
		}
		if diff := cmp.Diff(statuses, map[int]int{200: 1, 409: 31}); diff != "" {
			t.Errorf("statuses (-got +want):\n%s", diff)
		}
	})
	scenario(t, "with a timestamp", func(t *testing.T) {
		now := time.Now()
		d := stripe("/e2e/stamped", secret, now, []byte(`{"type":"replayed"}`))
		passes(t, s, d, "ok")
		denied(t, s, d, 409, "replayed")
		passes(t, s, stripe("/e2e/stamped", secret, now.Add(-time.Second), []byte(`{"type":"replayed"}`)), "ok")
	})
	scenario(t, "tagged", func(t *testing.T) {
		d := delivery{Path: "/webhooks/github", Body: []byte("tagged"), Headers: []header{{"X-Hub-Signature-256", "sha256=" + hexMAC(githubSecret, "tagged")}}}
		if got := passes(t, s, d, "ok").Headers.Get("X-Hookauthz-Duplicate"); got != "" {
			t.Errorf("duplicate %q the first time", got)
		}
		if got := passes(t, s, d, "duplicate").Headers.Get("X-Hookauthz-Duplicate"); got != "true" {
			t.Errorf("duplicate %q the second time, want true", got)
		}
	})
	scenario(t, "resent after the application failed", func(t *testing.T) {
		d := guide("/e2e/confirmed", secret, []byte("resent"))
		r := send(t, s, d.With(header{"X-App-Status", "503"}))
		if r.Status != 503 || len(arrived(t, s, r.agent)) != 1 {
			t.Fatalf("status %d, want the application's own 503", r.Status)
		}
		retryUntil(t, s, d, 200)
		retryUntil(t, s, d, 409)
	})
	scenario(t, "resent after the application refused", func(t *testing.T) {
		d := guide("/e2e/confirmed", secret, []byte("refused by the application"))
		if r := send(t, s, d.With(header{"X-App-Status", "422"})); r.Status != 422 {
			t.Fatalf("status %d, want the application's own 422", r.Status)
		}
		retryUntil(t, s, d, 409)
	})
	scenario(t, "acknowledged", func(t *testing.T) {
		d := guide("/e2e/acknowledged", secret, []byte("acknowledged"))
		passes(t, s, d, "ok")
		var r result
		eventually(t, func() error {
			if r = send(t, s, d); r.Status == 503 {
				return fmt.Errorf("in flight")
			}
			return nil
		})
		if r.Status != 200 || !strings.Contains(string(r.Body), "duplicate") {
			t.Errorf("status %d, body %s", r.Status, r.Body)
		}
		if got := arrived(t, s, r.agent); len(got) != 0 {
			t.Error("it reached the application a second time")
		}
		want := map[string]any{"decision": "answer", "reason": "duplicate"}
		if diff := cmp.Diff(pick(logged(t, s, r.agent), want), want); diff != "" {
			t.Errorf("Envoy's log (-got +want):\n%s", diff)
		}
	})
}

// retryUntil sends a delivery as long as the one before it counts as in flight; then it must get this status.
func retryUntil(t *testing.T, s *stack.Stack, d delivery, status int) {
	t.Helper()
	var r result
	eventually(t, func() error {
		if r = send(t, s, d); r.Status == 503 {
			return fmt.Errorf("in flight")
		}
		return nil
	})
	if r.Status != status {
		t.Fatalf("status %d, want %d; body %s", r.Status, status, r.Body)
	}
}

// Shadow lets through what it would refuse, and says so; it softens no rule about paths and bodies.
func TestShadow(t *testing.T) {
	s := setup(t)
	once := guide("/e2e/shadowed", secret, []byte("shadow"))
	from := once
	from.From = "127.1.1.66"
	stale := guide("/e2e/shadowed", "guessed", []byte("shadow"))
	for _, tt := range []struct {
		name, shadow string
		d            delivery
	}{
		{"wrong signature", "signature_mismatch", stale},
		{"no signature", "signature_missing", delivery{Path: "/webhooks/billing", Body: []byte("x")}},
		{"wrong address", "source_denied", from},
	} {
		scenario(t, tt.name, func(t *testing.T) {
			d := tt.d.With(header{"X-Hookauthz-Endpoint", "spoofed"}, header{"X-Hookauthz-Secret-Version", "spoofed"})
			got := passes(t, s, d, "shadow")
			ours := make(http.Header)
			for name, values := range got.Headers {
				if strings.HasPrefix(name, "X-Hookauthz-") && name != "X-Hookauthz-Client-Ip" {
					ours[name] = values
				}
			}
			if diff := cmp.Diff(ours, http.Header{"X-Hookauthz-Shadow-Reason": {tt.shadow}}); diff != "" {
				t.Errorf("headers at the application (-got +want):\n%s", diff)
			}
		})
	}
	scenario(t, "a valid delivery", func(t *testing.T) {
		d := guide("/e2e/shadowed", secret, []byte("valid")).With(header{"X-Hookauthz-Shadow-Reason", "spoofed"})
		got := passes(t, s, d, "ok")
		if got.Headers.Get("X-Hookauthz-Endpoint") != "shadowed" || got.Headers.Get("X-Hookauthz-Shadow-Reason") != "" {
			t.Errorf("headers at the application: %v", got.Headers)
		}
	})
	scenario(t, "a body that is too large", func(t *testing.T) {
		denied(t, s, guide("/e2e/shadowed", secret, make([]byte, 1025)), 413, "body_too_large")
	})
}

// The sender's address is the one that the policy's rule finds, whatever the sender says.
func TestClientAddress(t *testing.T) {
	s := setup(t)
	d := func(endpoint, from string, forwarded ...string) delivery {
		d := guide("/e2e/"+endpoint, secret, []byte("x"))
		d.From = from
		for _, v := range forwarded {
			d = d.With(header{"X-Forwarded-For", v})
		}
		return d
	}
	for _, tt := range []struct {
		name   string
		d      delivery
		status int // 200: it passes
		reason string
	}{
		{"the peer is allowed", d("peers", "127.1.1.7"), 200, "ok"},
		{"the peer is not, and says otherwise", d("peers", "127.1.9.9", "203.0.113.7"), 403, "source_denied"},
		{"the peer is not, and says so in other headers", d("peers", "127.1.9.9").With(header{"X-Real-Ip", "127.1.1.7"}, header{"Forwarded", "for=127.1.1.7"},
			header{"X-Envoy-External-Address", "127.1.1.7"}, header{"X-Hookauthz-Client-Ip", "127.1.1.7"}), 403, "source_denied"},
		{"a trusted proxy forwards", d("proxied", "127.1.1.8", "203.0.113.7"), 200, "ok"},
		{"two trusted proxies forward", d("proxied", "127.1.1.8", "203.0.113.7, 198.51.100.9"), 200, "ok"},
		{"in two headers", d("proxied", "127.1.1.8", "203.0.113.7", "198.51.100.9"), 200, "ok"},
		{"garbage left of the client", d("proxied", "127.1.1.8", "garbage, 203.0.113.7"), 200, "ok"},
		{"forged left of the client", d("proxied", "127.1.1.8", "203.0.113.7, 192.0.2.1"), 403, "source_denied"},
		{"no proxy that is trusted", d("proxied", "127.1.9.9", "203.0.113.7"), 403, "source_denied"},
		{"every one is a trusted proxy", d("proxied", "127.1.1.8", "198.51.100.9"), 403, "source_unknown"},
		{"the proxy says nothing", d("proxied", "127.1.1.8"), 403, "source_unknown"},
		{"garbage on the way", d("proxied", "127.1.1.8", "203.0.113.7, garbage"), 403, "source_unknown"},
		{"nothing on the way", d("proxied", "127.1.1.8", "203.0.113.7,, 198.51.100.9"), 403, "source_unknown"},
		{"one hop", d("hops", "127.1.1.8", "203.0.113.7"), 200, "ok"},
		{"one hop, more before", d("hops", "127.1.1.8", "192.0.2.1, 203.0.113.7"), 200, "ok"},
		{"one hop, forged before", d("hops", "127.1.1.8", "203.0.113.7, 192.0.2.1"), 403, "source_denied"},
		{"one hop, none there", d("hops", "127.1.1.8"), 403, "source_unknown"},
		{"Envoy's header", d("by-header", "127.1.1.7"), 200, "ok"},
		{"Envoy's header, spoofed", d("by-header", "127.1.9.9").With(header{"X-Hookauthz-Client-Ip", "127.1.1.7"}), 403, "source_denied"},
	} {
		scenario(t, tt.name, func(t *testing.T) {
			if tt.status == 200 {
				passes(t, s, tt.d, tt.reason)
			} else {
				denied(t, s, tt.d, tt.status, tt.reason)
			}
		})
	}
}
