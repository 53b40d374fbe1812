package extauthz

import (
	"context"
	"log/slog"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	grpcmetadata "google.golang.org/grpc/metadata"

	"github.com/hookauthz/hookauthz/policy"
)

// spans makes a span of each check. A nil *spans makes none.
type spans struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	sample     func(context.Context) (context.Context, bool)
}

func newSpans(c *Config) *spans {
	if c.Tracer == nil {
		return nil
	}
	return &spans{c.Tracer, c.Propagator, c.Sample}
}

// ofEveryCheck are the attributes that do not depend on the delivery.
var ofEveryCheck = trace.WithAttributes(attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", authv3.Authorization_Check_FullMethodName[1:]))

// start begins the span of a check. Its parent is what Envoy says in the metadata of the call, never a header of the delivery: that one
// is the sender's. The span is nil where there are none.
func (s *spans) start(ctx context.Context, begin time.Time) (context.Context, trace.Span) {
	if s == nil {
		return ctx, nil
	}
	within := s.propagator.Extract(ctx, carrier{ctx})
	if s.sample != nil {
		var sampled bool
		if within, sampled = s.sample(within); !sampled {
			return ctx, nil
		}
	}
	return s.tracer.Start(within, authv3.Authorization_Check_FullMethodName[1:], trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(begin), ofEveryCheck)
}

// carrier is the metadata of a call as OpenTelemetry reads it. It looks up what is asked for, and copies nothing else.
type carrier struct{ call context.Context }

func (c carrier) Get(key string) string {
	if values := grpcmetadata.ValueFromIncomingContext(c.call, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (carrier) Set(string, string) {} // nothing is sent

func (carrier) Keys() []string { return nil } // nothing asks for all

// endSpan says what was decided and ends the span at now.
func endSpan(span trace.Span, d *policy.Decision, now time.Time) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(spanAttributes(d)...)
		if levelOf(d) == slog.LevelError {
			span.SetStatus(codes.Error, d.Reason.String())
		}
	}
	span.End(trace.WithTimestamp(now))
}

// spanAttributes are the fields of a decision that come from policy files and closed lists. Nothing of them is a sender's.
func spanAttributes(d *policy.Decision) []attribute.KeyValue {
	list := make([]attribute.KeyValue, 0, 8)
	text := func(name, value string) {
		if value != "" {
			list = append(list, attribute.String(name, value))
		}
	}
	text("hookauthz.endpoint", d.Endpoint)
	text("hookauthz.decision", d.Outcome.String())
	text("hookauthz.reason", d.Reason.String())
	if d.Outcome != policy.Allow {
		list = append(list, attribute.Int("hookauthz.status", d.Status))
	}
	text("hookauthz.secret_version", d.SecretVersion)
	text("hookauthz.policy_revision", d.Revision)
	if d.Reason == policy.Shadow {
		text("hookauthz.shadow", d.Shadow.String())
	}
	if d.Degraded {
		list = append(list, attribute.Bool("hookauthz.degraded", true))
	}
	return list
}

// traceOf is the trace that a check belongs to: that of its span, else the one that Envoy names in the metadata of the call, else the one
// of the delivery, which the application sees.
func traceOf(ctx context.Context, r *policy.Request) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	if values := grpcmetadata.ValueFromIncomingContext(ctx, "traceparent"); len(values) == 1 {
		if id := traceIDOf(values[0]); id != "" {
			return id
		}
	}
	return traceID(r.Headers)
}

// exemplar names the trace of a check that is sampled, for the histogram of durations; nil where there is none.
func exemplar(span trace.Span) prometheus.Labels {
	if span == nil {
		return nil
	}
	c := span.SpanContext()
	if !c.IsSampled() {
		return nil
	}
	return prometheus.Labels{"trace_id": c.TraceID().String(), "span_id": c.SpanID().String()}
}

// TraceStore is a policy.Store that tells the span of a check, where it is recorded, how long each call took.
func TraceStore(s policy.Store) policy.Store { return &tracedStore{s} }

type tracedStore struct{ store policy.Store }

func (s *tracedStore) tell(ctx context.Context, op string, begin time.Time, err error) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent("store", trace.WithAttributes(attribute.String("hookauthz.store.op", op), attribute.Bool("hookauthz.store.failed", err != nil),
		attribute.Float64("hookauthz.store.duration_ms", float64(time.Since(begin).Microseconds())/1000)))
}

func (s *tracedStore) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	begin := time.Now()
	taken, err := s.store.Take(ctx, t)
	s.tell(ctx, "take", begin, err)
	return taken, err
}

func (s *tracedStore) Release(ctx context.Context, t *policy.Take) error {
	begin := time.Now()
	err := s.store.Release(ctx, t)
	s.tell(ctx, "release", begin, err)
	return err
}

func (s *tracedStore) Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	return s.store.Settle(ctx, now, endpoint, token, confirmed) // no check asks for it
}
