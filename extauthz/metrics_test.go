package extauthz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// series are our metrics as a scrape reads them: `name{label="value"}` -> value. Of a histogram it is the count.
func series(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scraping: %d %s", w.Code, w.Body)
	}
	out := make(map[string]float64)
	for line := range strings.Lines(w.Body.String()) {
		space := strings.LastIndexByte(line, ' ')
		name, _, _ := strings.Cut(line[:max(space, 0)], "{")
		if !strings.HasPrefix(line, "hookauthz_") || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[space:]), 64)
		if err != nil {
			t.Fatalf("the line %q: %v", line, err)
		}
		out[line[:space]] = value
	}
	return out
}

// matching are the series whose names begin with one of the prefixes.
func matching(all map[string]float64, prefixes ...string) map[string]float64 {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name string, _ float64) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	})
	return out
}

// Dashboards and alerts stand on these names and labels.
func TestMetricNames(t *testing.T) {
	m := NewMetrics("v1.2.3")
	const yaml = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: hook}
spec:
  match: {paths: [/hook]}
  signature: {scheme: github, secrets: [{version: new, env: SECRET}, {version: old, env: ABSENT, notAfter: 2026-12-01T00:00:00Z}]}
`
	set := policies(t, yaml)
	m.SetPolicies(set, noon)
	m.Reloaded(true, noon)
	m.Reloaded(false, noon.Add(time.Hour))
	m.Reloaded(true, noon.Add(2*time.Hour))
	memory := store.NewMemory(store.MemoryConfig{})
	m.WatchStore(func() []StoreStats {
		var out []StoreStats
		for _, s := range memory.Stats() {
			out = append(out, StoreStats(s))
		}
		return out
	})
	m.breakerState.WithLabelValues("redis").Set(2)
	var j journal
	conn := dial(t, Config{Decider: policy.NewEngine(set, policy.EngineConfig{Store: m.Store(memory)}), Metrics: m, Logger: j.logger()})
	d := signed(t, set, noon, pullRequest)
	ask(t, conn, d.request(false))
	d.with("x-hub-signature-256", "sha256="+strings.Repeat("0", 64))
	ask(t, conn, d.request(false))
	ask(t, conn, d.request(true))
	d.path = "/from-the-sender"
	ask(t, conn, d.request(false))
	j.wait(t, `"msg":"decision"`, 4)

	got := series(t, m)
	kinds := matching(got, "hookauthz_store_keys{", "hookauthz_store_evictions_total{")
	if len(kinds) != 2*len(memory.Stats()) || len(kinds) == 0 {
		t.Errorf("the store's kinds: %v", kinds)
	}
	maps.DeleteFunc(got, func(name string, _ float64) bool { _, found := kinds[name]; return found })
	want := map[string]float64{
		`hookauthz_decisions_total{decision="allow",endpoint="hook",reason="ok"}`:                         1,
		`hookauthz_decisions_total{decision="deny",endpoint="hook",reason="signature_mismatch"}`:          2,
		`hookauthz_decisions_total{decision="deny",endpoint="",reason="no_policy"}`:                       1,
		`hookauthz_check_duration_seconds_count{endpoint="hook"}`:                                         3,
		`hookauthz_check_duration_seconds_count{endpoint=""}`:                                             1,
		`hookauthz_signature_verifications_total{endpoint="hook",result="valid",version="new"}`:           1,
		`hookauthz_signature_verifications_total{endpoint="hook",result="signature_mismatch",version=""}`: 2,
		`hookauthz_endpoint_info{endpoint="hook",mode="enforce",scheme="github"}`:                         1,
		`hookauthz_last_allowed_timestamp_seconds{endpoint="hook"}`:                                       float64(noon.Unix()),
		`hookauthz_inflight_bytes`:                                                     0,
		`hookauthz_inflight_bytes_limit`:                                               1 << 29,
		`hookauthz_inflight_waiting`:                                                   0,
		`hookauthz_open_calls`:                                                         0,
		`hookauthz_open_calls_limit`:                                                   4096,
		`hookauthz_policy_faults`:                                                      0,
		`hookauthz_policy_warnings`:                                                    1, // the secret is a weak one
		`hookauthz_body_bytes_count`:                                                   4,
		`hookauthz_checks_in_flight`:                                                   0,
		`hookauthz_store_duration_seconds_count{op="take"}`:                            3, // one of them counts failed verifications
		`hookauthz_breaker_state{name="redis"}`:                                        2,
		`hookauthz_policy_reloads_total{result="success"}`:                             2,
		`hookauthz_policy_reloads_total{result="failure"}`:                             1,
		`hookauthz_policy_reload_success`:                                              1,
		`hookauthz_policy_last_reload_success_timestamp_seconds`:                       float64(noon.Add(2 * time.Hour).Unix()),
		`hookauthz_policy_info{revision="` + set.Revision() + `"}`:                     1,
		`hookauthz_secret_available{endpoint="hook",version="new"}`:                    1,
		`hookauthz_secret_available{endpoint="hook",version="old"}`:                    0,
		`hookauthz_secret_not_after_timestamp_seconds{endpoint="hook",version="old"}`:  float64(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Unix()),
		`hookauthz_build_info{goversion="` + runtime.Version() + `",version="v1.2.3"}`: 1,
		`hookauthz_calls_refused_total`:                                                0,
		`hookauthz_connections_refused_total`:                                          0,
		`hookauthz_panics_total`:                                                       0,
		`hookauthz_log_suppressed_total`:                                               0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A failed reload is seen in the metrics, and leaves the time of the last good one.
func TestReloaded(t *testing.T) {
	m := NewMetrics("test")
	m.Reloaded(true, noon)
	m.Reloaded(false, noon.Add(time.Hour))
	want := map[string]float64{
		"hookauthz_policy_reload_success": 0, "hookauthz_policy_last_reload_success_timestamp_seconds": float64(noon.Unix()),
		`hookauthz_policy_reloads_total{result="success"}`: 1, `hookauthz_policy_reloads_total{result="failure"}`: 1,
	}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_policy_reload", "hookauthz_policy_last")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func named(names ...string) string {
	var documents []string
	for _, name := range names {
		documents = append(documents, strings.NewReplacer("name: hook", "name: "+name, "/hook", "/"+name).Replace(webhook(githubScheme)))
	}
	return strings.Join(documents, "---\n")
}

// Series of endpoints that leave the policies go, also those that a check under way brings back; the others stay.
func TestSetPolicies(t *testing.T) {
	m := NewMetrics("test")
	decide := func(endpoint string) {
		d := policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: endpoint, SecretVersion: "1", Verification: "valid"}
		m.decided(&d, &policy.Request{}, time.Millisecond, nil)
	}
	endpoints := func() []string {
		found := make(map[string]int)
		for name := range series(t, m) {
			if _, rest, labelled := strings.Cut(name, `endpoint="`); labelled {
				endpoint, _, _ := strings.Cut(rest, `"`)
				found[endpoint]++
			}
		}
		var out []string
		for _, name := range slices.Sorted(maps.Keys(found)) {
			out = append(out, fmt.Sprint(name, " ", found[name]))
		}
		return out
	}
	for _, name := range []string{"", "b", "c"} {
		decide(name)
	}
	// Each endpoint has decisions, durations and verifications; in force, what it is and the availability of its secret too, and when it was allowed.
	for _, step := range []struct {
		set  *policy.Set
		late string // decided after the change by the set before
		want []string
	}{
		{policies(t, named("a", "b", "c")), "", []string{" 3", "a 2", "b 5", "c 5"}},
		{policies(t, named("a", "c")), "b", []string{" 3", "a 2", "b 3", "c 5"}},
		{policies(t, named("c")), "", []string{" 3", "c 5"}},
		{policies(t, named("b", "c")), "b", []string{" 3", "b 6", "c 5"}},
		{policies(t, named("b", "c")), "", []string{" 3", "b 6", "c 5"}},
		{policies(t, named("c")), "", []string{" 3", "c 5"}},
	} {
		m.SetPolicies(step.set, noon)
		if step.late != "" {
			decide(step.late)
		}
		if diff := cmp.Diff(step.want, endpoints()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]float64{`hookauthz_policy_info{revision="` + step.set.Revision() + `"}`: 1}, matching(series(t, m), "hookauthz_policy_info")); diff != "" {
			t.Errorf("the revision (-want +got):\n%s", diff)
		}
	}
}

