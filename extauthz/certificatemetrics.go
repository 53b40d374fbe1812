package extauthz

import "github.com/prometheus/client_golang/prometheus"

// CertificateMetrics show how the certificates are found that deliveries name.
type CertificateMetrics struct {
	fetches *prometheus.CounterVec
}

// Certificates adds the metrics of certificates to the registry. Call it once.
func (m *Metrics) Certificates() *CertificateMetrics {
	c := &CertificateMetrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hookauthz_certificate_fetches_total", Help: "Fetches of certificates that deliveries name, by result."}, []string{"result"}),
	}
	for _, result := range []string{"success", "failure"} { // a rate needs a beginning
		c.fetches.WithLabelValues(result)
	}
	m.Registry.MustRegister(c.fetches)
	return c
}

// Fetched counts a fetch.
func (c *CertificateMetrics) Fetched(good bool) {
	result := "success"
	if !good {
		result = "failure"
	}
	c.fetches.WithLabelValues(result).Inc()
}
