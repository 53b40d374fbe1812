package extauthz

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/policy"
)

// auditEntry is a decision as the audit file has it. It outlives the request, whose texts are copied.
func auditEntry(d *policy.Decision, r *policy.Request, now time.Time) audit.Entry {
	text := func(s string) string { return strings.Clone(quotable(s)) }
	path, _, _ := strings.Cut(r.Path, "?")
	e := audit.Entry{
		Time: now, Kind: audit.Decision, Endpoint: d.Endpoint, SecretVersion: d.SecretVersion, Decision: d.Outcome.String(), Reason: d.Reason.String(),
		Degraded: d.Degraded, DeliveryID: text(d.DeliveryID), EventType: text(d.Event), Method: text(r.Method), Path: text(path), BodyBytes: r.BodyLen(),
		RequestID: text(r.RequestID), PolicyRevision: d.Revision,
	}
	if d.Outcome != policy.Allow {
		e.Status = d.Status
	}
	if d.Reason == policy.Shadow {
		e.Shadow = d.Shadow.String()
	}
	if d.ClientAddress.IsValid() {
		e.ClientAddress = d.ClientAddress.String()
	}
	return e
}

// AuditMetrics count what goes wrong with the audit file.
type AuditMetrics struct {
	errors, lost prometheus.Counter
}

// Audit are the metrics of the audit file. It may be called once.
func (m *Metrics) Audit() *AuditMetrics {
	count := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "hookauthz_" + name, Help: help})
		m.Registry.MustRegister(c)
		return c
	}
	return &AuditMetrics{
		errors: count("audit_errors_total", "Writes to the audit file that failed."),
		lost:   count("audit_lost_lines_total", "Lines that are not in the audit file, because it could not be written or too many waited."),
	}
}

// Failed counts a write that failed.
func (a *AuditMetrics) Failed() { a.errors.Inc() }

// Lost counts lines that were lost.
func (a *AuditMetrics) Lost(n int) { a.lost.Add(float64(n)) }
