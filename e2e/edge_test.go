package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// What Envoy refuses itself, before any Check.
func TestRefusedByEnvoy(t *testing.T) {
	s := setup(t)
	at := func(path string) delivery { d := github; d.Path = path; return d }
	host := github
	host.Host = "hooks.example.org"
	over := guide("/e2e/raw", secret, slices.Repeat([]byte("x"), maxBody+1))
	chunked := over
	chunked.Chunked = true
	tests := []struct {
		name   string
		d      delivery
		status int
	}{
		{"unknown path", at("/webhooks/nothing"), 404},
		{"the application's own page", at("/received"), 404},
		{"unknown host", host, 404},
		{"two slashes at the begin", at("//webhooks/github"), 404},
		{"two slashes within", at("/webhooks//github"), 404},
		{"slash at the end", at("/webhooks/github/"), 404},
		{"upper case", at("/Webhooks/github"), 404},
		{"path parameter", at("/webhooks/github;x=1"), 404},
		{"escaped path parameter", at("/webhooks/github%3bx=1"), 404},
		{"escaped fragment", at("/webhooks/github%23x"), 404},
		{"fragment", at("/webhooks/github#x"), 400},
		{"escaped slash", at("/webhooks%2fgithub"), 400},
		{"escaped slash in upper case", at("/webhooks%2Fgithub"), 400},
		{"escaped backslash", at("/webhooks%5cgithub"), 400},
		{"escaped NUL", at("/webhooks/github%00"), 400},
		{"out of the root", at("/../../received"), 404},
		{"escaped dots to the application's own page", at("/webhooks/%2e%2e/received"), 404},
		{"one byte over the maximum", over, 413},
		{"chunked, one byte over the maximum", chunked, 413},
	}
	for _, tt := range tests {
		scenario(t, tt.name, func(t *testing.T) { refused(t, s, tt.d, tt.status) })
	}
	// These are the same path to Envoy, hookauthz and the application.
	for _, path := range []string{"/e2e/x/../raw", "/e2e/./raw", "/e2e/%72aw", `/e2e\raw`, "/e2e/x;/../raw"} {
		scenario(t, "resolved before anything else: "+path, func(t *testing.T) {
			d := guide(path, secret, []byte(path))
			if got := passes(t, s, d, "ok"); got.Path != "/e2e/raw" {
				t.Errorf("the application got %s, want /e2e/raw", got.Path)
			}
		})
	}
}

