package extauthz

import "github.com/prometheus/client_golang/prometheus"

// Spans adds the count of spans to the registry, and gives the func that counts. Call it once.
func (m *Metrics) Spans() (sent func(spans int, good bool)) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hookauthz_trace_spans_total", Help: "Spans that an exporter was given, by result."}, []string{"result"})
	good, failed := c.WithLabelValues("success"), c.WithLabelValues("failure")
	m.Registry.MustRegister(c)
	return func(spans int, ok bool) {
		if ok {
			good.Add(float64(spans))
		} else {
			failed.Add(float64(spans))
		}
	}
}
