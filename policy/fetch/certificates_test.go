package fetch

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature/certtest"
)

// sender is a sender's host on this machine, with the certificates that it publishes.
type sender struct {
	authority *certtest.Authority
	client    *Client
	host      string
	asked     atomic.Int32
	answer    atomic.Pointer[http.HandlerFunc]
}

const senderHost = "sns.eu-west-1.amazonaws.com"

// newSender serves TLS under the sender's name; connections to any other name fail.
func newSender(t *testing.T, answer http.HandlerFunc) *sender {
	t.Helper()
	s := &sender{authority: certtest.New(t), host: "https://" + senderHost}
	s.answer.Store(&answer)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := s.authority.Leaf(&key.PublicKey, senderHost, nil)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.answer.Load())(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, s.authority.Middle.Raw}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.client = New(Config{Roots: s.authority.Roots(), MaxBytes: maxCertificate, NoRedirects: true, Timeout: 5 * time.Second,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == senderHost+":443" {
				address = server.Listener.Addr().String()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	return s
}

// store is an empty store of certificates. Change may alter its configuration.
func (s *sender) store(t *testing.T, change func(*CertificatesConfig)) *Certificates {
	t.Helper()
	config := CertificatesConfig{Client: s.client, Roots: s.authority.Roots(), Wait: 10 * time.Second}
	if change != nil {
		change(&config)
	}
	c := NewCertificates(config)
	t.Cleanup(c.Close)
	return c
}

func (s *sender) serve(answer http.HandlerFunc) { s.answer.Store(&answer) }

func document(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// A certificate is fetched once for many deliveries, again when it is old, and used on while its server is away.
func TestCertificatesAreKept(t *testing.T) {
	s := newSender(t, nil)
	now := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var mu sync.Mutex
	read := func() time.Time { mu.Lock(); defer mu.Unlock(); return now.at }
	wait := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now.at = now.at.Add(d) }
	ended := make(chan error, 10)
	c := s.store(t, func(c *CertificatesConfig) { c.Now = read; c.Report = func(_ string, err error) { ended <- err } })
	first := certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "first", nil), s.authority.Middle)
	second := certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "second", nil), s.authority.Middle)
	get := func() string {
		data, err := c.Certificate(t.Context(), s.host+"/a.pem")
		switch {
		case err != nil:
			return err.Error()
		case bytes.Equal(data, first):
			return "first"
		case bytes.Equal(data, second):
			return "second"
		}
		return "other"
	}
	s.serve(document(first))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got := get(); got != "first" {
				t.Error(got)
			}
		})
	}
	all.Wait()
	<-ended
	if n := s.asked.Load(); n != 1 {
		t.Errorf("50 deliveries fetched %d times", n)
	}
	s.serve(document(second))
	wait(certificateFresh - time.Second)
	if got := get(); got != "first" || s.asked.Load() != 1 {
		t.Errorf("a fresh one: got %s, fetched %d times", got, s.asked.Load())
	}
	wait(2 * time.Second)
	if got := get(); got != "first" { // the delivery does not wait for the new one
		t.Errorf("an old one: got %s", got)
	}
	<-ended
	if got := get(); got != "second" {
		t.Errorf("after it came: got %s", got)
	}
	s.serve(status(http.StatusServiceUnavailable))
	wait(certificateFresh + time.Second)
	if got := get(); got != "second" {
		t.Errorf("the server is away: got %s", got)
	}
	<-ended
	wait(certificateStale)
	if got := get(); !strings.Contains(got, "503") {
		t.Errorf("the server is away for a day: got %s", got)
	}
	<-ended // the fetch behind the delivery is over
	asked := s.asked.Load()
	if got := get(); !strings.Contains(got, "503") || s.asked.Load() != asked {
		t.Errorf("a failure is asked for again at once: got %s", got)
	}
	s.serve(document(first))
	wait(certificateRetry + time.Second)
	if got := get(); got != "first" {
		t.Errorf("the server is back: got %s", got)
	}
}

