package extauthz

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/policy"
)

// Decider decides about one delivery, and denies what ctx has ended for: it alone can take back what it recorded. policy.Engine is one.
type Decider interface {
	Decide(ctx context.Context, r *policy.Request) policy.Decision
}

// Settler takes the outcomes of deliveries. policy.Engine is one.
type Settler interface {
	Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error)
}

// Config says what a Server works with. Decider is required; everything else has a default.
type Config struct {
	Decider Decider
	// Settler takes outcomes from Envoy's access log. Nil: they are not received.
	Settler Settler
	// Logger gets one line a decision. Nil: none.
	Logger *slog.Logger
	// Metrics counts. Nil: nothing is counted.
	Metrics *Metrics
	// Audit takes the decisions that their policies want audited; it must not wait. Nil: nobody does.
	Audit func(audit.Entry)
	// Tracer makes a span of each check, as a child of Envoy's. Nil: none.
	Tracer trace.Tracer
	// Propagator reads Envoy's span from the metadata of a call. Default: W3C trace context.
	Propagator propagation.TextMapPropagator
	// Denials remembers denials. Nil: nobody does.
	Denials *Denials
	// Sample says, before anything is made, whether the span of a check is recorded, and gives the context to begin it in: ctx holds Envoy's span.
	// Nil: the Tracer says so.
	Sample func(ctx context.Context) (begin context.Context, sampled bool)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// TLS secures the listener. Nil: plain text.
	TLS *tls.Config
	// MaxBody is the largest body in bytes. Default: policy.DefaultMaxBody.
	MaxBody int64
	// MaxInflightBytes bounds what all checks together hold in memory. Default: 1 GiB. One message of the largest size is always taken.
	MaxInflightBytes int64
	// MaxConnectionAge is when Envoy is asked to connect anew, so that its calls reach replicas that came later. Default: 30 minutes.
	MaxConnectionAge time.Duration
	// Drain is how long checks in flight may take once the server stops. Default: 10 s.
	Drain time.Duration

	pool mem.BufferPool // of grpc-go, for tests
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Propagator == nil {
		c.Propagator = propagation.TraceContext{}
	}
	if c.MaxBody <= 0 {
		c.MaxBody = policy.DefaultMaxBody
	}
	if c.MaxInflightBytes <= 0 {
		c.MaxInflightBytes = 1 << 30
	}
	if c.MaxConnectionAge <= 0 {
		c.MaxConnectionAge = 30 * time.Minute
	}
	if c.Drain <= 0 {
		c.Drain = 10 * time.Second
	}
	if c.pool == nil {
		c.pool = new(framePool)
	}
	return c
}

// Limits bound the memory of the server before any message is read.
type Limits struct {
	// MessageBytes is the largest message of a check: a body of Config.MaxBody and everything else that Envoy says.
	MessageBytes int
	// Bytes is the memory for messages that are read and decided about. A message takes twice its size while it is there.
	Bytes int64
	// Messages is how many messages of the largest size fit into Bytes. Small ones are many more.
	Messages int
	// Calls is how many checks may be open, those that wait for memory too. Each has Window bytes for what is received and not read yet.
	// From three quarters on they are answered with overloaded, unread; beyond Calls they are refused with a gRPC error.
	Calls  int
	Window int32
	// Connections is how many Envoy may open, and Streams how many calls each of them carries.
	Connections int
	Streams     uint32
}

const (
	// otherBytes is what a CheckRequest holds beside the body, at the most. Envoy takes 60 KiB of headers unless it is told otherwise.
	otherBytes = 1 << 20
	// logBytes is the largest message of Envoy's access log: its first one names about 1,000 extensions.
	logBytes = 1 << 20
	// maxConnections bounds the memory of connections themselves. Each of Envoy's threads has one at least.
	maxConnections = 1024
	// maxStreams is what Envoy takes for the limit until it is told another one. It fills a new connection at once: a lower limit would make
	// errors of the calls beyond it.
	maxStreams = 1024
	// window holds a delivery of 64 KiB, so that one up to that size arrives without a word from here. It is opened for a larger one once
	// there is memory for it.
	window = 128 << 10
	// connectionWindow is so large that it holds up no body: what is received is bounded by the windows of calls.
	connectionWindow = 8 << 20
)

// limits shares the memory: one half for messages that are read, the other for what waits in the windows of the calls.
func (c *Config) limits() Limits {
	half := c.MaxInflightBytes / 2
	l := Limits{MessageBytes: int(c.MaxBody + otherBytes), Window: window, Connections: maxConnections, Streams: maxStreams}
	l.Bytes = max(half, footprint(l.MessageBytes))
	l.Messages = int(l.Bytes / footprint(l.MessageBytes))
	l.Calls = int(max(4, half/window))
	return l
}

