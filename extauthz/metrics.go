package extauthz

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hookauthz/hookauthz/policy"
)

// Metrics are the Prometheus metrics of a server. Labels come from policy files and closed lists, never from a request.
// A nil *Metrics counts nothing.
type Metrics struct {
	Registry *prometheus.Registry

	decisions     *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	verifications *prometheus.CounterVec
	decoys        *prometheus.CounterVec
	bodyBytes     prometheus.Histogram
	age           *prometheus.HistogramVec
	saturation    *saturation
	notAfter      *prometheus.GaugeVec
	faults        prometheus.Gauge
	inFlight      atomic.Int64
	outcomes      *prometheus.CounterVec
	refused       prometheus.Counter
	refusedCalls  prometheus.Counter
	panics        prometheus.Counter
	heldBack      prometheus.Counter
	storeDuration *prometheus.HistogramVec
	storeErrors   *prometheus.CounterVec
	breakerState  *prometheus.GaugeVec
	reloads       *prometheus.CounterVec
	reloadSuccess prometheus.Gauge
	reloadTime    prometheus.Gauge
	inForce       *policyCollector
	endpoints     atomic.Pointer[map[string]*endpointSeries] // of the policies in force, and "" for deliveries without one

	mu       sync.Mutex // guards what follows
	counted  []string   // endpoints of the policies in force, sorted
	departed []string   // those that left them at the last change
}

