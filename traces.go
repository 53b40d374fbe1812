package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/loglimit"
	"github.com/hookauthz/hookauthz/policy"
)

const (
	// traceLogEvery bounds the log of spans that could not be sent.
	traceLogEvery = 30 * time.Second
	// traceFlush is how long the last spans may take when the server stops.
	traceFlush = 5 * time.Second
)

// traceRetry gives a collector that is restarted the time to come back. What is to be sent meanwhile waits in a queue of 2048 spans
// (OTEL_BSP_MAX_QUEUE_SIZE), and what finds no room there is lost.
var traceRetry = otlptracehttp.RetryConfig{Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: 15 * time.Second}

// traceSettings are what the OTEL_ variables say and the SDK does not read by itself. The rest of them (endpoints, headers, certificates,
// sampler, resource, queue) it reads, and they are only checked here.
type traceSettings struct {
	exporters  []string // otlp, console
	protocol   string   // of otlp: grpc, http/protobuf
	propagator propagation.TextMapPropagator
	sampler    sdktrace.Sampler
}

// readTraceSettings reports nil where traces are off: they are on where an exporter or an OTLP endpoint is named. Faults never show a value
// that can hold a secret.
func readTraceSettings(lookup func(string) (string, bool)) (*traceSettings, error) {
	get := func(names ...string) (name, value string) {
		for _, name := range names {
			if value, _ := lookup(name); strings.TrimSpace(value) != "" {
				return name, strings.TrimSpace(value)
			}
		}
		return "", ""
	}
	if _, disabled := get("OTEL_SDK_DISABLED"); strings.EqualFold(disabled, "true") {
		return nil, nil
	}
	s := &traceSettings{protocol: "http/protobuf", propagator: propagation.TraceContext{}, sampler: sdktrace.ParentBased(sdktrace.AlwaysSample())}
	exporterName, exporters := get("OTEL_TRACES_EXPORTER")
	endpointName, endpoint := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case exporters == "none", exporters == "" && endpoint == "":
		return nil, nil
	case exporters == "":
		exporters = "otlp"
	}
	for _, name := range strings.Split(exporters, ",") {
		name = strings.TrimSpace(name)
		if name != "otlp" && name != "console" {
			return nil, fmt.Errorf("%s %q: want otlp, console or none", exporterName, name)
		}
		if !slices.Contains(s.exporters, name) {
			s.exporters = append(s.exporters, name)
		}
	}
	if name, protocol := get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" {
		if protocol != "grpc" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("%s %q: want grpc or http/protobuf", name, protocol)
		}
		s.protocol = protocol
	}
	if endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("%s is no URL: write it as http://collector:4318, or https:// for TLS", endpointName)
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		if _, list := get(name); list != "" {
			for i, entry := range strings.Split(list, ",") {
				key, value, found := strings.Cut(entry, "=")
				if _, err := url.PathUnescape(value); !found || strings.TrimSpace(key) == "" || err != nil {
					return nil, fmt.Errorf("%s: entry %d is not key=value, with the value percent-encoded", name, i+1)
				}
			}
		}
	}
	if name, sampler := get("OTEL_TRACES_SAMPLER"); sampler != "" {
		share := 1.0
		if argument, text := get("OTEL_TRACES_SAMPLER_ARG"); text != "" && strings.HasSuffix(sampler, "ratio") {
			var err error
			if share, err = strconv.ParseFloat(text, 64); err != nil || !(share >= 0 && share <= 1) {
				return nil, fmt.Errorf("%s %q: want a share from 0 to 1, as 0.01", argument, text)
			}
		}
		root, parent := strings.CutPrefix(sampler, "parentbased_")
		switch root {
		case "always_on":
			s.sampler = sdktrace.AlwaysSample()
		case "always_off":
			s.sampler = sdktrace.NeverSample()
		case "traceidratio":
			s.sampler = sdktrace.TraceIDRatioBased(share)
		default:
			return nil, fmt.Errorf("%s %q: want always_on, always_off or traceidratio, or one of them behind parentbased_", name, sampler)
		}
		if parent {
			s.sampler = sdktrace.ParentBased(s.sampler)
		}
	}
	if name, list := get("OTEL_PROPAGATORS"); list != "" {
		s.propagator = propagation.NewCompositeTextMapPropagator()
		for _, p := range strings.Split(list, ",") {
			switch strings.TrimSpace(p) {
			case "tracecontext":
				s.propagator = propagation.TraceContext{}
			case "baggage", "none": // nothing here reads baggage
			default:
				return nil, fmt.Errorf("%s %q: want tracecontext, baggage or none", name, p)
			}
		}
	}
	return s, nil
}

