package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// server is a TLS server of the test, and a client that trusts it.
func server(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := New(Config{Roots: roots, MaxBytes: 100, Timeout: 5 * time.Second})
	t.Cleanup(c.Close)
	return s, c
}

func TestGet(t *testing.T) {
	other, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "other") })
	s, c := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, "fine")
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/elsewhere":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/plain":
			http.Redirect(w, r, "http://127.0.0.1/", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/large":
			io.WriteString(w, strings.Repeat("x", 101))
		case "/most":
			io.WriteString(w, strings.Repeat("x", 100))
		default:
			http.NotFound(w, r)
		}
	})
	tests := []struct {
		name, url, want string
		fault           error
	}{
		{"fine", s.URL + "/ok", "fine", nil},
		{"redirect on the same host", s.URL + "/moved", "fine", nil},
		{"as large as may be", s.URL + "/most", strings.Repeat("x", 100), nil},
		{"redirect to another host", s.URL + "/elsewhere", "", ErrRedirect},
		{"plain HTTP", "http://127.0.0.1/", "", ErrNotHTTPS},
		{"a file", "file:///etc/hostname", "", ErrNotHTTPS},
		{"with a user", "https://user@127.0.0.1/", "", ErrNotHTTPS},
		{"too large", s.URL + "/large", "", ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := c.Get(t.Context(), tt.url)
			if string(got) != tt.want || !errors.Is(err, tt.fault) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tt.want, tt.fault)
			}
		})
	}
	for _, path := range []string{"/gone?key=TOPSECRET", "/plain", "/loop"} {
		fresh := New(c.config)
		if _, err := fresh.Get(t.Context(), s.URL+path); err == nil || strings.Contains(err.Error(), "TOPSECRET") {
			t.Errorf("%s: got %v, want an error without the query", path, err)
		}
	}
	if _, err := New(Config{}).Get(t.Context(), s.URL+"/ok"); err == nil {
		t.Error("a certificate of nobody was taken")
	}
}

// A server that fails is left alone; a caller that gives up says nothing about it.
func TestBreaker(t *testing.T) {
	asked := 0
	s, c := server(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusInternalServerError)
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		c.Get(gone, s.URL)
	}
	for range 10 {
		if _, err := c.Get(t.Context(), s.URL); err == nil {
			t.Fatal("a failure was taken")
		}
	}
	if asked != failuresToOpen {
		t.Errorf("the server was asked %d times, want %d", asked, failuresToOpen)
	}
	if _, err := c.Get(t.Context(), s.URL); !errors.Is(err, ErrAway) {
		t.Errorf("got %v, want %v", err, ErrAway)
	}
}

func TestBreakersAreBounded(t *testing.T) {
	c := New(Config{MaxHosts: 4})
	for i := range 100 {
		c.breaker(fmt.Sprint("host", i))
	}
	if len(c.breakers) > 4 {
		t.Errorf("%d breakers", len(c.breakers))
	}
}

// clock is a time that the test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestRefresher(t *testing.T) {
	document, asked := "one", 0
	s, c := server(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		if document == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, document)
	})
	cache := t.TempDir()
	hour := &clock{time.Now()}
	var taken []string
	var last error
	sources := []Source{{Name: "list", URL: s.URL, Interval: time.Hour}}
	newRefresher := func() *Refresher {
		return &Refresher{
			Client: c, Cache: cache, Now: hour.now, Sources: func() []Source { return sources },
			Take: func(_ string, data []byte) error {
				if string(data) == "bad" {
					return errors.New("the list is empty")
				}
				taken = append(taken, string(data))
				return nil
			},
			Report: func(_ string, _ time.Time, err error) { last = err },
		}
	}
	r := newRefresher()
	due := map[Source]time.Time{}
	r.round(t.Context(), due)
	r.round(t.Context(), due) // it is not due yet
	if strings.Join(taken, " ") != "one" || asked != 1 || last != nil {
		t.Fatalf("taken %v, asked %d times, %v", taken, asked, last)
	}
	document = "bad"
	hour.at = hour.at.Add(2 * time.Hour)
	r.round(t.Context(), due)
	if strings.Join(taken, " ") != "one" || last == nil {
		t.Fatalf("taken %v, %v", taken, last)
	}
	document = "two"
	hour.at = hour.at.Add(retryAfter + retryAfter/10 + time.Second) // a failure is tried again soon
	r.round(t.Context(), due)
	if strings.Join(taken, " ") != "one two" || last != nil {
		t.Fatalf("taken %v, %v", taken, last)
	}

	// Another process begins with what is in the cache, and asks only when that is old.
	taken, asked = nil, 0
	hour.at = time.Now()
	due = map[Source]time.Time{}
	r = newRefresher()
	r.round(t.Context(), due)
	if strings.Join(taken, " ") != "two" || asked != 0 {
		t.Errorf("from the cache: taken %v, asked %d times", taken, asked)
	}
	hour.at = hour.at.Add(2 * time.Hour)
	document = "three"
	r.round(t.Context(), due)
	if strings.Join(taken, " ") != "two three" {
		t.Errorf("after it was old: taken %v", taken)
	}
	files, err := os.ReadDir(cache)
	if err != nil || len(files) != 1 {
		t.Errorf("%d files in the cache, %v", len(files), err)
	}

	// A source that is no longer wanted is forgotten, a file is read as well as a URL.
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	sources = []Source{{Name: "list", File: path, Interval: time.Hour}}
	r.round(t.Context(), due)
	if taken[len(taken)-1] != "file" || len(due) != 1 {
		t.Errorf("taken %v, %d due", taken, len(due))
	}
}

func TestRunEnds(t *testing.T) {
	_, c := server(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	ctx, cancel := context.WithCancel(t.Context())
	r := &Refresher{Client: c, Sources: func() []Source { cancel(); return nil }, Take: func(string, []byte) error { return nil }}
	r.Run(ctx) // returns, or the test does not
}
