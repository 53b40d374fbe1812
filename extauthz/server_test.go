package extauthz

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/policy"
)

// deciderFunc is a Decider.
type deciderFunc func(context.Context, *policy.Request) policy.Decision

func (f deciderFunc) Decide(ctx context.Context, r *policy.Request) policy.Decision { return f(ctx, r) }

// allowing is a Decider that allows everything.
var allowing = deciderFunc(func(context.Context, *policy.Request) policy.Decision {
	return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "e", Scheme: "github", SecretVersion: "1"}
})

// rig is a server that serves on loopback until the test ends.
type rig struct {
	*Server
	address string
	stop    context.CancelFunc
	ended   chan error // gets Serve's result
}

func startRig(t testing.TB, c Config) *rig {
	t.Helper()
	if c.Drain == 0 {
		c.Drain = 100 * time.Millisecond
	}
	return serveRig(t, NewServer(c))
}

func serveRig(t testing.TB, s *Server) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{Server: s, address: l.Addr().String(), stop: stop, ended: make(chan error, 1)}
	go func() {
		r.ended <- s.Serve(ctx, l)
		close(r.ended)
	}()
	t.Cleanup(func() {
		stop()
		for err := range r.ended {
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	return r
}

func (r *rig) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// soon bounds a test that hangs.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await waits for a condition.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// total is the sum of all counters and gauges of a name.
func total(t *testing.T, m *Metrics, name string) (sum float64) {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			if f.GetName() == name {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// withBody is a request whose message is as large as the body, and a little.
func withBody(n int) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "POST", Path: "/p", RawBody: make([]byte, n)},
	}}}
}

// sized is a request whose message has exactly n bytes.
func sized(t *testing.T, n int) *authv3.CheckRequest {
	t.Helper()
	m := withBody(n)
	for proto.Size(m) > n {
		http := m.Attributes.Request.Http
		http.RawBody = http.RawBody[:len(http.RawBody)-(proto.Size(m)-n)]
	}
	// The length of a length may leave a few bytes over.
	m.Attributes.Request.Http.Path += strings.Repeat("x", n-proto.Size(m))
	if got := proto.Size(m); got != n {
		t.Fatalf("no message has %d bytes: %d", n, got)
	}
	return m
}

// denied reports what a denial says, "" for anything that Envoy would let through or take for an error.
func denied(m *authv3.CheckResponse, err error) string {
	status := int(m.GetDeniedResponse().GetStatus().GetCode())
	if err != nil || m.GetStatus().GetCode() == 0 || status < 400 {
		return ""
	}
	return m.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// The service is declared as a stream, yet generated clients of the unary method and a stream of one message both work.
func TestUnaryOnTheWire(t *testing.T) {
	var got *policy.Request
	r := startRig(t, Config{Decider: deciderFunc(func(ctx context.Context, r *policy.Request) policy.Decision {
		got = &policy.Request{Path: strings.Clone(r.Path), Time: r.Time}
		return allowing(ctx, r)
	}), Now: func() time.Time { return time.Unix(1e9, 0) }})
	m, err := authv3.NewAuthorizationClient(r.dial(t)).Check(soon(t), withBody(10))
	if err != nil || m.GetStatus().GetCode() != 0 || m.GetOkResponse() == nil {
		t.Fatalf("check: %v, %v; want an allow", m, err)
	}
	want := &policy.Request{Path: "/p", Time: time.Unix(1e9, 0)}
	if diff := cmp.Diff(got, want, cmp.AllowUnexported(policy.Request{}), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }), cmp.Comparer(func(a, b *policy.Request) bool {
		return a.Path == b.Path && a.Time.Equal(b.Time)
	})); diff != "" {
		t.Errorf("request (-got +want):\n%s", diff)
	}
}

