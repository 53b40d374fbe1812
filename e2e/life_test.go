package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// writePolicy writes a folder's only policy, "live".
func writePolicy(t *testing.T, dir, spec string) {
	t.Helper()
	text := "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: live}\nspec:\n" +
		"  match: {paths: [/e2e/live]}\n  failures: {limit: unlimited}\n  replay: {onDuplicate: allow}\n" + spec
	replaceFile(t, filepath.Join(dir, "live.yaml"), text)
}

const liveSignature = "  signature: {scheme: x-webhook-signature, secrets: [{version: \"1\", env: E2E_SECRET}]}\n"

// replaceFile writes a file beside the one in the way and renames it.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".part~", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part~", path); err != nil {
		t.Fatal(err)
	}
}

func liveRoute(c *stack.EnvoyConfig) { c.Listener().AddRoute("/e2e/live", "live") }

// load is senders that go on until stop: each tells every status that it got for a valid and for a forged delivery.
type load struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	valid  map[int]int
	forged map[int]int
	errs   []error
}

// startLoad sends valid and forged deliveries in turn, from two senders.
func startLoad(t *testing.T, s *stack.Stack, valid, forged delivery) *load {
	return startLoadOf(t, s, func() delivery { return valid }, forged)
}

// startLoadOf is startLoad with valid deliveries that may change.
func startLoadOf(t *testing.T, s *stack.Stack, valid func() delivery, forged delivery) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop, valid: make(map[int]int), forged: make(map[int]int)}
	for i := range 2 {
		l.done.Go(func() {
			transport := s.Transport(i == 1, "")
			defer transport.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				d, statuses := forged, l.forged
				if n%2 == 0 {
					d, statuses = valid(), l.valid
				}
				r, err := sendBy(ctx, transport, s, d)
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				if err != nil {
					l.errs = append(l.errs, err)
				}
				statuses[r.Status]++
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end stops the senders and waits for them.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// count is how often a valid delivery got this status so far.
func (l *load) count(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.valid[status]
}

// more waits until the load got this status n times more for valid deliveries.
func (l *load) more(t *testing.T, status, n int) {
	t.Helper()
	want := l.count(status) + n
	eventually(t, func() error {
		if got := l.count(status); got < want {
			return fmt.Errorf("status %d came %d times, want %d", status, got, want)
		}
		return nil
	})
}

// only says what statuses are right for valid and for forged deliveries, after end.
func (l *load) only(t *testing.T, valid, forged []int) {
	t.Helper()
	for _, c := range []struct {
		what string
		got  map[int]int
		want []int
	}{{"valid", l.valid, valid}, {"forged", l.forged, forged}} {
		rest := 0
		for status, n := range c.got {
			rest += n
			for _, w := range c.want {
				if status == w {
					rest -= n
				}
			}
		}
		if rest != 0 || len(c.got) == 0 {
			t.Errorf("statuses of %s deliveries: %v, want only %v", c.what, c.got, c.want)
		}
	}
	for _, err := range l.errs {
		t.Error(err)
	}
}

// Without hookauthz nothing passes; with it everything is as before.
func TestKilledAndRestarted(t *testing.T) {
	setup(t)
	scenario(t, "killed and restarted under load", func(t *testing.T) {
		dir := t.TempDir()
		writePolicy(t, dir, liveSignature)
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute})
		valid, forged := guide("/e2e/live", secret, []byte("live")), guide("/e2e/live", "guessed", []byte("live"))
		valid.Agent, forged.Agent = "e2e/kill-valid", "e2e/kill-forged"
		l := startLoad(t, s, valid, forged)
		for range 2 {
			l.more(t, 200, 5)
			s.Hookauthz.Kill()
			l.more(t, 503, 20)
			if r := send(t, s, guide("/e2e/live", secret, []byte("meanwhile"))); r.Status != 503 || len(arrived(t, s, r.agent)) != 0 {
				t.Errorf("status %d while hookauthz is dead, want 503 and nothing at the application", r.Status)
			}
			if err := s.StartHookauthz(within(t)); err != nil {
				t.Fatal(err)
			}
			l.more(t, 200, 5)
		}
		l.end()
		l.only(t, []int{200, 503}, []int{401, 503})
		if got := arrived(t, s, forged.Agent); len(got) != 0 {
			t.Errorf("%d forged deliveries reached the application", len(got))
		}
	})
}

// The container of Envoy is healthy as long as hookauthz is.
func TestComposeHealthCheck(t *testing.T) {
	setup(t)
	scenario(t, "with hookauthz and without", func(t *testing.T) {
		s := up(t, stack.Config{Edit: func(c *stack.EnvoyConfig) {
			// As in the file, but sooner.
			check := c.Cluster("webhook_authz")["health_checks"].([]any)[0].(map[string]any)
			check["interval"], check["no_traffic_interval"] = "0.5s", "0.5s"
		}})
		if err := s.CheckHealth(within(t)); err != nil {
			t.Error(err)
		}
		s.Hookauthz.Kill()
		if err := s.WaitUnhealthy(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckHealth(within(t)); err == nil {
			t.Error("healthy without hookauthz")
		}
	})
}

// A hookauthz that hangs or has too much to do is no way in either.
func TestStuckOrOverloaded(t *testing.T) {
	setup(t)
	scenario(t, "stopped and continued", func(t *testing.T) {
		dir := t.TempDir()
		writePolicy(t, dir, liveSignature)
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute})
		valid := guide("/e2e/live", secret, []byte("live"))
		passes(t, s, valid, "ok")
		s.Hookauthz.Signal(syscall.SIGSTOP)
		var r result
		eventually(t, func() error { // the signal takes a moment
			if r = send(t, s, valid); r.Status != 503 {
				return fmt.Errorf("status %d while hookauthz hangs, want 503", r.Status)
			}
			return nil
		})
		s.Hookauthz.Signal(syscall.SIGCONT)
		if got := arrived(t, s, r.agent); len(got) != 0 {
			t.Error("a delivery reached the application while hookauthz hung")
		}
		eventually(t, func() error {
			if r := send(t, s, valid); r.Status != 200 {
				return fmt.Errorf("status %d", r.Status)
			}
			return nil
		})
	})
	scenario(t, "more bodies at once than memory is set aside for", func(t *testing.T) {
		dir := t.TempDir()
		writePolicy(t, dir, liveSignature)
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute, Serve: []string{"--max-body", "1MiB", "--max-inflight-bytes", "16MiB"}})
		body := make([]byte, maxBody)
		valid, forged := guide("/e2e/live", secret, body), guide("/e2e/live", "guessed", body)
		const senders = 48
		statuses := make(chan [2]int)
		for i := range senders {
			go func() {
				d := []delivery{valid, forged}[i%2]
				r, err := trySend(t.Context(), s, d)
				if err != nil {
					t.Error(err)
				}
				statuses <- [2]int{i % 2, r.Status}
			}()
		}
		allowed := 0
		for range senders {
			switch got := <-statuses; got {
			case [2]int{0, 200}:
				allowed++
			case [2]int{1, 401}, [2]int{0, 503}, [2]int{1, 503}:
			default:
				t.Errorf("status %d for a %s delivery", got[1], []string{"valid", "forged"}[got[0]])
			}
		}
		if allowed == 0 {
			t.Error("not one passed")
		}
		passes(t, s, valid, "ok")
	})
}

