package extauthz

import (
	"net/netip"
	"strings"
	"testing"

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
