package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/extauthz/admin"
)

const (
	operatorToken = "operator-token-0123456789"
	readerToken   = "read-only-token-0123456789"
	expiredToken  = "expired-token-0123456789"
)

var moment = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

// tokens opens a token file with one token of each kind.
func tokens(t *testing.T, logger *slog.Logger, now func() time.Time) (file string, opened *admin.Tokens) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "tokens")
	put(t, file, "# on call\n"+operatorToken+"\n\nread-only grafana "+readerToken+"\noperator eve 2026-11-26T08:00:00Z "+expiredToken+"\n")
	opened, err := admin.OpenTokens(file, logger, now)
	if err != nil {
		t.Fatal(err)
	}
	return file, opened
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAccess(t *testing.T) {
	now := func() time.Time { return moment }
	_, opened := tokens(t, slog.New(slog.DiscardHandler), now)
	closed := admin.Config{Registry: prometheus.NewRegistry(), Tokens: opened, Pprof: true, Now: now, Hosts: []string{"hooks.example.com"}}
	free := admin.Config{Registry: prometheus.NewRegistry()}
	h := func(pairs ...string) http.Header {
		header := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			header.Add(pairs[i], pairs[i+1])
		}
		return header
	}
	bearer := func(token string) http.Header { return h("Authorization", "Bearer "+token) }
	tests := []struct {
		name   string
		config admin.Config
		host   string
		method string
		path   string
		header http.Header
		status int
		code   string
	}{
		{"operator looks", closed, "localhost", "GET", "/api/v1/status", bearer(operatorToken), 200, ""},
		{"read-only looks", closed, "localhost", "GET", "/metrics", bearer(readerToken), 200, ""},
		{"bearer in small letters", closed, "localhost", "GET", "/metrics", h("Authorization", "bearer "+readerToken), 200, ""},
		{"probes need none", closed, "localhost", "GET", "/healthz", nil, 200, ""},
		{"probes need none, ready", closed, "localhost", "GET", "/readyz", nil, 200, ""},
		{"no token", closed, "localhost", "GET", "/metrics", nil, 401, "token_missing"},
		{"no token for what is not there", closed, "localhost", "GET", "/nothing", nil, 401, "token_missing"},
		{"no token for a path that leads back to an open one", closed, "localhost", "GET", "/metrics/../healthz", nil, 401, "token_missing"},
		{"no token for one that seems to lead to the console", closed, "localhost", "GET", "/api/v1/endpoints/..%2f..%2f..%2f..%2findex.html", nil, 401, "token_missing"},
		{"no token for profiles that seem to be the console", closed, "localhost", "GET", "/debug/pprof/..%2f..%2findex.html", nil, 401, "token_missing"},
		{"no token with two slashes", closed, "localhost", "GET", "//healthz", nil, 401, "token_missing"},
		{"no token for a part of the path", closed, "localhost", "GET", "/healthz%2f..%2fmetrics", nil, 401, "token_missing"},
		{"the console is only looked at", closed, "localhost", "POST", "/index.html", nil, 401, "token_missing"},
		{"no token for another method", closed, "localhost", "OPTIONS", "/metrics", nil, 401, "token_missing"},
		{"read-only sees no profiles behind an escape", closed, "localhost", "GET", "/%64ebug/pprof/symbol", bearer(readerToken), 403, "role"},
		{"read-only sees no profiles by another method", closed, "localhost", "CONNECT", "/debug/pprof/symbol", bearer(readerToken), 403, "role"},
		{"a method in a header is none", closed, "localhost", "GET", "/api/v1/incidents", h("Authorization", "Bearer "+readerToken, "X-HTTP-Method-Override", "POST"), 404, ""},
		{"unknown token", closed, "localhost", "GET", "/metrics", bearer(operatorToken + "x"), 401, "token_unknown"},
		{"a part of a token", closed, "localhost", "GET", "/metrics", bearer(operatorToken[:20]), 401, "token_unknown"},
		{"expired token", closed, "localhost", "GET", "/metrics", bearer(expiredToken), 401, "token_expired"},
		{"empty token", closed, "localhost", "GET", "/metrics", bearer(""), 401, "token_malformed"},
		{"basic", closed, "localhost", "GET", "/metrics", h("Authorization", "Basic "+operatorToken), 401, "token_malformed"},
		{"two headers", closed, "localhost", "GET", "/metrics", h("Authorization", "Bearer "+operatorToken, "Authorization", "Bearer "+readerToken), 401, "token_malformed"},
		{"a cookie is none", closed, "localhost", "GET", "/metrics", h("Cookie", "token="+operatorToken), 401, "token_missing"},
		{"a parameter is none", closed, "localhost", "GET", "/metrics?token=" + operatorToken, nil, 401, "token_missing"},
		{"read-only does not act", closed, "localhost", "POST", "/api/v1/status", bearer(readerToken), 403, "role"},
		{"read-only does not delete", closed, "localhost", "DELETE", "/api/v1/status", bearer(readerToken), 403, "role"},
		{"read-only sees no profiles", closed, "localhost", "GET", "/debug/pprof/goroutine", bearer(readerToken), 403, "role"},
		{"operator sees profiles", closed, "localhost", "GET", "/debug/pprof/goroutine", bearer(operatorToken), 200, ""},

		{"a name that was given", closed, "HOOKS.example.com:9002", "GET", "/healthz", nil, 200, ""},
		{"loopback", free, "127.8.0.1:9002", "GET", "/metrics", nil, 200, ""},
		{"loopback of IPv6", free, "[::1]:9002", "GET", "/metrics", nil, 200, ""},
		{"loopback of IPv6 without port", free, "[::1]", "GET", "/metrics", nil, 200, ""},
		{"DNS rebinding", free, "rebind.attacker.example:9002", "GET", "/api/v1/status", nil, 421, "unknown_host"},
		{"DNS rebinding for a probe", free, "rebind.attacker.example", "GET", "/healthz", nil, 421, "unknown_host"},
		{"DNS rebinding with a token", closed, "rebind.attacker.example", "GET", "/metrics", bearer(operatorToken), 421, "unknown_host"},
		{"a name that begins like one", free, "localhost.attacker.example", "GET", "/metrics", nil, 421, "unknown_host"},
		{"an address as a name", free, "127.0.0.1.attacker.example", "GET", "/metrics", nil, 421, "unknown_host"},
		{"another address", free, "192.0.2.1:9002", "GET", "/metrics", nil, 421, "unknown_host"},
		{"a name with a user before it", free, "localhost@attacker.example", "GET", "/metrics", nil, 421, "unknown_host"},
		{"a name with a user behind it", free, "attacker.example@localhost", "GET", "/metrics", nil, 421, "unknown_host"},
		{"two ports", free, "localhost:9002:attacker.example", "GET", "/metrics", nil, 421, "unknown_host"},
		{"the address of nowhere, which browsers reach", free, "0.0.0.0:9002", "GET", "/metrics", nil, 421, "unknown_host"},
		{"the address of nowhere in IPv6", free, "[::]:9002", "GET", "/metrics", nil, 421, "unknown_host"},
		{"a zone", free, "[::1%25attacker.example]", "GET", "/metrics", nil, 421, "unknown_host"},
		{"an address in another spelling", free, "2130706433", "GET", "/metrics", nil, 421, "unknown_host"},
		{"no name", free, "", "GET", "/metrics", nil, 421, "unknown_host"},

		{"cross-site by fetch metadata", free, "localhost", "POST", "/api/v1/status", h("Sec-Fetch-Site", "cross-site"), 403, "cross_origin"},
		{"same-site is not same-origin", free, "localhost", "POST", "/api/v1/status", h("Sec-Fetch-Site", "same-site"), 403, "cross_origin"},
		{"cross-site by origin", free, "localhost:9002", "POST", "/api/v1/status", h("Origin", "https://attacker.example"), 403, "cross_origin"},
		{"another port is another origin", free, "localhost:9002", "POST", "/api/v1/status", h("Origin", "http://localhost:8080"), 403, "cross_origin"},
		{"origin null", free, "localhost:9002", "POST", "/api/v1/status", h("Origin", "null"), 403, "cross_origin"},
		{"cross-site for a profile, which an image can ask for", closed, "localhost", "GET", "/debug/pprof/symbol", h("Sec-Fetch-Site", "cross-site", "Authorization", "Bearer "+operatorToken), 403, "cross_origin"},
		{"a profile by hand", closed, "localhost", "GET", "/debug/pprof/symbol", h("Sec-Fetch-Site", "none", "Authorization", "Bearer "+operatorToken), 200, ""},
		{"a link from a dashboard", free, "localhost", "GET", "/metrics", h("Sec-Fetch-Site", "cross-site"), 200, ""},
		{"cross-site with a token", closed, "localhost", "POST", "/api/v1/status", h("Authorization", "Bearer "+operatorToken, "Sec-Fetch-Site", "cross-site"), 403, "cross_origin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(tt.method, tt.path)
			r.Host, r.Header = tt.host, tt.header
			if r.Header == nil {
				r.Header = http.Header{}
			}
			r.RemoteAddr = "192.0.2.7:4711"
			w := httptest.NewRecorder()
			admin.Handler(tt.config).ServeHTTP(w, r)
			var e struct{ Error, Message, Hint string }
			if tt.code != "" {
				if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Message == "" {
					t.Errorf("the answer %q is no error: %v", w.Body, err)
				}
			}
			if w.Code != tt.status || e.Error != tt.code {
				t.Errorf("got %d %q, want %d %q", w.Code, e.Error, tt.status, tt.code)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge == `Bearer realm="hookauthz"`) != (w.Code == 401) {
				t.Errorf("%d with WWW-Authenticate %q", w.Code, challenge)
			}
			for _, secret := range []string{operatorToken, readerToken, expiredToken} {
				if tt.path != "/debug/pprof/goroutine" && strings.Contains(w.Body.String(), secret) {
					t.Errorf("the answer holds a token: %s", w.Body)
				}
			}
		})
	}
}