// inForce is how long a change of files may take.
const inForce = 4 * time.Second

// Changes of files come into force under load without one wrong answer.
func TestReload(t *testing.T) {
	setup(t)
	valid, forged := guide("/e2e/live", secret, []byte("live")), guide("/e2e/live", "guessed", []byte("live"))
	// becomes waits until a delivery gets another status, and says so if that took too long.
	becomes := func(t *testing.T, s *stack.Stack, d delivery, status int) {
		t.Helper()
		began := time.Now()
		eventually(t, func() error {
			if r := send(t, s, d); r.Status != status {
				return fmt.Errorf("status %d, want %d", r.Status, status)
			}
			return nil
		})
		if took := time.Since(began); took > inForce+time.Second {
			t.Errorf("in force after %s, want at most %s", took, inForce)
		}
	}

	scenario(t, "a policy is replaced", func(t *testing.T) {
		dir := t.TempDir()
		writePolicy(t, dir, liveSignature)
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute})
		l := startLoad(t, s, valid, forged)
		l.more(t, 200, 5)
		put := valid
		put.Method = http.MethodPut
		denied(t, s, put, 405, "method_not_allowed")
		writePolicy(t, dir, strings.Replace(liveSignature, "  signature", "  match: {paths: [/e2e/live], methods: [POST, PUT]}\n  signature", 1))
		// Two keys "match": a fault, so the old set stays in force.
		eventually(t, func() error { return metricIs(s, "hookauthz_policy_reload_success 0") })
		denied(t, s, put, 405, "method_not_allowed")
		replaceFile(t, filepath.Join(dir, "live.yaml"), "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: live}\nspec:\n"+
			"  match: {paths: [/e2e/live], methods: [POST, PUT]}\n  failures: {limit: unlimited}\n  replay: {onDuplicate: allow}\n"+liveSignature)
		becomes(t, s, put, 200)
		eventually(t, func() error { return metricIs(s, "hookauthz_policy_reload_success 1") })
		if err := os.Remove(filepath.Join(dir, "live.yaml")); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return metricIs(s, "hookauthz_policy_reload_success 0") })
		passes(t, s, put, "ok")
		l.more(t, 200, 5)
		l.end()
		l.only(t, []int{200}, []int{401})
	})

	scenario(t, "a ConfigMap is swapped", func(t *testing.T) {
		dir := t.TempDir()
		swap := func(name, spec string) {
			writeDir := filepath.Join(dir, name)
			if err := os.Mkdir(writeDir, 0o755); err != nil {
				t.Fatal(err)
			}
			writePolicy(t, writeDir, spec)
			tmp := filepath.Join(dir, "..data_tmp")
			if err := errors.Join(os.Symlink(name, tmp), os.Rename(tmp, filepath.Join(dir, "..data"))); err != nil {
				t.Fatal(err)
			}
		}
		swap("..2026_11_24_08_00", liveSignature)
		if err := os.Symlink(filepath.Join("..data", "live.yaml"), filepath.Join(dir, "live.yaml")); err != nil {
			t.Fatal(err)
		}
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute})
		l := startLoad(t, s, valid, forged)
		l.more(t, 200, 5)
		other := guide("/e2e/live", leakedSecret, []byte("other"))
		denied(t, s, other, 401, "signature_mismatch")
		swap("..2026_11_24_08_01", strings.Replace(liveSignature, "[{", `[{version: "2", env: E2E_LEAKED}, {`, 1))
		becomes(t, s, other, 200)
		swap("..2026_11_24_08_02", liveSignature)
		becomes(t, s, other, 401)
		l.more(t, 200, 5)
		l.end()
		l.only(t, []int{200}, []int{401})
	})

	scenario(t, "a secret is rotated", func(t *testing.T) {
		dir, secrets := t.TempDir(), t.TempDir()
		current, old := filepath.Join(secrets, "current"), filepath.Join(secrets, "old")
		replaceFile(t, current, secret+"\n")
		replaceFile(t, old, "not yet\n")
		writePolicy(t, dir, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{version: current, file: %s}, {version: old, file: %s}]}\n", current, old))
		s := up(t, stack.Config{Policies: dir, Edit: liveRoute})
		l := startLoad(t, s, valid, forged)
		l.more(t, 200, 5)
		next := guide("/e2e/live", "the next secret", []byte("next"))
		denied(t, s, next, 401, "signature_mismatch")
		// The old secret gets a place of its own before the new one takes the first.
		replaceFile(t, old, secret+"\n")
		probe := guide("/e2e/live", "not yet", []byte("probe"))
		becomes(t, s, probe, 401)
		replaceFile(t, current, "the next secret\n")
		becomes(t, s, next, 200)
		l.more(t, 200, 5)
		l.end()
		l.only(t, []int{200}, []int{401})
		// A deleted key stops at once.
		if err := os.Remove(old); err != nil {
			t.Fatal(err)
		}
		becomes(t, s, valid, 401)
		passes(t, s, next, "ok")
		if err := os.Remove(current); err != nil {
			t.Fatal(err)
		}
		becomes(t, s, next, 503)
	})
}

