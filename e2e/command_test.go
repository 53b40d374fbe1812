package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// The commands beside serve read the same files and come to the same verdicts.
func TestCommands(t *testing.T) {
	s := setup(t)
	policies := root + "/examples/policies"
	scenario(t, "validate finds no fault in the examples", func(t *testing.T) {
		out, err := s.Run(within(t), nil, "validate", policies)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out); !strings.HasPrefix(got, "8 webhooks, ") {
			t.Errorf("it prints %q, want 8 webhooks", got)
		}
	})
	for _, endpoint := range []string{"github", "stripe", "slack", "orders", "partner"} {
		scenario(t, "a delivery that sign makes for "+endpoint+" passes", func(t *testing.T) {
			body := `{"signed":"` + endpoint + `"}`
			out, err := s.Run(within(t), []byte(body), "sign", "--policies", policies, "--endpoint", endpoint, "--body", "-", "-o", "json", "--at", time.Now().UTC().Format(time.RFC3339))
			if err != nil {
				t.Fatal(err)
			}
			var made struct {
				Method, URL string
				Headers     []struct{ Name, Value string }
			}
			if err := json.Unmarshal(out, &made); err != nil {
				t.Fatal(err)
			}
			d := delivery{Method: made.Method, Path: "/webhooks/" + endpoint, Body: []byte(body)}
			args := []string{"decide", "--policies", policies, "-X", made.Method, "--body", "-", "-o", "json"}
			for _, h := range made.Headers {
				d = d.With(header{h.Name, h.Value})
				args = append(args, "-H", h.Name+": "+h.Value)
			}
			if made.URL != "https://hooks.example.com"+d.Path {
				t.Errorf("it is for %s, want the policy's host and path", made.URL)
			}
			if out, err = s.Run(within(t), d.Body, append(args, made.URL)...); err != nil {
				t.Fatal(err)
			}
			var verdict struct{ Decision, Reason, Endpoint string }
			if err := json.Unmarshal(out, &verdict); err != nil {
				t.Fatal(err)
			}
			if verdict.Decision != "allow" || verdict.Reason != "ok" || verdict.Endpoint != endpoint {
				t.Errorf("decide says %+v, want allow", verdict)
			}
			passes(t, s, d, "ok")
		})
	}
}
