package extauthz

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hookauthz/hookauthz/policy"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-1000 * 24 * time.Hour), NotAfter: noon.Add(10_000 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate = sign(t, template, template, a.key, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// issue makes a certificate for clients and servers with these DNS names; change may make it another one.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate), names ...string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	leaf := sign(t, template, a.certificate, key, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// pair is the PEM text of a certificate and of its key.
func pair(t testing.TB, c tls.Certificate) (certificate, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// write puts a file in place at once, as a mounted secret is.
func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".next", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// tlsFiles writes the files of a server.
func tlsFiles(t testing.TB, server tls.Certificate, clients *authority, names ...string) TLSFiles {
	t.Helper()
	dir := t.TempDir()
	f := TLSFiles{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), ClientNames: names}
	certificate, key := pair(t, server)
	write(t, f.Cert, certificate)
	write(t, f.Key, key)
	if clients != nil {
		f.ClientCA = filepath.Join(dir, "clients.pem")
		write(t, f.ClientCA, clients.pem())
	}
	return f
}

func (f TLSFiles) load(t testing.TB, j *journal, now func() time.Time) *tls.Config {
	t.Helper()
	c, err := f.Load(j.logger(), now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func atNoon() time.Time { return noon }

// shake makes a connection of one byte. The server's error says why it refused.
func shake(t testing.TB, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l := bufconn.Listen(64 << 10) // both sides may write at once, as when one of them refuses
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		ours, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer ours.Close()
		conn := tls.Server(ours, server)
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		served <- err
	}()
	theirs, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(theirs, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	state = conn.ConnectionState()
	theirs.Close()
	return state, <-served, clientErr
}

// client is what an Envoy in order brings.
func client(a *authority, certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), ServerName: "hookauthz", NextProtos: []string{"h2"}, Certificates: certificates, Time: atNoon}
}

func TestTLSFaults(t *testing.T) {
	a := newAuthority(t, "a")
	good := func() TLSFiles { return tlsFiles(t, a.issue(t, nil, "hookauthz"), a) }
	tests := []struct {
		name   string
		change func(f *TLSFiles)
		want   string
	}{
		{"no certificate", func(f *TLSFiles) { f.Cert += ".gone" }, "no such file"},
		{"no key", func(f *TLSFiles) { f.Key += ".gone" }, "no such file"},
		{"no client CA", func(f *TLSFiles) { f.ClientCA += ".gone" }, "no such file"},
		{"key of another certificate", func(f *TLSFiles) { _, key := pair(t, a.issue(t, nil, "x")); write(t, f.Key, key) }, "cannot be used"},
		{"no PEM", func(f *TLSFiles) { write(t, f.Cert, []byte("certificate")) }, "cannot be used"},
		{"empty key", func(f *TLSFiles) { write(t, f.Key, nil) }, "cannot be used"},
		{"client CA without a certificate", func(f *TLSFiles) { write(t, f.ClientCA, []byte("# none")) }, "holds no PEM certificate"},
		{"names without a client CA", func(f *TLSFiles) { f.ClientCA, f.ClientNames = "", []string{"envoy"} }, "need a client CA"},
		{"empty name", func(f *TLSFiles) { f.ClientNames = []string{"envoy", ""} }, "is empty"},
		{"nothing named", func(f *TLSFiles) { *f = TLSFiles{} }, "cannot be used"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			tt.change(&f)
			c, err := f.Load((&journal{}).logger(), atNoon)
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v; want an error with %q", c, err, tt.want)
			}
			if strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

// TLS 1.2 with forward secrecy and authenticated encryption, or 1.3.
func TestTLSVersions(t *testing.T) {
	a := newAuthority(t, "a")
	var j journal
	server := tlsFiles(t, a.issue(t, nil, "hookauthz"), nil).load(t, &j, atNoon)
	tests := []struct {
		name   string
		change func(*tls.Config)
		ok     bool
	}{
		{"as it comes", func(*tls.Config) {}, true},
		{"1.3", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, true},
		{"1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, true},
		{"1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, false},
		{"1.2 with CBC", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
		}, false},
		{"1.2 with GCM", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}, true},
		{"another protocol", func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client(a)
			tt.change(c)
			state, serverErr, clientErr := shake(t, server, c)
			if ok := serverErr == nil && clientErr == nil; ok != tt.ok {
				t.Fatalf("server: %v, client: %v", serverErr, clientErr)
			}
			if tt.ok && state.NegotiatedProtocol != "h2" {
				t.Errorf("the protocol is %q", state.NegotiatedProtocol)
			}
		})
	}
	for _, id := range suites {
		if strings.Contains(tls.CipherSuiteName(id), "_RSA_WITH_") && !strings.Contains(tls.CipherSuiteName(id), "ECDHE") || strings.Contains(tls.CipherSuiteName(id), "CBC") {
			t.Errorf("the suite %s is allowed", tls.CipherSuiteName(id))
		}
	}
}

// Only a certificate of the authority with a name of the list comes in.
func TestTLSClients(t *testing.T) {
	a, other := newAuthority(t, "a"), newAuthority(t, "a") // of the same name, even
	spiffe, err := url.Parse("spiffe://mesh.example.com/ns/gateway/sa/envoy")
	if err != nil {
		t.Fatal(err)
	}
	uri := func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe} }
	names := []string{"envoy.gateway.example.com", spiffe.String()}
	tests := []struct {
		name         string
		names        []string
		certificates []tls.Certificate
		ok           bool
	}{
		{"any of the authority", nil, []tls.Certificate{a.issue(t, nil)}, true},
		{"none", nil, nil, false},
		{"of another authority", nil, []tls.Certificate{other.issue(t, nil, names[0])}, false},
		{"ended", nil, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) })}, false},
		{"not yet", nil, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Hour) })}, false},
		{"for servers only", nil, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, false},
		{"DNS name", names, []tls.Certificate{a.issue(t, nil, "other", "envoy.gateway.example.com")}, true},
		{"URI", names, []tls.Certificate{a.issue(t, uri)}, true},
		{"no name", names, []tls.Certificate{a.issue(t, nil)}, false},
		{"none where names are asked for", names, nil, false},
		{"name of another authority", names, []tls.Certificate{other.issue(t, nil, names[0])}, false},
		{"below the name", names, []tls.Certificate{a.issue(t, nil, "x.envoy.gateway.example.com")}, false},
		{"above the name", names, []tls.Certificate{a.issue(t, nil, "gateway.example.com")}, false},
		{"wildcard", names, []tls.Certificate{a.issue(t, nil, "*.gateway.example.com")}, false},
		{"capitals", names, []tls.Certificate{a.issue(t, nil, "Envoy.gateway.example.com")}, false},
		{"common name only", names, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = names[0] })}, false},
		{"as a mail address", names, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.EmailAddresses = []string{names[0]} })}, false},
		{"another URI", names, []tls.Certificate{a.issue(t, func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe.JoinPath("x")} })}, false},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range tests {
			t.Run(tls.VersionName(version)+"/"+tt.name, func(t *testing.T) {
				var j journal
				server := tlsFiles(t, a.issue(t, nil, "hookauthz"), a, tt.names...).load(t, &j, atNoon)
				inner, err := server.GetConfigForClient(nil)
				if err != nil {
					t.Fatal(err)
				}
				inner = inner.Clone()
				inner.Time = atNoon // the test's certificates are good then
				c := client(a, tt.certificates...)
				c.MaxVersion = version
				_, serverErr, clientErr := shake(t, inner, c)
				if ok := serverErr == nil && clientErr == nil; ok != tt.ok {
					t.Fatalf("server: %v, client: %v", serverErr, clientErr)
				}
				if !tt.ok && serverErr == nil {
					t.Errorf("the server took it; only the client gave up: %v", clientErr)
				}
			})
		}
	}
}