// many is the number of open calls from which on they are not read any more, but still answered.
func (l *Limits) many() int64 { return int64(l.Calls - l.Calls/4) }

// Server answers Check calls, health checks and, with a Settler, access logs.
type Server struct {
	config   Config
	limits   Limits
	deadline time.Duration // of a call that has none of its own
	memory   *budget       // for messages
	calls    atomic.Int64  // open checks
	arrivals *arrivals     // those of them whose handler has not begun
	states   sync.Pool     // of *state
	log      *decisionLog
	spans    *spans
	panics   *panicLog
	grpc     *grpc.Server
	health   *healthService
	outcomes *outcomes
	draining chan struct{} // closed when the server drains
}

// defaultDeadline is for a call that has none of its own; Envoy's have one unless it is configured not to.
const defaultDeadline = 10 * time.Second

// NewServer makes a Server that is not serving yet.
func NewServer(c Config) *Server {
	c = c.withDefaults()
	s := &Server{
		config:   c,
		limits:   c.limits(),
		deadline: defaultDeadline,
		arrivals: newArrivals(),
		log:      newDecisionLog(&c),
		spans:    newSpans(&c),
		panics:   newPanicLog(&c),
		draining: make(chan struct{}),
	}
	s.memory = newBudget(s.limits.Bytes)
	c.Metrics.watch(s)
	s.health = newHealthService("", checkService.ServiceName)
	s.grpc = grpc.NewServer(s.options()...)
	s.grpc.RegisterService(&checkService, s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	if c.Settler != nil {
		s.outcomes = &outcomes{
			settler:  c.Settler,
			now:      c.Now,
			panics:   s.panics,
			metrics:  c.Metrics,
			places:   make(chan struct{}, s.limits.Connections),
			draining: s.draining,
		}
		accesslogv3.RegisterAccessLogServiceServer(s.grpc, s.outcomes)
	}
	return s
}

func (s *Server) options() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(logBytes), // of other calls; those of Check are read here
		grpc.MaxHeaderListSize(64 << 10),
		grpc.MaxConcurrentStreams(s.limits.Streams),
		// Windows of a fixed size: what a peer may send unread is known, and does not grow with its bandwidth. The window of the connection
		// bounds nothing: grpc-go opens it again as bytes arrive.
		grpc.StaticStreamWindowSize(s.limits.Window),
		grpc.StaticConnWindowSize(connectionWindow),
		// Envoy pings every 30 s; grpc-go takes pings under 5 minutes for abuse unless it is told otherwise.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: s.config.MaxConnectionAge, MaxConnectionAgeGrace: 30 * time.Second}),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.InTapHandle(s.tap),
		grpc.ForceServerCodecV2(newCodec()),
		experimental.BufferPool(s.config.pool),
		grpc.ReadBufferSize(64 << 10), // four frames of a large body at once
		// Workers keep their grown stacks: a new goroutine for each check spends a tenth of its time on growing one. Those that wait for a
		// shared store are under way too. Many more take turns on more memory than caches hold.
		grpc.NumStreamWorkers(uint32(max(256, 4*runtime.GOMAXPROCS(0)))),
	}
	if s.config.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.config.TLS)))
	}
	return options
}

// tap sees a call before its stream is made and before any of its data is received. It counts the open checks, and gives one without a
// deadline a deadline, so that a peer that sends nothing holds no stream for ever.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if info.FullMethodName != authv3.Authorization_Check_FullMethodName {
		return ctx, nil
	}
	open := s.calls.Add(1)
	if open > s.limits.many() { // no call counts for long that has ended
		open = s.openCalls()
	}
	if open > int64(s.limits.Calls) {
		s.calls.Add(-1)
		s.config.Metrics.callRefused()
		return ctx, status.Error(codes.ResourceExhausted, "too many open checks")
	}
	ctx = s.arrivals.add(ctx)
	if _, bounded := ctx.Deadline(); bounded {
		return ctx, nil
	}
	bounded, cancel := context.WithTimeout(ctx, s.deadline)
	context.AfterFunc(ctx, cancel)
	return bounded, nil
}

// openCalls is the number of open checks, without those that have ended before their handler began.
func (s *Server) openCalls() int64 { return s.calls.Add(-int64(s.arrivals.sweep(time.Now()))) }

// Limits are the bounds in force.
func (s *Server) Limits() Limits { return s.limits }