// The address that was reached is a name as good as localhost, and a unix socket has no names.
func TestAddressReached(t *testing.T) {
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry()})
	tests := []struct {
		local net.Addr
		host  string
		want  int
	}{
		{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 9002}, "192.0.2.1:9002", 200},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 9002}, "192.0.2.1", 200},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9002}, "[2001:db8::1]:9002", 200},
		{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 9002}, "192.0.2.2:9002", 421},
		{&net.UnixAddr{Net: "unix", Name: "/run/admin.sock"}, "whatever", 200},
	}
	for _, tt := range tests {
		r := request("GET", "/healthz")
		r.Host = tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, tt.local)))
		if w.Code != tt.want {
			t.Errorf("%q at %v: %d, want %d", tt.host, tt.local, w.Code, tt.want)
		}
	}
}

// An address that guesses is refused before its tokens are compared, and nobody else is.
func TestGuesses(t *testing.T) {
	at := moment.Add(-time.Hour)
	var log strings.Builder
	now := func() time.Time { return at }
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	_, opened := tokens(t, logger, now)
	told := 0
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry(), Tokens: opened, Now: now, Logger: logger, Refused: func(n int, _ string) { told += n }})
	ask := func(from, token string) *httptest.ResponseRecorder {
		r := request("GET", "/metrics")
		r.RemoteAddr = from
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for i := range 20 {
		if w := ask("192.0.2.7:1", fmt.Sprintf("guess-%020d", i)); w.Code != 401 {
			t.Fatalf("guess %d: %d, want 401", i, w.Code)
		}
	}
	w := ask("192.0.2.7:2", operatorToken)
	if w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("after 20 guesses: %d with Retry-After %q, want 429 with one", w.Code, w.Header().Get("Retry-After"))
	}
	if w := ask("192.0.2.8:1", operatorToken); w.Code != 200 {
		t.Errorf("another address: %d, want 200", w.Code)
	}
	at = at.Add(3 * time.Second)
	if w := ask("192.0.2.7:3", operatorToken); w.Code != 200 {
		t.Errorf("3 s later: %d, want 200", w.Code)
	}
	if n := strings.Count(log.String(), "admin tokens refused"); n != 1 || told != 1 {
		t.Errorf("%d lines and %d told, want the first guess alone:\n%s", n, told, &log)
	}
	at = at.Add(time.Minute)
	ask("192.0.2.7:4", "guess-xxxxxxxxxxxxxxxx")
	if told != 22 { // the refusal that was not compared counts too
		t.Errorf("%d told, want 22", told)
	}
	if strings.Contains(log.String(), "guess-") {
		t.Errorf("the log holds a token:\n%s", &log)
	}
}

