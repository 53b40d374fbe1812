package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is not right is refused, with its reason, and never reaches the application.
func TestDenied(t *testing.T) {
	s := setup(t)
	now := time.Now()
	body := []byte(`{"amount":10}`)
	good := guide("/e2e/raw", secret, body)
	sig := good.Headers[0][1]
	signed := func(values ...string) delivery {
		d := delivery{Path: "/e2e/raw", Body: body}
		for _, v := range values {
			d.Headers = append(d.Headers, header{"X-Webhook-Signature", v})
		}
		return d
	}
	checked := func(body []byte) delivery { return asJSON(guide("/e2e/checked", secret, body)) }
	stamped := func(stamp string) delivery {
		sig := "t=" + stamp + ",v1=" + hexMAC(secret, stamp, ".", string(body))
		return delivery{Path: "/e2e/stamped", Body: body, Headers: []header{{"Stripe-Signature", sig}}}
	}
	from := func(d delivery, address string) delivery { d.From = address; return d }
	method := func(d delivery, method string) delivery { d.Method = method; return d }
	tampered := func(d delivery, body string) delivery { d.Body = []byte(body); return d }
	twice := func(d delivery) delivery { return d.With(d.Headers...) }
	orders := standard("/webhooks/orders", ordersSecret, "msg_2", now, body)

	tests := []struct {
		name   string
		d      delivery
		status int
		reason string
	}{
		{"body changed by a digit", tampered(good, `{"amount":90}`), 401, "signature_mismatch"},
		{"body made longer", tampered(good, string(body)+" "), 401, "signature_mismatch"},
		{"body without its signature", signed(), 401, "signature_missing"},
		{"empty signature", signed(""), 401, "signature_missing"},
		{"signature cut short", signed(sig[:62]), 401, "signature_malformed"},
		{"one byte of a signature", signed(sig[:2]), 401, "signature_malformed"},
		{"signature too long", signed(sig + "00"), 401, "signature_malformed"},
		{"signature that is no hex", signed(strings.Repeat("zz", 32)), 401, "signature_malformed"},
		{"signature of another secret", guide("/e2e/raw", "guessed", body), 401, "signature_mismatch"},
		{"signature of the empty secret", guide("/e2e/raw", "", body), 401, "signature_mismatch"},
		{"right signature twice", twice(good), 401, "signature_malformed"},
		{"right signature and a wrong one", signed(sig, hexMAC("x", "x")), 401, "signature_malformed"},
		{"right and wrong in one header", signed(sig + ", " + hexMAC("x", "x")), 401, "signature_malformed"},
		{"signature header that is no UTF-8", signed(sig[:60] + "\xff\xfe"), 401, "signature_malformed"},
		{"github without its prefix", delivery{Path: "/webhooks/github", Body: github.Body, Headers: []header{{"X-Hub-Signature-256", github.Headers[0][1][7:]}}}, 401, "signature_malformed"},
		{"timestamp an hour old", stamped(stampOf(now.Add(-time.Hour))), 401, "timestamp_out_of_tolerance"},
		{"timestamp 6 minutes ahead", stamped(stampOf(now.Add(6 * time.Minute))), 401, "timestamp_out_of_tolerance"},
		{"timestamp of 20 digits", stamped("99999999999999999999"), 401, "timestamp_malformed"},
		{"timestamp with a sign", stamped("+" + stampOf(now)), 401, "timestamp_malformed"},
		{"timestamp that was changed", tampered(stripe("/e2e/stamped", secret, now.Add(-time.Second), body), "other"), 401, "signature_mismatch"},
		{"timestamp header twice", orders.With(header{"webhook-timestamp", stampOf(now)}), 401, "timestamp_malformed"},
		{"id moved into the timestamp", standard("/webhooks/orders", ordersSecret, "msg.2", now, body), 401, "signature_malformed"},
		{"expired secret", guide("/e2e/versions", expiredSecret, body), 401, "secret_expired"},
		{"revoked secret", guide("/e2e/versions", leakedSecret, body), 401, "secret_expired"},
		{"no secret can be read", guide("/e2e/no-secret", secret, body), 503, "secret_unavailable"},
		{"wrong gitlab token", delivery{Path: "/webhooks/gitlab", Body: body, Headers: []header{{"X-Gitlab-Token", "guessed"}}, From: "127.1.2.1"}, 401, "signature_mismatch"},
		{"wrong method", method(good, http.MethodPut), 405, "method_not_allowed"},
		{"GET", method(delivery{Path: "/e2e/raw"}, http.MethodGet), 405, "method_not_allowed"},
		{"wrong content type", guide("/e2e/checked", secret, body).With(header{"Content-Type", "text/plain"}), 415, "unsupported_media_type"},
		{"no content type", guide("/e2e/checked", secret, body), 415, "unsupported_media_type"},
		{"larger than the policy's maximum", checked(slices.Repeat([]byte(" "), 1025)), 413, "body_too_large"},
		{"no body", guide("/e2e/raw", secret, nil), 400, "body_missing"},
		{"paused", guide("/webhooks/retired", partnerSecret, body), 503, "paused"},
		{"address that is not allowed", from(asJSON(guide("/webhooks/partner", partnerSecret, body)), "127.1.1.2"), 403, "source_denied"},
		{"address that is denied", from(guide("/e2e/peers", secret, body), "127.1.1.66"), 403, "source_denied"},
		{"route that names no policy", guide("/e2e/nobody", secret, body), 403, "no_policy"},
		{"route that names the policy of another path", guide("/e2e/elsewhere", secret, body), 403, "no_policy"},
	}
	for _, tt := range tests {
		scenario(t, tt.name, func(t *testing.T) { denied(t, s, tt.d, tt.status, tt.reason) })
	}
	for _, d := range []struct {
		name string
		d    delivery
	}{{"right signature twice over HTTP/2", twice(good)}, {"two signatures over HTTP/2", signed(hexMAC("x", "x"), sig)}} {
		scenario(t, d.name, func(t *testing.T) {
			d.d.HTTP2 = true
			denied(t, s, d.d, 401, "signature_malformed")
		})
	}
}
