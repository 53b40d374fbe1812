// Command bench measures what a check costs the server: the built hookauthz beside a no-op ext_authz server on the stock library,
// interleaved over rounds in one run, so that their ratio holds even where the machine's speed drifts.
//
//	go run ./bench [-rounds 5] [-period 1s] [-connections 2] [-concurrency 16] [-server ./hookauthz]
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	rounds, connections, concurrency int
	period                           time.Duration
	server                           string
	sizes                            []int
	profile                          string
	store                            string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	c := config{}
	noop := flags.String("noop", "", "serve the no-op authorizer at this address and do nothing else")
	flags.IntVar(&c.rounds, "rounds", 5, "rounds; the table shows their median")
	flags.DurationVar(&c.period, "period", time.Second, "length of one measurement")
	flags.IntVar(&c.connections, "connections", 2, "HTTP/2 connections")
	flags.IntVar(&c.concurrency, "concurrency", 16, "checks under way at once")
	sizes := flags.String("sizes", "2048,65536,1048576", "body sizes in bytes")
	profile := flags.String("profile", "", "write a CPU profile of hookauthz under load to this file")
	flags.StringVar(&c.store, "store", "", "URL of a Redis or Valkey: measure hookauthz with this shared store as well")
	flags.StringVar(&c.server, "server", "./hookauthz", "hookauthz binary")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *noop != "" {
		return serveNoop(ctx, *noop)
	}
	for _, text := range strings.Split(*sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("-sizes: %w", err)
		}
		c.sizes = append(c.sizes, size)
	}
	c.profile = *profile
	return measure(ctx, c, stdout, stderr)
}

// noopServer allows every check and reads none of it.
type noopServer struct {
	authv3.UnimplementedAuthorizationServer
}

func (noopServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

func serveNoop(ctx context.Context, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	authv3.RegisterAuthorizationServer(server, noopServer{})
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

const benchSecret = "a secret of the benchmark, 32 byte"

// benchPolicy makes every step work: address list, signature, failures, replay memory and a limit.
const benchPolicy = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: bench}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/bench]}
  body: {maxBytes: 2MiB, contentTypes: [application/json]}
  source: {allow: [192.0.2.0/24, "2001:db8::/32"]}
  signature: {scheme: github, secrets: [{version: "1", env: BENCH_SECRET}]}
  rateLimits:
    - {limit: 1000000/second}
  replay: {onDuplicate: tag}
