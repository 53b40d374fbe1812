package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// delivery is one request of a sender. What is left out is as an ordinary sender has it.
type delivery struct {
	method   string // POST
	path     string
	host     string // stack.Host
	headers  []header
	body     []byte
	chunked  bool
	http2    bool
	from     string // the sender's address: 127.0.0.1
	listener string // "hooks"

	// agent names the delivery in the logs and at the application; send makes one up.
	agent string
}

// header is a field as it is put on the wire.
type header struct{ name, value string }

// with is the delivery with other headers behind its own.
func (d delivery) with(h ...header) delivery {
	d.headers = slices.Concat(d.headers, h)
	return d
}

// result is what the sender sees.
type result struct {
	agent  string
	status int
	header http.Header
	body   []byte
}

var deliveries atomic.Int64

func newAgent() string { return fmt.Sprintf("e2e/%d", deliveries.Add(1)) }

// send sends a delivery and reads the whole reply.
func send(t *testing.T, s *stack.Stack, d delivery) result {
	t.Helper()
	r, err := trySend(t.Context(), s, d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func trySend(ctx context.Context, s *stack.Stack, d delivery) (result, error) {
	transport := newTransport(s, d.http2, d.from)
	defer transport.CloseIdleConnections()
	return sendBy(ctx, transport, s, d)
}

func sendBy(ctx context.Context, transport *http.Transport, s *stack.Stack, d delivery) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var body io.Reader = bytes.NewReader(d.body)
	if d.chunked {
		body = io.MultiReader(body) // of a length that the client does not know
	}
	req, err := http.NewRequestWithContext(ctx, orElse(d.method, http.MethodPost), "https://"+s.Listeners[orElse(d.listener, "hooks")], body)
	if err != nil {
		return result{}, err
	}
	// As it stands, unlike a path that was parsed.
	path, query, _ := strings.Cut(d.path, "?")
	req.URL.Opaque, req.URL.RawQuery = path, query
	if strings.HasPrefix(path, "//") {
		// A target that begins with two slashes would be taken for a host.
		req.URL.Opaque = ""
		req.URL.Path = path
	}
	req.Host = orElse(d.host, stack.Host)
	for _, h := range d.headers {
		req.Header[h.name] = append(req.Header[h.name], h.value)
	}
	r := result{agent: orElse(d.agent, newAgent())}
	req.Header.Set("User-Agent", r.agent)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	r.status, r.header = resp.StatusCode, resp.Header
	r.body, err = io.ReadAll(resp.Body)
	return r, err
}

func newTransport(s *stack.Stack, http2 bool, from string) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: s.ClientTLS(), Protocols: protocols,
		DisableCompression: true, ExpectContinueTimeout: 5 * time.Second,
	}
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// sendRaw writes bytes to a listener over TLS and reads what comes back until the connection is closed, or answered by one response.
func sendRaw(t *testing.T, s *stack.Stack, listener, text string) *http.Response {
	t.Helper()
	conn := dialTLS(t, s, listener)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return readResponse(t, conn)
}

func dialTLS(t *testing.T, s *stack.Stack, listener string) *tls.Conn {
	t.Helper()
	config := s.ClientTLS()
	config.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", s.Listeners[listener], config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// logged is the line of Envoy's access log about a delivery.
func logged(t *testing.T, s *stack.Stack, agent string) map[string]any {
	t.Helper()
	var entry map[string]any
	eventually(t, func() error {
		entries := s.AccessLog(agent)
		if len(entries) != 1 {
			return fmt.Errorf("%d lines for %s in Envoy's access log, want 1", len(entries), agent)
		}
		entry = entries[0]
		return nil
	})
	return entry
}

// arrived are the deliveries of this name at the application.
func arrived(t *testing.T, s *stack.Stack, agent string) []stack.Arrived {
	t.Helper()
	got, err := s.Received(agent)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// passes sends a delivery that must reach the application once, byte for byte, and returns it as it arrived there.
func passes(t *testing.T, s *stack.Stack, d delivery, reason string) stack.Arrived {
	t.Helper()
	r := send(t, s, d)
	if r.status != http.StatusOK {
		t.Fatalf("status %d, want 200; body %s", r.status, r.body)
	}
	got := arrived(t, s, r.agent)
	if len(got) != 1 {
		t.Fatalf("the application got it %d times, want 1", len(got))
	}
	if !bytes.Equal(got[0].Body, d.body) {
		t.Errorf("the body at the application differs: %d bytes, want %d", len(got[0].Body), len(d.body))
	}
	want := map[string]any{"decision": "allow", "reason": reason}
	if diff := cmp.Diff(pick(logged(t, s, r.agent), want), want); diff != "" {
		t.Errorf("Envoy's log (-got +want):\n%s", diff)
	}
	return got[0]
}

// denied sends a delivery that must be refused by hookauthz and not reach the application.
func denied(t *testing.T, s *stack.Stack, d delivery, status int, reason string) result {
	t.Helper()
	r := send(t, s, d)
	if r.status != status {
		t.Errorf("status %d, want %d; body %s", r.status, status, r.body)
	}
	if got := arrived(t, s, r.agent); len(got) != 0 {
		t.Fatal("it reached the application")
	}
	var body struct{ Error, Message, Request_ID string }
	if err := json.Unmarshal(r.body, &body); err != nil || body.Error == "" || body.Message == "" || body.Request_ID == "" {
		t.Errorf("body %q, want JSON with error, message and request_id", r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content-type %q, want application/json", got)
	}
	if strings.Contains(string(r.body), reason) && reason != body.Error {
		t.Errorf("the sender is told the exact reason: %s", r.body)
	}
	if retry := r.header.Get("Retry-After"); (retry == "") == (status == 503 || status == 429) {
		t.Errorf("retry-after %q with status %d", retry, status)
	}
	entry := logged(t, s, r.agent)
	want := map[string]any{"decision": "deny", "reason": reason, "request_id": body.Request_ID}
	if diff := cmp.Diff(pick(entry, want), want); diff != "" {
		t.Errorf("Envoy's log (-got +want):\n%s", diff)
	}
	return r
}

// refused sends a delivery that Envoy itself must refuse: no Check, nothing at the application.
func refused(t *testing.T, s *stack.Stack, d delivery, status int) {
	t.Helper()
	r := send(t, s, d)
	if r.status != status {
		t.Errorf("status %d, want %d; body %s", r.status, status, r.body)
	}
	if got := arrived(t, s, r.agent); len(got) != 0 {
		t.Fatal("it reached the application")
	}
	if got := logged(t, s, r.agent)["decision"]; got != nil {
		t.Errorf("hookauthz was asked, and decided %v", got)
	}
}

// pick is the part of an entry that has the keys of want.
func pick(entry, want map[string]any) map[string]any {
	got := make(map[string]any)
	for k := range want {
		got[k] = entry[k]
	}
	return got
}