// NewMetrics makes the metrics in a registry of their own.
func NewMetrics(version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hookauthz_" + name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hookauthz_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hookauthz_" + name, Help: help})
	}
	count := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hookauthz_" + name, Help: help})
	}
	seconds := []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .2, .5, 1, 2}
	m := &Metrics{
		Registry:      prometheus.NewRegistry(),
		decisions:     counter("decisions_total", "Decisions, by endpoint, decision and reason.", "endpoint", "decision", "reason"),
		duration:      prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hookauthz_check_duration_seconds", Help: "Time from the call to its decision.", Buckets: seconds}, []string{"endpoint"}),
		verifications: counter("signature_verifications_total", "Signature verifications, by endpoint, matching secret version and result.", "endpoint", "version", "result"),
		decoys:        counter("decoy_used_total", "Deliveries signed with a decoy: a secret that was never handed out.", "endpoint", "version"),
		bodyBytes:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hookauthz_body_bytes", Help: "Sizes of bodies.", Buckets: prometheus.ExponentialBuckets(256, 4, 9)}),
		age: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hookauthz_timestamp_age_seconds",
			Help:    "Age of deliveries by the timestamps that they are signed with, where the signature is right; below 0 from the future.",
			Buckets: []float64{-300, -60, -10, -1, 0, 1, 2, 5, 10, 30, 60, 120, 300, 600, 3600}}, []string{"endpoint"}),
		saturation:    newSaturation(),
		notAfter:      gauges("tls_certificate_not_after_timestamp_seconds", "When a certificate of a listener ends: server, client_ca (the first of --tls-client-ca that does), admin.", "use"),
		faults:        gauge("policy_faults", "Faults in the policy files, by the last load; those in force have none."),
		outcomes:      counter("outcomes_total", "Entries of Envoy's access log, by what they did to a reservation.", "result"),
		refused:       count("connections_refused_total", "Connections that were closed at once because there were too many."),
		refusedCalls:  count("calls_refused_total", "Checks that were refused without an answer because there were too many."),
		panics:        count("panics_total", "Checks in which the server failed by its own fault and denied."),
		heldBack:      count("log_suppressed_total", "Lines about equal denials that were counted instead of written."),
		storeDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hookauthz_store_duration_seconds", Help: "Time of store calls.", Buckets: seconds}, []string{"op"}),
		storeErrors:   counter("store_errors_total", "Store calls that gave no verdict.", "op"),
		breakerState:  gauges("breaker_state", "State of a circuit breaker: 0 closed, 1 half-open, 2 open.", "name"),
		reloads:       counter("policy_reloads_total", "Loads of the policy folder, by result.", "result"),
		reloadSuccess: gauge("policy_reload_success", "1 if the last load of the policy folder was good."),
		reloadTime:    gauge("policy_last_reload_success_timestamp_seconds", "When policies were last put in force."),
		inForce:       newPolicyCollector(),
	}
	m.endpoints.Store(&map[string]*endpointSeries{"": {}})
	m.inForce.endpoints = &m.endpoints
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hookauthz_checks_in_flight", Help: "Checks that are under way."},
		func() float64 { return float64(m.inFlight.Load()) })
	build := gauges("build_info", "Always 1; its labels are the version and the Go version.", "version", "goversion")
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.Registry.MustRegister(m.decisions, m.duration, m.verifications, m.decoys, m.bodyBytes, m.age, m.saturation, m.notAfter, m.faults, inFlight, m.outcomes, m.refused, m.refusedCalls, m.panics, m.heldBack, m.storeDuration, m.storeErrors, m.breakerState,
		m.reloads, m.reloadSuccess, m.reloadTime, m.inForce, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// begin counts a check in flight until end.
func (m *Metrics) begin() {
	if m != nil {
		m.inFlight.Add(1)
	}
}

func (m *Metrics) end() {
	if m != nil {
		m.inFlight.Add(-1)
	}
}

// decided counts a decision. The exemplar, if there is one, goes with its duration.
func (m *Metrics) decided(d *policy.Decision, r *policy.Request, took time.Duration, exemplar prometheus.Labels) {
	if m == nil {
		return
	}
	e := (*m.endpoints.Load())[d.Endpoint]
	if e == nil {
		e = new(endpointSeries) // of a set that has just left
	}
	e.decisions.get(decisionLabels{d.Outcome, d.Reason}, func() prometheus.Counter {
		return m.decisions.WithLabelValues(d.Endpoint, d.Outcome.String(), d.Reason.String())
	}).Inc()
	duration := e.duration.get(struct{}{}, func() prometheus.Observer { return m.duration.WithLabelValues(d.Endpoint) })
	observe(duration, took, exemplar)
	m.bodyBytes.Observe(float64(r.BodyLen()))
	if d.Outcome == policy.Allow && d.Reason != policy.Shadow {
		e.allowed.Store(r.Time.UnixMilli())
	}
	if !d.Sent.IsZero() {
		e.age.get(struct{}{}, func() prometheus.Observer { return m.age.WithLabelValues(d.Endpoint) }).Observe(r.Time.Sub(d.Sent).Seconds())
	}
	if d.Verification != "" {
		e.verifications.get(verificationLabels{d.SecretVersion, d.Verification}, func() prometheus.Counter {
			return m.verifications.WithLabelValues(d.Endpoint, d.SecretVersion, d.Verification)
		}).Inc()
	}
	if d.Verification == policy.DecoyUsed {
		m.decoys.WithLabelValues(d.Endpoint, d.SecretVersion).Inc()
	}
}

func observe(o prometheus.Observer, took time.Duration, exemplar prometheus.Labels) {
	if exemplar == nil {
		o.Observe(took.Seconds())
		return
	}
	o.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), exemplar)
}

func (m *Metrics) outcome(result string) {
	if m != nil {
		m.outcomes.WithLabelValues(result).Inc()
	}
}

func (m *Metrics) connectionRefused() {
	if m != nil {
		m.refused.Inc()
	}
}

func (m *Metrics) callRefused() {
	if m != nil {
		m.refusedCalls.Inc()
	}
}

