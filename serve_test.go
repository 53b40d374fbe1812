package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// eventually waits until what is asked for holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.After(patience); !holds(); {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// logBook collects what a server logs.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// find is the last record with this message.
func (b *logBook) find(message string) (record map[string]any, ok bool) {
	for line := range strings.Lines(b.String()) {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil && r["msg"] == message {
			record, ok = r, true
		}
	}
	return record, ok
}

// serving is a server that runs in this process.
type serving struct {
	t       *testing.T
	log     *logBook
	signals chan<- os.Signal
	ended   chan int
	listen  string // addresses as they were opened
	admin   string
}

// startServing runs "serve" on free ports of loopback, unless other addresses are among args, and stops it with the test.
func startServing(t *testing.T, args ...string) *serving {
	t.Helper()
	s := &serving{t: t, log: new(logBook), ended: make(chan int, 1)}
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, args...)
	registered := make(chan chan<- os.Signal, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		s.ended <- run(ctx, process{
			args:    args,
			lookup:  func(string) (string, bool) { return "", false },
			stdin:   strings.NewReader(""),
			stdout:  s.log,
			stderr:  s.log,
			now:     time.Now,
			signals: func(c chan<- os.Signal, _ ...os.Signal) { registered <- c },
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.ended:
		case <-time.After(patience):
			t.Errorf("it does not end")
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	eventually(t, "it serves", func() bool { _, ok := s.log.find("serving"); return ok })
	record, _ := s.log.find("serving")
	s.listen, s.admin = record["listen"].(string), record["admin"].(string)
	s.signals = <-registered
	return s
}

// exit waits for the end and gives the exit code.
func (s *serving) exit() int {
	s.t.Helper()
	select {
	case code := <-s.ended:
		s.ended <- code // for the cleanup
		return code
	case <-time.After(patience):
		s.t.Fatal("it does not end")
		return -1
	}
}

func (s *serving) dial(c credentials.TransportCredentials) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.listen, grpc.WithTransportCredentials(c))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// get asks the admin listener.
func (s *serving) get(path string) (status int, body string) {
	s.t.Helper()
	response, err := http.Get("http://" + s.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// delivery is what Envoy asks about a delivery of GitHub's.
func delivery(path, key, body string) *authv3.CheckRequest {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	header := func(name, value string) *corev3.HeaderValue {
		return &corev3.HeaderValue{Key: name, RawValue: []byte(value)}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1"}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Host: "hooks.example.com", Path: path, RawBody: []byte(body),
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				header("x-hub-signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil))),
				header("x-envoy-auth-partial-body", "false"),
				header("content-length", strconv.Itoa(len(body))),
			}},
		}},
	}}
}

// reason asks about a delivery and gives the reason of the decision.
func reason(t *testing.T, conn *grpc.ClientConn, r *authv3.CheckRequest) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, r)
	if err != nil {
		t.Fatalf("asking: %v", err)
	}
	got := response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
	if allowed := response.GetStatus().GetCode() == 0; allowed != slices.Contains([]string{"ok", "duplicate"}, got) {
		t.Fatalf("reason %q with the status %v", got, response.GetStatus())
	}
	return got
}

// folder is a policy folder with one webhook, a, whose secret is a file outside.
func folder(t *testing.T) (dir, key string) {
	t.Helper()
	dir, key = t.TempDir(), filepath.Join(t.TempDir(), "key")
	put(t, filepath.Join(dir, "a.yaml"), policyText("a", key))
	put(t, key, "first")
	return dir, key
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir, "--environment", "test", "--pprof")
	conn := s.dial(insecure.NewCredentials())
	if got := reason(t, conn, delivery("/a", "first", "hello")); got != "ok" {
		t.Errorf("a good delivery: %s, want ok", got)
	}
	if got := reason(t, conn, delivery("/a", "other", "hello")); got != "signature_mismatch" {
		t.Errorf("a forged one: %s, want signature_mismatch", got)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/debug/pprof/goroutine": "", "/api/v1/status": `"environment":"test"`} {
		if status, body := s.get(path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want 200 with %q", path, status, body, want)
		}
	}
	_, metrics := s.get("/metrics")
	for _, want := range []string{
		`hookauthz_decisions_total{decision="allow",endpoint="a",reason="ok"} 1`,
		`hookauthz_decisions_total{decision="deny",endpoint="a",reason="signature_mismatch"} 1`,
		"hookauthz_policy_reload_success 1",
		`hookauthz_policy_reloads_total{result="success"} 1`,
		"hookauthz_policy_info{revision=",
		`hookauthz_secret_available{endpoint="a",version="1"} 1`,
		`hookauthz_store_keys{kind="replay"} 1`,
		"hookauthz_build_info{",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics holds no %s", want)
		}
	}
	health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
	if err != nil || health.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v; want SERVING", health, err)
	}
	record, _ := s.log.find("serving")
	for _, key := range []string{"version", "listen", "admin", "environment", "policy_revision", "webhooks", "limits"} {
		if record[key] == nil {
			t.Errorf("the first line says nothing of %s: %v", key, record)
		}
	}
	if strings.Contains(s.log.String(), "first") {
		t.Errorf("the log holds the secret:\n%s", s.log)
	}
	s.signals <- syscall.SIGTERM
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	if _, ok := s.log.find("stopped"); !ok {
		t.Errorf("no last line in the log:\n%s", s.log)
	}
}

