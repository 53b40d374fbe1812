package main

import (
	"context"
	"net"
	"net/http"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// noopServer allows every check and looks at none: what the stock library costs by itself.
type noopServer struct {
	authv3.UnimplementedAuthorizationServer
}

func (noopServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

// serveNoop serves it at addresses that are separated by commas, with its Go metrics at the admin address, until ctx ends.
// Beside the size of a message, which is 4 MiB otherwise, it has no options.
func serveNoop(ctx context.Context, addresses, admin string) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	authv3.RegisterAuthorizationServer(server, noopServer{})
	alive := health.NewServer()
	alive.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(server, alive)
	context.AfterFunc(ctx, server.Stop)

	ended := make(chan error)
	for _, address := range append(strings.Split(addresses, ","), admin) {
		l, err := listen(address)
		if err != nil {
			return err
		}
		serve := server.Serve
		if address == admin {
			serve = func(l net.Listener) error { return http.Serve(l, promhttp.Handler()) }
		}
		go func() { ended <- serve(l) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// listen listens at host:port or unix:/path.
func listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}