func (m *Metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

// suppressed counts lines that were not written.
func (m *Metrics) suppressed(lines int) {
	if m != nil {
		m.heldBack.Add(float64(lines))
	}
}

// SetPolicies shows the policies in force. Metrics of endpoints that are no longer among them go.
func (m *Metrics) SetPolicies(set *policy.Set, _ time.Time) {
	if m == nil {
		return
	}
	m.inForce.set.Store(set)
	var names []string // sorted
	for _, e := range set.Endpoints() {
		names = append(names, e.Name)
		for _, v := range e.Versions {
			if v.Decoy {
				m.decoys.WithLabelValues(e.Name, v.Name) // 0, so that the first use is an increase
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, after := *m.endpoints.Load(), make(map[string]*endpointSeries, len(names)+1)
	for _, name := range append([]string{""}, names...) {
		if after[name] = before[name]; after[name] == nil {
			after[name] = new(endpointSeries)
		}
	}
	m.endpoints.Store(&after)
	var departed []string
	for _, old := range m.counted {
		if _, kept := slices.BinarySearch(names, old); !kept {
			departed = append(departed, old)
		}
	}
	// A check that was under way at the last change may have counted for an endpoint that had just left.
	for _, old := range slices.Concat(departed, m.departed) {
		if _, back := slices.BinarySearch(names, old); !back {
			m.forget(old)
		}
	}
	m.counted, m.departed = names, departed
}

// forget drops what was counted of an endpoint.
func (m *Metrics) forget(endpoint string) {
	gone := prometheus.Labels{"endpoint": endpoint}
	m.decisions.DeletePartialMatch(gone)
	m.duration.DeletePartialMatch(gone)
	m.age.DeletePartialMatch(gone)
	m.verifications.DeletePartialMatch(gone)
	m.decoys.DeletePartialMatch(gone)
}

// policyCollector tells of the set in force. It reads it as a whole, so that no scrape sees half of a reload.
type policyCollector struct {
	set                       atomic.Pointer[policy.Set]
	uses                      func() []policy.SecretUse
	endpoints                 *atomic.Pointer[map[string]*endpointSeries]
	info, available, notAfter *prometheus.Desc
	lastUsed, lastAllowed     *prometheus.Desc
	about, warnings           *prometheus.Desc
}

// WatchLog shows how many lines of the log were lost. It may be called once.
func (m *Metrics) WatchLog(lost func() uint64) {
	m.Registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "hookauthz_log_lost_lines_total", Help: "Lines that are not in the log, because standard error took them too slowly or not at all.",
	}, func() float64 { return float64(lost()) }))
}

// WatchUses shows when each secret version was last used, as it is when metrics are read. It must be called before they are.
func (m *Metrics) WatchUses(uses func() []policy.SecretUse) {
	if m != nil {
		m.inForce.uses = uses
	}
}

func newPolicyCollector() *policyCollector {
	version := []string{"endpoint", "version"}
	return &policyCollector{
		info:        prometheus.NewDesc("hookauthz_policy_info", "Always 1; its label is the revision in force.", []string{"revision"}, nil),
		available:   prometheus.NewDesc("hookauthz_secret_available", "1 if the key of a secret version could be read.", version, nil),
		notAfter:    prometheus.NewDesc("hookauthz_secret_not_after_timestamp_seconds", "When a secret version ends.", version, nil),
		lastUsed:    prometheus.NewDesc("hookauthz_secret_last_used_timestamp_seconds", "When this server last saw a delivery that was signed with a secret version.", version, nil),
		lastAllowed: prometheus.NewDesc("hookauthz_last_allowed_timestamp_seconds", "When this server last allowed a delivery that was checked; none in shadow mode counts.", []string{"endpoint"}, nil),
		about:       prometheus.NewDesc("hookauthz_endpoint_info", "Always 1; its labels are the scheme and the mode (enforce, shadow) of an endpoint.", []string{"endpoint", "scheme", "mode"}, nil),
		warnings:    prometheus.NewDesc("hookauthz_policy_warnings", "Warnings about the policies in force: what loads but is probably not meant.", nil, nil),
	}
}

func (c *policyCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.info
	ch <- c.available
	ch <- c.notAfter
	ch <- c.lastUsed
	ch <- c.lastAllowed
	ch <- c.about
	ch <- c.warnings
}

func (c *policyCollector) Collect(ch chan<- prometheus.Metric) {
	set := c.set.Load()
	if set == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.info, 1, set.Revision())
	gauge(c.warnings, float64(len(set.Warnings())+len(set.SecretWarnings())))
	series := *c.endpoints.Load()
	for _, e := range set.Endpoints() {
		mode := "enforce"
		if e.Shadow {
			mode = "shadow"
		}
		gauge(c.about, 1, e.Name, e.Scheme, mode)
		if s := series[e.Name]; s != nil {
			if at := s.allowed.Load(); at != 0 {
				gauge(c.lastAllowed, float64(at)/1000, e.Name)
			}
		}
		for _, dir := range e.EmptyFolders {
			gauge(c.available, 0, e.Name, dir)
		}
		for _, v := range e.Versions {
			available := 0.0
			if v.Available {
				available = 1
			}
			gauge(c.available, available, e.Name, v.Name)
			if !v.NotAfter.IsZero() {
				gauge(c.notAfter, float64(v.NotAfter.Unix()), e.Name, v.Name)
			}
		}
	}
	if c.uses == nil {
		return
	}
	for _, u := range c.uses() {
		if !u.LastUsed.IsZero() {
			gauge(c.lastUsed, float64(u.LastUsed.UnixMilli())/1000, u.Endpoint, u.Version)
		}
	}
}