// A delivery is judged by the moment at which it is there, not by that at which its call began.
func TestMomentOfDecision(t *testing.T) {
	var clock atomic.Int64
	began := make(chan struct{}, 64)
	decided := make(chan time.Time, 1)
	r := startRig(t, Config{
		Decider: deciderFunc(func(ctx context.Context, r *policy.Request) policy.Decision {
			decided <- r.Time
			return allowing(ctx, r)
		}),
		Now: func() time.Time {
			select {
			case began <- struct{}{}:
			default:
			}
			return time.Unix(clock.Load(), 0)
		},
	})
	stream, err := r.dial(t).NewStream(soon(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, authv3.Authorization_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	<-began
	clock.Store(30)
	if err := stream.SendMsg(withBody(10)); err != nil {
		t.Fatal(err)
	}
	if got := <-decided; got.Unix() != 30 {
		t.Errorf("decided as of %d s, want 30", got.Unix())
	}
	if err := stream.RecvMsg(new(authv3.CheckResponse)); err != nil {
		t.Error(err)
	}
}

func TestMessageSize(t *testing.T) {
	r := startRig(t, Config{Decider: allowing, MaxBody: 64 << 10, MaxInflightBytes: 64 << 20})
	client := authv3.NewAuthorizationClient(r.dial(t))
	largest := r.Limits().MessageBytes
	for _, c := range []struct {
		name string
		size int
		want string
	}{
		{"empty", 0, ""},
		{"small", 100, ""},
		{"one byte more than the window holds", window + 1, ""},
		{"the largest", largest, ""},
		{"one byte too many", largest + 1, "body_too_large"},
		{"far too many", 4 * largest, "body_too_large"},
		{"small again on the same connection", 100, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := &authv3.CheckRequest{}
			if c.size > 0 {
				request = sized(t, c.size)
			}
			m, err := client.Check(soon(t), request)
			if err != nil {
				t.Fatal(err)
			}
			if got := denied(m, err); got != c.want {
				t.Errorf("denied for %q, want %q", got, c.want)
			}
			if c.want != "" && m.GetDeniedResponse().GetStatus().GetCode() != 413 {
				t.Errorf("status %v, want 413", m.GetDeniedResponse().GetStatus().GetCode())
			}
		})
	}
	if r.memory.free != r.Limits().Bytes {
		t.Errorf("%d bytes of the budget are free at the end, want all %d", r.memory.free, r.Limits().Bytes)
	}
}

// rawCheck posts bytes as the stream of a Check and gives back the reply, the gRPC status included.
func rawCheck(t *testing.T, r *rig, body io.Reader, header http.Header) (*authv3.CheckResponse, error) {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(soon(t), "POST", "http://"+r.address+authv3.Authorization_Check_FullMethodName, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []http.Header{response.Header, response.Trailer} {
		if code := h.Get("Grpc-Status"); code != "" && code != "0" {
			return nil, status.Error(codes.Internal, "gRPC status "+code+" "+h.Get("Grpc-Message"))
		}
	}
	m := new(authv3.CheckResponse)
	if len(data) < prefixBytes {
		t.Fatalf("a reply of %d bytes", len(data))
	}
	return m, proto.Unmarshal(data[prefixBytes:], m)
}

// framed puts the prefix of a gRPC message in front of data.
func framed(flag byte, size uint32, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, size), data...)
}

func TestMessagesThatCannotBeRead(t *testing.T) {
	r := startRig(t, Config{Decider: allowing, MaxBody: 64 << 10})
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"no message", nil, "internal_error"},
		{"half a prefix", []byte{0, 0}, "internal_error"},
		{"nothing after the prefix", framed(0, 100), "internal_error"},
		{"cut off", framed(0, 100, 1, 2, 3), "internal_error"},
		{"not protobuf", framed(0, 3, 0xff, 0xff, 0xff), "internal_error"},
		{"text that is not UTF-8", framed(0, 9, 0x0a, 7, 0x22, 5, 0x12, 3, 0x12, 1, 0xff), "internal_error"},
		{"marked as compressed", framed(1, 0), "internal_error"},
		{"4 GiB announced", framed(0, 1<<32-1), "body_too_large"},
		{"2 GiB announced", framed(0, 1<<31), "body_too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := rawCheck(t, r, bytes.NewReader(c.data), nil)
			if err != nil {
				t.Fatalf("got the gRPC error %v, want an answer", err)
			}
			if got := denied(m, err); got != c.want {
				t.Errorf("denied for %q, want %q", got, c.want)
			}
		})
	}
	if r.memory.free != r.Limits().Bytes {
		t.Errorf("%d bytes of the budget are free at the end, want all %d", r.memory.free, r.Limits().Bytes)
	}
}

