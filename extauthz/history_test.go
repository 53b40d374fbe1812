package extauthz

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
)

// decisions counts n decisions as a check does.
func decisions(m *Metrics, n int, endpoint string, o policy.Outcome, r policy.Reason) {
	for range n {
		m.decided(&policy.Decision{Endpoint: endpoint, Outcome: o, Reason: r}, &policy.Request{}, time.Millisecond, nil)
	}
}

// recent is the last n steps of each series.
func recent(past Past, n int) map[string][]uint32 {
	out := map[string][]uint32{}
	for _, s := range past.Series {
		out[fmt.Sprint(s.Endpoint, " ", s.Decision, " ", s.Reason)] = s.Counts[HistorySteps-n:]
	}
	return out
}

func TestHistory(t *testing.T) {
	m := NewMetrics("test")
	h := NewHistory(m)
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

	decisions(m, 3, "a", policy.Allow, policy.OK)
	h.Sample(at)
	decisions(m, 2, "a", policy.Allow, policy.OK)
	decisions(m, 1, "b", policy.Deny, policy.SignatureMismatch)
	h.Sample(at.Add(10 * time.Second))
	h.Sample(at.Add(19 * time.Second))
	decisions(m, 4, "a", policy.Allow, policy.OK)
	h.Sample(at.Add(30 * time.Second)) // one step was missed

	want := map[string][]uint32{"a allow ok": {0, 3, 2, 0, 4}, "b deny signature_mismatch": {0, 0, 1, 0, 0}}
	if diff := cmp.Diff(want, recent(h.All(at), 5)); diff != "" {
		t.Errorf("got (+) and want (-):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]uint32{"b deny signature_mismatch": {1, 0, 0}}, recent(h.Of("b", at), 3)); diff != "" {
		t.Errorf("of one endpoint, got (+) and want (-):\n%s", diff)
	}
	if end := h.All(at).End; !end.Equal(at.Add(40 * time.Second)) {
		t.Errorf("the newest step ends at %s", end)
	}

	// A clock that was set back counts into the newest step.
	decisions(m, 1, "a", policy.Allow, policy.OK)
	h.Sample(at)
	if diff := cmp.Diff([]uint32{2, 0, 5}, recent(h.Of("a", at), 3)["a allow ok"]); diff != "" {
		t.Errorf("after the clock was set back, got (+) and want (-):\n%s", diff)
	}
}

// What lies an hour back is forgotten, and its counter does not count again.
func TestHistoryForgets(t *testing.T) {
	m := NewMetrics("test")
	h := NewHistory(m)
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	decisions(m, 5, "a", policy.Allow, policy.OK)
	h.Sample(at)
	h.Sample(at.Add(time.Hour - HistoryStep))
	if got := h.Of("a", at).Series; len(got) != 1 || got[0].Counts[0] != 5 {
		t.Errorf("within the hour: %v", got)
	}
	h.Sample(at.Add(time.Hour))
	if got := h.All(at).Series; len(got) != 0 {
		t.Errorf("after an hour: %v", got)
	}
	decisions(m, 1, "a", policy.Allow, policy.OK)
	h.Sample(at.Add(3 * time.Hour))
	if diff := cmp.Diff([]uint32{0, 1}, recent(h.Of("a", at), 2)["a allow ok"]); diff != "" {
		t.Errorf("back again, got (+) and want (-):\n%s", diff)
	}
}

// An endpoint that left the policies and returns begins at zero, as its counter does.
func TestHistoryOfReturningEndpoints(t *testing.T) {
	m := NewMetrics("test")
	h := NewHistory(m)
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	decisions(m, 5, "a", policy.Allow, policy.OK)
	h.Sample(at)
	m.forget("a")
	decisions(m, 2, "a", policy.Allow, policy.OK)
	h.Sample(at.Add(HistoryStep))
	if diff := cmp.Diff([]uint32{5, 2}, recent(h.Of("a", at), 2)["a allow ok"]); diff != "" {
		t.Errorf("got (+) and want (-):\n%s", diff)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	m := NewMetrics("test")
	h := NewHistory(m)
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for i := range maxSeries + 1 {
		decisions(m, 1, fmt.Sprint("endpoint-", i), policy.Allow, policy.OK)
	}
	h.Sample(at)
	if past := h.All(at); len(past.Series) != maxSeries || !past.Partial {
		t.Errorf("%d series, partial %t; want %d and true", len(past.Series), past.Partial, maxSeries)
	}
	h.Sample(at.Add(time.Hour))
	if past := h.All(at); len(past.Series) != 0 || past.Partial {
		t.Errorf("an hour later %d series, partial %t", len(past.Series), past.Partial)
	}
}