// serial is that of the certificate which the server shows.
func serial(t testing.TB, server *tls.Config, c *tls.Config) int64 {
	t.Helper()
	state, serverErr, clientErr := shake(t, server, c)
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server: %v, client: %v", serverErr, clientErr)
	}
	return state.PeerCertificates[0].SerialNumber.Int64()
}

// New files are in force a second later; files that cannot be used leave the old ones in force and are logged once.
func TestTLSRotation(t *testing.T) {
	a := newAuthority(t, "a")
	numbered := func(n int64) tls.Certificate {
		return a.issue(t, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }, "hookauthz")
	}
	var j journal
	now := noon
	f := tlsFiles(t, numbered(10), nil)
	server := f.load(t, &j, func() time.Time { return now })
	put := func(c tls.Certificate) {
		certificate, key := pair(t, c)
		write(t, f.Cert, certificate)
		write(t, f.Key, key)
	}
	shown := func(after time.Duration, want int64) {
		t.Helper()
		now = now.Add(after)
		if got := serial(t, server, client(a)); got != want {
			t.Errorf("certificate %d is shown, want %d", got, want)
		}
	}
	logged := func(want ...string) {
		t.Helper()
		lines := j.lines(t)
		if len(lines) != len(want) {
			t.Fatalf("%d lines, want %d: %v", len(lines), len(want), lines)
		}
		for i, line := range lines {
			if !strings.Contains(line["msg"].(string), want[i]) {
				t.Errorf("line %d is %v, want %q", i, line, want[i])
			}
		}
	}
	const again, broken = "read again", "cannot be used"

	shown(0, 10)
	put(numbered(11))
	shown(recheck-1, 10)
	shown(1, 11)
	logged(again)

	other := numbered(12)
	certificate, key := pair(t, other)
	write(t, f.Cert, certificate) // its key is not there yet
	shown(recheck, 11)
	shown(recheck, 11)
	shown(recheck, 11)
	logged(again, broken)
	write(t, f.Key, key)
	shown(recheck, 12)
	logged(again, broken, again)

	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	shown(recheck, 12)
	write(t, f.Key, key) // the same as before
	shown(recheck, 12)
	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	shown(recheck, 12)
	logged(again, broken, again, broken, broken)

	put(numbered(13))
	shown(-time.Hour, 13) // the clock is set back
}

