package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// leaking are secrets of every kind, none of which occurs anywhere else, and what senders send.
var leaking = struct{ env, file, dir, decoy, token, verify, store, admin, collector, query, body string }{
	env: "LeakEnv-Qm7tXw2cRz9v", file: "LeakFile-Hd4nPs8kLb1y", dir: "LeakDir-Vg6jTf3uCe0a", decoy: "LeakDecoy-Zx5qWo9iMr2s",
	token: "LeakToken-Bn8dKy1hJp4l", verify: "LeakVerify-Ua3gEo7tSw6q", store: "LeakStore-Ic9rNm5xFv2z", admin: "LeakAdmin-Tk1bYd8pGh0w",
	collector: "LeakCollector-Os4fLu6eXj7c", query: "LeakQuery-Wp2mAz5nRi8v", body: "LeakBody-Fy7sDk3oQt9b",
}

const leakPolicies = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: live}
spec:
  match: {paths: [/e2e/live]}
  failures: {limit: 5/minute}
  rateLimits: [{limit: 1000/minute}]
  replay: {onDuplicate: deny}
  signature:
    scheme: x-webhook-signature
    secrets:
      - {version: env, env: LEAK_ENV}
      - {version: file, file: ../secrets/file}
      - {dir: ../secrets/versions}
      - {version: gone, file: ../secrets/gone}
      - {version: bait, env: LEAK_DECOY, decoy: true}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: token}
spec:
  match: {paths: [/e2e/token]}
  failures: {limit: 5/minute}
  signature: {scheme: gitlab-token, secrets: [{version: "1", env: LEAK_TOKEN}]}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: meta}
spec:
  match: {paths: [/e2e/meta], methods: [GET, POST]}
  mode: shadow
  signature: {scheme: meta, secrets: [{version: "1", env: LEAK_ENV}]}
  handshake: {enabled: true, verifyToken: {env: LEAK_VERIFY}}
