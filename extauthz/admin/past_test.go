package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy"
)

const pastPolicies = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: alpha, labels: {team: ci}}
spec:
  match: {hosts: [hooks.example.com], paths: [/a]}
  pausedUntil: 2099-01-01T00:00:00Z
  signature: {scheme: github, secrets: [{version: "1", env: ALPHA}, {version: "2", env: MISSING}]}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: beta}
spec:
  mode: shadow
  pausedUntil: 2020-01-01T00:00:00Z
  match: {paths: [/b]}
  signature: {scheme: stripe, secrets: [{version: "1", env: ALPHA}]}
`

// answers decides what a test says: the host of a request is the number of its decision.
type answers []policy.Decision

func (a answers) Decide(_ context.Context, r *policy.Request) policy.Decision {
	n, err := strconv.Atoi(r.Host)
	if err != nil {
		return policy.Denied(policy.InternalError)
	}
	return a[n]
}

// past is a Config after some decisions, which were made by way of the Check RPC.
func past(t *testing.T, decisions answers) admin.Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(pastPolicies), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(dir, policy.LoadOptions{Secrets: policy.TolerateMissingSecrets, LookupEnv: func(name string) (string, bool) { return "a secret of this test, 32 bytes", name == "ALPHA" }})
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return moment }
	metrics := extauthz.NewMetrics("test")
	metrics.SetPolicies(set, moment)
	c := admin.Config{Registry: metrics.Registry, Policies: func() *policy.Set { return set }, History: extauthz.NewHistory(metrics), Denials: extauthz.NewDenials(), Now: now}
	s := extauthz.NewServer(extauthz.Config{Decider: decisions, Metrics: metrics, Denials: c.Denials, Now: now})
	l := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	for i := range decisions {
		if _, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Id: fmt.Sprint(i), Method: "POST", Host: strconv.Itoa(i), Path: "/a?token=hidden"}}}}); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}

	return c
}

func deny(endpoint string, r policy.Reason) policy.Decision {
	d := policy.Denied(r)
	d.Endpoint, d.ClientAddress = endpoint, netip.MustParseAddr("192.0.2.7")
	return d
}

func allow(endpoint string) policy.Decision {
	return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: endpoint, Verification: "valid"}
}

// fetch asks for a path and reads the answer, whatever it is.
func fetch(t *testing.T, c admin.Config, path string) (status int, answer map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	admin.Handler(c).ServeHTTP(w, request("GET", path))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %d %.300q: %v", path, w.Code, w.Body, err)
	}
	return w.Code, answer
}

func numbers(v any) (sum float64) {
	for _, n := range v.([]any) {
		sum += n.(float64)
	}
	return sum
}

func TestEndpoints(t *testing.T) {
	c := past(t, answers{allow("alpha"), allow("alpha"), deny("alpha", policy.SignatureMismatch), deny("", policy.NoPolicy),
		{Outcome: policy.Answer, Reason: policy.Handshake, Status: 200, Endpoint: "beta"}})
	_, answer := fetch(t, c, "/api/v1/endpoints")
	list := answer["endpoints"].([]any)
	if len(list) != 3 {
		t.Fatalf("%d endpoints, want those of the policies and the one without a name: %v", len(list), answer)
	}
	none, alpha, beta := list[0].(map[string]any), list[1].(map[string]any), list[2].(map[string]any)
	if none["endpoint"] != "" || none["counts"].(map[string]any)["deny"] != 1.0 || none["reasons"].(map[string]any)["no_policy"] != 1.0 {
		t.Errorf("what has no policy: %v", none)
	}
	if counts := alpha["counts"].(map[string]any); counts["allow"] != 2.0 || counts["deny"] != 1.0 || counts["answer"] != 0.0 {
		t.Errorf("counts of alpha: %v", counts)
	}
	if alpha["mode"] != "enforce" || alpha["scheme"] != "github" || alpha["paused_until"] != "2099-01-01T00:00:00Z" || alpha["secrets_unavailable"] != 1.0 {
		t.Errorf("alpha: %v", alpha)
	}
	if _, paused := beta["paused_until"]; beta["mode"] != "shadow" || paused || beta["counts"].(map[string]any)["answer"] != 1.0 {
		t.Errorf("beta: %v", beta)
	}
	series := alpha["series"].(map[string]any)["allow"].([]any)
	if len(series) != 60 || series[59] != 2.0 || numbers(series) != 2 {
		t.Errorf("series of alpha, minute by minute: %v", series)
	}
	total := answer["total"].(map[string]any)
	if numbers(total["allow"]) != 2 || numbers(total["deny"]) != 2 || numbers(total["answer"]) != 1 {
		t.Errorf("total: %v", total)
	}
	if answer["end"] != "2026-11-26T08:00:10Z" || answer["step_seconds"] != 60.0 {
		t.Errorf("end %v, step %v", answer["end"], answer["step_seconds"])
	}

	_, answer = fetch(t, c, "/api/v1/endpoints/alpha")
	var kinds []string
	for _, s := range answer["series"].([]any) {
		s := s.(map[string]any)
		kinds = append(kinds, fmt.Sprint(s["decision"], " ", s["reason"], " ", numbers(s["counts"])))
	}
	if want := []string{"allow ok 2", "deny signature_mismatch 1"}; !slices.Equal(kinds, want) {
		t.Errorf("series of alpha %q, want %q", kinds, want)
	}
	if status, answer := fetch(t, c, "/api/v1/endpoints/gamma"); status != 404 || answer["error"] != "unknown_endpoint" {
		t.Errorf("an unknown endpoint: %d %v", status, answer)
	}
}

// Pages follow each other, the endpoint without a name too.
func TestEndpointPages(t *testing.T) {
	c := past(t, answers{deny("", policy.NoPolicy)})
	var names []string
	path := "/api/v1/endpoints?limit=1"
	for range 5 {
		_, answer := fetch(t, c, path)
		for _, e := range answer["endpoints"].([]any) {
			names = append(names, e.(map[string]any)["endpoint"].(string))
		}
		next, more := answer["next"].(string)
		if !more {
			break
		}
		path = "/api/v1/endpoints?limit=1&after=" + next
	}
	if want := []string{"", "alpha", "beta"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestDenials(t *testing.T) {
	shadowed := policy.Decision{Outcome: policy.Allow, Reason: policy.Shadow, Shadow: policy.Replayed, Endpoint: "beta", Verification: "valid"}
	c := past(t, answers{allow("alpha"), deny("alpha", policy.SignatureMismatch), deny("", policy.NoPolicy), shadowed})
	tests := []struct {
		name, query string
		want        []string
	}{
		{"the newest first", "", []string{"beta replayed shadowed", " no_policy", "alpha signature_mismatch"}},
		{"of one endpoint", "?endpoint=alpha", []string{"alpha signature_mismatch"}},
		{"of no policy", "?endpoint=", []string{" no_policy"}},
		{"for one reason", "?reason=replayed", []string{"beta replayed shadowed"}},
		{"a page", "?limit=1", []string{"beta replayed shadowed"}},
		{"of nobody", "?endpoint=gamma", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, answer := fetch(t, c, "/api/v1/denials"+tt.query)
			var got []string
			for _, d := range answer["denials"].([]any) {
				d := d.(map[string]any)
				line := fmt.Sprint(d["endpoint"], " ", d["reason"])
				if d["shadowed"] == true {
					line += " shadowed"
				}
				got = append(got, line)
				if d["step"] == "" || !strings.HasSuffix(d["hint"].(string), ".") || d["path"] != "/a" {
					t.Errorf("step %v, hint %v, path %v", d["step"], d["hint"], d["path"])
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if status, answer := fetch(t, c, "/api/v1/denials?reason=ok"); status != 400 || answer["error"] != "reason" {
		t.Errorf("a reason of no denial: %d %v", status, answer)
	}
	_, first := fetch(t, c, "/api/v1/denials?limit=2")
	_, second := fetch(t, c, "/api/v1/denials?limit=2&after="+first["next"].(string))
	if last := second["denials"].([]any); len(last) != 1 || last[0].(map[string]any)["endpoint"] != "alpha" || second["next"] != nil {
		t.Errorf("the second page: %v", second)
	}
}

// Every reason for which something is denied has a hint.
func TestHints(t *testing.T) {
	for _, r := range policy.Reasons() {
		if r.Allows() || r.Answers() {
			continue
		}
		c := past(t, answers{deny("alpha", r)})
		_, answer := fetch(t, c, "/api/v1/denials")
		d := answer["denials"].([]any)[0].(map[string]any)
		if d["reason"] != r.String() || d["step"] == "" || len(d["hint"].(string)) < 20 {
			t.Errorf("%s: %v", r, d)
		}
	}
}

func TestConsoleFiles(t *testing.T) {
	_, opened := tokens(t, nil, func() time.Time { return moment })
	for _, c := range []admin.Config{{Registry: extauthz.NewMetrics("test").Registry}, {Registry: extauthz.NewMetrics("test").Registry, Tokens: opened, Now: func() time.Time { return moment }}} {
		for path, contentType := range map[string]string{"/": "text/html", "/console.css": "text/css", "/console.js": "text/javascript", "/api.js": "text/javascript",
			"/actions.js": "text/javascript", "/dom.js": "text/javascript", "/plot.js": "text/javascript", "/icon.svg": "image/svg+xml"} {
			w := httptest.NewRecorder()
			admin.Handler(c).ServeHTTP(w, request("GET", path))
			h := w.Header()
			if w.Code != 200 || !strings.HasPrefix(h.Get("Content-Type"), contentType) || w.Body.Len() == 0 {
				t.Errorf("%s: %d %q", path, w.Code, h.Get("Content-Type"))
			}
			if policy := h.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; ") || strings.Contains(policy, "unsafe") || h.Get("X-Frame-Options") != "DENY" {
				t.Errorf("%s: headers %v", path, h)
			}
		}
		for _, path := range []string{"/console", "/console/", "/console/index.html", "/nothing.js", "/.", "/%2e%2e%2fconsole.go"} {
			w := httptest.NewRecorder()
			admin.Handler(c).ServeHTTP(w, request("GET", path))
			if w.Code == 200 {
				t.Errorf("%s is there", path)
			}
		}
	}
}