// gate is a Decider that holds every delivery until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}, 1000), make(chan struct{})} }

func (g *gate) Decide(ctx context.Context, r *policy.Request) policy.Decision {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return allowing(ctx, r)
	case <-ctx.Done():
		return policy.Denied(policy.DeadlineExceeded)
	}
}

// hurried is a context that names a deadline and does not keep it: the server is told of it, and the client waits for the answer however busy
// the machine is.
type hurried struct {
	context.Context
	at time.Time
}

func (h hurried) Deadline() (time.Time, bool) { return h.at, true }

func TestOverload(t *testing.T) {
	g := newGate()
	metrics := NewMetrics("test")
	r := startRig(t, Config{Decider: g, MaxBody: 64 << 10, MaxInflightBytes: 4 << 20, Metrics: metrics})
	if l := r.Limits(); l.Messages != 1 || l.Calls < 4 {
		t.Fatalf("limits %+v, want room for one message and several calls", l)
	}
	client := authv3.NewAuthorizationClient(r.dial(t))
	first := make(chan string, 1)
	go func() {
		m, err := client.Check(soon(t), sized(t, r.Limits().MessageBytes))
		first <- denied(m, err)
	}()
	<-g.entered

	begin := time.Now()
	m, err := client.Check(hurried{soon(t), begin.Add(time.Second)}, withBody(10))
	if got := denied(m, err); got != "overloaded" {
		t.Fatalf("denied for %q (%v, %v), want overloaded", got, m, err)
	}
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("refused after %s: it should have waited for its turn", took)
	}
	d := m.GetDeniedResponse()
	if d.GetStatus().GetCode() != 503 || headerOf(d.GetHeaders(), "retry-after") == "" {
		t.Errorf("denial %v, want 503 with Retry-After", d)
	}
	if len(g.entered) > 0 {
		t.Error("the delivery was decided about without memory for it")
	}

	// One that waits gets its turn when the first is done.
	second := make(chan string, 1)
	go func() {
		m, err := client.Check(soon(t), withBody(10))
		if err != nil {
			t.Error(err)
		}
		second <- denied(m, err)
	}()
	await(t, "a second call", func() bool { return total(t, metrics, "hookauthz_checks_in_flight") == 2 })
	close(g.open)
	if got := []string{<-first, <-second}; !cmp.Equal(got, []string{"", ""}) {
		t.Errorf("denied for %q, want both allowed", got)
	}
}

func headerOf(headers []*corev3.HeaderValueOption, name string) string {
	for _, h := range headers {
		if h.GetHeader().GetKey() == name {
			return h.GetHeader().GetValue()
		}
	}
	return ""
}

// shared is a client codec that sends the same bytes for every message, so that a test's client holds them once.
type shared []byte

func (s shared) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(s)}, nil
}
func (s shared) Unmarshal(mem.BufferSlice, any) error { return nil }
func (s shared) Name() string                         { return "proto" }

