package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func TestReadTraceSettings(t *testing.T) {
	const secret = "hunter2-of-the-collector"
	type variables map[string]string
	tests := []struct {
		name      string
		variables variables
		want      string // exporters, protocol and the headers that are read; "off"; or a part of the fault
	}{
		{"nothing", nil, "off"},
		{"an empty variable is none", variables{"OTEL_TRACES_EXPORTER": " "}, "off"},
		{"none", variables{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "off"},
		{"disabled", variables{"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, "off"},
		{"not disabled", variables{"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, "otlp http/protobuf traceparent,tracestate"},
		{"other settings alone turn nothing on", variables{"OTEL_SERVICE_NAME": "hooks", "OTEL_TRACES_SAMPLER": "always_on"}, "off"},
		{"an endpoint", variables{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp http/protobuf traceparent,tracestate"},
		{"an endpoint of traces", variables{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector:4318/v1/traces"}, "otlp http/protobuf traceparent,tracestate"},
		{"grpc", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp grpc traceparent,tracestate"},
		{"the protocol of traces wins", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, "otlp http/protobuf traceparent,tracestate"},
		{"two exporters", variables{"OTEL_TRACES_EXPORTER": "console, otlp,console"}, "console,otlp http/protobuf traceparent,tracestate"},
		{"propagators", variables{"OTEL_TRACES_EXPORTER": "console", "OTEL_PROPAGATORS": "tracecontext,baggage"}, "console http/protobuf traceparent,tracestate"},
		{"no propagators", variables{"OTEL_TRACES_EXPORTER": "console", "OTEL_PROPAGATORS": "none"}, "console http/protobuf "},

		{"unknown exporter", variables{"OTEL_TRACES_EXPORTER": "zipkin"}, `OTEL_TRACES_EXPORTER "zipkin": want otlp, console or none`},
		{"unknown protocol", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, `OTEL_EXPORTER_OTLP_PROTOCOL "http/json": want grpc or http/protobuf`},
		{"endpoint without a scheme", variables{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no URL: write it as http://collector:4318"},
		{"endpoint that cannot be read", variables{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:" + secret + "@host:%%"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"},
		{"header without a value", variables{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_HEADERS": "a=b,Bearer " + secret}, "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not key=value"},
		{"header that is not encoded", variables{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=100%" + secret}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS: entry 1 is not key=value"},
		{"unknown sampler", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "sometimes"}, `OTEL_TRACES_SAMPLER "sometimes": want always_on, always_off or traceidratio, or one of them behind parentbased_`},
		{"share above 1", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "100"}, `OTEL_TRACES_SAMPLER_ARG "100": want a share from 0 to 1`},
		{"no number", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"}, "want a share from 0 to 1"},
		{"unknown propagator", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_PROPAGATORS": "tracecontext,b3"}, `OTEL_PROPAGATORS "b3": want tracecontext, baggage or none`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := readTraceSettings(func(name string) (string, bool) { v, ok := tt.variables[name]; return v, ok })
			got := "off"
			switch {
			case err != nil:
				got = err.Error()
			case s != nil:
				got = strings.Join([]string{strings.Join(s.exporters, ","), s.protocol, strings.Join(s.propagator.Fields(), ",")}, " ")
			}
			if err == nil && got != tt.want || err != nil && !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if strings.Contains(got, secret) {
				t.Errorf("the fault shows the secret: %s", got)
			}
		})
	}
}

// What OpenTelemetry logs by itself holds values of variables; our log does not.
func TestSDKLog(t *testing.T) {
	book := new(logBook)
	l := logr.New(sdkLog{slog.New(slog.NewJSONHandler(book, nil))})
	l.WithName("otel").WithValues("key", "a-secret").Error(errors.New("a-secret cannot be read"), "parse headers", "value", "a-secret")
	l.V(1).Info("debugging", "value", "a-secret")
	record, found := book.find("OpenTelemetry: parse headers")
	if !found || record["level"] != "ERROR" || strings.Contains(book.String(), "a-secret") || strings.Count(book.String(), "\n") != 1 {
		t.Errorf("the log is %s", book)
	}
}

// A trace is sampled as the variables say before its span is made, and its span has the id that it was sampled by.
func TestTraceSample(t *testing.T) {
	within := func(flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true}))
	}
	for _, tt := range []struct {
		sampler, share             string
		begins, sampled, unsampled float64 // shares, by what Envoy says: nothing, sampled, not sampled
	}{
		{"", "", 1, 1, 0},
		{"always_on", "", 1, 1, 1},
		{"always_off", "", 0, 0, 0},
		{"parentbased_always_off", "", 0, 1, 0},
		{"parentbased_traceidratio", "0.25", .25, 1, 0},
		{"traceidratio", "0", 0, 0, 0},
	} {
		t.Run(tt.sampler, func(t *testing.T) {
			variables := map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": tt.sampler, "OTEL_TRACES_SAMPLER_ARG": tt.share}
			s, err := readTraceSettings(func(name string) (string, bool) { v, ok := variables[name]; return v, ok })
			if err != nil {
				t.Fatal(err)
			}
			provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(s.sampler), sdktrace.WithIDGenerator(identities{}))
			for name, c := range map[string]struct {
				ctx  context.Context
				want float64
			}{"begins": {t.Context(), tt.begins}, "sampled": {within(trace.FlagsSampled), tt.sampled}, "not sampled": {within(0), tt.unsampled}} {
				const n = 4000
				sampled := 0
				for range n {
					ctx, ok := s.sample(c.ctx)
					if !ok {
						continue
					}
					sampled++
					if _, span := provider.Tracer("test").Start(ctx, "check"); !span.SpanContext().IsSampled() || !span.SpanContext().IsValid() {
						t.Fatalf("%s: the span is %v", name, span.SpanContext())
					}
				}
				if got := float64(sampled) / n; math.Abs(got-c.want) > .05 {
					t.Errorf("%s: a share of %v is sampled, want %v", name, got, c.want)
				}
			}
		})
	}
}