// What is no certificate, and what does not come from the URL itself, is an error.
func TestCertificateFaults(t *testing.T) {
	s := newSender(t, nil)
	other := certtest.New(t)
	good := certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "x", nil), s.authority.Middle)
	tests := []struct {
		name   string
		answer http.HandlerFunc
		url    string
		want   string
	}{
		{"not there", status(http.StatusNotFound), "", "answered 404"},
		{"HTML", document([]byte("<html>")), "", "not a certificate"},
		{"empty", document(nil), "", "not a certificate"},
		{"too large", document(bytes.Repeat([]byte("x"), maxCertificate+1)), "", ErrTooLarge.Error()},
		{"a redirect on the same host", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/good.pem" {
				http.Redirect(w, r, "/good.pem", http.StatusFound)
				return
			}
			w.Write(good)
		}, "", "redirects"},
		{"a redirect elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		}, "", "redirects"},
		{"garbage in PEM", document([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), "", "reading the certificate"},
		{"of another root", document(certtest.PEM(other.Leaf(&certtest.Key(t, 0).PublicKey, "x", nil), other.Middle)), "", "unknown authority"},
		{"without its authority", document(certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "x", nil))), "", "does not say where"},
		{"plain HTTP", nil, "http://" + senderHost + "/a.pem", ErrNotHTTPS.Error()},
		{"a very long URL", nil, s.host + "/" + strings.Repeat("x", certificateLength), "too long"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.serve(tt.answer)
			if tt.url == "" {
				tt.url = fmt.Sprintf("%s/%d.pem", s.host, i)
			}
			data, err := s.store(t, func(c *CertificatesConfig) { c.Client = New(s.client.config) }).Certificate(t.Context(), tt.url)
			if err == nil || !strings.Contains(err.Error(), tt.want) || data != nil {
				t.Errorf("got %q, %v, want %q", data, err, tt.want)
			}
		})
	}
}

// A sender that publishes its own certificate alone, as Amazon does, has the authority's found by the name that it gives.
func TestCertificateOfTheAuthorityIsFound(t *testing.T) {
	s := newSender(t, nil)
	var authority atomic.Pointer[[]byte]
	publishes := func(data []byte) { authority.Store(&data) }
	issuers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(*authority.Load()) }))
	t.Cleanup(issuers.Close)
	host := strings.TrimPrefix(issuers.URL, "http://")
	forger := certtest.New(t)
	leaf := func(at string) []byte {
		return certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "x", func(c *x509.Certificate) { c.IssuingCertificateURL = []string{at} }))
	}
	tests := []struct {
		name    string
		at      string
		answer  []byte
		allowed []string
		want    string // "" for a chain
	}{
		{"DER", issuers.URL + "/m01.cer", s.authority.Middle.Raw, []string{host}, ""},
		{"PEM", issuers.URL + "/m01.cer", s.authority.Chain(), []string{"other", host}, ""},
		{"somebody else's", issuers.URL + "/m01.cer", forger.Middle.Raw, []string{host}, ", from 127.0.0.1"},
		{"not a certificate", issuers.URL + "/m01.cer", []byte("x"), []string{host}, ", from 127.0.0.1"},
		{"a host that is not known", issuers.URL + "/m01.cer", s.authority.Middle.Raw, []string{".amazontrust.com"}, "nowhere that is known"},
		{"with a user", strings.Replace(issuers.URL, "//", "//x@", 1), s.authority.Middle.Raw, []string{host}, "nowhere that is known"},
		{"a file", "file:///etc/hostname", nil, []string{host, ""}, "nowhere that is known"},
		{"LDAP", "ldap://" + host + "/", nil, []string{host}, "nowhere that is known"},
		{"another port", "http://crt.amazontrust.com:22/", nil, []string{".amazontrust.com"}, "nowhere that is known"},
		{"a host that ends alike", "http://evilamazontrust.com/", nil, []string{".amazontrust.com"}, "nowhere that is known"},
		{"away", "http://127.0.0.1:1/", nil, []string{"127.0.0.1:1"}, "refused"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			publishes(tt.answer)
			s.serve(document(leaf(tt.at)))
			c := s.store(t, func(c *CertificatesConfig) { c.Client, c.IssuerHosts = New(s.client.config), tt.allowed })
			data, err := c.Certificate(t.Context(), fmt.Sprintf("%s/%d.pem", s.host, i))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if want := string(leaf(tt.at)); err != nil || strings.Count(string(data), "BEGIN CERTIFICATE") != 2 || len(want) == 0 || !strings.HasSuffix(string(data), string(s.authority.Chain())) {
				t.Errorf("got %s, %v", data, err)
			}
		})
	}
}