// Many connections with many calls send far more than the server may hold.
func TestMemoryIsBounded(t *testing.T) {
	const mebi = 1 << 20
	const limit, connections, callsEach = 32 * mebi, 64, 8
	g := newGate()
	r := startRig(t, Config{Decider: g, MaxBody: mebi, MaxInflightBytes: limit})
	message, err := proto.Marshal(sized(t, 2*mebi))
	if err != nil {
		t.Fatal(err)
	}
	if len(message) != r.Limits().MessageBytes {
		t.Fatalf("the message has %d bytes, want the largest: %d", len(message), r.Limits().MessageBytes)
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // the first empties the pools, the second frees them
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for range connections {
		conn := r.dial(t, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(shared(message))))
		for range callsEach {
			calls.Go(func() {
				// The server gives these calls their deadline. What comes of them does not matter here.
				_ = conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, new(authv3.CheckRequest), new(authv3.CheckResponse))
			})
		}
	}
	for range r.Limits().Messages {
		<-g.entered
	}
	// All of it that can be sent is there when nothing moves any more.
	previous, rests := int64(0), 0
	await(t, "the heap to rest", func() bool {
		now := heap()
		if diff := now - previous; -mebi/4 < diff && diff < mebi/4 {
			rests++
		} else {
			rests = 0
		}
		previous = now
		return rests > 20
	})
	// The messages that are decided about, what waits in the windows, and 16 KiB a call and 256 KiB a connection for both sides' own needs.
	slack := int64(connections*callsEach*16<<10 + connections*256<<10)
	got := previous - before
	t.Logf("%d MiB held of %d MiB sent, with a limit of %d MiB; %+v", got/mebi, connections*callsEach*len(message)/mebi, limit/mebi, r.Limits())
	if got > limit+slack {
		t.Errorf("the server holds %d bytes, want at most %d", got, limit+slack)
	}
	cancel()
	calls.Wait()
	runtime.KeepAlive(message)
}

func TestPanics(t *testing.T) {
	const secret = "the-body-is-secret"
	request := withBody(0)
	request.Attributes.Request.Http.RawBody = []byte(secret)
	for _, c := range []struct {
		name   string
		config Config
		broken string // what the log may not hold
		want   string
	}{
		{"decider", Config{Decider: deciderFunc(func(_ context.Context, r *policy.Request) policy.Decision { panic(string(r.Body[0])) })}, secret, "internal_error"},
		{"nil in the decider", Config{Decider: deciderFunc(func(context.Context, *policy.Request) policy.Decision {
			var r *policy.Request
			return policy.Decision{Endpoint: r.Path}
		})}, secret, "internal_error"},
		{"no decider", Config{}, secret, "internal_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			c.config.Logger = slog.New(slog.NewJSONHandler(&log, nil))
			c.config.Metrics = NewMetrics("test")
			r := startRig(t, c.config)
			client := authv3.NewAuthorizationClient(r.dial(t))
			for range 2 { // the server goes on
				m, err := client.Check(soon(t), request)
				if got := denied(m, err); got != c.want {
					t.Errorf("denied for %q (%v), want %q", got, err, c.want)
				}
			}
			r.stop()
			<-r.ended
			if got := log.String(); !strings.Contains(got, `"msg":"panic"`) || !strings.Contains(got, "server.go") {
				t.Errorf("log %s, want a line with the stack", got)
			}
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log holds the body: %s", log.String())
			}
			if got := total(t, c.config.Metrics, "hookauthz_panics_total"); got != 2 {
				t.Errorf("%v panics counted, want 2", got)
			}
			if r.memory.free != r.Limits().Bytes {
				t.Errorf("%d bytes of the budget are free at the end, want all %d", r.memory.free, r.Limits().Bytes)
			}
		})
	}
}

// panicky is a log handler that fails at decisions.
type panicky struct{ slog.Handler }

func (p panicky) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "decision" {
		panic("log")
	}
	return nil
}

// What fails after the decision does not change it.
func TestPanicInTheReport(t *testing.T) {
	r := startRig(t, Config{Decider: allowing, Logger: slog.New(panicky{slog.DiscardHandler})})
	m, err := authv3.NewAuthorizationClient(r.dial(t)).Check(soon(t), withBody(1))
	if err != nil || m.GetOkResponse() == nil {
		t.Errorf("check: %v, %v; want an allow", m, err)
	}
}