// traces are where spans go. A nil *traces makes none.
type traces struct {
	settings *traceSettings
	provider *sdktrace.TracerProvider
}

// openTraces makes what the OTEL_ variables ask for. Faults of theirs are logged and leave traces off, as OpenTelemetry wants it: they
// are often set for all programs of a machine, and no delivery waits for them.
func openTraces(p process, build build, metrics *extauthz.Metrics, logger *slog.Logger) *traces {
	settings, err := readTraceSettings(p.lookup)
	if err != nil {
		logger.Error("traces are off", "error", err)
		return nil
	}
	if settings == nil {
		return nil
	}
	// The SDK would write to standard error by itself, values of headers included.
	otel.SetLogger(logr.New(sdkLog{logger}))
	limit := &loglimit.Limit{Every: traceLogEvery, Now: p.now}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if held, due := limit.Due(); due {
			text := err.Error()
			logger.Error("traces are not sent", "error", text[:min(len(text), 512)], "repeated", held)
		}
	}))
	ctx := context.Background()
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "hookauthz"), attribute.String("service.version", build.Version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		logger.Error("traces are off", "error", "OTEL_RESOURCE_ATTRIBUTES cannot be read: want key=value,key=value, percent-encoded")
		return nil
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about), sdktrace.WithSampler(settings.sampler), sdktrace.WithIDGenerator(identities{})}
	sent := metrics.Spans()
	for _, name := range settings.exporters {
		e, err := settings.open(ctx, name, p.stdout)
		if err != nil {
			logger.Error("traces are off", "exporter", name, "error", err)
			return nil
		}
		options = append(options, sdktrace.WithBatcher(countedExporter{e, sent}))
	}
	logger.Info("traces are on", "exporters", strings.Join(settings.exporters, ","), "protocol", settings.protocol)
	return &traces{settings: settings, provider: sdktrace.NewTracerProvider(options...)}
}

func (s *traceSettings) open(ctx context.Context, name string, stdout io.Writer) (sdktrace.SpanExporter, error) {
	switch {
	case name == "console":
		return stdouttrace.New(stdouttrace.WithWriter(stdout))
	case s.protocol == "grpc":
		return otlptracegrpc.New(ctx, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(traceRetry)))
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithRetry(traceRetry))
}

// tracer makes spans; nil where traces are off.
func (t *traces) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/hookauthz/hookauthz")
}

// propagator reads Envoy's span.
func (t *traces) propagator() propagation.TextMapPropagator {
	if t == nil {
		return nil
	}
	return t.settings.propagator
}

// sample asks the sampler before a span is made: to make one that is not recorded takes a twentieth of a check.
func (t *traces) sample() func(context.Context) (context.Context, bool) {
	if t == nil {
		return nil
	}
	return t.settings.sample
}

func (s *traceSettings) sample(ctx context.Context) (context.Context, bool) {
	id := trace.SpanContextFromContext(ctx).TraceID()
	begins := !id.IsValid()
	if begins {
		id = newTraceID()
	}
	sampled := s.sampler.ShouldSample(sdktrace.SamplingParameters{ParentContext: ctx, TraceID: id, Kind: trace.SpanKindServer}).Decision == sdktrace.RecordAndSample
	if sampled && begins {
		ctx = context.WithValue(ctx, beginning{}, id)
	}
	return ctx, sampled
}

// beginning is the key of the id of a trace that begins here.
type beginning struct{}

// identities give a trace the id that it was sampled by.
type identities struct{}

func (identities) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(beginning{}).(trace.TraceID)
	if !ok {
		id = newTraceID()
	}
	return id, newSpanID()
}

func (identities) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newTraceID() (id trace.TraceID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// store is s, whose calls spans tell of.
func (t *traces) store(s policy.Store) policy.Store {
	if t == nil {
		return s
	}
	return extauthz.TraceStore(s)
}

// close sends what is left.
func (t *traces) close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		otel.Handle(err)
	}
}

// countedExporter counts the spans that were sent or lost.
type countedExporter struct {
	sdktrace.SpanExporter
	sent func(spans int, good bool)
}

func (e countedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.sent(len(spans), err == nil)
	return err
}

// sdkLog takes the errors that the SDK logs. Their values can hold what variables hold, secrets too, and are left out.
type sdkLog struct{ logger *slog.Logger }

func (sdkLog) Init(logr.RuntimeInfo)                  {}
func (sdkLog) Enabled(int) bool                       { return false }
func (sdkLog) Info(int, string, ...any)               {}
func (l sdkLog) Error(_ error, what string, _ ...any) { l.logger.Error("OpenTelemetry: " + what) }
func (l sdkLog) WithValues(...any) logr.LogSink       { return l }
func (l sdkLog) WithName(string) logr.LogSink         { return l }
