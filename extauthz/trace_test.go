package extauthz

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	grpcmetadata "google.golang.org/grpc/metadata"

	"github.com/hookauthz/hookauthz/policy"
)

const (
	envoyTrace, envoySpan   = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	senderTrace, senderSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
)

// tracer records spans as they are sampled.
func tracer(t testing.TB, s sdktrace.Sampler) (trace.Tracer, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(s))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test"), recorder
}

// askWithin sends one Check with metadata.
func askWithin(t testing.TB, client authv3.AuthorizationClient, m *authv3.CheckRequest, pairs ...string) {
	t.Helper()
	if _, err := client.Check(grpcmetadata.AppendToOutgoingContext(t.Context(), pairs...), m); err != nil {
		t.Fatalf("the RPC itself failed: %v", err)
	}
}

// attributesIn are the attributes of a span as text, without those that every span has.
func attributesIn(s sdktrace.ReadOnlySpan) map[string]string {
	out := make(map[string]string)
	for _, a := range s.Attributes() {
		if name, ours := strings.CutPrefix(string(a.Key), "hookauthz."); ours {
			out[name] = a.Value.String()
		}
	}
	return out
}

// A span of a check says what was decided and is a child of the span that Envoy names in the metadata of the call. What the sender says
// of traces and everything else of its delivery stays out.
func TestSpans(t *testing.T) {
	yaml := webhook(githubScheme, "replay: {onDuplicate: tag}")
	hook := policies(t, yaml)
	record, recorder := tracer(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	var j journal
	m := NewMetrics("test")
	conn := dial(t, Config{
		Decider: policy.NewEngine(hook, policy.EngineConfig{Store: TraceStore(newStore())}), Tracer: record, Metrics: m, Logger: j.logger(),
	})
	client := authv3.NewAuthorizationClient(conn)
	sampled := []string{"traceparent", "00-" + envoyTrace + "-" + envoySpan + "-01"}

	const body = `{"text":"of the sender"}`
	good := signed(t, hook, noon, body)
	good.with("traceparent", "00-"+senderTrace+"-"+senderSpan+"-01").with("x-secret-of-the-sender", "of the sender")
	good.path += "?query=of+the+sender"
	forged := signed(t, hook, noon, body).with("x-hub-signature-256", "sha256="+strings.Repeat("ab", 32))
	askWithin(t, client, good.request(false), sampled...)
	askWithin(t, client, forged.request(false), sampled...)
	askWithin(t, client, good.request(false), "traceparent", "00-"+envoyTrace+"-"+envoySpan+"-00") // not sampled by Envoy
	askWithin(t, client, good.request(false))                                                      // Envoy does not trace
	j.wait(t, `"msg":"decision"`, 4)

	ended := recorder.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d spans, want those of the two sampled calls", len(ended))
	}
	for i, want := range []map[string]string{
		{"endpoint": "hook", "decision": "allow", "reason": "ok", "secret_version": "1", "policy_revision": hook.Revision()},
		{"endpoint": "hook", "decision": "deny", "reason": "signature_mismatch", "status": "401", "policy_revision": hook.Revision()},
	} {
		s := ended[i]
		if diff := cmp.Diff(want, attributesIn(s)); diff != "" {
			t.Errorf("span %d (-want +got):\n%s", i, diff)
		}
		if s.Parent().TraceID().String() != envoyTrace || s.Parent().SpanID().String() != envoySpan || !s.Parent().IsRemote() {
			t.Errorf("span %d has the parent %v, want Envoy's", i, s.Parent())
		}
		if s.Name() != "envoy.service.auth.v3.Authorization/Check" || s.SpanKind() != trace.SpanKindServer || s.Status().Code != codes.Unset || !s.StartTime().Equal(noon) {
			t.Errorf("span %d: %s %v %v %v", i, s.Name(), s.SpanKind(), s.Status(), s.StartTime())
		}
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.String(), "of the sender") || strings.Contains(a.Value.String(), "abab") {
				t.Errorf("span %d tells of the delivery: %v", i, a)
			}
		}
		if events := s.Events(); len(events) == 0 || events[0].Name != "store" {
			t.Errorf("span %d has the events %v, want the call of the store", i, events)
		}
	}

	// The log names the trace of the call, and the sender's only where Envoy has none.
	var traces []string
	for _, line := range j.lines(t) {
		if id, ok := line["trace_id"].(string); ok {
			traces = append(traces, id)
		}
	}
	if len(traces) != 4 || !slices.Equal(traces[:3], []string{envoyTrace, envoyTrace, envoyTrace}) || traces[3] == envoyTrace || traces[3] == senderTrace {
		t.Errorf("traces in the log: %v", traces)
	}

	// Durations of sampled checks lead to their traces.
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text")
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	_, found, _ := strings.Cut(w.Body.String(), "# {")
	found, _, _ = strings.Cut(found, "}")
	if !strings.Contains(found, `trace_id="`+envoyTrace+`"`) || !strings.Contains(found, `span_id="`+ended[1].SpanContext().SpanID().String()+`"`) {
		t.Errorf("the exemplar is {%s}, want the span of the last call that was sampled", found)
	}
}

