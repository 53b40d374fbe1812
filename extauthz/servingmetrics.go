package extauthz

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WatchReady shows whether the server should get deliveries, as it is when metrics are read. It may be called once.
func (m *Metrics) WatchReady(ready func() bool) {
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hookauthz_ready", Help: "1 if the server should get deliveries, 0 while it drains."}, func() float64 {
		if ready() {
			return 1
		}
		return 0
	}))
}

// WatchReplicas shows how many servers share the store. It may be called once.
func (m *Metrics) WatchReplicas(replicas func() int) {
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hookauthz_store_replicas", Help: "Servers that share the store, this one included, as it is known here."},
		func() float64 { return float64(replicas()) }))
}

// Certificate uses.
const (
	ServerCertificate = "server"
	ClientAuthorities = "client_ca"
	AdminCertificate  = "admin"
)

// CertificateRead shows when a certificate that is used for TLS ends. Of several the first counts.
func (m *Metrics) CertificateRead(use string, notAfter time.Time) {
	m.notAfter.WithLabelValues(use).Set(float64(notAfter.Unix()))
}

// PolicyFaults shows how many faults the policy files have: 0 once they load.
func (m *Metrics) PolicyFaults(n int) {
	if m != nil {
		m.faults.Set(float64(n))
	}
}
