package extauthz

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/lines"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// loneStream is a call without a connection: what a check costs beside grpc-go.
type loneStream struct {
	ctx     context.Context
	message []byte
	id      int // where the id of the stream stands in message
	parts   mem.BufferSlice
	reply   mem.BufferSlice
}

// loneTransport is what the call stands on.
type loneTransport struct{ call *loneStream }

func newLoneStream(t testing.TB, message []byte) *loneStream {
	s := &loneStream{message: message, id: bytes.Index(message, []byte(loneID))}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	t.Cleanup(cancel)
	s.ctx = grpc.NewContextWithServerTransportStream(ctx, &loneTransport{s})
	for rest := message; len(rest) > 0; rest = rest[min(len(rest), largeFrame):] {
		s.parts = append(s.parts, mem.SliceBuffer(rest[:min(len(rest), largeFrame)]))
	}
	return s
}

func (s *loneStream) Context() context.Context            { return s.ctx }
func (s *loneTransport) Method() string                   { return "" }
func (s *loneTransport) SetHeader(grpcmetadata.MD) error  { return nil }
func (s *loneTransport) SendHeader(grpcmetadata.MD) error { return nil }
func (s *loneTransport) SetTrailer(grpcmetadata.MD) error { return nil }
func (s *loneStream) SetHeader(grpcmetadata.MD) error     { return nil }
func (s *loneStream) SendHeader(grpcmetadata.MD) error    { return nil }
func (s *loneStream) SetTrailer(grpcmetadata.MD)          {}
func (s *loneStream) RecvMsg(any) error                   { return io.EOF }

func (s *loneStream) SendMsg(m any) error {
	e := m.(*encoded)
	s.reply = append(s.reply[:0], mem.NewBuffer(e.bytes, e.pool))
	s.reply.Free()
	return nil
}

func (s *loneTransport) ReadMessageHeader(header []byte) error {
	header[0] = 0
	binary.BigEndian.PutUint32(header[1:], uint32(len(s.call.message)))
	return nil
}

func (s *loneTransport) Read(int) (mem.BufferSlice, error) { return s.call.parts, nil }

// loneServer checks deliveries of the webhook "hook" with every step at work and every decision logged and counted.
func loneServer(t testing.TB, metrics *Metrics, out io.Writer) (*Server, *policy.Set) {
	set := policies(t, webhook(githubScheme, `source: {allow: [192.0.2.0/24, "2001:db8::/32"]}`, `body: {maxBytes: 2MiB, contentTypes: [application/json]}`,
		`rateLimits: [{limit: 1000000/second, burst: 1000000}]`, `replay: {onDuplicate: tag}`))
	metrics.SetPolicies(set, noon)
	at := noon
	return NewServer(Config{
		Decider: policy.NewEngine(set, policy.EngineConfig{Store: metrics.Store(store.NewMemory(store.MemoryConfig{}))}),
		Logger:  slog.New(lines.NewHandler(out, true, slog.LevelInfo)),
		Metrics: metrics,
		Now:     func() time.Time { at = at.Add(time.Microsecond); return at },
	}), set
}

// loneID stands where next writes the id of the stream.
const loneID = "0123456789"

// next makes the call another one: one with a known stream is taken for Envoy's retry.
func (s *loneStream) next() {
	id := s.message[s.id:][:len(loneID)]
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] <= '9' {
			return
		}
		id[i] = '0'
	}
}

// loneDelivery is an encoded check as Envoy sends it for a delivery of GitHub.
func loneDelivery(t testing.TB, set *policy.Set, size int) []byte {
	d := signedBy(t, set, policy.SignOptions{Time: noon, Body: []byte(strings.Repeat("x", size))})
	d.with("content-type", "application/json").with("accept", "*/*").with("user-agent", "GitHub-Hookshot/044aadd").with("x-forwarded-for", "192.0.2.10").
		with("x-forwarded-proto", "https").with("x-github-hook-id", "292430182").with("x-github-event", "push")
	d.host, d.id = "hooks.example.com", loneID
	data, err := proto.Marshal(d.request(false))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A check beside grpc-go: read, decided, counted, logged and answered.
func BenchmarkCheckAlone(b *testing.B) {
	s, set := loneServer(b, NewMetrics("test"), io.Discard)
	stream := newLoneStream(b, loneDelivery(b, set, 2<<10))
	b.ReportAllocs()
	for b.Loop() {
		stream.next()
		if err := s.check(stream); err != nil {
			b.Fatal(err)
		}
	}
}
