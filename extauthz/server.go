package extauthz

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/hookauthz/hookauthz/policy"
)

// Decider decides about one delivery. policy.Engine is one.
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
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// TLS secures the listener. Nil: plain text.
	TLS *tls.Config
	// MaxBody is the largest body in bytes. Default: policy.DefaultMaxBody.
	MaxBody int64
	// MaxInflightBytes bounds what all checks together hold in memory. Default: 1 GiB.
	MaxInflightBytes int64
	// Drain is how long checks in flight may take once the server stops. Default: 10 s.
	Drain time.Duration
}

// defaultDeadline is for a call that has none of its own; Envoy's always have.
const defaultDeadline = 10 * time.Second

// Limits bound the memory of the server before any message is read.
type Limits struct {
	// Messages is how many messages are read and decided about at once; as many may wait for a place.
	Messages int
	// Connections and Streams bound what is received and not read yet, with Window bytes for each stream.
	Connections int
	Streams     uint32 // on each connection
	Window      int32
	// MessageBytes is the largest message.
	MessageBytes int
}

const (
	// headerBytes is what a CheckRequest holds beside the body, at the most: Envoy's own limit on headers is 60 KiB by default and 8 MiB at the most.
	headerBytes    = 1 << 20
	maxConnections = 64
	maxWindow      = 256 << 10
	minWindow      = 64 << 10
)

// limits shares the memory: one half for messages that are read, the other for what waits in the windows of the streams.
func (c *Config) limits() Limits {
	half := c.MaxInflightBytes / 2
	l := Limits{MessageBytes: int(c.MaxBody + headerBytes)}
	l.Messages = int(max(1, half/(c.MaxBody+minWindow)))
	l.Window = int32(min(maxWindow, max(minWindow, c.MaxBody)))
	streams := max(1, half/int64(l.Window))
	l.Connections = int(min(maxConnections, streams))
	l.Streams = uint32(max(1, min(1000, streams/int64(l.Connections))))
	return l
}

// Server answers Check calls, health checks and, with a Settler, access logs.
type Server struct {
	config  Config
	limits  Limits
	log     *decisionLog
	grpc    *grpc.Server
	health  *health.Server
	slots   chan struct{} // one for each message that is read or decided about
	waiting chan struct{} // one for each call that waits for a slot
	stopped chan struct{} // closed when the server drains
}

// NewServer makes a Server that is not serving yet.
func NewServer(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxBody <= 0 {
		c.MaxBody = policy.DefaultMaxBody
	}
	if c.MaxInflightBytes <= 0 {
		c.MaxInflightBytes = 1 << 30
	}
	if c.Drain <= 0 {
		c.Drain = 10 * time.Second
	}
	s := &Server{config: c, limits: c.limits(), log: newDecisionLog(c.Logger), health: health.NewServer()}
	s.slots = make(chan struct{}, s.limits.Messages)
	s.waiting = make(chan struct{}, s.limits.Messages)
	s.stopped = make(chan struct{})
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.limits.MessageBytes),
		grpc.MaxConcurrentStreams(s.limits.Streams),
		// Windows of a fixed size: what a peer may send unread is known, and does not grow with its bandwidth.
		grpc.StaticStreamWindowSize(s.limits.Window),
		grpc.StaticConnWindowSize(s.limits.Window * 4),
		// Envoy pings every 30 s; grpc-go takes pings under 5 minutes for abuse unless it is told otherwise.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		// Connections end now and then, so that Envoys spread over replicas that came later.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: 30 * time.Second}),
		grpc.ConnectionTimeout(10 * time.Second),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	s.grpc = grpc.NewServer(options...)
	s.grpc.RegisterService(&checkService, s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	for _, name := range []string{"", checkService.ServiceName} {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	if c.Settler != nil {
		accesslogv3.RegisterAccessLogServiceServer(s.grpc, &outcomes{settler: c.Settler, now: c.Now, metrics: c.Metrics, stopping: s.stopped})
	}
	return s
}

// Limits are the bounds in force.
func (s *Server) Limits() Limits { return s.limits }

// Serve answers on a listener until ctx ends. Then it drains: health says NOT_SERVING first, calls in flight finish within Config.Drain, and
// what is left is cut off.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(limitConnections(l, s.limits.Connections)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving checks: %w", err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	close(s.stopped)
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
	s.log.flush()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving checks: %w", err)
	}
	return nil
}

// checkService is envoy.service.auth.v3.Authorization with Check as a stream of one message: on the wire there is no difference, but
// the handler runs before the message is read, so that memory is bounded and an oversized message gets an answer.
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

// check answers one call. Whatever happens, the answer is explicit: never an allow by default and never a gRPC error.
func (s *Server) check(stream grpc.ServerStream) error {
	begin := s.config.Now()
	ctx := stream.Context()
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
		defer cancel()
	}
	done := s.config.Metrics.begin()
	defer done()
	r := &policy.Request{}
	d := s.answer(ctx, stream, r, begin)
	response := respond(&d, r)
	s.config.Metrics.decided(&d, r, s.config.Now().Sub(begin))
	s.log.decided(ctx, &d, r, begin, s.config.Now())
	return stream.SendMsg(response)
}

// answer reads the message and decides; r is filled for reply and log.
func (s *Server) answer(ctx context.Context, stream grpc.ServerStream, r *policy.Request, begin time.Time) (d policy.Decision) {
	r.Time = begin
	defer func() {
		if p := recover(); p != nil {
			// The value may hold parts of the delivery, the stack does not.
			s.config.Logger.Error("panic", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			d = policy.Denied(policy.InternalError)
		}
	}()
	if !s.enter(ctx) {
		return policy.Denied(policy.Overloaded)
	}
	defer func() { <-s.slots }()
	var m authv3.CheckRequest
	if err := stream.RecvMsg(&m); err != nil {
		return unreadable(ctx, err)
	}
	*r = *decode(&m)
	r.Time = begin
	d = checked(s.config.Decider.Decide(ctx, r))
	if d.Outcome == policy.Allow && ctx.Err() != nil {
		late := policy.Denied(policy.DeadlineExceeded)
		late.Endpoint, late.Revision = d.Endpoint, d.Revision
		return late
	}
	return d
}

// enter takes a message slot; it waits for one while few others do, and as long as the call may take.
func (s *Server) enter(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return false
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// unreadable is the decision about a message that could not be read.
func unreadable(ctx context.Context, err error) policy.Decision {
	switch {
	case status.Code(err) == codes.ResourceExhausted:
		return policy.Denied(policy.BodyTooLarge)
	case ctx.Err() != nil:
		return policy.Denied(policy.DeadlineExceeded)
	}
	return policy.Denied(policy.InternalError)
}