func TestServeReloads(t *testing.T) {
	dir, key := folder(t)
	s := startServing(t, "--policies", dir)
	conn := s.dial(insecure.NewCredentials())
	n := 0
	becomes := func(want, path, secret string) {
		t.Helper()
		begin := time.Now()
		eventually(t, fmt.Sprintf("%s is decided %s with %q", path, want, secret), func() bool {
			n++ // another body each time, or it would be a duplicate
			return reason(t, conn, delivery(path, secret, strconv.Itoa(n))) == want
		})
		t.Logf("in force after %v", time.Since(begin).Round(time.Millisecond))
	}
	becomes("no_policy", "/b", "first")
	put(t, filepath.Join(dir, "b.yaml"), policyText("b", key))
	becomes("ok", "/b", "first")

	// A faulty file keeps what is in force; the key can still be changed, and deleted.
	put(t, filepath.Join(dir, "b.yaml"), "{")
	eventually(t, "the metric says so", func() bool {
		_, metrics := s.get("/metrics")
		return strings.Contains(metrics, "hookauthz_policy_reload_success 0")
	})
	if status, _ := s.get("/readyz"); status != 200 {
		t.Errorf("/readyz answers %d while the folder is faulty, want 200", status)
	}
	becomes("ok", "/b", "first")
	put(t, key, "second")
	becomes("ok", "/b", "second")
	becomes("signature_mismatch", "/a", "first")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	becomes("secret_unavailable", "/a", "second")
	put(t, key, "third")
	becomes("ok", "/a", "third")

	// The fault is gone: in force again.
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	becomes("no_policy", "/b", "third")
	eventually(t, "the metric says so", func() bool {
		_, metrics := s.get("/metrics")
		return strings.Contains(metrics, "hookauthz_policy_reload_success 1")
	})

	// SIGHUP loads what did not change, too.
	loads := strings.Count(s.log.String(), `"policies reloaded"`)
	s.signals <- syscall.SIGHUP
	eventually(t, "SIGHUP loads", func() bool { return strings.Count(s.log.String(), `"policies reloaded"`) > loads })
}

// checkMethod is the RPC whose message a test keeps back.
const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// inFlight opens a check whose message has not been sent yet.
func inFlight(t *testing.T, s *serving, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, checkMethod)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the check is in flight", func() bool {
		_, metrics := s.get("/metrics")
		return strings.Contains(metrics, "hookauthz_checks_in_flight 1")
	})
	return stream
}