// A file that changes is in force a second later; a faulty one leaves what was.
func TestTokensChange(t *testing.T) {
	at := moment.Add(-time.Hour)
	now := func() time.Time { return at }
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	file, opened := tokens(t, logger, now)
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry(), Tokens: opened, Now: now, Logger: logger})
	ask := func(token string, want int) {
		t.Helper()
		at = at.Add(5 * time.Second)
		r := request("GET", "/metrics")
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%d, want %d", w.Code, want)
		}
	}
	const next = "the-next-token-0123456789"
	ask(next, 401)
	put(t, file, next+"\n")
	ask(next, 200)
	ask(operatorToken, 401)
	for _, bad := range []string{"", "short\n", "root me " + operatorToken + "\n"} {
		put(t, file, bad)
		ask(next, 200)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	ask(next, 200)
	ask(next, 200)
	if n := strings.Count(log.String(), "the tokens before stay in force"); n != 4 {
		t.Errorf("%d faults are logged, want 4:\n%s", n, &log)
	}
	if strings.Contains(log.String(), "token-0123456789") {
		t.Errorf("the log holds a token:\n%s", &log)
	}
}

func TestParseTokens(t *testing.T) {
	long := strings.Repeat("x", 40)
	tests := []struct {
		name, file string
		want       string // the error, or names and roles
	}{
		{"one", long, "operator operator"},
		{"CRLF and blanks", "\r\n  # note\r\n\t" + long + "  \r\n", "operator operator"},
		{"roles", "read-only a " + long + "\noperator b " + long + "y", "a read-only, b operator"},
		{"expires", "operator a 2027-01-31T00:00:00Z " + long, "a operator"},
		{"none", "# nothing\n", "it holds no token"},
		{"empty", "", "it holds no token"},
		{"short", "0123456789abcde", "line 1: the token does not have 16 to 1024 characters"},
		{"not ASCII", strings.Repeat("é", 20), "line 1: the token does not have"},
		{"not text", "\xff\xfe" + long, "it is not text"},
		{"two words", "operator " + long, "line 1: it has 2 words"},
		{"five words", "operator a b c " + long, "line 1: it has 5 words"},
		{"unknown role", "# x\nadmin a " + long, "line 2: the first word is no role; write operator or read-only"},
		{"token first", long + " a operator", "line 1: the first word is no role"},
		{"no moment", "operator a tomorrow " + long, "line 1: the third word of four is no moment"},
		{"twice", "operator a " + long + "\nread-only b " + long, "line 2: the token of line 1 again"},
		{"every fault", "short\nadmin a " + long, "line 1: the token does not have 16 to 1024 characters of visible ASCII; 'openssl rand -hex 32' makes a good one\nline 2: the first"},
		{"long name", "operator " + strings.Repeat("n", 65) + " " + long, "line 1: the name has more than 64"},
		{"large", strings.Repeat("#", 256<<10+1), "it has more than 262144 bytes"},
		{"a long line", "#" + strings.Repeat("x", 256<<10-2) + "\n", "it holds no token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tokens, err := admin.ParseTokens([]byte(tt.file))
			var got []string
			for _, token := range tokens {
				got = append(got, token.Name+" "+token.Role.String())
			}
			text := strings.Join(got, ", ")
			if err != nil {
				text = err.Error()
			}
			if !strings.HasPrefix(text, tt.want) {
				t.Errorf("got %q, want %q", text, tt.want)
			}
			if strings.Contains(text, long) {
				t.Errorf("%q shows a token", text)
			}
		})
	}
}