`

// target is one server under measurement.
type target struct {
	name    string
	process *exec.Cmd
	conns   []*grpc.ClientConn
}

func measure(ctx context.Context, c config, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "hookauthz-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "bench.yaml"), []byte(benchPolicy), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	noopAddress, err := freeAddress()
	if err != nil {
		return err
	}
	hookAddress, err := freeAddress()
	if err != nil {
		return err
	}
	adminAddress, err := freeAddress()
	if err != nil {
		return err
	}
	commands := []struct {
		name, address string
		args          []string
	}{
		{"no-op", noopAddress, []string{self, "-noop", noopAddress}},
		{"hookauthz", hookAddress, []string{c.server, "serve", "--policies", dir, "--listen", hookAddress, "--admin", adminAddress, "--pprof"}},
	}
	if c.store != "" {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		commands = append(commands, commands[1])
		commands[2].name, commands[2].address = "shared store", address
		commands[2].args = []string{c.server, "serve", "--policies", dir, "--listen", address, "--admin", "off", "--store", c.store}
	}
	var targets []*target
	for _, command := range commands {
		t, err := start(ctx, command.name, command.address, c.connections, command.args)
		if err != nil {
			return err
		}
		defer t.stop()
		targets = append(targets, t)
	}
	if c.profile != "" {
		return writeProfile(ctx, c, adminAddress, targets[1])
	}
	results := map[string][]result{}
	for round := range c.rounds {
		for _, size := range c.sizes {
			requests, err := deliveries(size)
			if err != nil {
				return err
			}
			for _, t := range targets {
				fmt.Fprintf(stderr, "\rround %d of %d, %7d bytes, %-10s", round+1, c.rounds, size, t.name)
				r, err := t.load(ctx, c, requests)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				key := fmt.Sprint(t.name, size)
				results[key] = append(results[key], r)
			}
		}
	}
	fmt.Fprint(stderr, "\r\033[K")
	fmt.Fprintf(stdout, "%d rounds of %s, %d connections, %d checks at once, medians\n\n", c.rounds, c.period, c.connections, c.concurrency)
	fmt.Fprintf(stdout, "%10s  %-14s %16s %10s   %s\n", "body", "server", "CPU µs/check", "checks/s", "CPU as a ratio to the no-op's (min-max)")
	for _, size := range c.sizes {
		base := results[fmt.Sprint("no-op", size)]
		for _, t := range targets {
			rs := results[fmt.Sprint(t.name, size)]
			var ratios []float64
			for i := range rs {
				ratios = append(ratios, rs[i].cpu/base[i].cpu)
			}
			slices.Sort(ratios)
			fmt.Fprintf(stdout, "%10d  %-14s %16.1f %10.0f   %.2f (%.2f-%.2f)\n", size, t.name, median(rs, result.cpuOf), median(rs, result.rateOf),
				ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
		}
	}
	return nil
}

// result is one measurement: CPU microseconds of the server for a check, and checks per second.
type result struct{ cpu, rate float64 }

func (r result) cpuOf() float64  { return r.cpu }
func (r result) rateOf() float64 { return r.rate }

func median(rs []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range rs {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func start(ctx context.Context, name, address string, connections int, args []string) (*target, error) {
	t := &target{name: name, process: exec.CommandContext(ctx, args[0], args[1:]...)}
	t.process.Env = append(os.Environ(), "BENCH_SECRET="+benchSecret)
	if err := t.process.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w (build it with make build)", name, err)
	}
	for range connections {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallSendMsgSize(8<<20)))
		if err != nil {
			return nil, err
		}
		t.conns = append(t.conns, conn)
		wait, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		for conn.Connect(); conn.GetState() != connectivity.Ready; {
			if !conn.WaitForStateChange(wait, conn.GetState()) {
				return nil, fmt.Errorf("%s does not answer at %s", name, address)
			}
			conn.Connect()
		}
	}
	return t, nil
}

func (t *target) stop() {
	for _, conn := range t.conns {
		conn.Close()
	}
	t.process.Process.Signal(os.Interrupt)
	t.process.Wait()
}

// rawCodec sends requests that are encoded already, so that the client's share of the machine is small.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append((*v.(*[]byte))[:0], data...)
	return nil
}

// streamID stands in an encoded request where the id of the stream goes.
const streamID = "0123456789abcdefghij"

// streams numbers the streams of the whole run.
var streams atomic.Int64

// load sends checks for one period and reads the CPU time that the server spent meanwhile.
func (t *target) load(ctx context.Context, c config, requests [][]byte) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var done atomic.Int64
	var failed atomic.Pointer[error]
	before, err := cpuTime(t.process.Process.Pid)
	if err != nil {
		return result{}, err
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for worker := range c.concurrency {
		wg.Go(func() {
			conn := t.conns[worker%len(t.conns)]
			request := slices.Clone(requests[worker%len(requests)])
			stream := request[bytes.Index(request, []byte(streamID)):][:len(streamID)]
			var reply []byte
			for i := 0; time.Since(begin) < c.period && failed.Load() == nil; i++ {
				// A new stream each time: a known one would be taken for Envoy's own retry and cost less.
				copy(stream, fmt.Sprintf("%0*d", len(streamID), streams.Add(1)))
				err := conn.Invoke(ctx, "/envoy.service.auth.v3.Authorization/Check", request, &reply)
				if err == nil && i == 0 { // the first reply of each worker is read: an allow, or nothing is measured
					err = allowed(reply)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	if err := failed.Load(); err != nil {
		return result{}, *err
	}
	after, err := cpuTime(t.process.Process.Pid)
	if err != nil {
		return result{}, err
	}
	n := float64(done.Load())
	return result{cpu: float64((after - before).Microseconds()) / n, rate: n / elapsed.Seconds()}, nil
}

func allowed(reply []byte) error {
	var r authv3.CheckResponse
	if err := proto.Unmarshal(reply, &r); err != nil {
		return err
	}
	if r.GetStatus().GetCode() != 0 {
		return fmt.Errorf("denied: %s", r.GetDynamicMetadata().GetFields()["reason"].GetStringValue())
	}
	return nil
}

// cpuTime is the user and system time of a process so far, in the kernel's resolution of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := data[slices.Index(data, ')')+2:]
	values := strings.Fields(string(fields))
	const utime, stime = 11, 12 // counted behind the command name, proc(5)
	user, err1 := strconv.ParseInt(values[utime], 10, 64)
	system, err2 := strconv.ParseInt(values[stime], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("reading /proc/%d/stat", pid)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// deliveries are encoded checks of signed deliveries with bodies of one size.
func deliveries(size int) ([][]byte, error) {
	var out [][]byte
	for i := range 32 {
		body := make([]byte, size)
		for j := range body {
			body[j] = byte(' ' + (i+j)%90)
		}
		mac := hmac.New(sha256.New, []byte(benchSecret))
		mac.Write(body)
		headers := [][2]string{
			{":authority", "hooks.example.com"}, {":method", "POST"}, {":path", "/webhooks/bench"}, {":scheme", "https"},
			{"accept", "*/*"}, {"content-length", strconv.Itoa(size)}, {"content-type", "application/json"}, {"user-agent", "GitHub-Hookshot/044aadd"},
			{"x-envoy-auth-partial-body", "false"}, {"x-forwarded-for", "192.0.2.1"}, {"x-forwarded-proto", "https"},
			{"x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"}, {"x-github-event", "push"}, {"x-github-hook-id", "292430182"},
			{"x-hub-signature-256", "sha256=" + hex.EncodeToString(mac.Sum(nil))}, {"x-request-id", fmt.Sprintf("bench-%d", i)},
		}
		request := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "192.0.2.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}}}}},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Id: streamID, Method: "POST", Path: "/webhooks/bench", Host: "hooks.example.com", Scheme: "https", Protocol: "HTTP/1.1",
				Size: int64(size), RawBody: body, HeaderMap: &corev3.HeaderMap{},
			}},
			ContextExtensions: map[string]string{"hookauthz.endpoint": "bench"},
		}}
		for _, h := range headers {
			m := request.Attributes.Request.Http.HeaderMap
			m.Headers = append(m.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
		}
		data, err := proto.Marshal(request)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

// writeProfile profiles one server under load.
func writeProfile(ctx context.Context, c config, admin string, t *target) error {
	requests, err := deliveries(c.sizes[0])
	if err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() {
		profiled <- func() error {
			response, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, max(1, int(c.period.Seconds()))))
			if err != nil {
				return err
			}
			defer response.Body.Close()
			data, err := io.ReadAll(response.Body)
			if err != nil {
				return err
			}
			return os.WriteFile(c.profile, data, 0o644)
		}()
	}()
	if _, err := t.load(ctx, c, requests); err != nil {
		return err
	}
	return <-profiled
}