// Draining: health first, checks in flight finish, then the end.
func TestServeDrains(t *testing.T) {
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir, "--drain", "1m")
	conn := s.dial(insecure.NewCredentials())
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.Status != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health %v, %v; want SERVING", first, err)
	}
	stream := inFlight(t, s, conn)

	s.signals <- syscall.SIGTERM
	if next, err := watch.Recv(); err != nil || next.Status != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health %v, %v; want NOT_SERVING", next, err)
	}
	eventually(t, "/readyz says that it drains", func() bool {
		status, body := s.get("/readyz")
		return status == 503 && strings.Contains(body, "draining")
	})
	if status, _ := s.get("/healthz"); status != 200 {
		t.Errorf("/healthz answers %d while draining, want 200", status)
	}
	select {
	case code := <-s.ended:
		t.Fatalf("it ended with %d while a check was in flight", code)
	default:
	}
	if err := errors.Join(stream.SendMsg(delivery("/a", "first", "hello")), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	var response authv3.CheckResponse
	if err := stream.RecvMsg(&response); err != nil {
		t.Fatalf("the check in flight: %v", err)
	}
	if got := response.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != "ok" || response.GetStatus().GetCode() != 0 {
		t.Errorf("the check in flight is decided %q with %v, want ok", got, response.GetStatus())
	}
	conn.Close() // a watch of health is in flight as well
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestServeSecondSignal(t *testing.T) {
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir, "--drain", "1h")
	conn := s.dial(insecure.NewCredentials())
	inFlight(t, s, conn)
	s.signals <- syscall.SIGTERM
	eventually(t, "it drains", func() bool { status, _ := s.get("/readyz"); return status == 503 })
	s.signals <- syscall.SIGINT
	if code := s.exit(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.Contains(s.log.String(), "hookauthz: ended by a second signal") {
		t.Errorf("it does not say why:\n%s", s.log)
	}
	conn.Close() // the server that was left behind ends with its last call
}

// Who reads standard error may go away: the server decides as before, and counts the lines.
func TestServeGoesOnWithoutItsLog(t *testing.T) {
	dir, _ := folder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "hookauthz") // by this name the test is the program
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policies", dir)
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	writer.Close()
	s := &serving{t: t}
	log := bufio.NewScanner(reader)
	for s.listen == "" && log.Scan() {
		var line struct{ Listen, Admin string }
		if json.Unmarshal(log.Bytes(), &line) == nil {
			s.listen, s.admin = line.Listen, line.Admin
		}
	}
	reader.Close()

	conn := s.dial(insecure.NewCredentials())
	for i := range 3 {
		if got := reason(t, conn, delivery("/a", "first", fmt.Sprint("body ", i))); got != "ok" {
			t.Errorf("a delivery is decided %s, want ok", got)
		}
	}
	eventually(t, "the lines are counted", func() bool {
		_, text := s.get("/metrics")
		return strings.Contains(text, "\nhookauthz_log_lost_lines_total 3\n")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("its end: %v", err)
	}
}

func TestServeUnix(t *testing.T) {
	dir, _ := folder(t)
	// The name of a socket must be short.
	socketDir, err := os.MkdirTemp("", "hookauthz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socketDir) })
	socket := filepath.Join(socketDir, "authz.sock")
	s := startServing(t, "--policies", dir, "--listen", "unix:"+socket)
	if s.listen != "unix:"+socket {
		t.Errorf("it listens at %q, want %q", s.listen, "unix:"+socket)
	}
	if got := reason(t, s.dial(insecure.NewCredentials()), delivery("/a", "first", "hello")); got != "ok" {
		t.Errorf("over the socket: %s, want ok", got)
	}
	s.signals <- syscall.SIGTERM
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after the end: %v, want it gone", err)
	}
}

// With client certificates it answers only those that carry one of the names.
func TestServeTLS(t *testing.T) {
	dir, _ := folder(t)
	ca := newAuthority(t)
	files := t.TempDir()
	put(t, filepath.Join(files, "ca.pem"), ca.pem)
	cert, key := ca.issue(t, "hookauthz")
	put(t, filepath.Join(files, "cert.pem"), cert)
	put(t, filepath.Join(files, "key.pem"), key)
	s := startServing(t, "--policies", dir,
		"--tls-cert", filepath.Join(files, "cert.pem"), "--tls-key", filepath.Join(files, "key.pem"),
		"--tls-client-ca", filepath.Join(files, "ca.pem"), "--tls-client-san", "envoy")
	credentialsOf := func(names ...string) credentials.TransportCredentials {
		c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "hookauthz"}
		c.RootCAs.AppendCertsFromPEM([]byte(ca.pem))
		for _, name := range names {
			cert, key := ca.issue(t, name)
			pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = append(c.Certificates, pair)
		}
		return credentials.NewTLS(c)
	}
	if got := reason(t, s.dial(credentialsOf("envoy")), delivery("/a", "first", "hello")); got != "ok" {
		t.Errorf("with the named certificate: %s, want ok", got)
	}
	for name, c := range map[string]credentials.TransportCredentials{
		"without a certificate": credentialsOf(),
		"with another name":     credentialsOf("mallory"),
		"in plain text":         insecure.NewCredentials(),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := authv3.NewAuthorizationClient(s.dial(c)).Check(ctx, delivery("/a", "first", "hello")); err == nil {
			t.Errorf("%s: it answers", name)
		}
		cancel()
	}
}