`

// leakingKeys are the keys that may sign deliveries.
func leakingKeys() []string {
	return []string{leaking.env, leaking.file, leaking.dir, leaking.decoy, leaking.token}
}

// spelt are the forms in which a text can be found in other text: itself, in hex, in base64 wherever it begins, and as the first words of it
// in the trace of a stack.
func spelt(s string) []string {
	forms := []string{s, hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s)))}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // bytes before it
			text := encoding.EncodeToString(append(make([]byte, shift), s...))
			// The first characters hold bits of what stands before, the last ones of what follows.
			forms = append(forms, text[(shift*8+5)/6:len(text)-2])
		}
	}
	b := []byte(s)
	forms = append(forms, fmt.Sprintf("%#x, %#x, %#x, %#x", b[0], b[1], b[2], b[3]), fmt.Sprintf("%d %d %d %d %d", b[0], b[1], b[2], b[3], b[4]))
	slices.Reverse(b[:8])
	return append(forms, fmt.Sprintf("%#x", b[:8]))
}

// Everything that a server writes and answers, at the level of debug, is searched for every secret, signature and body that it met: in right
// and in wrong deliveries, and where secrets stand in places where they do not belong. What is not searched is the memory of the process: a
// core dump holds keys, as it must. Neither are the spans of Envoy, which name the whole URL.
func TestNothingLeaks(t *testing.T) {
	setup(t)
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			leaks(t, format)
		})
	}
}

func leaks(t *testing.T, format string) {
	c := newCollector(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policy := write("policies/leak.yaml", leakPolicies)
	write("secrets/file", leaking.file+"\n")
	write("secrets/versions/monthly", leaking.dir)
	gone := write("secrets/gone", "LeakGone-is-searched-too-1")
	serve := []string{"--log-level", "debug", "--log-format", format, "--pprof", "--store-required=false",
		"--store", "redis://hookauthz:" + leaking.store + "@127.0.0.1:1/0", "--admin-token-file", write("tokens", "operator alice "+leaking.admin+"\n")}
	help, err := setup(t).Run(within(t), nil, "serve", "--help")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, flag := range []string{"state", "audit"} {
		if strings.Contains(string(help), "--"+flag+" ") {
			files = append(files, filepath.Join(dir, flag))
			serve = append(serve, "--"+flag, filepath.Join(dir, flag))
		}
	}
	s := up(t, stack.Config{Policies: filepath.Dir(policy), Serve: serve,
		Env: append(c.exporting("OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20"+leaking.collector, "GOTRACEBACK=all"),
			"LEAK_ENV="+leaking.env, "LEAK_DECOY="+leaking.decoy, "LEAK_TOKEN="+leaking.token, "LEAK_VERIFY="+leaking.verify),
		Edit: func(config *stack.EnvoyConfig) {
			for _, name := range []string{"live", "token", "meta"} {
				config.Listener().AddRoute("/e2e/"+name, name)
			}
			c.traced(config)
		}})

	// wanted is what must be found nowhere, by what it is.
	wanted := map[string]string{"gone": "LeakGone-is-searched-too-1", "verify": leaking.verify, "store": leaking.store, "admin": leaking.admin,
		"collector": leaking.collector, "query": leaking.query, "body": leaking.body}
	for _, key := range leakingKeys() {
		wanted["key "+key[:8]] = key
	}
	var surfaces []surface
	add := func(name, text string) { surfaces = append(surfaces, surface{name, text}) }

	for i, key := range append(leakingKeys(), "guessed-by-somebody") {
		body := fmt.Sprintf(`{"%s":%d}`, leaking.body, i)
		signature := hexMAC(key, body)
		wanted[fmt.Sprint("signature ", i)] = signature
		for _, path := range []string{"/e2e/live", "/e2e/token", "/e2e/meta", "/elsewhere"} {
			d := delivery{Path: path + "?token=" + leaking.query + "&key=" + key, Body: []byte(body), Headers: []header{{"Content-Type", "application/json"},
				{"X-Webhook-Signature", signature}, {"X-Hub-Signature-256", "sha256=" + signature}, {"X-Gitlab-Token", key}, {"Authorization", "Bearer " + key}, {"Cookie", key}}}
			for range 2 { // the second is a replay
				r := send(t, s, d)
				add("a reply of "+path, string(r.Body)+fmt.Sprint(r.Header))
			}
			d.Headers = append(d.Headers, header{"X-Webhook-Signature", key}) // malformed: twice
			r := send(t, s, d)
			add("a reply of "+path, string(r.Body)+fmt.Sprint(r.Header))
		}
	}
	for _, verify := range []string{leaking.verify, leaking.env} {
		send(t, s, delivery{Method: "GET", Path: "/e2e/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=" + verify})
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return metricIs(s, `hookauthz_secret_available{endpoint="live",version="gone"} 0`) })
	write("policies/leak.yaml", leakPolicies+"---\nkind: WebhookPolicy\nspec: {signature: {secrets: [{version: x, value: "+leaking.file+"}]}}\n")
	eventually(t, func() error { return metricIs(s, "hookauthz_policy_reload_success 0") })

	for _, token := range []string{leaking.admin, leaking.env, ""} {
		for _, path := range []string{"/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/incidents", "/api/v1/audit", "/api/v1/secrets", "/api/v1/endpoints",
			"/api/v1/endpoints/live", "/api/v1/denials", "/api/v1/unknown?token=" + leaking.admin, "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
			add("the admin listener's "+path, admin(t, s, "GET", path, token, ""))
		}
		add("an action", admin(t, s, "POST", "/api/v1/incidents", token, `{"action":"pause","endpoint":"meta","for":"1h","why":"a test"}`))
		add("a malformed action", admin(t, s, "POST", "/api/v1/incidents", token, `{"action":"start"}`))
	}
	eventually(t, func() error { // spans are sent later than replies
		if !strings.Contains(c.received(), "secret_expired") {
			return fmt.Errorf("the span of the decoy has not come")
		}
		return nil
	})
	page, err := s.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	add("the metrics", page)
	add("the traces", c.received())

	// A crash while deliveries are checked writes every stack.
	l := startLoad(t, s, guide("/e2e/live", leaking.env, []byte(leaking.body)), guide("/e2e/live", "guessed", []byte(leaking.body)))
	wanted["the signature of the load"] = hexMAC(leaking.env, leaking.body)
	l.more(t, 409, 1) // known already: its twin was the first
	if err := s.Hookauthz.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-s.Hookauthz.Ended()
	l.end()
	add("the log and the crash", s.Hookauthz.Log())
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		add(filepath.Base(path), string(text))
	}

	text := s.Hookauthz.Log()
	for _, want := range []string{"SIGQUIT", "goroutine 1 ", "decoy used", "secret unavailable", "policy fault", "replayed", "too_many_failures", "shadow", "traces are on"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not tell of %q, which was to be provoked", want)
		}
	}
	for what, secret := range wanted {
		for _, form := range spelt(secret) {
			for _, s := range surfaces {
				if at := strings.Index(s.text, form); at >= 0 {
					t.Errorf("%s shows the %s as %q: ...%q", s.name, what, form, s.text[max(0, at-60):min(len(s.text), at+60)])
				}
			}
		}
	}
	if err := s.StartHookauthz(within(t)); err == nil {
		t.Error("a server starts with faulty policies")
	}
	write("policies/leak.yaml", leakPolicies)
	if err := s.StartHookauthz(within(t)); err != nil { // the stack ends as it began
		t.Fatal(err)
	}
}

// surface is a text that others may read.
type surface struct{ name, text string }

// The search itself finds what it is to find.
func TestSpelt(t *testing.T) {
	const secret = "LeakEnv-Qm7tXw2cRz9v"
	for name, text := range map[string]string{
		"plain": "key=" + secret + ";", "hex": hex.EncodeToString([]byte("key=" + secret + ";")), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64 behind one": base64.StdEncoding.EncodeToString([]byte(":" + secret + "!")),
		"base64 behind two": base64.URLEncoding.EncodeToString([]byte("::" + secret + "!!")), "stack": fmt.Sprintf("f({%#x, %#x, %#x, %#x, %#x, ...})", secret[0], secret[1], secret[2], secret[3], secret[4]),
		"bytes": fmt.Sprint([]byte(secret)), "word": "0x2d766e456b61654c",
	} {
		if !slices.ContainsFunc(spelt(secret), func(form string) bool { return strings.Contains(text, form) }) {
			t.Errorf("%s is not found in %q", name, text)
		}
	}
}

// admin asks the admin listener, and gives status, headers and body as text.
func admin(t *testing.T, s *stack.Stack, method, path, token, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), method, "http://"+s.AdminAddr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(response.Status, response.Header, string(text))
}
