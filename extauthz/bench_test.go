package extauthz

import (
	"fmt"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The whole call on loopback, the client's side included.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{2 << 10, 1 << 20, 25 << 20} {
		b.Run(fmt.Sprintf("body=%dKiB", size>>10), func(b *testing.B) {
			r := startRig(b, Config{Decider: allowing, MaxBody: 25 << 20})
			client := authv3.NewAuthorizationClient(r.dial(b))
			request := withBody(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if m, err := client.Check(b.Context(), request); err != nil || m.GetOkResponse() == nil {
					b.Fatal(m, err)
				}
			}
		})
	}
}

// What traces add to a call: nothing where they are off, little where the call is not sampled.
func BenchmarkTraces(b *testing.B) {
	never, _ := tracer(b, sdktrace.ParentBased(sdktrace.NeverSample()))
	for _, bench := range []struct {
		name   string
		tracer trace.Tracer
	}{{"off", nil}, {"not-sampled", never}} {
		b.Run(bench.name, func(b *testing.B) {
			r := startRig(b, Config{Decider: allowing, Tracer: bench.tracer})
			client := authv3.NewAuthorizationClient(r.dial(b))
			request := withBody(2 << 10)
			b.ReportAllocs()
			for b.Loop() {
				if m, err := client.Check(b.Context(), request); err != nil || m.GetOkResponse() == nil {
					b.Fatal(m, err)
				}
			}
		})
	}
}
