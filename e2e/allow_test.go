package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// maxBody is the example's max_request_bytes.
const maxBody = 1 << 20

// allBytes holds every byte, '!' several times and bytes that are no UTF-8.
var allBytes = func() []byte {
	b := []byte("!\xff!\xfe\xed\xa0\x80!")
	for i := range 256 {
		b = append(b, byte(i))
	}
	return b
}()

// Valid deliveries reach the application byte for byte, marked as what they are.
func TestAllowed(t *testing.T) {
	s := setup(t)
	now := time.Now()
	zipped := new(bytes.Buffer)
	z := gzip.NewWriter(zipped)
	io.WriteString(z, `{"zipped":true}`)
	z.Close()
	raw := func(body []byte) delivery { return guide("/e2e/raw", secret, body) }
	upper := raw([]byte("upper"))
	upper.Headers = []header{{"X-Webhook-Signature", strings.ToUpper(upper.Headers[0][1])}}
	chunked := raw(slices.Repeat(allBytes, 300))
	chunked.Chunked = true
	query := raw([]byte("query"))
	query.Path += "?a=/webhooks/github&b=%2f..%00"
	port := raw([]byte("port"))
	port.Host = "hooks.example.com:8443"

	tests := []struct {
		name, endpoint, version string
		d                       delivery
	}{
		{"github self-test pair", "github", "2026-10", github},
		{"stripe", "stripe", "2026-10", stripe("/webhooks/stripe", stripeSecret, now, []byte(`{"type":"invoice.paid"}`))},
		{"stripe with the older secret", "stripe", "2026-04", stripe("/webhooks/stripe", stripeOld, now, []byte(`{"type":"older"}`))},
		{"stripe 4 minutes old", "stripe", "2026-10", stripe("/webhooks/stripe", stripeSecret, now.Add(-4*time.Minute), []byte(`{"type":"old"}`))},
		{"slack", "slack", "1", slack(slackSecret, now, []byte("token=x&command=/deploy"))},
		{"standard webhooks", "orders", "1", standard("/webhooks/orders", ordersSecret, "msg_1", now, []byte(`{"type":"order.made"}`))},
		{"gitlab token", "gitlab", "1", delivery{Path: "/webhooks/gitlab", Body: []byte("{}"), Headers: []header{{"X-Gitlab-Token", gitlabSecret}}}},
		{"the guide's own scheme", "partner", "1", asJSON(guide("/webhooks/partner", partnerSecret, []byte("{}")))},
		{"every byte there is", "raw", "1", raw(allBytes)},
		{"chunked", "raw", "1", chunked},
		{"exactly the maximum", "raw", "1", raw(slices.Repeat([]byte{'!', 0xff}, maxBody/2))},
		{"gzip as it was sent", "raw", "1", raw(zipped.Bytes()).With(header{"Content-Encoding", "gzip"})},
		{"a header that is no UTF-8", "raw", "1", raw([]byte("x")).With(header{"X-Note", "caf\xe9"})},
		{"upper-case hex", "raw", "1", upper},
		{"query", "raw", "1", query},
		{"host with a port", "raw", "1", port},
		{"no body where that may be", "empty", "1", guide("/e2e/empty", secret, nil)},
	}
	for _, tt := range tests {
		for _, http2 := range []bool{false, true} {
			d := tt.d
			if d.Chunked && http2 {
				continue // HTTP/2 has no chunks
			}
			name := tt.name + " over HTTP/1.1"
			if http2 {
				name = tt.name + " over HTTP/2"
				if tt.endpoint != "raw" && tt.endpoint != "gitlab" && tt.endpoint != "empty" {
					continue // it is remembered from the first time
				}
			}
			scenario(t, name, func(t *testing.T) {
				d.HTTP2 = http2
				got := passes(t, s, d, "ok")
				if got.Path != d.Path || got.Method != http.MethodPost {
					t.Errorf("the application got %s %s", got.Method, got.Path)
				}
				for name, want := range map[string]string{"X-Hookauthz-Endpoint": tt.endpoint, "X-Hookauthz-Secret-Version": tt.version} {
					if diff := cmp.Diff(got.Headers[name], []string{want}); diff != "" {
						t.Errorf("%s (-got +want):\n%s", name, diff)
					}
				}
			})
		}
	}

	for _, http2 := range []bool{false, true} {
		scenario(t, map[bool]string{false: "trailers over HTTP/1.1", true: "trailers over HTTP/2"}[http2]+" are no headers", func(t *testing.T) {
			d := raw(allBytes)
			d.Chunked, d.HTTP2 = true, http2
			d.Trailers = []header{{"X-Hookauthz-Endpoint", "spoofed"}, {"X-Hookauthz-Duplicate", "true"}, {"X-Webhook-Signature", "spoofed"}}
			got := passes(t, s, d, "ok")
			if endpoint := got.Headers["X-Hookauthz-Endpoint"]; len(endpoint) != 1 || endpoint[0] != "raw" || got.Headers["X-Hookauthz-Duplicate"] != nil {
				t.Errorf("headers at the application: %v", got.Headers)
			}
			d.Trailers = d.Headers // the signature comes behind the body
			d.Headers = nil
			denied(t, s, d, 401, "signature_missing")
		})
	}

	scenario(t, "two at once on one connection over HTTP/2", func(t *testing.T) {
		transport := s.Transport(true, "")
		defer transport.CloseIdleConnections()
		errs := make(chan error)
		for i := range 2 {
			go func() {
				d := raw(fmt.Appendf(nil, "stream %d", i))
				r, err := sendBy(t.Context(), transport, s, d)
				if err == nil && r.Status != http.StatusOK {
					err = fmt.Errorf("status %d", r.Status)
				}
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})

	scenario(t, "expect 100-continue", func(t *testing.T) {
		d := raw(allBytes)
		agent := newAgent()
		conn := dialTLS(t, s, "hooks")
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n%s: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
			d.Path, "hooks.example.com", agent, d.Headers[0][0], d.Headers[0][1], len(d.Body))
		if r := readResponse(t, conn); r.StatusCode != http.StatusContinue {
			t.Fatalf("status %d before the body, want 100", r.StatusCode)
		}
		if _, err := conn.Write(d.Body); err != nil {
			t.Fatal(err)
		}
		if r := readResponse(t, conn); r.StatusCode != http.StatusOK {
			t.Fatalf("status %d, want 200", r.StatusCode)
		}
		got := arrived(t, s, agent)
		if len(got) != 1 || !bytes.Equal(got[0].Body, d.Body) {
			t.Errorf("the application got %d deliveries, want the one that was sent", len(got))
		}
	})
}

// What the application is told about a delivery comes from hookauthz only.
func TestSpoofedHeaders(t *testing.T) {
	s := setup(t)
	names := []string{"endpoint", "scheme", "secret-version", "delivery-id", "event", "duplicate", "shadow-reason", "degraded"}
	spoofed := func(write func(name string) string) delivery {
		d := guide("/e2e/raw", secret, []byte("spoofed"))
		for _, name := range names {
			d = d.With(header{write("x-hookauthz-" + name), "spoofed"}, header{write("x-hookauthz-" + name), "spoofed again"})
		}
		return d
	}
	check := func(t *testing.T, d delivery) {
		got := passes(t, s, d, "ok")
		want := http.Header{"X-Hookauthz-Endpoint": {"raw"}, "X-Hookauthz-Scheme": {"x-webhook-signature"}, "X-Hookauthz-Secret-Version": {"1"}}
		ours := make(http.Header)
		for name, values := range got.Headers {
			// The client's address is Envoy's word, and is overwritten by it.
			spelt := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
			if strings.HasPrefix(spelt, "x-hookauthz-") && spelt != "x-hookauthz-client-ip" {
				ours[name] = values
			}
		}
		if diff := cmp.Diff(ours, want); diff != "" {
			t.Errorf("headers at the application (-got +want):\n%s", diff)
		}
	}
	for _, http2 := range []bool{false, true} {
		proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2]
		scenario(t, "with hyphens over "+proto, func(t *testing.T) {
			d := spoofed(strings.ToLower)
			d.HTTP2 = http2
			check(t, d)
		})
		scenario(t, "in mixed case over "+proto, func(t *testing.T) {
			d := spoofed(func(name string) string { return strings.ReplaceAll(name, "hookauthz", "HookAuthz") })
			if http2 {
				d = spoofed(strings.ToLower) // HTTP/2 has lower case only
			}
			d.HTTP2 = http2
			check(t, d)
		})
		scenario(t, "with dots, which PHP takes for underscores, over "+proto, func(t *testing.T) {
			d := spoofed(func(name string) string { return strings.ReplaceAll(name, "-", ".") })
			d.HTTP2 = http2
			check(t, d)
		})
		for _, spelling := range []struct {
			name  string
			write func(string) string
		}{
			{"with underscores", func(name string) string { return strings.ReplaceAll(name, "-", "_") }},
			{"with one underscore", func(name string) string { return strings.Replace(name, "-", "_", 1) }},
			{"with an underscore at the end", func(name string) string {
				i := strings.LastIndex(name, "-")
				return name[:i] + "_" + name[i+1:]
			}},
		} {
			d := spoofed(spelling.write)
			d.HTTP2 = http2
			scenario(t, spelling.name+" over "+proto+", refused by Envoy", func(t *testing.T) {
				// Envoy reads no further than the first such name, so its log does not know the sender. Over HTTP/2 it resets the stream.
				r, err := trySend(t.Context(), s, d)
				if r.Status != http.StatusBadRequest && !(http2 && err != nil) {
					t.Errorf("status %d, %v; want 400", r.Status, err)
				}
				if got := arrived(t, s, r.agent); len(got) != 0 {
					t.Error("it reached the application")
				}
			})
			scenario(t, spelling.name+" over "+proto+", where Envoy lets them through", func(t *testing.T) {
				d := d
				d.Listener = "underscores"
				check(t, d)
			})
		}
	}

	scenario(t, "x-envoy headers change nothing", func(t *testing.T) {
		d := guide("/e2e/raw", secret, []byte("x-envoy")).With(
			header{"X-Envoy-Auth-Partial-Body", "true"}, header{"X-Envoy-Original-Path", "/webhooks/github"}, header{"X-Envoy-Internal", "true"},
			header{"X-Envoy-External-Address", "203.0.113.7"}, header{"X-Envoy-Decorator-Operation", "x"}, header{"X-Request-Id", "mine"},
			header{"X-Envoy-Expected-Rq-Timeout-Ms", "1"}, header{"X-Envoy-Retry-On", "5xx"})
		got := passes(t, s, d, "ok")
		if got.Headers.Get("X-Request-Id") == "mine" {
			t.Error("the sender chose the request id")
		}
	})
	scenario(t, "an unsigned x-envoy-auth-partial-body vouches for no body", func(t *testing.T) {
		d := guide("/e2e/raw", secret, nil).With(header{"X-Envoy-Auth-Partial-Body", "false"})
		denied(t, s, d, http.StatusBadRequest, "body_missing")
	})
}
