package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
)

// request is one that asks by the name of this machine.
func request(method, path string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "localhost:9002"
	return r
}

func TestHandler(t *testing.T) {
	registry := extauthz.NewMetrics("v1.2.3").Registry
	ready := admin.Config{Registry: registry, Ready: func() error { return nil }}
	draining := admin.Config{Registry: registry, Ready: func() error { return errors.New("draining") }}
	profiling := admin.Config{Registry: registry, Pprof: true}
	tests := []struct {
		name   string
		config admin.Config
		method string
		path   string
		status int
		body   string // a part of it, or all of it with its newline
	}{
		{"health", ready, "GET", "/healthz", 200, "ok\n"},
		{"health does not depend on readiness", draining, "GET", "/healthz", 200, "ok\n"},
		{"ready", ready, "GET", "/readyz", 200, "ok\n"},
		{"ready by default", admin.Config{Registry: registry}, "GET", "/readyz", 200, "ok\n"},
		{"not ready, and why", draining, "GET", "/readyz", 503, "draining\n"},
		{"metrics", ready, "GET", "/metrics", 200, `hookauthz_build_info{goversion=`},
		{"metrics of the process", ready, "GET", "/metrics", 200, "go_goroutines"},
		{"no change by POST", ready, "POST", "/healthz", 405, ""},
		{"no metrics by POST", ready, "POST", "/metrics", 405, ""},
		{"nothing else in the API", ready, "GET", "/api/v1/nothing", 404, `{"error":"not_found","message":"there is no GET \"/api/v1/nothing\"","hint":`},
		{"head", ready, "HEAD", "/readyz", 200, ""},
		{"the console", ready, "GET", "/", 200, "<!doctype html>"},
		{"nothing else", ready, "GET", "/nothing", 404, ""},
		{"nothing below", ready, "GET", "/healthz/x", 404, ""},
		{"no profiles unless asked for", ready, "GET", "/debug/pprof/", 404, ""},
		{"no command line either", ready, "GET", "/debug/pprof/goroutine", 404, ""},
		{"no heap either", ready, "GET", "/debug/pprof/heap", 404, ""},
		{"profiles", profiling, "GET", "/debug/pprof/", 200, "goroutine"},
		{"one profile", profiling, "GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"symbols", profiling, "GET", "/debug/pprof/symbol", 200, "num_symbols"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			admin.Handler(tt.config).ServeHTTP(w, request(tt.method, tt.path))
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || (strings.HasSuffix(tt.body, "\n") && w.Body.String() != tt.body) {
				t.Errorf("got %d %.200q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", w.Header())
			}
			if tt.status == 200 && !strings.HasPrefix(w.Header().Get("Content-Type"), "text/") {
				t.Errorf("the type is %q", w.Header().Get("Content-Type"))
			}
		})
	}
}

// A collector that fails is seen, and the rest of the listener goes on.
func TestBrokenMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(broken{})
	h := admin.Handler(admin.Config{Registry: registry})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", "/metrics"))
	if w.Code != 500 {
		t.Errorf("broken metrics: %d", w.Code)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", "/healthz"))
	if w.Code != 200 {
		t.Errorf("health: %d", w.Code)
	}
}

// broken is a collector that fails.
type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}
func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errors.New("broken")), errors.New("broken"))
}

// get asks for a path on a connection of its own.
func get(l *bufconn.Listener, path string) (status int, body string, err error) {
	conn, err := l.Dial()
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		return 0, "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// When the server stops, what is under way ends; what does not end in time is cut off.
func TestServe(t *testing.T) {
	tests := []struct {
		name  string
		takes time.Duration
		want  string
		after time.Duration // from the stop to the end of Serve
	}{
		{"a short request ends", time.Second, "200 ok\n", time.Second},
		{"a long one is cut off", time.Hour, "cut off", 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := bufconn.Listen(64 << 10)
				entered, leave := make(chan struct{}), make(chan struct{})
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() {
					served <- admin.Serve(ctx, l, admin.Config{Registry: prometheus.NewRegistry(), Ready: func() error {
						close(entered)
						select {
						case <-time.After(tt.takes):
						case <-leave:
						}
						return nil
					}})
				}()
				got := make(chan string, 1)
				go func() {
					status, body, err := get(l, "/readyz")
					if err != nil {
						got <- "cut off"
						return
					}
					got <- fmt.Sprint(status, " ", body)
				}()
				<-entered
				stopped := time.Now()
				stop()
				if err := <-served; err != nil {
					t.Errorf("serving: %v", err)
				}
				// Shutdown looks at intervals of up to half a second whether all have ended.
				if took := time.Since(stopped); took < tt.after || took > tt.after+time.Second {
					t.Errorf("the stop took %v, want about %v", took, tt.after)
				}
				if s := <-got; s != tt.want {
					t.Errorf("the request got %q, want %q", s, tt.want)
				}
				if _, err := l.Dial(); err == nil {
					t.Error("the listener is still open")
				}
				close(leave)
			})
		})
	}
}

// A listener that breaks is told.
func TestServeFails(t *testing.T) {
	l := bufconn.Listen(1)
	l.Close()
	if err := admin.Serve(t.Context(), l, admin.Config{Registry: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), "serving the admin listener") {
		t.Errorf("got %v", err)
	}
}

// A client that sends its request bit by bit does not hold a connection for ever.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(64 << 10)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- admin.Serve(ctx, l, admin.Config{Registry: prometheus.NewRegistry()}) }()
		conn, err := l.Dial()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: ")
		if _, err := io.ReadAll(conn); err != nil {
			t.Logf("reading: %v", err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("the connection stood for %v", took)
		}
		stop()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
}

// What goes wrong inside goes to the logger, not to standard error.
func TestFaultsAreLogged(t *testing.T) {
	var log lockedBuffer
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- admin.Serve(ctx, l, admin.Config{Registry: prometheus.NewRegistry(), Ready: func() error { panic("ready") }, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	}()
	if response, err := http.Get("http://" + l.Addr().String() + "/readyz"); err == nil {
		response.Body.Close()
		t.Errorf("a panic was answered with %d", response.StatusCode)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("serving: %v", err)
	}
	if text := log.String(); !strings.Contains(text, `"level":"WARN"`) || !strings.Contains(text, "panic serving") {
		t.Errorf("the log: %s", text)
	}
}

// lockedBuffer is a buffer that goroutines share.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