// Reloads, decisions and scrapes go on at once, and every scrape sees one set as a whole.
func TestMetricsConcurrently(t *testing.T) {
	m := NewMetrics("test")
	sets := []*policy.Set{policies(t, named("a")), policies(t, named("a", "b"))}
	m.SetPolicies(sets[0], noon)
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				m.SetPolicies(sets[i%2], noon)
			}
		}
	})
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				m.decided(&policy.Decision{Endpoint: "b"}, &policy.Request{}, 0, nil)
			}
		}
	})
	for range 200 {
		got := matching(series(t, m), "hookauthz_policy_info", "hookauthz_secret_available")
		if _, first := got[`hookauthz_policy_info{revision="`+sets[0].Revision()+`"}`]; len(got) != 3 && !(first && len(got) == 2) {
			t.Errorf("half a set: %v", got)
		}
	}
	close(stop)
	group.Wait()
}

// Calls of a store are measured, and fail as they did.
func TestMeasuredStore(t *testing.T) {
	m := NewMetrics("test")
	s := m.Store(brokenStore{})
	if _, err := s.Take(t.Context(), &policy.Take{}); !errors.Is(err, errBroken) {
		t.Errorf("taking: %v", err)
	}
	if err := s.Release(t.Context(), &policy.Take{}); !errors.Is(err, errBroken) {
		t.Errorf("releasing: %v", err)
	}
	if _, err := s.Settle(t.Context(), noon, "hook", policy.Token{}, true); !errors.Is(err, errBroken) {
		t.Errorf("settling: %v", err)
	}
	want := make(map[string]float64)
	for _, op := range []string{"take", "release", "settle"} {
		want[`hookauthz_store_duration_seconds_count{op="`+op+`"}`], want[`hookauthz_store_errors_total{op="`+op+`"}`] = 1, 1
	}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_store_")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	t.Run("verdicts and callers that hang up are no errors", func(t *testing.T) {
		m := NewMetrics("test")
		memory := m.Store(newStore())
		take := &policy.Take{Time: noon, Endpoint: "hook"}
		if _, err := memory.Take(t.Context(), take); err != nil {
			t.Fatal(err)
		}
		if settled, err := memory.Settle(t.Context(), noon, "hook", policy.Token{1}, true); settled || err != nil {
			t.Errorf("an unknown token: %v, %v", settled, err)
		}
		if _, err := m.Store(canceledStore{}).Take(t.Context(), take); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff(map[string]float64{}, matching(series(t, m), "hookauthz_store_errors")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// canceledStore is one whose caller hangs up.
type canceledStore struct{ brokenStore }

func (canceledStore) Take(context.Context, *policy.Take) (policy.Taken, error) {
	return policy.Taken{}, fmt.Errorf("taking: %w", context.Canceled)
}

// Without metrics everything works and nothing is counted.
func TestNoMetrics(t *testing.T) {
	var m *Metrics
	m.begin()
	m.end()
	m.decided(&policy.Decision{}, &policy.Request{}, 0, nil)
	m.outcome("confirmed")
	m.connectionRefused()
	m.panicked()
	m.SetPolicies(policies(t, webhook(githubScheme)), noon)
	m.Reloaded(true, noon)
	m.Reloaded(false, noon)
	m.WatchStore(func() []StoreStats { return nil })
	if _, err := m.Store(newStore()).Take(t.Context(), &policy.Take{Time: noon, Endpoint: "hook"}); err != nil {
		t.Errorf("taking: %v", err)
	}
}

// In flight is what is being decided now.
func TestChecksInFlight(t *testing.T) {
	m := NewMetrics("test")
	entered, leave := make(chan struct{}), make(chan struct{})
	conn := dial(t, Config{Metrics: m, Decider: decides(func(context.Context, *policy.Request) policy.Decision {
		entered <- struct{}{}
		<-leave
		return policy.Denied(policy.NoPolicy)
	})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := check(t, conn, time.Minute, (&delivery{}).request(false)); err != nil {
			t.Errorf("checking: %v", err)
		}
	}()
	<-entered
	if got := series(t, m)["hookauthz_checks_in_flight"]; got != 1 {
		t.Errorf("%v checks are in flight, want 1", got)
	}
	close(leave)
	<-done
}

// A folder of secrets that is empty is seen, though there is no version to show; twice in a policy it is one series.
func TestEmptyFolder(t *testing.T) {
	m := NewMetrics("")
	m.SetPolicies(policies(t, webhook(`scheme: github, secrets: [{dir: missing}, {dir: missing}, {version: "1", env: SECRET}]`)), noon)
	want := map[string]float64{
		`hookauthz_secret_available{endpoint="hook",version="dir missing"}`: 0,
		`hookauthz_secret_available{endpoint="hook",version="1"}`:           1,
	}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_secret_available")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