// Requests that no HTTP library would send.
func TestOddRequests(t *testing.T) {
	s := setup(t)
	sig := github.Headers[0][0] + ": " + github.Headers[0][1]
	request := func(line string, fields ...string) string {
		return line + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
	}
	tests := []struct {
		name, text string
		status     int
	}{
		{"length and chunks", request("POST /webhooks/github HTTP/1.1", "Host: "+stack.Host, sig, "Content-Length: 13", "Transfer-Encoding: chunked") + "0\r\n\r\nHello, World!", 400},
		{"two lengths", request("POST /webhooks/github HTTP/1.1", "Host: "+stack.Host, sig, "Content-Length: 13", "Content-Length: 14") + "Hello, World!", 400},
		{"odd transfer encoding", request("POST /webhooks/github HTTP/1.1", "Host: "+stack.Host, sig, "Transfer-Encoding: xchunked") + "Hello, World!", 501},
		{"HTTP/1.0", request("POST /webhooks/github HTTP/1.0", "Host: "+stack.Host, sig, "Content-Length: 13") + "Hello, World!", 426},
		{"no host", request("POST /webhooks/github HTTP/1.1", sig, "Content-Length: 13") + "Hello, World!", 400},
		{"CONNECT", request("CONNECT hooks.example.com:443 HTTP/1.1", "Host: "+stack.Host), 404},
		{"websocket with a body", websocket("/webhooks/github", sig, "Hello, World!"), 403},
		{"unknown upgrade", strings.Replace(websocket("/webhooks/github", sig, "Hello, World!"), "websocket", "other", 1), 403},
	}
	for _, tt := range tests {
		scenario(t, tt.name, func(t *testing.T) {
			agent := newAgent()
			r := sendRaw(t, s, "hooks", strings.Replace(tt.text, "\r\n", "\r\nUser-Agent: "+agent+"\r\n", 1))
			if r.StatusCode != tt.status {
				t.Errorf("status %d, want %d", r.StatusCode, tt.status)
			}
			if got := arrived(t, s, agent); len(got) != 0 {
				t.Error("it reached the application")
			}
		})
	}

	// Where Envoy takes upgrades, Check sees no body of theirs: hookauthz refuses them.
	for _, path := range []string{"/webhooks/github", "/e2e/empty", "/e2e/shadowed", "/webhooks/billing"} {
		scenario(t, "websocket with a body where Envoy takes upgrades: "+path, func(t *testing.T) {
			agent := newAgent()
			text := websocket(path, "X-Webhook-Signature: "+hexMAC(secret, ""), "Hello, World!")
			r := sendRaw(t, s, "upgrades", strings.Replace(text, "\r\n", "\r\nUser-Agent: "+agent+"\r\n", 1))
			if r.StatusCode != http.StatusBadRequest {
				t.Errorf("status %d, want 400", r.StatusCode)
			}
			if got := arrived(t, s, agent); len(got) != 0 {
				t.Error("it reached the application")
			}
			if got := logged(t, s, agent)["reason"]; got != "upgrade_refused" {
				t.Errorf("reason %v, want upgrade_refused", got)
			}
		})
	}
	scenario(t, "websocket without a body where Envoy takes upgrades", func(t *testing.T) {
		agent := newAgent()
		text := strings.Replace(websocket("/e2e/empty", "X-Webhook-Signature: "+hexMAC(secret, ""), ""), "POST", "GET", 1)
		r := sendRaw(t, s, "upgrades", strings.Replace(text, "\r\n", "\r\nUser-Agent: "+agent+"\r\n", 1))
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d, want 400", r.StatusCode)
		}
		if got := arrived(t, s, agent); len(got) != 0 {
			t.Error("it reached the application")
		}
	})
	for _, tt := range []struct {
		name, listener, path string
		status               int
	}{
		{"websocket over HTTP/2", "hooks", "/e2e/empty", 0},
		{"websocket over HTTP/2 where Envoy takes upgrades", "upgrades", "/e2e/empty", 400},
		{"websocket over HTTP/2 where Envoy takes upgrades, in shadow mode", "upgrades", "/e2e/shadowed", 405},
	} {
		scenario(t, tt.name, func(t *testing.T) {
			agent := newAgent()
			status := sendHTTP2(t, s, tt.listener, []header{
				{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":path", tt.path}, {":authority", stack.Host},
				{"user-agent", agent}, {"sec-websocket-version", "13"}, {"x-webhook-signature", hexMAC(secret, "")}}, "Hello, World!")
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			if got := arrived(t, s, agent); len(got) != 0 {
				t.Error("it reached the application")
			}
		})
	}
	scenario(t, "two hosts over HTTP/2: the authority counts", func(t *testing.T) {
		agent := newAgent()
		status := sendHTTP2(t, s, "hooks", []header{
			{":method", "POST"}, {":scheme", "https"}, {":path", "/webhooks/github"}, {":authority", "evil.test"}, {"host", stack.Host},
			{"user-agent", agent}, {"x-hub-signature-256", github.Headers[0][1]}}, string(github.Body))
		if status != 404 {
			t.Errorf("status %d, want 404", status)
		}
		if got := arrived(t, s, agent); len(got) != 0 {
			t.Error("it reached the application")
		}
	})
	scenario(t, "the sender hangs up within the body", func(t *testing.T) {
		agent := newAgent()
		conn := dialTLS(t, s, "hooks")
		io.WriteString(conn, request("POST /webhooks/github HTTP/1.1", "Host: "+stack.Host, "User-Agent: "+agent, sig, "Content-Length: 13")+"Hello")
		conn.Close()
		if got := logged(t, s, agent)["decision"]; got != nil {
			t.Errorf("hookauthz decided %v about half a delivery", got)
		}
		if got := arrived(t, s, agent); len(got) != 0 {
			t.Error("it reached the application")
		}
	})
}

func websocket(path, field, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: %d\r\n\r\n%s", path, stack.Host, field, len(body), body)
}

// Paths as Envoy gives them on without normalization, where hookauthz finds the policy by host and path.
func TestPaths(t *testing.T) {
	s := setup(t)
	at := func(path, key string) delivery {
		d := guide(path, key, []byte(path))
		d.Listener = "paths"
		return d
	}
	for _, path := range []string{
		"//found/one", "/found//one", "/found/../found/one", "/found/./one", "/found/..", "/found%2fone", "/found%2Fone", "/found%5cone",
		`/found\one`, "/found/one;x=1", "/found/%2e%2e/found/one", "/found/%2E/one", "/found/one/;/..", "/named/x%2f..", "/named//x",
	} {
		scenario(t, "ambiguous: "+path, func(t *testing.T) { denied(t, s, at(path, secret), 403, "ambiguous_path") })
	}
	for _, path := range []string{"/nobody", "/Found/one", "/found", "/foundling", "/?/found/one", "/nobody?x=/found/one", "/named/x"} {
		scenario(t, "no policy: "+path, func(t *testing.T) { denied(t, s, at(path, secret), 403, "no_policy") })
	}
	scenario(t, "the exact path wins", func(t *testing.T) {
		passes(t, s, at("/found/one", secret), "ok")
		denied(t, s, at("/found/one", leakedSecret), 401, "signature_mismatch")
	})
	scenario(t, "below a prefix", func(t *testing.T) {
		passes(t, s, at("/found/two", leakedSecret), "ok")
		denied(t, s, at("/found/two", secret), 401, "signature_mismatch")
	})
	scenario(t, "the query takes no part", func(t *testing.T) { passes(t, s, at("/found/one?x=/found/two;%2f..//", secret), "ok") })
	scenario(t, "host in upper case with a port", func(t *testing.T) {
		d := at("/found/one", secret)
		d.Host = "HOOKS.Example.COM:8443"
		passes(t, s, d, "ok")
	})
	for _, host := range []string{"example.com", "hooks.example.com.evil.test", "evil.test", "hooks.example.com@evil.test"} {
		scenario(t, "no policy for the host "+host, func(t *testing.T) {
			d := at("/found/one", secret)
			d.Host = host
			denied(t, s, d, 403, "no_policy")
		})
	}
}