// A server that does not answer costs a delivery a bounded time, and the next ones none.
func TestCertificateServerAway(t *testing.T) {
	release := make(chan struct{})
	s := newSender(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	c := s.store(t, func(c *CertificatesConfig) { c.Wait = 20 * time.Millisecond })
	if _, err := c.Certificate(t.Context(), s.host+"/a.pem"); !errors.Is(err, ErrPending) {
		t.Errorf("got %v, want %v", err, ErrPending)
	}
	c.config.Wait = time.Hour
	near, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Certificate(near, s.host+"/a.pem"); !errors.Is(err, ErrPending) || near.Err() != nil {
		t.Errorf("got %v, want %v well before the deadline (%v)", err, ErrPending, near.Err())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Certificate(gone, s.host+"/a.pem"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := s.asked.Load(); n > 1 {
		t.Errorf("three deliveries fetched %d times", n)
	}
}

// Whoever can name any certificate cannot make the sender's server be left alone, nor fill the memory, nor take all fetches.
func TestCertificatesThatNobodyHas(t *testing.T) {
	s := newSender(t, nil)
	good := certtest.PEM(s.authority.Leaf(&certtest.Key(t, 0).PublicKey, "x", nil), s.authority.Middle)
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/good.pem" {
			w.Write(good)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	c := s.store(t, nil)
	if _, err := c.Certificate(t.Context(), s.host+"/good.pem"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxCertificates {
		if _, err := c.Certificate(t.Context(), fmt.Sprintf("%s/%d.pem", s.host, i)); err == nil || errors.Is(err, ErrAway) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	asked := s.asked.Load()
	if _, err := c.Certificate(t.Context(), s.host+"/good.pem"); err != nil || s.asked.Load() != asked {
		t.Errorf("the good one was pushed out: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) > maxCertificates {
		t.Errorf("%d entries", len(c.entries))
	}
}

func TestFetchesAreBounded(t *testing.T) {
	release := make(chan struct{})
	s := newSender(t, func(w http.ResponseWriter, _ *http.Request) { <-release; w.WriteHeader(http.StatusNotFound) })
	c := s.store(t, func(c *CertificatesConfig) { c.Wait = time.Millisecond })
	busy := 0
	for i := range 2 * maxFetches {
		_, err := c.Certificate(t.Context(), fmt.Sprintf("%s/%d.pem", s.host, i))
		if errors.Is(err, ErrBusy) {
			busy++
		}
	}
	if busy != maxFetches {
		t.Errorf("%d were refused, want %d", busy, maxFetches)
	}
	close(release)
}

// A server that fails is left alone by the breaker, and Close waits for what is on its way.
func TestCertificateBreaker(t *testing.T) {
	s := newSender(t, status(http.StatusInternalServerError))
	c := s.store(t, nil)
	away := 0
	for i := range 10 {
		if _, err := c.Certificate(t.Context(), fmt.Sprintf("%s/%d.pem", s.host, i)); errors.Is(err, ErrAway) {
			away++
		} else if err == nil {
			t.Fatal("a failure was taken")
		}
	}
	if n := s.asked.Load(); n != failuresToOpen || away != 10-failuresToOpen {
		t.Errorf("asked %d times, left alone %d times", n, away)
	}
	c.Close()
	if _, err := c.Certificate(t.Context(), s.host+"/new.pem"); !errors.Is(err, ErrBusy) {
		t.Errorf("after Close: %v", err)
	}
}