// Serve answers on a listener until ctx ends. Then it drains: health says NOT_SERVING first, calls in flight finish within Config.Drain, and
// what is left is cut off. It may be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var telling sync.WaitGroup
	tellCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	telling.Go(func() { s.log.run(tellCtx, s.config.Now) })
	defer telling.Wait()
	defer end()
	served := make(chan error, 1)
	go func() {
		served <- s.grpc.Serve(limitConnections(l, s.limits.Connections, s.config.Metrics.connectionRefused))
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serving checks: %w", err)
	case <-ctx.Done():
	}
	s.health.drain()
	close(s.draining)
	s.stop()
	if s.outcomes != nil {
		s.outcomes.streams.Wait()
	}
	end()
	telling.Wait()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving checks: %w", err)
	}
	return nil
}

// stop ends the calls: in their own time, if that is within Config.Drain.
func (s *Server) stop() {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
	}()
	patience := time.NewTimer(s.config.Drain)
	defer patience.Stop()
	select {
	case <-finished:
	case <-patience.C:
		s.grpc.Stop()
		<-finished
	}
}

// checkService is envoy.service.auth.v3.Authorization with Check as a stream of one message: on the wire there is no difference, but
// the handler runs before the message is read, so that memory is bounded and every message gets an answer.
var checkService = grpc.ServiceDesc{
	ServiceName: "envoy.service.auth.v3.Authorization",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName:    "Check",
		Handler:       func(server any, stream grpc.ServerStream) error { return server.(*Server).check(stream) },
		ServerStreams: true,
		ClientStreams: true,
	}},
	Metadata: "envoy/service/auth/v3/external_auth.proto",
}

// state is what one check works with. It is pooled: reset drops every view of the message.
type state struct {
	request  policy.Request
	decision policy.Decision
	decoder  decoder
	message  received
	taken    int64 // bytes of the budget
	reply    encoded
}

func (c *state) reset() {
	c.decoder.reset()
	c.message.reset()
	*c = state{decoder: c.decoder, message: c.message}
}

// check answers one call. Whatever happens, the answer is explicit: never an allow by default and never a gRPC error.
func (s *Server) check(stream grpc.ServerStream) error {
	begin := s.config.Now()
	s.config.Metrics.begin()
	defer s.config.Metrics.end()
	if s.arrivals.begin(stream.Context()) {
		defer s.calls.Add(-1)
	}
	early := newEarly(stream.Context())
	defer early.stop()
	ctx, span := s.spans.start(early, begin)

	c, ok := s.states.Get().(*state)
	if !ok {
		c = new(state)
	}
	defer func() {
		c.message.free() // the last view of it is in the log line, which is written by now
		s.memory.giveBack(c.taken)
		c.reset()
		s.states.Put(c)
	}()
	c.request.Time = begin
	c.decision = policy.Denied(policy.InternalError)
	s.guard(func() { c.decision = s.decide(ctx, c) })

	c.reply = encoded{s.config.pool.Get(replyBytes), s.config.pool}
	reply := c.reply.bytes
	if !s.guard(func() { *reply = respond((*reply)[:0], &c.decision, &c.request) }) {
		c.decision = instead(&c.decision, policy.InternalError)
		*reply = respond((*reply)[:0], &c.decision, &policy.Request{})
	}
	// The reply goes last: its end, which grpc-go writes once this returns, then leaves with it.
	s.guard(func() { s.report(ctx, span, &c.decision, &c.request, begin) })
	return stream.SendMsg(&c.reply)
}

// replyBytes is what a reply takes as a rule.
const replyBytes = 2048

// guard runs a part of a check and reports whether it ended. A panic is logged without its value, which may hold parts of the delivery.
func (s *Server) guard(part func()) (ended bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panics.tell(p)
		}
	}()
	part()
	return true
}

// decide reads the message and decides about it. The request holds views of the message.
func (s *Server) decide(ctx context.Context, c *state) policy.Decision {
	if s.calls.Load() > s.limits.many() {
		return policy.Denied(policy.Overloaded)
	}
	err := s.receive(ctx, &c.taken, &c.message)
	// It may have waited for memory, or its body been long on the way. A moment that is past would be judged by the limits that others have spent since.
	c.request.Time = s.config.Now()
	if err == nil {
		err = c.decoder.decode(c.message.segments, &c.request)
	}
	if err != nil {
		return unreadable(ctx, err)
	}
	return checked(s.config.Decider.Decide(ctx, &c.request))
}

// report counts, tells and traces a decision.
func (s *Server) report(ctx context.Context, span trace.Span, d *policy.Decision, r *policy.Request, begin time.Time) {
	now := s.config.Now()
	defer endSpan(span, d, now)
	s.config.Metrics.decided(d, r, now.Sub(begin), exemplar(span))
	s.log.decided(ctx, d, r, now.Sub(begin), now)
}
