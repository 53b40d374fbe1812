package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// server is one authorizer under measurement.
type server struct {
	*process
	address string // host:port or unix:/path, as gRPC dials it
	admin   string
	logs    bool // a line for each allow
	conns   []*grpc.ClientConn
}

// connections is how many HTTP/2 connections carry the checks: Envoy has one for each of its threads.
const connections = 2

// startServer starts an authorizer and waits until it answers.
func (b *bench) startServer(ctx context.Context, s server, cpus []int, path string, args ...string) (*server, error) {
	var err error
	if s.process, err = start(s.name(), cpus, []string{"BENCH_SECRET=" + secret}, path, args...); err != nil {
		return nil, err
	}
	b.running = append(b.running, s.process)
	if err := s.wait(ctx, func() error { _, err := s.metrics(ctx); return err }); err != nil {
		return nil, err
	}
	s.conns, err = dial(ctx, s.address, connections)
	return &s, err
}

func (s *server) name() string {
	if s.logs {
		return "hookauthz"
	}
	return "no-op"
}

// startNoop serves the no-op by TCP and, in the same process, by a socket.
func (b *bench) startNoop(ctx context.Context) (*server, error) {
	s := server{address: b.freeAddress(), admin: b.freeAddress()}
	return b.startServer(ctx, s, nil, b.self, "-noop", s.address+",unix:"+b.noopPath(), "-noop-admin", s.admin)
}

// noopSocket is the no-op by its socket.
func (b *bench) noopSocket(ctx context.Context, noop *server) (*server, error) {
	s := &server{process: noop.process, address: "unix:" + b.noopPath(), admin: noop.admin}
	var err error
	s.conns, err = dial(ctx, s.address, connections)
	return s, err
}

func (b *bench) noopPath() string { return filepath.Join(b.dir, "no-op.sock") }

// hookauthz says how one is started.
type hookauthz struct {
	policies int // how many
	spec     string
	socket   bool
	shared   bool // its store
	cpus     []int
	flags    []string
}

func (b *bench) startHookauthz(ctx context.Context, h hookauthz) (*server, error) {
	b.started++
	dir := filepath.Join(b.dir, fmt.Sprintf("policies-%d", b.started))
	if err := writePolicies(dir, h.policies, h.spec); err != nil {
		return nil, err
	}
	s := server{address: b.freeAddress(), admin: b.freeAddress(), logs: true}
	if h.socket {
		s.address = "unix:" + filepath.Join(b.dir, fmt.Sprintf("authz-%d.sock", b.started))
	}
	args := append([]string{"serve", "--policies", dir, "--listen", s.address, "--admin", s.admin}, h.flags...)
	if h.shared {
		url, err := b.startStore(ctx)
		if err != nil {
			return nil, err
		}
		// A second instead of 50 ms: on a busy machine the store is late, and decisions without it would be measured.
		args = append(args, "--store", url, "--store-timeout", "1s")
	}
	return b.startServer(ctx, s, h.cpus, b.server, args...)
}

// policyFile is a file of the server's policies.
func (s *server) policyFile() string {
	args := s.cmd.Args
	for i, a := range args {
		if a == "--policies" {
			return filepath.Join(args[i+1], "00000.yaml")
		}
	}
	return ""
}

func (s *server) close() {
	for _, c := range s.conns {
		c.Close()
	}
	s.stop()
}

// dial opens connections and waits for them.
func dial(ctx context.Context, address string, count int) ([]*grpc.ClientConn, error) {
	if !strings.HasPrefix(address, "unix:") {
		address = "passthrough:///" + address
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var conns []*grpc.ClientConn
	for range count {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("hookauthz"),
			// As Envoy, which does not measure the way to the server with pings that the server has to answer.
			grpc.WithStaticStreamWindowSize(1<<20), grpc.WithStaticConnWindowSize(1<<20),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallSendMsgSize(8<<20)))
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		for conn.Connect(); conn.GetState() != connectivity.Ready; conn.Connect() {
			if !conn.WaitForStateChange(ctx, conn.GetState()) {
				return nil, fmt.Errorf("nobody answers at %s", address)
			}
		}
	}
	return conns, nil
}

// metrics reads the sums of all metrics of a server by name.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return parseMetrics(response.Body)
}

// parseMetrics adds up the series of each metric in Prometheus's text format.
func parseMetrics(text io.Reader) (map[string]float64, error) {
	sums := make(map[string]float64)
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		end := strings.IndexAny(line, "{ ")
		if end <= 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		sums[line[:end]] += value
	}
	return sums, lines.Err()
}

// freeAddress is an address of 127.0.0.1 that nobody listens on.
func (b *bench) freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0" // whoever listens there says why it cannot
	}
	defer l.Close()
	return l.Addr().String()
}