// A token file that everybody can read is taken, and said.
func TestTokensForEverybody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	put(t, file, operatorToken)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if _, err := admin.OpenTokens(file, slog.New(slog.NewTextHandler(&log, nil)), time.Now); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "everybody on this machine can read the token file") {
		t.Errorf("the log: %s", &log)
	}
}

// A pipe in the place of the token file keeps nobody waiting: the tokens before stay in force.
func TestTokenFileIsPipe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	put(t, file, operatorToken)
	now := moment
	tokens, err := admin.OpenTokens(file, slog.New(slog.DiscardHandler), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Skip("no pipes here: ", err)
	}
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry(), Tokens: tokens, Now: func() time.Time { return now }})
	now = now.Add(time.Hour)
	r := request("GET", "/metrics")
	r.Header.Set("Authorization", "Bearer "+operatorToken)
	w := httptest.NewRecorder()
	answered := make(chan struct{})
	go func() { h.ServeHTTP(w, r); close(answered) }()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the pipe")
	}
	if w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, err := admin.OpenTokens(file, slog.New(slog.DiscardHandler), time.Now); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("at the start: %v", err)
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add([]byte("# x\n" + operatorToken + "\nread-only a 2027-01-31T00:00:00Z " + readerToken))
	f.Add([]byte("admin \x00\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, err := admin.ParseTokens(data)
		if (err == nil) == (len(tokens) == 0) {
			t.Fatalf("%d tokens with the error %v", len(tokens), err)
		}
		first, firstErr := admin.FirstToken(data)
		if (err == nil) != (firstErr == nil) {
			t.Fatalf("the server says %v, the client %v", err, firstErr)
		}
		if err != nil {
			return
		}
		if len(first) < 16 || !strings.Contains(string(data), first) {
			t.Fatalf("the first token %q", first)
		}
		// What the client sends is what the server knows.
		file := filepath.Join(t.TempDir(), "tokens")
		put(t, file, string(data))
		opened, err := admin.OpenTokens(file, slog.New(slog.DiscardHandler), func() time.Time { return time.Unix(-1<<40, 0) })
		if err != nil {
			t.Fatal(err)
		}
		r := request("GET", "/metrics")
		r.Header.Set("Authorization", "Bearer "+first)
		w := httptest.NewRecorder()
		admin.Handler(admin.Config{Registry: prometheus.NewRegistry(), Tokens: opened, Now: func() time.Time { return moment }}).ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatalf("the first token gets %d: %s", w.Code, w.Body)
		}
	})
}

// The probes' listener shows nothing else, and asks nobody who they are.
func TestProbes(t *testing.T) {
	h := admin.Probes(admin.Config{Registry: prometheus.NewRegistry(), Pprof: true})
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 200, "/": 404, "/api/v1/status": 404, "/debug/pprof/": 404} {
		r := request("GET", path)
		r.Host = "hookauthz.webhooks.svc:9003"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestQuery(t *testing.T) {
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry()})
	for _, path := range []string{"/api/v1/status?x=1", "/api/v1/status?%zz"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", path))
		if body, _ := io.ReadAll(w.Body); w.Code != 400 || !strings.Contains(string(body), `"error":"query"`) {
			t.Errorf("%s: %d %s, want 400", path, w.Code, body)
		}
	}
}