// Reloaded counts a load of the policy folder: good ones put policies in force at now.
func (m *Metrics) Reloaded(good bool, now time.Time) {
	if m == nil {
		return
	}
	if !good {
		m.reloads.WithLabelValues("failure").Inc()
		m.reloadSuccess.Set(0)
		return
	}
	m.reloads.WithLabelValues("success").Inc()
	m.reloadSuccess.Set(1)
	m.reloadTime.Set(float64(now.Unix()))
}

// Breaker shows the state of a circuit breaker: 0 closed, 1 half-open, 2 open.
func (m *Metrics) Breaker(name string, state int) {
	if m != nil {
		m.breakerState.WithLabelValues(name).Set(float64(state))
	}
}

// StoreStats is how many keys of one kind a store holds and how many it had to forget.
type StoreStats struct {
	Kind      string
	Keys      int
	Evictions uint64
}

// WatchStore shows the numbers of a store as they are when metrics are read. It may be called once.
func (m *Metrics) WatchStore(stats func() []StoreStats) {
	if m == nil {
		return
	}
	m.Registry.MustRegister(&storeCollector{
		stats:     stats,
		keys:      prometheus.NewDesc("hookauthz_store_keys", "Keys in the embedded store, by kind.", []string{"kind"}, nil),
		evictions: prometheus.NewDesc("hookauthz_store_evictions_total", "Keys that were forgotten for want of room, by kind.", []string{"kind"}, nil),
	})
}

type storeCollector struct {
	stats           func() []StoreStats
	keys, evictions *prometheus.Desc
}

func (c *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.keys
	ch <- c.evictions
}

func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.stats() {
		ch <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(s.Keys), s.Kind)
		ch <- prometheus.MustNewConstMetric(c.evictions, prometheus.CounterValue, float64(s.Evictions), s.Kind)
	}
}

// Store is a policy.Store whose calls are measured.
func (m *Metrics) Store(s policy.Store) policy.Store {
	if m == nil {
		return s
	}
	measured := &measuredStore{store: s}
	for name, o := range map[string]*operation{"take": &measured.take, "release": &measured.release, "settle": &measured.settle} {
		o.duration, o.errors, o.name = m.storeDuration, m.storeErrors, name
	}
	return measured
}

// measuredStore has the series of each operation at hand.
type measuredStore struct {
	store                 policy.Store
	take, release, settle operation
}

type operation struct {
	duration prometheus.ObserverVec
	errors   *prometheus.CounterVec
	name     string
	observed resolved[struct{}, prometheus.Observer]
}

func (o *operation) measure(begin time.Time, err error) {
	o.observed.get(struct{}{}, func() prometheus.Observer { return o.duration.WithLabelValues(o.name) }).Observe(time.Since(begin).Seconds())
	if err != nil && !errors.Is(err, context.Canceled) {
		o.errors.WithLabelValues(o.name).Inc()
	}
}

func (s *measuredStore) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	begin := time.Now()
	taken, err := s.store.Take(ctx, t)
	s.take.measure(begin, err)
	return taken, err
}

func (s *measuredStore) Release(ctx context.Context, t *policy.Take) error {
	begin := time.Now()
	err := s.store.Release(ctx, t)
	s.release.measure(begin, err)
	return err
}

func (s *measuredStore) Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	begin := time.Now()
	settled, err := s.store.Settle(ctx, now, endpoint, token, confirmed)
	s.settle.measure(begin, err)
	return settled, err
}
