package extauthz

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/policy/incident"
)

// AdminMetrics count what is asked of the admin listener.
type AdminMetrics struct {
	requests *prometheus.CounterVec
}

// Admin are the metrics of the admin listener. It may be called once.
func (m *Metrics) Admin() *AdminMetrics {
	a := &AdminMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hookauthz_admin_requests_total", Help: "Requests to the admin listener, by result: ok, refused (by token, role, name or origin), invalid or failed."}, []string{"result"})}
	m.Registry.MustRegister(a.requests)
	return a
}

// Answered counts a request by the status of its answer.
func (a *AdminMetrics) Answered(status int) {
	result := "ok"
	switch {
	case status == 401 || status == 403 || status == 421 || status == 429:
		result = "refused"
	case status >= 500:
		result = "failed"
	case status >= 400:
		result = "invalid"
	}
	a.requests.WithLabelValues(result).Inc()
}

// WatchIncidents shows what is in force when metrics are read. It may be called once.
func (m *Metrics) WatchIncidents(list func() []incident.Incident) {
	m.Registry.MustRegister(&incidentCollector{list, prometheus.NewDesc("hookauthz_incidents", "Incidents in force: pauses, revocations and blocks by the people on call.", []string{"kind"}, nil)})
}

type incidentCollector struct {
	list func() []incident.Incident
	desc *prometheus.Desc
}

func (c *incidentCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *incidentCollector) Collect(ch chan<- prometheus.Metric) {
	n := make(map[incident.Kind]int)
	for _, i := range c.list() {
		n[i.Kind]++
	}
	for _, kind := range incident.Kinds {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n[kind]), string(kind))
	}
}
