package e2e

import (
	"bytes"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

var record = flag.Bool("record", false, "write what Envoy asks into extauthz/testdata/envoy")

// recorded are the deliveries whose checks are recorded, by the name of their file.
var recorded = map[string]delivery{
	"small":       {Path: "/e2e/raw", Body: []byte(`{"a":1}`), Headers: []stack.Header{{"content-type", "application/json"}, {"x-hub-signature-256", "sha256=" + strings.Repeat("0", 64)}}},
	"frames":      {Path: "/e2e/raw?a=b", Body: bytes.Repeat([]byte("0123456789abcdef"), 2500)},
	"no-body":     {Method: "GET", Path: "/e2e/raw"},
	"empty":       {Path: "/e2e/raw"},
	"bytes":       {Path: "/e2e/raw", Body: []byte("\x00\xff\xfe{}"), Headers: []stack.Header{{"x-obs", "\xe4\xff"}, {"x-two", "1"}, {"x-two", "2"}, {"x-empty", ""}}},
	"http2":       {Path: "/e2e/raw", HTTP2: true, Body: []byte("http2"), Headers: []stack.Header{{"x-two", "1"}, {"x-two", "2"}}},
	"chunked":     {Path: "/e2e/raw", Chunked: true, Body: []byte("chunked")},
	"text":        {Path: "/e2e/raw", Listener: "text", Body: []byte("a\xffb")},
	"merged":      {Path: "/e2e/raw", Listener: "merged", Body: []byte("{}"), Headers: []stack.Header{{"x-two", "1"}, {"x-two", "2"}, {"x-obs", "\xff"}}},
	"partial":     {Path: "/e2e/raw", Listener: "partial", Body: bytes.Repeat([]byte("x"), 5000)},
	"many-fields": {Path: "/e2e/raw", Body: []byte("{}"), Headers: manyFields()},
}

func manyFields() (fields []stack.Header) {
	for i := range 80 {
		fields = append(fields, stack.Header{"x-field-" + string(rune('a'+i%26)) + string(rune('a'+i/26)), strings.Repeat("v", i)})
	}
	return fields
}

// TestRecord records what Envoy asks about deliveries of many kinds: the corpus of the tests of extauthz.
func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("-record writes the corpus anew")
	}
	policies, err := makePolicies(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("/tmp", "record") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "authz.sock")
	s := up(t, stack.Config{Policies: policies, Edit: addRoutesAndListeners, Plaintext: true, Socket: socket})
	if err := s.Hookauthz.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(r.answer), grpc.ForceServerCodecV2(asBytes{encoding.GetCodecV2(proto.Name)}), grpc.MaxRecvMsgSize(8<<20))
	healthv1.RegisterHealthServer(server, healthy())
	go server.Serve(listener)
	defer server.Stop()
	if err := s.WaitHealthy(within(t)); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(root, "extauthz", "testdata", "envoy")
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, d := range recorded {
		r.take()
		if got := send(t, s, d); got.Status != 200 {
			t.Fatalf("%s: status %d", name, got.Status)
		}
		asked := r.take()
		if len(asked) != 1 {
			t.Fatalf("%s: %d checks", name, len(asked))
		}
		if err := os.WriteFile(filepath.Join(to, name+".bin"), asked[0], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server.Stop()
	if err := s.StartHookauthz(within(t)); err != nil { // the stack ends as it began
		t.Fatal(err)
	}
}

func healthy() *health.Server {
	h := health.NewServer()
	h.SetServingStatus("envoy.service.auth.v3.Authorization", healthv1.HealthCheckResponse_SERVING)
	return h
}

// recorder allows everything and keeps what it is asked.
type recorder struct {
	mu    sync.Mutex // guards what follows
	asked [][]byte
}

func (r *recorder) answer(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	r.mu.Lock()
	r.asked = append(r.asked, message)
	r.mu.Unlock()
	return stream.SendMsg([]byte{0x0a, 0x00, 0x1a, 0x00}) // status 0, ok_response
}

// take gives what was asked since the last time.
func (r *recorder) take() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// asBytes is a codec for messages that are bytes, beside others.
type asBytes struct{ encoding.CodecV2 }

func (c asBytes) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c asBytes) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*[]byte); ok {
		*b = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
