package extauthz

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/policy"
)

func TestAuditEntry(t *testing.T) {
	d := &policy.Decision{
		Outcome: policy.Allow, Reason: policy.Shadow, Shadow: policy.SecretExpired, Endpoint: "ci", SecretVersion: "1", DeliveryID: "id\n", Event: strings.Repeat("x", 400),
		ClientAddress: netip.MustParseAddr("192.0.2.1"), Revision: "r", Status: 401, Degraded: true,
	}
	r := &policy.Request{Method: "POST", Path: "/hook?token=secret", RequestID: "q", Body: [][]byte{[]byte("body")}}
	want := audit.Entry{
		Time: noon, Kind: "decision", Endpoint: "ci", SecretVersion: "1", Decision: "allow", Reason: "shadow", Shadow: "secret_expired", Degraded: true,
		DeliveryID: "id\ufffd", EventType: strings.Repeat("x", 256), ClientAddress: "192.0.2.1", Method: "POST", Path: "/hook", BodyBytes: 4, RequestID: "q", PolicyRevision: "r",
	}
	if diff := cmp.Diff(want, auditEntry(d, r, noon)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAudited(t *testing.T) {
	allow := policy.Decision{Outcome: policy.Allow, Reason: policy.OK}
	shadow := policy.Decision{Outcome: policy.Allow, Reason: policy.Shadow}
	deny := policy.Decision{}
	for _, tt := range []struct {
		d    policy.Decision
		a    policy.Audit
		want bool
	}{
		{allow, policy.AuditNone, false}, {deny, policy.AuditNone, false}, {shadow, policy.AuditNone, false},
		{allow, policy.AuditDenied, false}, {deny, policy.AuditDenied, true}, {shadow, policy.AuditDenied, true},
		{allow, policy.AuditAll, true}, {deny, policy.AuditAll, true}, {shadow, policy.AuditAll, true},
	} {
		tt.d.Audit = tt.a
		if got := tt.d.Audited(); got != tt.want {
			t.Errorf("%s %s with %d: %t, want %t", tt.d.Outcome, tt.d.Reason, tt.a, got, tt.want)
		}
		// One that is replaced by a denial of ours is audited as well.
		if later := instead(&tt.d, policy.DeadlineExceeded); later.Audited() != (tt.a != policy.AuditNone) {
			t.Errorf("replaced: %t", later.Audited())
		}
	}
}

// A flood of strangers does not fill the disk: their denials are counted in a line of their own. Those of a sender that is known all have theirs.
func TestAuditedFlood(t *testing.T) {
	var got []audit.Entry
	l := newDecisionLog(&Config{Logger: slog.New(slog.DiscardHandler), Audit: func(e audit.Entry) { got = append(got, e) }})
	for range 25 {
		for _, d := range []policy.Decision{
			{Outcome: policy.Deny, Reason: policy.SignatureMismatch, Endpoint: "ci", Audit: policy.AuditDenied},
			{Outcome: policy.Deny, Reason: policy.SignatureMismatch, Endpoint: "not audited"},
			{Outcome: policy.Deny, Reason: policy.RateLimited, Endpoint: "ci", Verification: "valid", Audit: policy.AuditDenied},
			{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "all", Verification: "valid", Audit: policy.AuditAll, LogShare: 100},
			{Outcome: policy.Allow, Reason: policy.Shadow, Shadow: policy.SignatureMissing, Endpoint: "trial", Audit: policy.AuditAll},
		} {
			l.decided(t.Context(), &d, &policy.Request{}, 0, noon)
		}
	}
	l.flush(noon.Add(time.Second))
	lines, last := make(map[string]int), make(map[string]audit.Entry)
	for _, e := range got {
		key := fmt.Sprint(e.Kind, " ", e.Endpoint, " ", e.Reason)
		lines[key]++
		last[key] = e
	}
	want := map[string]int{
		"decision ci signature_mismatch": 10, "suppressed ci signature_mismatch": 1, "decision ci rate_limited": 25, "decision all ok": 25,
		"decision trial shadow": 10, "suppressed trial signature_missing": 1,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	counted := audit.Entry{Time: noon.Add(time.Second), Kind: "suppressed", Endpoint: "ci", Reason: "signature_mismatch", Count: 15}
	if diff := cmp.Diff(counted, last["suppressed ci signature_mismatch"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
