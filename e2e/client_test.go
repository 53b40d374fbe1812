package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// The words of the tests, which are those of package stack.
type (
	delivery = stack.Delivery
	header   = stack.Header
)

// result is what the sender sees, and the name by which the delivery is found elsewhere.
type result struct {
	stack.Reply
	agent string
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
	transport := s.Transport(d.HTTP2, d.From)
	defer transport.CloseIdleConnections()
	return sendBy(ctx, transport, s, d)
}

func sendBy(ctx context.Context, transport *http.Transport, s *stack.Stack, d delivery) (result, error) {
	if d.Agent == "" {
		d.Agent = newAgent()
	}
	r, err := s.SendBy(ctx, transport, d)
	return result{r, d.Agent}, err
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
	if r.Status != http.StatusOK {
		t.Fatalf("status %d, want 200; body %s", r.Status, r.Body)
	}
	got := arrived(t, s, r.agent)
	if len(got) != 1 {
		t.Fatalf("the application got it %d times, want 1", len(got))
	}
	if !bytes.Equal(got[0].Body, d.Body) {
		t.Errorf("the body at the application differs: %d bytes, want %d", len(got[0].Body), len(d.Body))
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
	if r.Status != status {
		t.Errorf("status %d, want %d; body %s", r.Status, status, r.Body)
	}
	if got := arrived(t, s, r.agent); len(got) != 0 {
		t.Fatal("it reached the application")
	}
	var body struct{ Error, Message, Request_ID string }
	if err := json.Unmarshal(r.Body, &body); err != nil || body.Error == "" || body.Message == "" || body.Request_ID == "" {
		t.Errorf("body %q, want JSON with error, message and request_id", r.Body)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content-type %q, want application/json", got)
	}
	if strings.Contains(string(r.Body), reason) && reason != body.Error {
		t.Errorf("the sender is told the exact reason: %s", r.Body)
	}
	if retry := r.Header.Get("Retry-After"); (retry == "") == (status == 503 || status == 429) {
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
	if r.Status != status {
		t.Errorf("status %d, want %d; body %s", r.Status, status, r.Body)
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