// Off loopback the admin listener speaks TLS and asks for a token; the listener for probes does neither.
func TestServeAdminTLS(t *testing.T) {
	dir, _ := folder(t)
	ca, files := newAuthority(t), t.TempDir()
	cert, key := ca.issue(t, "hooks.example.com")
	paths := map[string]string{"cert": cert, "key": key, "ca": ca.pem, "tokens": "operator-token-0123456789\n"}
	for name, text := range paths {
		paths[name] = filepath.Join(files, name)
		put(t, paths[name], text)
	}
	s := startServing(t, "--policies", dir, "--admin", "0.0.0.0:0", "--metrics", "0.0.0.0:0", "--admin-tls-cert", paths["cert"],
		"--admin-tls-key", paths["key"], "--admin-token-file", paths["tokens"], "--admin-host", "hooks.example.com")
	record, _ := s.log.find("serving")
	_, port, _ := net.SplitHostPort(s.admin)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ca.pem))
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		},
	}}
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/metrics", "", 401},
		{"/metrics", "operator-token-0123456789", 200},
		{"/api/v1/status", "operator-token-0123456789", 200},
		{"/readyz", "", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://hooks.example.com:"+port+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s with the token %q: %d, want %d", c.path, c.token, response.StatusCode, c.want)
		}
	}
	if _, body := s.get("/metrics"); !strings.Contains(body, "HTTPS server") {
		t.Errorf("in plain text: %q", body)
	}
	_, port, _ = net.SplitHostPort(record["metrics"].(string))
	s.admin = "127.0.0.1:" + port
	if status, body := s.get("/metrics"); status != 200 || !strings.Contains(body, "hookauthz_build_info") {
		t.Errorf("the listener for probes: %d", status)
	}
	if status, _ := s.get("/api/v1/status"); status != 404 {
		t.Errorf("the API of the listener for probes: %d, want 404", status)
	}
}

// Off loopback it wants client certificates, or to be told that none are wanted.
func TestServeFlagsOffLoopback(t *testing.T) {
	withTLS := tlsFlags{cert: "cert", key: "key"}
	withClients := tlsFlags{cert: "cert", key: "key", clientCA: "ca"}
	for _, c := range []struct {
		name     string
		listen   string
		tls      tlsFlags
		insecure bool
		refused  bool
	}{
		{name: "loopback", listen: "127.0.0.1:9001"},
		{name: "socket", listen: "unix:/run/authz.sock"},
		{name: "every interface", listen: ":9001", refused: true},
		{name: "TLS alone", listen: ":9001", tls: withTLS, refused: true},
		{name: "client certificates", listen: ":9001", tls: withClients},
		{name: "told so", listen: ":9001", insecure: true},
		{name: "a name that cannot be resolved", listen: "no.such.invalid:9001", refused: true},
	} {
		f := serveFlags{listen: c.listen, admin: adminListenFlags{address: off, metrics: off}, store: storeFlags{url: "memory"}, drain: time.Second, maxInflight: 1 << 30, tls: c.tls, insecureListen: c.insecure}
		if err := f.check(); (err != nil) != c.refused {
			t.Errorf("%s: error %v, want refused: %t", c.name, err, c.refused)
		}
	}
}

func TestServeInsecureListenIsLogged(t *testing.T) {
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir, "--listen", "0.0.0.0:0", "--insecure-listen", "--allow-string-body")
	for _, flag := range []string{"--insecure-listen", "--allow-string-body"} {
		eventually(t, "the log to name "+flag, func() bool { return strings.Contains(s.log.String(), flag) })
	}
}

// A second server cannot have the same address, and leaves the first alone.
func TestServeAddressInUse(t *testing.T) {
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir)
	log := new(logBook)
	code := run(t.Context(), process{
		args:    []string{"serve", "--policies", dir, "--listen", "127.0.0.1:0", "--admin", s.admin},
		lookup:  func(string) (string, bool) { return "", false },
		stdout:  log,
		stderr:  log,
		now:     time.Now,
		signals: func(chan<- os.Signal, ...os.Signal) {},
	})
	if code != 1 || !strings.Contains(log.String(), "address already in use") {
		t.Errorf("exit code %d, want 1 and the reason:\n%s", code, log)
	}
	if got := reason(t, s.dial(insecure.NewCredentials()), delivery("/a", "first", "hello")); got != "ok" {
		t.Errorf("the first server decides %s, want ok", got)
	}
}

// authority issues certificates for tests.
type authority struct {
	pem  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), cert, key}
}

// issue makes a certificate for a DNS name, and its key.
func (a authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}
