package extauthz

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
)

func TestDenials(t *testing.T) {
	denials := NewDenials()
	log := newDecisionLog(&Config{Logger: slog.New(slog.DiscardHandler), Denials: denials})
	decided := func(d policy.Decision, r *policy.Request, now time.Time) { log.decided(t.Context(), &d, r, 0, now) }
	path := []byte("/hooks?token=secret")
	decided(policy.Decision{Outcome: policy.Deny, Reason: policy.SignatureMismatch, Status: 401, Endpoint: "a", ClientAddress: netip.MustParseAddr("192.0.2.7"), Event: "push"},
		&policy.Request{Method: "POST", Path: view(path), RequestID: "r1", Body: [][]byte{[]byte("12"), []byte("345")}}, noon)
	clear(path) // the message is given back
	decided(policy.Decision{Outcome: policy.Allow, Reason: policy.Shadow, Shadow: policy.Replayed, Endpoint: "b", SecretVersion: "1"}, &policy.Request{}, noon.Add(time.Second))
	decided(policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "a"}, &policy.Request{}, noon)
	decided(policy.Decision{Outcome: policy.Answer, Reason: policy.Handshake, Endpoint: "a"}, &policy.Request{}, noon)
	want := []Denial{
		{Number: 2, Time: noon.Add(time.Second), Endpoint: "b", Reason: "replayed", Shadowed: true, SecretVersion: "1"},
		{Number: 1, Time: noon, Endpoint: "a", Reason: "signature_mismatch", Status: 401, ClientAddress: "192.0.2.7", Method: "POST", Path: "/hooks", EventType: "push", BodyBytes: 5, RequestID: "r1"},
	}
	if diff := cmp.Diff(want, denials.Newest()); diff != "" {
		t.Errorf("got (+) and want (-):\n%s", diff)
	}
	var none *Denials
	if got := none.Newest(); got != nil {
		t.Errorf("nil remembers %v", got)
	}
}

// A flood of one kind leaves the others, and what a sender writes is bounded.
func TestDenialsAreBounded(t *testing.T) {
	l := NewDenials()
	deny := func(endpoint string, r policy.Reason, at time.Time) {
		l.add(&policy.Decision{Outcome: policy.Deny, Reason: r, Endpoint: endpoint}, &policy.Request{Path: "/" + strings.Repeat("x", 5000) + "\x00"}, "", at)
	}
	deny("a", policy.SourceDenied, noon)
	for i := range 3 * denialsOfKind {
		deny("a", policy.SignatureMismatch, noon.Add(time.Duration(i+1)*time.Second))
	}
	got := l.Newest()
	if len(got) != denialsOfKind+1 || got[0].Time != noon.Add(3*denialsOfKind*time.Second) || got[denialsOfKind].Reason != "source_denied" {
		t.Errorf("%d remembered, first %v, last %v", len(got), got[0].Time, got[len(got)-1].Reason)
	}
	if len(got[0].Path) > maxValue {
		t.Errorf("a path of %d bytes", len(got[0].Path))
	}
	for i := range maxDenialKinds {
		deny(fmt.Sprint("endpoint-", i), policy.NoPolicy, noon.Add(time.Hour+time.Duration(i)))
	}
	got = l.Newest()
	if len(got) != maxDenialKinds || len(l.kinds) != maxDenialKinds {
		t.Errorf("%d of %d kinds, want %d", len(got), len(l.kinds), maxDenialKinds)
	}
	for _, d := range got {
		if d.Endpoint == "a" {
			t.Errorf("the kind that was seen longest ago is still there: %v", d)
			break
		}
	}
}