func TestDeadlines(t *testing.T) {
	var left time.Duration
	s := NewServer(Config{Drain: time.Second, Decider: deciderFunc(func(ctx context.Context, r *policy.Request) policy.Decision {
		end, _ := ctx.Deadline()
		left = time.Until(end)
		return allowing(ctx, r)
	})})
	s.deadline = 300 * time.Millisecond
	r := serveRig(t, s)
	conn := r.dial(t)
	t.Run("a call without one gets one", func(t *testing.T) {
		if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), withBody(1)); err != nil {
			t.Fatal(err)
		}
		if left <= 0 || left > s.deadline {
			t.Errorf("the decider had %s, want at most %s", left, s.deadline)
		}
	})
	t.Run("a call that sends nothing ends", func(t *testing.T) {
		desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
		stream, err := conn.NewStream(t.Context(), desc, authv3.Authorization_Check_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		m := new(authv3.CheckResponse)
		err = stream.RecvMsg(m)
		if got := denied(m, err); got != "deadline_exceeded" {
			t.Errorf("denied for %q (%v), want deadline_exceeded", got, err)
		}
	})
}

// recordingSettler is a Settler that has nothing to settle.
type recordingSettler struct{}

func (recordingSettler) Settle(context.Context, time.Time, string, policy.Token, bool) (bool, error) {
	return false, nil
}

func TestDrain(t *testing.T) {
	g := newGate()
	r := startRig(t, Config{Decider: g, Settler: recordingSettler{}, Drain: time.Minute})
	conn := r.dial(t)
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: checkService.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health %v, %v; want SERVING", m, err)
	}
	logs, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Send(&accesslogv3.StreamAccessLogsMessage{}); err != nil {
		t.Fatal(err)
	}
	result := make(chan string, 1)
	go func() {
		m, err := authv3.NewAuthorizationClient(conn).Check(soon(t), withBody(1))
		if err != nil {
			t.Error(err)
		}
		result <- denied(m, err)
	}()
	<-g.entered

	r.stop()
	// Health says so while the check is in flight.
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("health %v, %v; want NOT_SERVING", m, err)
	}
	select {
	case err := <-r.ended:
		t.Fatalf("the server has ended (%v) with a check in flight", err)
	case got := <-result:
		t.Fatalf("the check in flight has ended: %q", got)
	default:
	}
	await(t, "the listener to close", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(g.open)
	if got := <-result; got != "" {
		t.Errorf("the check in flight was denied for %q, want an allow", got)
	}
	// Neither the watcher nor the log stream holds the server up.
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-soon(t).Done():
		t.Fatal("the server does not end")
	}
	if _, err := watch.Recv(); err == nil {
		t.Error("the watcher's stream goes on")
	}
}

// What does not end by itself is cut off.
func TestDrainIsBounded(t *testing.T) {
	g := newGate()
	r := startRig(t, Config{Decider: g, Drain: 20 * time.Millisecond})
	failed := make(chan error, 1)
	go func() {
		m, err := authv3.NewAuthorizationClient(r.dial(t)).Check(soon(t), withBody(1))
		if m.GetStatus().GetCode() == 0 && err == nil {
			t.Errorf("an allow: %v", m)
		}
		failed <- err
	}()
	<-g.entered
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	<-failed
}

func TestServeOnAClosedListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewServer(Config{Decider: allowing}).Serve(t.Context(), l); err == nil {
		t.Error("serve gave no error")
	}
}

func TestHealth(t *testing.T) {
	r := startRig(t, Config{Decider: allowing})
	client := healthv1.NewHealthClient(r.dial(t))
	for _, name := range []string{"", "envoy.service.auth.v3.Authorization"} {
		m, err := client.Check(soon(t), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || m.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q is %v, %v; want SERVING", name, m, err)
		}
	}
	if _, err := client.Check(soon(t), &healthv1.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of another service: %v, want not found", err)
	}
}

func TestOtherMethodsAreUnknown(t *testing.T) {
	r := startRig(t, Config{Decider: allowing})
	conn := r.dial(t)
	for _, method := range []string{
		"/envoy.service.auth.v3.Authorization/Other",
		"/envoy.service.auth.v2.Authorization/Check",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		accesslogv3.AccessLogService_StreamAccessLogs_FullMethodName, // without a Settler
	} {
		err := conn.Invoke(soon(t), method, withBody(1), new(authv3.CheckResponse))
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want unimplemented", method, err)
		}
	}
}

