package extauthz

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// Whatever becomes of a delivery that a decoy signs, the alarm sounds.
func TestDecoy(t *testing.T) {
	const secrets = `secrets: [{version: "1", env: SECRET}, {version: bait, env: OTHER, decoy: true}]`
	const used, verified = `hookauthz_decoy_used_total{endpoint="hook",version="bait"}`, `hookauthz_signature_verifications_total{endpoint="hook",result="decoy",version="bait"}`
	for _, tt := range []struct {
		name, scheme string
		lines        []string
		status       int // of the last of three deliveries; 0 for an allow
		alarms       float64
	}{
		{"enforced", "scheme: github, ", nil, 401, 3},
		{"in shadow mode", "scheme: github, ", []string{"mode: shadow"}, 0, 3},
		{"by an address without budget", "scheme: github, ", []string{"failures: {limit: 1/hour}"}, 429, 3},
		{"as a token", "scheme: gitlab-token, ", nil, 401, 3},
		{"as a token, by an address whose tries are not compared any more", "scheme: gitlab-token, ", []string{"failures: {limit: 1/hour}"}, 429, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			m := NewMetrics("")
			set := policies(t, webhook(tt.scheme+secrets, tt.lines...))
			m.SetPolicies(set, noon)
			engine := policy.NewEngine(set, policy.EngineConfig{Store: newStore()})
			m.WatchUses(engine.Uses)
			if got, there := series(t, m)[used]; !there || got != 0 {
				t.Errorf("before its first use the metric is %v, %t; want 0: without it the first use is no increase", got, there)
			}
			conn := dial(t, Config{Decider: engine, Metrics: m, Logger: j.logger(), Now: func() time.Time { return noon }})
			for i := range 3 {
				d := signedBy(t, set, policy.SignOptions{Time: noon, Body: fmt.Append(nil, i), Version: "bait"})
				response := ask(t, conn, d.request(false))
				if got := int(response.GetDeniedResponse().GetStatus().GetCode()); i == 2 && got != tt.status {
					t.Errorf("status %d, want %d", got, tt.status)
				}
			}
			j.wait(t, `"msg":"decision"`, 3)
			j.wait(t, `"level":"ERROR","msg":"decoy used","endpoint":"hook","secret_version":"bait"`, int(tt.alarms))
			if strings.Contains(j.String(), environment["OTHER"]) {
				t.Error("the decoy is in the log")
			}
			got := series(t, m)
			if got[used] != tt.alarms || got[verified] != tt.alarms {
				t.Errorf("%s is %v, %s is %v; want %v", used, got[used], verified, got[verified], tt.alarms)
			}
			if got := got[`hookauthz_secret_last_used_timestamp_seconds{endpoint="hook",version="bait"}`]; got != float64(noon.Unix()) {
				t.Errorf("last used %v, want %d", got, noon.Unix())
			}
		})
	}
}

// Alarms are bounded like denials: whoever has a decoy can send without end.
func TestDecoyFlood(t *testing.T) {
	var j journal
	l := newDecisionLog(&Config{Logger: j.logger()})
	d := &policy.Decision{Reason: policy.SecretExpired, Status: 401, Endpoint: "ci", SecretVersion: "bait", Verification: policy.DecoyUsed}
	for range 30 {
		l.decided(t.Context(), d, &policy.Request{}, 0, noon)
	}
	l.flush(noon)
	for part, want := range map[string]int{`"msg":"decoy used"`: 10, `"msg":"decoy alarms suppressed","endpoint":"ci","reason":"secret_expired","count":20`: 1, `"msg":"decision"`: 10} {
		if got := strings.Count(j.String(), part); got != want {
			t.Errorf("%d times %s, want %d", got, part, want)
		}
	}
}
