package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr"
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
		{"unknown sampler", variables{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "sometimes"}, `OTEL_TRACES_SAMPLER "sometimes": want one of always_on`},
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
