package extauthz

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ListMetrics say how fresh address lists are.
type ListMetrics struct {
	refreshes *prometheus.CounterVec
	fresh     *prometheus.GaugeVec
	addresses *prometheus.GaugeVec
}

// Lists makes the metrics of address lists. Their names come from policy files.
func (m *Metrics) Lists() *ListMetrics {
	l := &ListMetrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hookauthz_address_list_refreshes_total", Help: "Attempts to fetch an address list, by result."}, []string{"list", "result"}),
		fresh: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hookauthz_address_list_last_refresh_success_timestamp_seconds",
			Help: "When the addresses in force were fetched."}, []string{"list"}),
		addresses: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hookauthz_address_list_addresses", Help: "Entries of the fetched list in force."}, []string{"list"}),
	}
	m.Registry.MustRegister(l.refreshes, l.fresh, l.addresses)
	return l
}

// Taken shows a list that came into force.
func (l *ListMetrics) Taken(list string, entries int) {
	l.addresses.WithLabelValues(list).Set(float64(entries))
}

// Refreshed counts an attempt; a good one is as fresh as at.
func (l *ListMetrics) Refreshed(list string, at time.Time, good bool) {
	if !good {
		l.refreshes.WithLabelValues(list, "failure").Inc()
		return
	}
	l.refreshes.WithLabelValues(list, "success").Inc()
	l.fresh.WithLabelValues(list).Set(float64(at.UnixNano()) / 1e9)
}
