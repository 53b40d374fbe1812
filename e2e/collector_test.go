package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlptrace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// collector takes traces by OTLP over HTTP.
type collector struct {
	address string

	mu      sync.Mutex // guards what follows
	refuses bool       // with 503
	asked   int
	raw     bytes.Buffer                 // without what Envoy sends
	spans   map[string][]*otlptrace.Span // by service
}

func newCollector(t *testing.T) *collector {
	c := &collector{spans: make(map[string][]*otlptrace.Span)}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.address = server.Listener.Addr().String()
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var m collectortrace.ExportTraceServiceRequest
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.refuses {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	if err != nil || proto.Unmarshal(body, &m) != nil {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	for _, resource := range m.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			c.spans[service] = append(c.spans[service], scope.GetSpans()...)
		}
		if ours, err := proto.Marshal(resource); err == nil && service != "envoy" {
			c.raw.Write(ours)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// of are the spans of a service in a trace.
func (c *collector) of(service, trace string) (found []*otlptrace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans[service] {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			found = append(found, s)
		}
	}
	return found
}

// received is everything that came from us, as it came.
func (c *collector) received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// refuse says whether everything is refused from now on, and how often it was asked so far.
func (c *collector) refuse(refuses bool) (asked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuses = refuses
	return c.asked
}

// traced has Envoy trace every request, and continue the traces of senders.
func (c *collector) traced(config *stack.EnvoyConfig) {
	host, port, _ := strings.Cut(c.address, ":")
	socket := map[string]any{"socket_address": map[string]any{"address": host, "port_value": port}}
	endpoint := map[string]any{"endpoint": map[string]any{"address": socket}}
	config.AddCluster(map[string]any{"name": "collector", "type": "STATIC", "connect_timeout": "1s", "load_assignment": map[string]any{
		"cluster_name": "collector", "endpoints": []any{map[string]any{"lb_endpoints": []any{endpoint}}}}})
	config.Listener().HCM()["tracing"] = map[string]any{"provider": map[string]any{"name": "envoy.tracers.opentelemetry", "typed_config": map[string]any{
		"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "envoy",
		"http_service": map[string]any{"http_uri": map[string]any{"uri": "http://" + c.address + "/v1/traces", "cluster": "collector", "timeout": "1s"}},
	}}}
}

// exporting are the variables with which hookauthz sends its spans here, every one and soon.
func (c *collector) exporting(more ...string) []string {
	return append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.address, "OTEL_BSP_SCHEDULE_DELAY=50"}, more...)
}

// The span of a check stands in Envoy's trace below the call that Envoy made; log and metrics lead to it; a collector that is away holds up
// nothing; and what is left is sent at the end.
func TestTraces(t *testing.T) {
	setup(t)
	c := newCollector(t)
	dir := t.TempDir()
	writePolicy(t, dir, liveSignature)
	s := up(t, stack.Config{Policies: dir, Edit: func(config *stack.EnvoyConfig) { liveRoute(config); c.traced(config) },
		Env: c.exporting("OTEL_SERVICE_NAME=hooks", "OTEL_BSP_EXPORT_TIMEOUT=1000")})
	const trace = "0af7651916cd43dd8448eb211c80319c"
	inTrace := func(d delivery, trace string) delivery {
		return d.With(header{"Traceparent", "00-" + trace + "-b7ad6b7169203331-01"})
	}
	passes(t, s, inTrace(guide("/e2e/live", secret, []byte("traced")), trace), "ok")
	denied(t, s, inTrace(guide("/e2e/live", "guessed", []byte("traced")), trace), 401, "signature_mismatch")
	eventually(t, func() error {
		ours, envoys := c.of("hooks", trace), make(map[string]string)
		for _, span := range c.of("envoy", trace) {
			envoys[string(span.GetSpanId())] = span.GetName()
		}
		decisions := make(map[string]bool)
		for _, span := range ours {
			if name, found := envoys[string(span.GetParentSpanId())]; !found || !strings.Contains(name, "Check") {
				return fmt.Errorf("a span of ours is below %q, want Envoy's call of Check", name)
			}
			for _, a := range span.GetAttributes() {
				if a.GetKey() == "hookauthz.reason" {
					decisions[a.GetValue().GetStringValue()] = true
				}
			}
		}
		if len(ours) != 2 || !decisions["ok"] || !decisions["signature_mismatch"] {
			return fmt.Errorf("%d spans of ours in the trace, about %v; Envoy's are %v", len(ours), decisions, envoys)
		}
		return nil
	})
	if got := strings.Count(s.Hookauthz.Log(), `"trace_id":"`+trace+`"`); got != 2 {
		t.Errorf("the log names the trace %d times, want 2", got)
	}

	// What the collector refuses is logged once and waited for by nobody.
	asked := c.refuse(true)
	for range 20 {
		passes(t, s, guide("/e2e/live", secret, []byte("refused")), "ok")
	}
	eventually(t, func() error {
		if n := strings.Count(s.Hookauthz.Log(), `"msg":"traces are not sent"`); n == 0 {
			return fmt.Errorf("the collector was asked %d times, and no fault is logged", c.refuse(true)-asked)
		}
		return nil
	})
	if n := strings.Count(s.Hookauthz.Log(), `"msg":"traces are not sent"`); n != 1 {
		t.Errorf("the fault is logged %d times", n)
	}
	c.refuse(false)
	const after = "7bba9f33312b3dbb8b2c2c62bb7abe2d"
	passes(t, s, inTrace(guide("/e2e/live", secret, []byte("taken again")), after), "ok")
	eventually(t, func() error {
		if len(c.of("hooks", after)) != 1 {
			return errors.New("nothing is sent again")
		}
		return nil
	})
}

// What was not sent yet is sent when the server stops.
func TestTracesAreFlushed(t *testing.T) {
	setup(t)
	c := newCollector(t)
	dir := t.TempDir()
	writePolicy(t, dir, liveSignature)
	s := up(t, stack.Config{Policies: dir, Edit: liveRoute, Env: c.exporting("OTEL_BSP_SCHEDULE_DELAY=600000")})
	passes(t, s, guide("/e2e/live", secret, []byte("traced")), "ok")
	if n := len(c.received()); n != 0 {
		t.Fatalf("%d bytes were sent before the end", n)
	}
	if err := s.Hookauthz.Stop(patience); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.received(), "hookauthz.decision") {
		t.Error("the span was not sent at the end")
	}
}
