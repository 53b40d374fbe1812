package extauthz

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthService says SERVING for its names until it drains. It ends the streams of those who watch then: they have no end of their own
// and would hold the server up.
type healthService struct {
	*health.Server
}

func newHealthService(names ...string) *healthService {
	s := &healthService{health.NewServer()}
	for _, name := range names {
		s.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	return s
}

func (s *healthService) drain() { s.Shutdown() }

func (s *healthService) Watch(r *healthv1.HealthCheckRequest, stream healthv1.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	return s.Server.Watch(r, &watcher{stream, ctx, cancel})
}

// watcher ends itself after the news that the server drains: it comes once and is the last.
type watcher struct {
	grpc.ServerStreamingServer[healthv1.HealthCheckResponse]
	ctx    context.Context
	cancel context.CancelFunc
}

func (w *watcher) Context() context.Context { return w.ctx }

func (w *watcher) Send(r *healthv1.HealthCheckResponse) error {
	err := w.ServerStreamingServer.Send(r)
	if r.GetStatus() == healthv1.HealthCheckResponse_NOT_SERVING {
		w.cancel()
	}
	return err
}