// Without a tracer the log still names the trace of Envoy's call.
func TestTraceOfTheCallWithoutSpans(t *testing.T) {
	for _, tt := range []struct{ name, call, delivery, want string }{
		{"Envoy's", "00-" + envoyTrace + "-" + envoySpan + "-00", "00-" + senderTrace + "-" + senderSpan + "-01", envoyTrace},
		{"the sender's", "", "00-" + senderTrace + "-" + senderSpan + "-01", senderTrace},
		{"none of Envoy's", "nonsense", "00-" + senderTrace + "-" + senderSpan + "-01", senderTrace},
		{"none", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			conn := dial(t, Config{Decider: allowing, Logger: j.logger()})
			d := &delivery{method: "POST", path: "/hook"}
			if tt.delivery != "" {
				d.with("traceparent", tt.delivery)
			}
			var pairs []string
			if tt.call != "" {
				pairs = []string{"traceparent", tt.call}
			}
			askWithin(t, authv3.NewAuthorizationClient(conn), d.request(false), pairs...)
			j.wait(t, `"msg":"decision"`, 1)
			if got, _ := j.lines(t)[0]["trace_id"].(string); got != tt.want {
				t.Errorf("trace %q, want %q", got, tt.want)
			}
		})
	}
}

// Faults of ours are errors of the span; denials are not.
func TestSpanStatus(t *testing.T) {
	record, recorder := tracer(t, sdktrace.AlwaysSample())
	for _, tt := range []struct {
		reason policy.Reason
		want   codes.Code
	}{{policy.InternalError, codes.Error}, {policy.StoreUnavailable, codes.Error}, {policy.Paused, codes.Unset}, {policy.SignatureMissing, codes.Unset}} {
		_, span := record.Start(t.Context(), "check")
		d := policy.Denied(tt.reason)
		endSpan(span, &d, noon)
		ended := recorder.Ended()
		if got := ended[len(ended)-1].Status().Code; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.reason, got, tt.want)
		}
	}
}

// A store that fails says so in the span, and fails as it did.
func TestTracedStore(t *testing.T) {
	record, recorder := tracer(t, sdktrace.AlwaysSample())
	s := TraceStore(brokenStore{})
	ctx, span := record.Start(t.Context(), "check")
	if _, err := s.Take(ctx, &policy.Take{}); err != errBroken {
		t.Errorf("taking: %v", err)
	}
	if err := s.Release(ctx, &policy.Take{}); err != errBroken {
		t.Errorf("releasing: %v", err)
	}
	if _, err := s.Settle(ctx, noon, "hook", policy.Token{}, true); err != errBroken {
		t.Errorf("settling: %v", err)
	}
	span.End()
	var got []string
	for _, e := range recorder.Ended()[0].Events() {
		got = append(got, e.Attributes[0].Value.AsString(), e.Attributes[1].Value.String())
	}
	if diff := cmp.Diff([]string{"take", "true", "release", "true"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
