// Command app is a sample application that takes webhooks. It holds no security code: what reaches it has passed Envoy and
// hookauthz. It records what it gets, so that one can look at it: GET /received.
//
//	POST /webhooks/...        recorded; the answer is 200, or the status in the header x-app-status
//	GET  /received            the recorded deliveries, oldest first; ?header=NAME&value=V for some of them
//	GET  /healthz             200
//
// Envoy has no route to the last two.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	probe := flag.String("probe", "", "ask this `URL` and end: 0 if it answers 200 (for containers without a shell)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *probe != "" {
		err = ask(ctx, *probe)
	} else {
		err = serve(ctx, *listen, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

func serve(ctx context.Context, addr string, out io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "listening on", l.Addr())
	s := &http.Server{Handler: new(recorder).routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		return err
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// delivery is a request as it arrived, byte for byte. Body is base64 in JSON.
type delivery struct {
	Time    time.Time   `json:"time"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
	Body    []byte      `json:"body"`
	SHA256  string      `json:"sha256"`
}

// What is kept: the newest deliveries within both limits.
const (
	maxKept  = 2000
	maxBytes = 256 << 20
	maxBody  = 32 << 20
)

// recorder keeps deliveries.
type recorder struct {
	mu    sync.Mutex
	kept  []delivery
	bytes int
}

func (r *recorder) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /received", r.list)
	// Not the mux for the rest: it redirects paths such as //webhooks, and everything that arrives is to be seen.
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/healthz" || req.URL.Path == "/received" {
			mux.ServeHTTP(w, req)
			return
		}
		r.take(w, req)
	})
}

func (r *recorder) take(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "body could not be read", http.StatusBadRequest)
		return
	}
	sum := sha256.Sum256(body)
	d := delivery{
		Time: time.Now().UTC(), Method: req.Method, Host: req.Host, Path: req.RequestURI,
		Headers: req.Header.Clone(), Body: body, SHA256: hex.EncodeToString(sum[:]),
	}
	r.add(d)
	status := http.StatusOK
	if n, err := strconv.Atoi(req.Header.Get("X-App-Status")); err == nil && n >= 200 && n <= 599 {
		status = n
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"received": len(body), "sha256": d.SHA256})
}

func (r *recorder) add(d delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, d)
	r.bytes += len(d.Body)
	drop := 0
	for len(r.kept)-drop > maxKept || r.bytes > maxBytes {
		r.bytes -= len(r.kept[drop].Body)
		drop++
	}
	r.kept = slices.Delete(r.kept, 0, drop)
}

func (r *recorder) list(w http.ResponseWriter, req *http.Request) {
	name, value := req.FormValue("header"), req.FormValue("value")
	found := []delivery{} // never null in JSON
	r.mu.Lock()
	for _, d := range r.kept {
		if name == "" || strings.Join(d.Headers.Values(name), ",") == value {
			found = append(found, d)
		}
	}
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(found)
}