// metricIs looks for a line of the metrics page.
func metricIs(s *stack.Stack, line string) error {
	page, err := s.Metrics()
	if err != nil {
		return err
	}
	if !strings.Contains("\n"+page, "\n"+line) {
		return fmt.Errorf("no line %q in the metrics", line)
	}
	return nil
}

// On SIGTERM hookauthz first says that it goes, answers what it has begun, and then ends.
func TestDrain(t *testing.T) {
	setup(t)
	scenario(t, "health first, then what is in flight, then the end", func(t *testing.T) {
		s := up(t, stack.Config{Serve: []string{"--drain", "20s"}})
		config, err := s.AuthzTLS()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(s.AuthzAddr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx := within(t)
		watching, unwatch := context.WithCancel(ctx)
		defer unwatch()
		watch, err := healthpb.NewHealthClient(conn).Watch(watching, &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := watch.Recv(); err != nil || got.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("health %v, %v; want SERVING", got, err)
		}
		// A Check whose message is still on its way.
		desc := &grpc.StreamDesc{StreamName: "Check", ClientStreams: true, ServerStreams: true}
		check, err := conn.NewStream(ctx, desc, authv3.Authorization_Check_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return metricIs(s, "hookauthz_checks_in_flight 1") })
		s.Hookauthz.Signal(syscall.SIGTERM)
		if got, err := watch.Recv(); err != nil || got.Status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health %v, %v; want NOT_SERVING", got, err)
		}
		unwatch() // it counts as in flight, too
		if !s.Hookauthz.Alive() {
			t.Fatal("hookauthz has ended while a Check was in flight")
		}
		reply := new(authv3.CheckResponse)
		if err := errors.Join(check.SendMsg(new(authv3.CheckRequest)), check.CloseSend(), check.RecvMsg(reply)); err != nil {
			t.Fatalf("the Check in flight: %v", err)
		}
		if reply.GetStatus().GetCode() == 0 || reply.GetDeniedResponse().GetStatus().GetCode() != 403 {
			t.Errorf("reply %v, want a denial with 403: no policy", reply)
		}
		select {
		case <-s.Hookauthz.Ended():
		case <-ctx.Done():
			t.Fatal("hookauthz has not ended")
		}
		if err := s.Hookauthz.Stop(0); err != nil {
			t.Errorf("hookauthz ended with %v, want status 0", err)
		}
		if r := send(t, s, github); r.Status != 503 {
			t.Errorf("status %d after the end, want 503", r.Status)
		}
	})
}

