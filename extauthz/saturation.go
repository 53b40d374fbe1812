package extauthz

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// saturation shows how much of a server's bounds is used, as it is when metrics are read.
type saturation struct {
	server                                       atomic.Pointer[Server] // nil: nothing to show
	bytes, bytesLimit, waiting, calls, callLimit *prometheus.Desc
}

func newSaturation() *saturation {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("hookauthz_"+name, help, nil, nil) }
	return &saturation{
		bytes:      desc("inflight_bytes", "Memory that messages of checks under way take."),
		bytesLimit: desc("inflight_bytes_limit", "Memory that they may take together: half of --max-inflight-bytes."),
		waiting:    desc("inflight_waiting", "Checks that wait for memory."),
		calls:      desc("open_calls", "Checks that are open, those that wait too."),
		callLimit:  desc("open_calls_limit", "Open checks beyond which calls are refused. From three quarters on they are answered with overloaded."),
	}
}

func (s *saturation) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.bytes, s.bytesLimit, s.waiting, s.calls, s.callLimit} {
		ch <- d
	}
}

func (s *saturation) Collect(ch chan<- prometheus.Metric) {
	server := s.server.Load()
	if server == nil {
		return
	}
	free, waiting := server.memory.state()
	gauge := func(d *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	gauge(s.bytes, float64(server.limits.Bytes-free))
	gauge(s.bytesLimit, float64(server.limits.Bytes))
	gauge(s.waiting, float64(waiting))
	gauge(s.calls, float64(server.openCalls()))
	gauge(s.callLimit, float64(server.limits.Calls))
}

// watch shows the bounds of a server from now on.
func (m *Metrics) watch(s *Server) {
	if m != nil {
		m.saturation.server.Store(s)
	}
}