// How Envoy is wired to hookauthz decides what can be verified.
func TestWirings(t *testing.T) {
	s := setup(t)
	on := func(listener string, d delivery) delivery { d.Listener = listener; return d }
	scenario(t, "body as text", func(t *testing.T) {
		denied(t, s, on("text", guide("/e2e/raw", secret, []byte("plain"))), 503, "body_not_raw")
	})
	scenario(t, "body as text, forged at its exclamation mark", func(t *testing.T) {
		d := guide("/e2e/raw", secret, []byte("10!"))
		d.Body = []byte("10\xff")
		denied(t, s, on("text", d), 503, "body_not_raw")
	})
	scenario(t, "body cut off", func(t *testing.T) {
		denied(t, s, on("partial", guide("/e2e/raw", secret, slices.Repeat([]byte("x"), 5000))), 413, "body_partial")
	})
	scenario(t, "merged headers", func(t *testing.T) {
		passes(t, s, on("merged", guide("/e2e/raw", secret, allBytes)), "ok")
	})
	scenario(t, "merged headers, signature twice", func(t *testing.T) {
		d := guide("/e2e/raw", secret, []byte("x"))
		denied(t, s, on("merged", d.With(d.Headers...)), 401, "signature_malformed")
	})
	scenario(t, "merged headers, token that is no UTF-8", func(t *testing.T) {
		d := delivery{Path: "/webhooks/gitlab", Body: []byte("x"), Headers: []header{{"X-Gitlab-Token", "guess\xff"}}, From: "127.1.2.2"}
		denied(t, s, on("merged", d), 401, "signature_malformed")
	})
	scenario(t, "merged headers, spoofed ones", func(t *testing.T) {
		d := guide("/e2e/raw", secret, []byte("x")).With(header{"X-Hookauthz-Duplicate", "true"}, header{"X-Hookauthz-Endpoint", "github"})
		got := passes(t, s, on("merged", d), "ok")
		if got.Headers.Get("X-Hookauthz-Endpoint") != "raw" || got.Headers.Get("X-Hookauthz-Duplicate") != "" {
			t.Errorf("headers at the application: %v", got.Headers)
		}
	})
}

// The example's listener takes TLS 1.2 and 1.3 with forward secrecy and authenticated encryption.
func TestTLS(t *testing.T) {
	s := setup(t)
	const cbc = tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
	tests := []struct {
		name     string
		listener string
		version  uint16
		suites   []uint16
		err      string
	}{
		{"1.3", "hooks", tls.VersionTLS13, nil, ""},
		{"1.2", "hooks", tls.VersionTLS12, nil, ""},
		{"1.2 with CBC", "hooks", tls.VersionTLS12, []uint16{cbc}, "handshake failure"},
		{"1.2 with CBC and GCM", "hooks", tls.VersionTLS12, []uint16{cbc, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, ""},
		{"1.1", "hooks", tls.VersionTLS11, []uint16{cbc}, "protocol version not supported"},
		{"1.0", "hooks", tls.VersionTLS10, []uint16{cbc}, "protocol version not supported"},
		// The client can do these: the version is what is refused above.
		{"1.1 where it is allowed", "old-tls", tls.VersionTLS11, []uint16{cbc}, ""},
		{"1.0 where it is allowed", "old-tls", tls.VersionTLS10, []uint16{cbc}, ""},
	}
	for _, tt := range tests {
		scenario(t, tt.name, func(t *testing.T) {
			config := s.ClientTLS()
			config.MinVersion, config.MaxVersion, config.CipherSuites = tt.version, tt.version, tt.suites
			conn, err := tls.Dial("tcp", s.Listeners[tt.listener], config)
			if err == nil {
				defer conn.Close()
				if got := conn.ConnectionState().Version; got != tt.version {
					t.Errorf("version %x, want %x", got, tt.version)
				}
			}
			if got := fmt.Sprint(err); tt.err == "" && err != nil || !strings.Contains(got, tt.err) {
				t.Errorf("error %q, want %q", got, tt.err)
			}
		})
	}
}