// Calls that cannot even wait are answered without being read, all on one connection.
func TestTooManyCalls(t *testing.T) {
	g := newGate()
	metrics := NewMetrics("test")
	r := startRig(t, Config{Decider: g, MaxBody: 1, MaxInflightBytes: 32 * window, Metrics: metrics})
	if got := r.Limits().Calls; got != 16 {
		t.Fatalf("%d calls, want 16", got)
	}
	conn := r.dial(t)
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	// These hold their places without sending anything.
	var idle []grpc.ClientStream
	open := func() {
		stream, err := conn.NewStream(soon(t), desc, authv3.Authorization_Check_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, stream)
		await(t, "the call to be there", func() bool { return r.openCalls() == int64(len(idle)) })
	}
	for range 12 {
		open()
	}
	// The last quarter is answered, whatever is sent.
	for range 100 {
		m, err := authv3.NewAuthorizationClient(conn).Check(soon(t), withBody(1))
		if got := denied(m, err); got != "overloaded" {
			t.Fatalf("denied for %q (%v), want overloaded", got, err)
		}
	}
	if len(g.entered) > 0 {
		t.Error("a call too many was decided about")
	}
	// When one ends, the next one is decided about.
	if err := idle[0].CloseSend(); err != nil {
		t.Fatal(err)
	}
	m := new(authv3.CheckResponse)
	if err := idle[0].RecvMsg(m); denied(m, err) != "internal_error" { // it had no message
		t.Errorf("an empty call: %v, %v", m, err)
	}
	await(t, "the call to go", func() bool { return r.openCalls() == 11 })
	close(g.open)
	if m, err := authv3.NewAuthorizationClient(conn).Check(soon(t), withBody(1)); err != nil || m.GetOkResponse() == nil {
		t.Errorf("check: %v, %v; want an allow", m, err)
	}
}

// grpc-go ends a call in a compression that it does not know before its handler begins. Such calls hold no place.
func TestCallsThatNeverBegin(t *testing.T) {
	r := startRig(t, Config{Decider: allowing, MaxBody: 1, MaxInflightBytes: 32 * window})
	client := authv3.NewAuthorizationClient(r.dial(t))
	for range 2 {
		for range r.Limits().Calls {
			if _, err := rawCheck(t, r, strings.NewReader(""), http.Header{"Grpc-Encoding": {"nonsense"}}); err == nil {
				t.Fatal("a call in an unknown compression is answered")
			}
		}
		await(t, "a call to be decided about", func() bool {
			m, err := client.Check(soon(t), withBody(1))
			return err == nil && m.GetOkResponse() != nil
		})
	}
	await(t, "all calls to go", func() bool { return int(r.openCalls()) == len(r.arrivals.waiting) })
}

// What comes beyond all bounds costs nothing: it is refused before a stream is made for it.
func TestFarTooManyCalls(t *testing.T) {
	metrics := NewMetrics("test")
	r := startRig(t, Config{Decider: allowing, Metrics: metrics, MaxInflightBytes: 1})
	r.calls.Store(int64(r.Limits().Calls)) // as if so many were open: in truth, all but a few are answered at once
	_, err := authv3.NewAuthorizationClient(r.dial(t)).Check(soon(t), withBody(1))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v, want resource exhausted", err)
	}
	if got := total(t, metrics, "hookauthz_calls_refused_total"); got != 1 {
		t.Errorf("%v calls counted as refused, want 1", got)
	}
	if got, want := r.openCalls(), int64(r.Limits().Calls); got != want {
		t.Errorf("%d calls are open after one was refused, want %d as before", got, want)
	}
}

func TestConnectionLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused := 0
	limited := limitConnections(l, 1, func() { refused++ })
	connect := func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	accept := func() net.Conn {
		conn, err := limited.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	first := connect()
	defer first.Close()
	served := accept()
	second := connect()
	defer second.Close()
	third := make(chan net.Conn)
	go func() {
		conn, _ := limited.Accept() // closes the second on its way
		third <- conn
	}()
	if n, err := second.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from the second connection, want it closed", n)
	}
	served.Close()
	served.Close() // grpc-go may close a connection twice
	last := connect()
	defer last.Close()
	if conn := <-third; conn == nil {
		t.Error("the place of the first connection is not free again")
	} else {
		conn.Close()
	}
	if refused != 1 {
		t.Errorf("%d connections refused, want 1", refused)
	}
	if len(limited.(*limitedListener).places) != 0 {
		t.Error("places are taken with no connection left")
	}
}

func TestLimits(t *testing.T) {
	const kibi, mebi, gibi = int64(1 << 10), int64(1 << 20), int64(1 << 30)
	for _, body := range []int64{1, kibi, 64 * kibi, mebi, 4 * mebi, 25 * mebi, 100 * mebi} {
		for _, memory := range []int64{1, mebi, 64 * mebi, 256 * mebi, gibi, 4 * gibi, 64 * gibi} {
			c := Config{MaxBody: body, MaxInflightBytes: memory}
			l := c.limits()
			if int64(l.MessageBytes) < body+mebi {
				t.Errorf("max body %d: the largest message has %d bytes, want room for headers too", body, l.MessageBytes)
			}
			if l.Connections < 1 || l.Messages < 1 || l.many() < 3 || l.many() >= int64(l.Calls) {
				t.Errorf("max body %d, memory %d: %+v, want a few of each", body, memory, l)
			}
			if unread := int64(l.Calls) * int64(l.Window); unread > max(memory/2, 4*window) {
				t.Errorf("max body %d, memory %d: %d bytes may wait unread, want at most half of it; %+v", body, memory, unread, l)
			}
			if l.Bytes > max(memory/2, footprint(l.MessageBytes)) || int64(l.Messages)*footprint(l.MessageBytes) > l.Bytes {
				t.Errorf("max body %d, memory %d: %+v, want half of the memory for messages", body, memory, l)
			}
		}
	}
	byDefault := Config{}.withDefaults()
	want := Limits{MessageBytes: 5 << 20, Bytes: 512 << 20, Messages: 51, Calls: 4096, Window: 128 << 10, Connections: 1024, Streams: 1024}
	if diff := cmp.Diff(byDefault.limits(), want); diff != "" {
		t.Errorf("limits by default (-got +want):\n%s", diff)
	}
}

// overPipe runs a test with a client that pings as Envoy does, in a time of its own. dials counts its connections.
func overPipe(t *testing.T, c Config, test func(t *testing.T, conn *grpc.ClientConn, dials *int)) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(c)
		l := bufconn.Listen(1 << 20)
		ctx, stop := context.WithCancel(t.Context())
		var served sync.WaitGroup
		served.Go(func() { _ = s.Serve(ctx, l) })
		dials := 0
		conn, err := grpc.NewClient("passthrough:///", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { dials++; return l.DialContext(ctx) }),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
			grpc.WithIdleTimeout(0))
		if err != nil {
			t.Fatal(err)
		}
		test(t, conn, &dials)
		conn.Close()
		stop()
		served.Wait()
	})
}

// Envoy's keepalive is 30 s, on connections without calls too.
func TestKeepalive(t *testing.T) {
	overPipe(t, Config{Decider: allowing, MaxConnectionAge: 24 * time.Hour}, func(t *testing.T, conn *grpc.ClientConn, dials *int) {
		if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), withBody(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := conn.GetState(); got != connectivity.Ready || *dials != 1 {
			t.Errorf("after an hour of pings the connection is %v and was made %d times, want READY and once", got, *dials)
		}
	})
}

// Connections are made anew now and then, without a call that fails.
func TestConnectionAge(t *testing.T) {
	overPipe(t, Config{Decider: allowing}, func(t *testing.T, conn *grpc.ClientConn, dials *int) {
		for range 120 {
			if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), withBody(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if *dials < 3 || *dials > 6 {
			t.Errorf("%d connections in two hours, want about four", *dials)
		}
	})
}
