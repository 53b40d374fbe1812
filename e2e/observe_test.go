package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What operators see of a decision, in three places.
func TestObserved(t *testing.T) {
	s := setup(t)
	scenario(t, "an allowed delivery", func(t *testing.T) {
		body := []byte(`{"action":"opened"}`)
		d := delivery{Path: "/webhooks/github?x=1", Body: body, Headers: []header{
			{"X-Hub-Signature-256", "sha256=" + hexMAC(githubSecret, string(body))}, {"X-Github-Event", "pull_request"},
			{"X-Github-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"}, {"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}
		d.Agent = newAgent()
		passes(t, s, d, "ok")
		entry := logged(t, s, d.Agent)
		want := map[string]any{"endpoint": "github", "decision": "allow", "reason": "ok", "secret_version": "2026-10", "path": "/webhooks/github",
			"delivery_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "event_type": "pull_request"}
		if diff := cmp.Diff(pick(entry, want), want); diff != "" {
			t.Errorf("Envoy's log (-got +want):\n%s", diff)
		}
		if entry["policy_revision"] == nil {
			t.Error("no policy revision in Envoy's log")
		}

		line := decisionLine(t, entry["request_id"].(string))
		delete(want, "status")
		want["client_address"], want["method"], want["body_bytes"] = "127.0.0.1", "POST", float64(len(body))
		want["trace_id"], want["msg"], want["level"] = "0af7651916cd43dd8448eb211c80319c", "decision", "INFO"
		want["policy_revision"] = entry["policy_revision"]
		if diff := cmp.Diff(pick(line, want), want); diff != "" {
			t.Errorf("log (-got +want):\n%s", diff)
		}
		if _, ok := line["duration_ms"].(float64); !ok {
			t.Errorf("duration_ms %v, want a number", line["duration_ms"])
		}
	})
	scenario(t, "a denied delivery", func(t *testing.T) {
		d := guide("/e2e/raw", "guessed", []byte("observed"))
		d.Agent = newAgent()
		denied(t, s, d, 401, "signature_mismatch")
		line := decisionLine(t, logged(t, s, d.Agent)["request_id"].(string))
		want := map[string]any{"msg": "decision", "level": "WARN", "endpoint": "raw", "decision": "deny", "reason": "signature_mismatch", "status": float64(401)}
		if diff := cmp.Diff(pick(line, want), want); diff != "" {
			t.Errorf("log (-got +want):\n%s", diff)
		}
	})
	scenario(t, "metrics", func(t *testing.T) {
		passes(t, s, guide("/e2e/raw", secret, []byte("counted")), "ok")
		for _, line := range []string{
			`hookauthz_decisions_total{decision="allow",endpoint="raw",reason="ok"} `,
			`hookauthz_signature_verifications_total{endpoint="raw",result="valid",version="1"} `,
			`hookauthz_check_duration_seconds_count{endpoint="raw"} `,
			"hookauthz_body_bytes_count", "hookauthz_checks_in_flight ", `hookauthz_store_keys{kind="replay"} `,
			"hookauthz_policy_reload_success 1", "hookauthz_policy_info{revision=",
			`hookauthz_secret_available{endpoint="no-secret",version="1"} 0`, `hookauthz_secret_available{endpoint="raw",version="1"} 1`,
			`hookauthz_secret_not_after_timestamp_seconds{endpoint="versions",version="expired"} 1.7672256e+09`,
		} {
			eventually(t, func() error { return metricIs(s, line) })
		}
	})
	// Everything that could tempt a program to write a secret down: each way of failing, with every secret in a place where it does not belong.
	scenario(t, "no secret is written anywhere", func(t *testing.T) {
		secrets := []string{secret, expiredSecret, leakedSecret, githubSecret, stripeSecret, slackSecret, ordersSecret, gitlabSecret, partnerSecret}
		body := "the body that nobody may log"
		signatures := []string{hexMAC(secret, body), hexMAC(githubSecret, body), hexMAC("guessed", body)}
		for _, path := range []string{"/e2e/raw", "/e2e/versions", "/webhooks/github", "/webhooks/gitlab", "/webhooks/stripe", "/webhooks/orders", "/e2e/shadowed"} {
			for _, key := range append([]string{"guessed"}, secrets...) {
				d := delivery{Path: path, Body: []byte(body), From: "127.1.5.1", Headers: []header{
					{"X-Webhook-Signature", hexMAC(key, body)}, {"X-Hub-Signature-256", "sha256=" + hexMAC(key, body)}, {"X-Gitlab-Token", key},
					{"Stripe-Signature", "t=1,v1=" + hexMAC(key, body)}, {"Webhook-Signature", "v1," + key}, {"Webhook-Id", "x"}, {"Webhook-Timestamp", "1"}}}
				r := send(t, s, d)
				for _, word := range append(secrets, signatures...) {
					if strings.Contains(string(r.Body), word) || strings.Contains(fmt.Sprint(r.Header), word) {
						t.Errorf("a reply of %s holds %q", path, word)
					}
				}
			}
		}
		page, err := s.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		for place, text := range map[string]string{"hookauthz's log": s.Hookauthz.Log(), "Envoy's log": s.Envoy.Log(), "the metrics": page} {
			for _, word := range append(append(secrets, signatures...), body) {
				if strings.Contains(text, word) {
					t.Errorf("%s holds %q", place, word)
				}
			}
		}
	})
}

// decisionLine is the line of hookauthz's log about a request.
func decisionLine(t *testing.T, requestID string) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, func() error {
		for line := range strings.Lines(shared.Hookauthz.Log()) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["request_id"] == requestID {
				found = entry
				return nil
			}
		}
		return fmt.Errorf("no line with the request id %s in hookauthz's log", requestID)
	})
	return found
}