// Who may call hookauthz.
func TestListeners(t *testing.T) {
	s := setup(t)
	for _, tt := range []struct{ name, cert string }{{"no client certificate", ""}, {"a client certificate of another name", "hookauthz"}} {
		scenario(t, tt.name, func(t *testing.T) {
			config, err := s.AuthzTLS()
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = nil
			if tt.cert != "" {
				pair, err := s.Certificate(tt.cert)
				if err != nil {
					t.Fatal(err)
				}
				config.Certificates = []tls.Certificate{pair}
			}
			conn, err := tls.Dial("tcp", s.AuthzAddr, config)
			if err != nil {
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			// In TLS 1.3 the server's refusal comes after the client's handshake.
			var one [1]byte
			for err == nil {
				_, err = conn.Read(one[:])
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || errors.Is(err, io.EOF) {
				t.Errorf("reading ends with %v, want a TLS alert", err)
			}
		})
	}
	scenario(t, "without TLS on a unix socket", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "e2e-") // t.TempDir is too long a name for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		socket := filepath.Join(dir, "authz.sock")
		policies := t.TempDir()
		writePolicy(t, policies, liveSignature)
		s := up(t, stack.Config{Policies: policies, Edit: liveRoute, Plaintext: true, Socket: socket})
		passes(t, s, guide("/e2e/live", secret, allBytes), "ok")
		denied(t, s, guide("/e2e/live", "guessed", allBytes), 401, "signature_mismatch")
		info, err := os.Stat(socket)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode(); mode.Type() != fs.ModeSocket || mode.Perm()&0o007 != 0 {
			t.Errorf("mode of the socket %v, want one that others cannot use", mode)
		}
		// A socket that a killed server left is no hindrance.
		s.Hookauthz.Kill()
		if err := s.StartHookauthz(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitHealthy(within(t)); err != nil {
			t.Fatal(err)
		}
		passes(t, s, guide("/e2e/live", secret, allBytes), "ok")
		if err := s.Hookauthz.Stop(patience); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket after the end: %v, want none", err)
		}
	})
}