// A change of the authority counts for the next handshake, whatever the client remembers of the one before.
func TestTLSClientRotation(t *testing.T) {
	a, other := newAuthority(t, "a"), newAuthority(t, "other")
	var j journal
	var later atomic.Int64
	f := tlsFiles(t, a.issue(t, nil, "hookauthz"), a)
	server := f.load(t, &j, func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
	long := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Now().Add(24*time.Hour) }
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		write(t, f.ClientCA, a.pem())
		later.Add(int64(time.Minute))
		known := client(a, a.issue(t, long))
		known.Time, known.MaxVersion, known.ClientSessionCache = nil, version, tls.NewLRUClientSessionCache(8)
		for range 2 {
			state, serverErr, clientErr := shake(t, server, known)
			if serverErr != nil || clientErr != nil {
				t.Fatalf("%s: server: %v, client: %v", tls.VersionName(version), serverErr, clientErr)
			}
			if state.DidResume {
				t.Errorf("%s: a session was resumed: its certificate is not verified again", tls.VersionName(version))
			}
		}
		write(t, f.ClientCA, other.pem())
		later.Add(int64(time.Minute))
		if _, serverErr, _ := shake(t, server, known); serverErr == nil {
			t.Errorf("%s: a client of the authority before still comes in", tls.VersionName(version))
		}
	}
}

// The whole way: a Check over TLS, with and without the certificate that it takes.
func TestCheckOverTLS(t *testing.T) {
	a := newAuthority(t, "a")
	var j journal
	long := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Now().Add(24*time.Hour) }
	f := tlsFiles(t, a.issue(t, long, "hookauthz"), a, "envoy")
	e := newEngine(t, webhook(githubScheme))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- NewServer(Config{Decider: e, Now: atNoon, TLS: f.load(t, &j, time.Now)}).Serve(ctx, l)
	}()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	}()
	allowed := func(security credentials.TransportCredentials) error {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(security))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		m, err := authv3.NewAuthorizationClient(conn).Check(ctx, signed(t, e.Set(), noon, pullRequest).request(false))
		if err == nil && m.GetStatus().GetCode() != 0 {
			return errors.New("denied")
		}
		return err
	}
	over := func(certificates ...tls.Certificate) credentials.TransportCredentials {
		c := client(a, certificates...)
		c.Time = nil
		return credentials.NewTLS(c)
	}
	if err := allowed(over(a.issue(t, long, "envoy"))); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	for name, security := range map[string]credentials.TransportCredentials{
		"without a certificate": over(), "with another name": over(a.issue(t, long, "shop")), "in plain text": insecure.NewCredentials(),
	} {
		if err := allowed(security); err == nil {
			t.Errorf("%s the check was answered", name)
		}
	}
}

// A unix socket serves as well as a port.
func TestCheckOverUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authz.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- NewServer(Config{Decider: decides(func(context.Context, *policy.Request) policy.Decision {
			return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook"}
		})}).Serve(ctx, l)
	}()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if got := replyOf(t, ask(t, conn, (&delivery{}).request(false))); got != (reply{}) {
		t.Errorf("got %+v", got)
	}
	conn.Close()
	stop()
	if err := <-served; err != nil {
		t.Errorf("serving: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// When certificates end is told as they come into force: the server's, and the first of the authorities that does.
func TestTLSEnds(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	ends := func(days int) tls.Certificate {
		return a.issue(t, func(c *x509.Certificate) { c.NotAfter = noon.AddDate(0, 0, days) }, "hookauthz")
	}
	f := tlsFiles(t, ends(10), a)
	early := sign(t, &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: noon, NotAfter: noon.AddDate(0, 0, 5), IsCA: true, BasicConstraintsValid: true}, b.certificate, b.key, b.key)
	write(t, f.ClientCA, slices.Concat(a.pem(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: early.Raw})))
	var told []string
	f.Read = func(server, authorities time.Time) {
		told = append(told, server.Format(time.DateOnly)+" "+authorities.Format(time.DateOnly))
	}
	var j journal
	now := noon
	config := f.load(t, &j, func() time.Time { return now })
	certificate, key := pair(t, ends(20))
	write(t, f.Cert, certificate)
	write(t, f.Key, key)
	for range 3 {
		now = now.Add(time.Minute)
		if _, err := config.GetConfigForClient(nil); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"2026-12-04 2026-11-29", "2026-12-14 2026-11-29"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
